package strategy

import (
	"math"

	"lbd/balancer"
)

// costSight is what one candidate shows. It is kept until something of it changes, see
// notice; what changes with every request is not in it.
type costSight struct {
	rates
	own      float64 // requests
	requests float64 // own and foreign
	// Prefill that no first token has ended, in tokens and pairs.
	tokens, pairs float64
	resident      float64 // tokens of all contexts, which decode steps read
	occupied      float64 // tokens in the KV cache, each block once
	capacity      float64 // tokens, 0 is unknown
	foreign       float64 // requests
	// Since when a first token or an answer has been awaited, Unix nanoseconds; 0 is
	// unknown, or nothing is.
	firstSince, endSince int64
	// Of the replicas on the same device: outstanding prefill in ms, requests, and
	// what their decode steps take.
	devicePrefill, deviceRequests, deviceStep float64

	work   float64 // the prefill above in ms, without trust
	left   float64 // the part of it that is still to be done
	cycle  float64 // what a decode step takes
	weight float64 // see costState

	st    *costState
	load  ownLoad // as it was when the rest was made of it
	place int32   // in prefix.Depths
	told  bool
	full  bool // the pool it shares
	dear  bool // there is a penalty, or a slow start
}

// rates are the coefficients of one replica, in ms, as learned so far, and trust.
type rates struct {
	overhead, token, pair float64
	step, sequence, held  float64
	trust                 float64
	unsure                float64 // see costState
}

// kept is whose sight it is, and what says that it is still true.
type kept struct {
	r       *balancer.Replica
	st      *costState
	load    balancer.Watch
	changes uint32 // of the state, as counted when it was read; 0 never is
}

// basis is what the price of a candidate is made of, for whatever request: two cache
// lines. Names are those of costSight.
type basis struct {
	before                float64 // overhead and all prefill before the request
	trust, token, pair    float64
	cycle, sequence, held float64
	requests              float64
	stalled               float64 // requests, also those of neighbours on the device
	spare                 float64 // tokens that come in without delays
	unsure                float64
	penalty               float64 // ms
	perWeight             float64 // requests, see settle
	late                  int64   // nothing is overdue before, Unix nanoseconds
}

// never is later than any time.
const never = math.MaxInt64

// part is what a candidate adds to the sums over all.
type part struct {
	requests, prefill float64
	fill              float64 // 1 is a full KV cache
	place             int32
	holds             bool // fill is known
	dear              bool
	untold            bool
}

// look reads everything a pick depends on.
func (p *leastCost) look(w *workspace, q *balancer.Request, candidates []*balancer.Replica) {
	p.ask(w, q)
	if p.notice(w, candidates) {
		p.sum(w)
	}
	p.match(w, q) // behind observe, which hears of restarts
	p.price(w)
}

// notice sees those candidates again of which something has changed since the pick
// before, and reports whether there are any. In a fleet that is busy these are a few,
// and what every pick does for each of the others is two comparisons.
func (p *leastCost) notice(w *workspace, candidates []*balancer.Replica) (news bool) {
	v := p.view.Load()
	if v == nil || len(v.replicas) < len(candidates) {
		v = p.meet(candidates)
	}
	news = w.enter(v, len(candidates))
	a := &w.asked
	if news || a.now >= w.due {
		p.expire(w, v, candidates)
	}
	if w.edition != a.edition {
		w.supersede()
	}
	if p.opt.Progress {
		clear(w.kept) // all changes with the time
	}
	for i, r := range candidates {
		k := &w.kept[i]
		if k.r == r && k.load.Stands() && k.changes == k.st.changes.Load() {
			continue
		}
		news = true
		st := k.st
		if k.r != r {
			if st = p.stateOf(v, i, r); st == nil {
				v = p.meet(candidates)
				w.view, st = v, v.states[i]
			}
		}
		p.see(w, i, st, r)
	}
	return news
}

