package strategy

import (
	"math"
	"slices"
	"time"

	"lbd/balancer"
)

// cost is what placing the request on one candidate takes, in ms where nothing else
// is said.
type cost struct {
	uncached float64 // tokens, u
	pairs    float64
	prefill  float64 // pre(u, L): of this request, as learned
	queue    float64 // of what is before it
	steps    float64 // decode steps that its prefill is cut by
	step     float64 // one of them
	wait     float64 // for room in the KV cache
	first    float64 // time to first token
	own      float64 // its decoding
	inflict  float64 // on others
	penalty  float64
	total    float64
}

// price makes the costs of all candidates, and from their load what the delay of
// others weighs.
func (p *leastCost) price(w *workspace) {
	var prefill, fill, holders float64
	for i := range w.sights {
		s := &w.sights[i]
		p.backlog(s, w.asked.now)
		prefill += s.left * s.trust
		if s.capacity > 0 {
			fill += s.occupied / s.capacity
			holders++
		}
	}
	w.load = prefill / float64(len(w.sights)) / milliseconds(p.opt.PrefillScale)
	if holders > 0 {
		w.load = max(w.load, fill/holders)
	}
	w.w = min(max((w.load-p.opt.LoadFrom)/p.opt.LoadSpan, 0), p.opt.WeightMax)
	w.costs = slices.Grow(w.costs[:0], len(w.sights))[:len(w.sights)]
	for i := range w.sights {
		p.costOf(&w.costs[i], &w.sights[i], w)
	}
}

// backlog is the prefill before a new request, as a whole until its first token.
// With Progress, what is under way is partly done: by the time since it began,
// unless that is more than all of it should take. Then the credit shrinks again, for
// a replica that hangs must not look idle.
func (p *leastCost) backlog(s *costSight, now int64) {
	s.work = s.token*s.tokens + s.pair*s.pairs
	s.left = s.work
	if !p.opt.Progress || s.ownPrefill == 0 || now == 0 {
		return
	}
	since := s.st.since.Load()
	took, all := float64(now-since)/1e6, s.work*s.trust
	if since != 0 && took > 0 && all > 0 {
		s.left = s.work * (1 - max(min(took, all, 2*all-took), 0)/all)
	}
}

// costOf prices one candidate:
//
//	u       = L − h                                   L prompt tokens, h of them cached there
//	pre     = c·u + a·u·(L − u/2)                     its prefill
//	queue   = the same of everything before it, also of neighbours on the device
//	step    = t0 + tB·n + tK·K                        a decode step with n requests, K tokens held
//	wait    = what u + O tokens lack in the KV cache, over the rate at which it empties
//	first   = overhead + trust·(queue + pre) + ceil((P + u)/budget)·step + wait
//	own     = O·(t0 + tB·(n+1) + tK·(K + L + O/2))    O output tokens
//	inflict = n·pre + n·O·(tB + tK·(L + O/2))         stalls and longer steps of n others
//	total   = first + w·(own + inflict) + penalty     w by the load of the fleet
//
// The step model is that of vLLM's V1 engine, a sum of a prefill part and a decode
// part; Mooncake (2407.00079) predicts the first token likewise, Preble
// (2407.00023) adds what is inflicted.
func (p *leastCost) costOf(c *cost, s *costSight, w *workspace) {
	a, k := &w.asked, &s.rates
	L, O := a.prompt, a.output
	u := L
	if w.matched && s.st.owner != nil {
		u -= a.cached(int(w.depths[s.st.owner.ID()]))
	}
	c.uncached, c.pairs = u, u*(L-u/2)
	c.prefill = k.token*u + k.pair*c.pairs
	c.queue = s.left + s.devicePrefill
	c.step = k.step + k.sequence*s.requests + k.held*s.resident + s.deviceStep
	c.steps = float64((int64(s.tokens+u) + p.opt.Budget - 1) / p.opt.Budget)
	c.wait = 0
	if s.capacity > 0 {
		if over := s.occupied + u + O - kvUsable*s.capacity; over > 0 {
			c.wait = over / s.freeRate(a.now, O*c.step)
		}
	}
	c.first = k.overhead + k.trust*(c.queue+c.prefill) + c.steps*c.step + c.wait
	others := s.requests + s.deviceRequests
	c.own = O * (c.step + k.sequence + k.held*(L+O/2))
	c.inflict = others*c.prefill + s.requests*O*(k.sequence+k.held*(L+O/2))
	c.penalty = 0
	if s.full || s.st.dear.Load() {
		c.penalty = s.penalty(a.now)
	}
	c.total = c.first + w.w*(c.own+c.inflict) + c.penalty
}

