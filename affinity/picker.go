package affinity

import (
	"slices"
	"sync/atomic"

	"lbd/balancer"
)

// picker has a strategy place requests of a session at its home.
type picker struct {
	homes *Homes
	inner balancer.Picker
	place balancer.Placer // inner, where it reserves more than a count
	field atomic.Pointer[field]
}

var (
	_ balancer.Placer    = (*picker)(nil)
	_ balancer.Explainer = (*picker)(nil)
	_ balancer.Predictor = (*picker)(nil)
)

// Wrap returns a picker that does as inner does, except that a request with a session goes to its home unless that should yield.
// The strategy hears of every request, as if it had chosen the home itself.
func (h *Homes) Wrap(inner balancer.Picker) balancer.Picker {
	p := &picker{homes: h, inner: inner}
	p.place, _ = inner.(balancer.Placer)
	return p
}

// Pick implements balancer.Picker: a dry run, which binds and counts nothing.
func (p *picker) Pick(q *balancer.Request, candidates []*balancer.Replica) *balancer.Replica {
	if q.Session == 0 || len(candidates) < 2 {
		return p.inner.Pick(q, candidates)
	}
	if i, _ := p.homes.look(q, p.look(q, candidates), false); i >= 0 {
		return candidates[i]
	}
	return p.inner.Pick(q, candidates)
}

// Place implements balancer.Placer.
func (p *picker) Place(q *balancer.Request, candidates []*balancer.Replica) balancer.Reservation {
	if q.Session == 0 || len(candidates) == 0 {
		return p.reserve(q, candidates)
	}
	i, found := p.homes.look(q, p.look(q, candidates), true)
	p.homes.count(Session, found)
	if i >= 0 {
		candidates = candidates[i : i+1]
	}
	v := p.reserve(q, candidates)
	if r := v.Replica(); r != nil && found != Hit {
		p.homes.bind(q, r)
	}
	return v
}

// Preferrer is what Wrap returns: it says where a request would rather go than anywhere else.
type Preferrer interface {
	// Prefers is a dry run like Pick, but it is nil where neither a session nor a strategy that weighs requests has a wish.
	Prefers(q *balancer.Request, candidates []*balancer.Replica) *balancer.Replica
}

var _ Preferrer = (*picker)(nil)

// Prefers implements Preferrer.
func (p *picker) Prefers(q *balancer.Request, candidates []*balancer.Replica) *balancer.Replica {
	if q.Session != 0 && len(candidates) > 0 {
		if i, _ := p.homes.look(q, p.look(q, candidates), false); i >= 0 {
			return candidates[i]
		}
	}
	if p.place == nil {
		return nil
	}
	return p.inner.Pick(q, candidates)
}

// reserve is the strategy's own placement.
func (p *picker) reserve(q *balancer.Request, candidates []*balancer.Replica) balancer.Reservation {
	if p.place != nil {
		return p.place.Place(q, candidates)
	}
	r := p.inner.Pick(q, candidates)
	if r == nil {
		return balancer.Reservation{}
	}
	return r.Reserve()
}

// look returns what is kept of the candidates. Only the first look at those of a snapshot allocates, and a retry. A strategy
// that keeps something of each replica is shown all of them then, before the first narrow choice: what it keeps may be relative
// to the others.
func (p *picker) look(q *balancer.Request, candidates []*balancer.Replica) *field {
	f := p.field.Load()
	if f.is(candidates) {
		return f
	}
	f = newField(candidates)
	p.field.Store(f)
	if p.place != nil && len(candidates) > 1 {
		p.inner.Pick(q, candidates)
	}
	return f
}

// look finds the home of a session among the candidates. i is -1 where the strategy is to choose.
func (h *Homes) look(q *balancer.Request, f *field, use bool) (i int, found Result) {
	if h.cfg.Load().Home == ByHash {
		return h.lookByHash(q, f)
	}
	find := h.sessions.peek
	if use {
		find = h.sessions.get
	}
	at, known := find(q.Session, q.Now)
	if !known {
		return -1, Miss
	}
	i = slices.Index(f.marks, at.replica)
	switch {
	case i < 0:
		return -1, h.absence(at.replica)
	case h.saturated(f.replicas[i], f.replicas):
		return -1, Saturated
	}
	return i, Hit
}

// lookByHash tries the two closest. What neither can take is the strategy's: a session that wanders through the whole fleet
// finds its prefix nowhere.
func (h *Homes) lookByHash(q *balancer.Request, f *field) (i int, found Result) {
	first, second := f.closest(q.Session)
	switch {
	case !h.saturated(f.replicas[first], f.replicas):
		return first, Hit
	case second >= 0 && !h.saturated(f.replicas[second], f.replicas):
		return second, Saturated
	}
	return -1, Saturated
}

// bind notes where a session is at home from now on: where it went last, for that is where its prefix is.
func (h *Homes) bind(q *balancer.Request, r *balancer.Replica) {
	if h.cfg.Load().Home != ByHash {
		h.sessions.put(q.Session, home{replica: mark(r)}, q.Now)
	}
}

// Terms that Explain adds.
const (
	termHome = "affinity_home"      // 1: the session's home
	termFull = "affinity_saturated" // 1: as a home it would yield
)

// Explain implements balancer.Explainer: the strategy's own terms, and for a request with a session what affinity goes by.
func (p *picker) Explain(q *balancer.Request, candidates []*balancer.Replica) [][]balancer.Term {
	var terms [][]balancer.Term
	if e, ok := p.inner.(balancer.Explainer); ok {
		terms = e.Explain(q, candidates)
	}
	if q.Session == 0 || len(candidates) == 0 {
		return terms
	}
	if terms == nil {
		terms = make([][]balancer.Term, len(candidates))
	}
	home := p.homes.home(q, p.look(q, candidates))
	for i, r := range candidates {
		terms[i] = append(terms[i], balancer.Term{Name: termHome, Value: yes(i == home)},
			balancer.Term{Name: termFull, Value: yes(p.homes.saturated(r, candidates))})
	}
	return terms
}

// Predict implements balancer.Predictor, where the strategy does: a request that goes home is predicted there.
func (p *picker) Predict(q *balancer.Request, candidates []*balancer.Replica) (got balancer.Prediction, ok bool) {
	inner, ok := p.inner.(balancer.Predictor)
	if !ok {
		return got, false
	}
	if q.Session != 0 && len(candidates) > 0 {
		if i, _ := p.homes.look(q, p.look(q, candidates), false); i >= 0 {
			candidates = candidates[i : i+1]
		}
	}
	return inner.Predict(q, candidates)
}

// home is where a session is at home among the candidates, whether or not it yields; -1 if it is not.
func (h *Homes) home(q *balancer.Request, f *field) int {
	if h.cfg.Load().Home == ByHash {
		first, _ := f.closest(q.Session)
		return first
	}
	at, known := h.sessions.peek(q.Session, q.Now)
	if !known {
		return -1
	}
	return slices.Index(f.marks, at.replica)
}

func yes(b bool) balancer.Metric {
	if b {
		return balancer.Known(1)
	}
	return balancer.Known(0)
}