// enter makes room for so many candidates and forgets whose sights there are when the
// candidates of snapshots have changed: only then does a replica get another state.
func (w *workspace) enter(v *costView, n int) (news bool) {
	had := len(w.kept)
	if w.view == v && had == n {
		return false
	}
	if n > cap(w.kept) { // all together, or one would be kept without the other
		w.kept, w.sights = make([]kept, n), make([]costSight, n)
		w.bases, w.parts = make([]basis, n), make([]part, n)
		w.lowest, w.uncached, w.ties = make([]float64, n), make([]float64, n), make([]int32, n)
	}
	w.kept, w.sights, w.bases, w.parts = w.kept[:n], w.sights[:n], w.bases[:n], w.parts[:n]
	w.lowest, w.uncached, w.ties = w.lowest[:n], w.uncached[:n], w.ties[:n]
	if w.view != v {
		had, w.view = 0, v
	}
	clear(w.kept[min(had, n):])
	return true
}

// expire ends prefills whose end nobody shows, once the first of them is due.
func (p *leastCost) expire(w *workspace, v *costView, candidates []*balancer.Replica) {
	w.due = never
	for i, r := range candidates {
		if st := p.stateOf(v, i, r); st != nil {
			if st.unseen.due(w.asked.now) {
				st.unseen.expire(w.asked.now)
			}
			w.expect(st)
		}
	}
}

// expect has a prefill of the replica end in time.
func (w *workspace) expect(st *costState) {
	if at := st.unseen.earliest.Load(); at != 0 {
		w.due = min(w.due, at)
	}
}

// supersede has those sights made again that others' requests have a part in, when
// what those are taken to be has changed.
func (w *workspace) supersede() {
	w.edition = w.asked.edition
	for i := range w.kept {
		if w.sights[i].foreign != 0 {
			w.kept[i].changes = 0
		}
	}
}

// suppose gives a replica that does not tell what is typical of those that do.
func (w *workspace) suppose() {
	var told, foreign, tokens, resident float64
	for i := range w.sights {
		if s := &w.sights[i]; s.told {
			told += s.st.weight.load()
			if s.foreign > 0 {
				foreign += s.foreign
				tokens += s.tokens - float64(s.load.prefill)
				resident += s.resident - float64(s.load.resident)
			}
		}
	}
	if told == 0 || foreign == 0 {
		return
	}
	for i := range w.sights {
		if s := &w.sights[i]; !s.told {
			k := s.st.weight.load() / told
			s.requests += foreign * k
			s.tokens += tokens * k
			s.resident += resident * k
			w.settle(i)
			w.kept[i].changes = 0 // to be read again
		}
	}
}

// see fills one sight.
func (p *leastCost) see(w *workspace, i int, st *costState, r *balancer.Replica) {
	s, k, a := &w.sights[i], &w.kept[i], &w.asked
	if st.unseen.due(a.now) { // another pick has placed it
		st.unseen.expire(a.now)
	}
	k.r, k.st, k.load = r, st, r.Watch()
	if st.polled.Load() != r.PollNumber() {
		p.observe(st, r, r.Polled())
	}
	k.changes = st.changes.Load()
	w.expect(st)
	s.st = st
	p.seeState(s, st)
	s.load = ownLoad{r.InFlight(), r.PrefillTokens(), r.PrefillPairs(), r.Resident()}
	p.seeLoad(s, r, a)
	if on := r.Neighbours(); on != nil {
		p.seeDevice(s, r, on)
		k.changes = 0 // nobody tells when the neighbours' load changes
	}
	w.settle(i)
}

// ownLoad is what the requests that this lbd has at a replica add up to.
type ownLoad struct{ requests, prefill, pairs, resident int64 }

// seeLoad makes of own load and of others' what is priced.
func (p *leastCost) seeLoad(s *costSight, r *balancer.Replica, a *asked) {
	s.own = float64(s.load.requests)
	s.requests, s.tokens, s.pairs, s.resident = s.own, float64(s.load.prefill), float64(s.load.pairs), float64(s.load.resident)
	if s.foreign != 0 {
		s.seeForeign(a)
	}
	s.occupied = s.resident
	if s.capacity > 0 && s.told {
		s.occupied = s.st.memory.heldWith(s.load.resident)
	}
	s.devicePrefill, s.deviceRequests, s.deviceStep = 0, 0, 0
}