// freeRate is how fast the KV cache empties, in tokens per ms: as seen of late, and
// no less than a quarter of what it holds per lifetime of a request.
func (s *costSight) freeRate(now int64, lifetime float64) float64 {
	rate := s.occupied / max(lifetime, 1) / 4
	if at := s.st.freedAt.Load(); at > 0 && now > 0 {
		rate = max(rate, s.st.freed.load()*halved(float64(max(now-at, 0))/float64(freeSpan)))
	}
	return max(rate, 1e-3)
}

func (s *costSight) penalty(now int64) float64 {
	v := 0.0
	if s.st.penalty.load() > 0 {
		v = s.st.penaltyNow(now)
	}
	if n := s.st.slow.Load(); n > 0 {
		v += slowStep * max(s.requests+1-float64(n), 0)
	}
	if s.full {
		v += kvGuard
	}
	return v
}

// halved is 2^-x.
func halved(x float64) float64 { return math.Exp2(-x) }

// best is the index of the least cost, a random one of those that are as good.
func (p *leastCost) best(w *workspace) int {
	least, at := math.Inf(1), 0
	for i := range w.costs {
		if t := w.costs[i].total; t < least {
			least, at = t, i
		}
	}
	limit := least + max(evenMs, evenPart*w.costs[at].first)
	even := uint64(0)
	for i := range w.costs {
		if w.costs[i].total <= limit {
			even++
		}
	}
	if even < 2 {
		return at
	}
	k := below(p.uint64(), even)
	for i := range w.costs {
		if w.costs[i].total <= limit {
			if k == 0 {
				return i
			}
			k--
		}
	}
	return at // a cost that is no number: the least of those that are one
}

// reserve places the request on candidate i.
func (p *leastCost) reserve(w *workspace, i int, q *balancer.Request, r *balancer.Replica) balancer.Reservation {
	s, c, a := &w.sights[i], &w.costs[i], &w.asked
	st, k := s.st, &s.rates
	t := ticketPool.Get().(*costTicket)
	t.p, t.st, t.stream, t.sent, t.bucket, t.text = p, st, q.Stream, q.Now, a.bucket, a.text
	t.hashes = append(t.hashes[:0], w.hashes...)
	t.incarnation = r.Incarnation()
	t.usage = balancer.Usage{Prompt: -1, Completion: -1, Cached: -1}
	t.predicted = int64(a.prompt - c.uncached)
	part := 1.0
	if s.work > 0 {
		part = s.left / s.work
	}
	t.features = vec{p.prior.Overhead, p.prior.PerToken * (part*s.tokens + c.uncached), p.prior.PerPair * (part*s.pairs + c.pairs)}
	t.ahead = c.steps*c.step + c.wait + k.trust*s.devicePrefill
	t.expected = c.prefill * k.trust
	t.total = k.overhead + c.queue + c.prefill + c.steps*c.step + c.wait
	if s.ownPrefill == 0 && a.now != 0 {
		st.since.Store(a.now)
	}
	if st.owner != nil {
		st.owner.Advance(int64(c.uncached))
		st.hits.asked.Add(int64(a.prompt))
		st.hits.predicted.Add(t.predicted)
	}
	st.memory.shared.Add(t.predicted)
	work := balancer.Work{
		Prompt: int64(a.prompt), Uncached: int64(c.uncached), Pairs: int64(c.pairs),
		Prefill: time.Duration(t.expected * 1e6),
	}
	v := r.Place(work, &t.Placement, t)
	if !p.opt.LateCredit {
		t.remember()
	}
	if !q.Stream && !q.Now.IsZero() {
		t.expiry = a.now + int64(c.first*1e6)
		st.unseen.add(t)
	}
	return v
}