// settle is what follows from the load for every request.
func (w *workspace) settle(i int) {
	s := &w.sights[i]
	s.work = s.token*s.tokens + s.pair*s.pairs
	if s.left = s.work; w.opt.Progress {
		s.progress(w.asked.now)
	}
	s.cycle = s.step + s.sequence*s.requests + s.held*s.resident + s.deviceStep
	w.lay(i)
}

// lay puts down what picks go through.
func (w *workspace) lay(i int) {
	s := &w.sights[i]
	b, c := &w.bases[i], &w.parts[i]
	b.before, b.trust, b.token, b.pair = s.overhead+(s.left+s.devicePrefill), s.trust, s.token, s.pair
	b.cycle, b.sequence, b.held = s.cycle, s.sequence, s.held
	b.requests, b.stalled, b.spare = s.requests, s.requests+s.deviceRequests, float64(w.opt.Budget)-s.tokens
	b.unsure, b.penalty, b.perWeight = s.unsure, 0, s.perWeight()
	b.late = s.late(s.trust*b.before + s.cycle)
	b.spare-- // sums are rounded, and delays looks closer
	c.requests, c.prefill, c.fill = s.requests, s.left*s.trust, 0
	c.place, c.holds, c.dear, c.untold = s.place, s.capacity > 0, s.dear, !s.told
	if c.holds {
		b.spare = min(b.spare, kvUsable*s.capacity-s.occupied)
		c.fill = s.occupied / s.capacity
	}
}

// perWeight is requests for its weight, the one to place counted in. Of others'
// those count that are more than gaugeError: a gauge that is stuck at a few would keep
// all of ours away from a replica in a calm fleet.
func (s *costSight) perWeight() float64 {
	n := s.own
	if others := s.requests - s.own - gaugeError; others > 0 {
		n += others
	}
	return (n + 1) / s.weight
}

// gaugeError is requests: what comes and goes while a poll is under way looks like
// another lbd's.
const gaugeError = 4

// seeState reads what was learned of a replica, polled and is awaited from it.
func (p *leastCost) seeState(s *costSight, st *costState) {
	c := &p.prior
	s.overhead, s.token, s.pair = c.Overhead*st.prefill[0].load(), c.PerToken*st.prefill[1].load(), c.PerPair*st.prefill[2].load()
	s.step, s.sequence, s.held = c.Step*st.decode[0].load(), c.PerSequence*st.decode[1].load(), c.PerResident*st.decode[2].load()
	s.trust, s.unsure, s.weight, s.place = st.trust.load(), st.unsure.load(), st.weight.load(), st.place
	said := st.gauges.said.Load()
	s.told, s.full, s.capacity, s.foreign = said&saidLoad != 0, said&saidFull != 0, 0, 0
	if said != 0 {
		s.capacity, s.foreign = st.gauges.capacity.load(), st.gauges.foreign.load()
	}
	s.firstSince, s.endSince = st.firsts.awaited(), st.ends.awaited()
	s.dear = s.full || st.dear.Load()
}

// seeForeign adds what others do there. What of theirs waits has its prefill before
// it; what runs holds its tokens.
func (s *costSight) seeForeign(a *asked) {
	g := &s.st.gauges
	s.requests += s.foreign
	prompt, waiting := a.usualPrompt, g.waiting.load()
	s.tokens += waiting * prompt
	s.pairs += waiting * prompt * prompt / 2
	if g.said.Load()&saidTokens != 0 {
		s.resident += g.tokens.load()
	} else {
		s.resident += (s.foreign - waiting) * (prompt + a.usualOutput/2)
	}
}

// seeDevice adds the replicas, of whatever model, that share the device: they take
// turns on it, so that their prefill comes before ours as our own does, and their
// decode steps come between ours.
func (p *leastCost) seeDevice(s *costSight, r *balancer.Replica, on []*balancer.Replica) {
	for _, o := range on {
		if o.ID == r.ID {
			continue
		}
		s.devicePrefill += milliseconds(o.PrefillTime())
		if n := float64(o.Requests()); n > 0 {
			s.deviceRequests += n
			s.deviceStep += p.prior.Step + p.prior.PerSequence*n + p.prior.PerResident*float64(o.Resident())
		}
	}
}
