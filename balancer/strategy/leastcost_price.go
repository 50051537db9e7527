package strategy

import (
	"math"
	"slices"
	"time"

	"lbd/balancer"
)

// cost is what placing the request on one candidate takes, in ms.
type cost struct {
	prefill float64 // pre(u, L): of this request, as learned
	queue   float64 // of what is before it
	steps   float64 // how many decode steps its prefill is cut by
	wait    float64 // for room in the KV cache
	first   float64 // time to first token
	own     float64 // its decoding
	slowed  float64 // what that adds to the steps of others
	stalls  float64 // what its prefill holds others up
	waste   float64 // prefill that it would not take where more is cached
	overdue float64 // how long a first token, or an answer, has been due there
	penalty float64
	total   float64
	doubt   float64 // what that may be off
}

// fleetwide is what candidates are compared with.
type fleetwide struct {
	requests float64 // the mean number
	uncached float64 // u*, the least of all
	cached   float64 // g, the part of the prompt that is cached somewhere
	load     float64 // U
	w        float64 // how busy that is, up to 1
	stalls   float64 // what stalls of others weigh
	decoding float64 // what decoding weighs
	unsure   float64 // what the error of learned speeds weighs
}

// survey looks at all candidates at once: how busy they are, and what is cached.
func (p *leastCost) survey(w *workspace) {
	a, f := &w.asked, &w.fleet
	*f = fleetwide{uncached: a.prompt}
	var prefill, fill, holders float64
	depth, cached := 0, 0.0 // of the candidate before: many have as much
	for i := range w.sights {
		s := &w.sights[i]
		st := s.st
		s.silentFirst, s.silentEnd = st.firsts.lasts(a.now), st.ends.lasts(a.now)
		if p.opt.Progress {
			s.progress(a.now)
		}
		s.uncached = a.prompt
		if w.matched {
			if d := int(w.depths[s.place]); d != depth {
				depth, cached = d, a.cached(d)
			}
			s.uncached -= cached
			f.uncached = min(f.uncached, s.uncached)
		}
		f.requests += s.requests
		prefill += s.left * s.trust
		if s.capacity > 0 {
			if s.told {
				s.occupied = st.memory.heldWith(s.load.resident)
			}
			fill += s.occupied / s.capacity
			holders++
		}
		if s.penalty = 0; s.full || st.dear.Load() {
			s.penalty = s.punish(a.now)
		}
	}
	each := 1 / float64(len(w.sights))
	f.requests *= each
	f.cached = 1 - f.uncached/a.prompt
	f.load = prefill * each / milliseconds(p.opt.PrefillScale)
	if holders > 0 {
		f.load = max(f.load, p.opt.LoadFrom+p.opt.LoadSpan*(fill/holders-fillFrom)/(1-fillFrom))
	}
	f.w = min(max((f.load-p.opt.LoadFrom)/p.opt.LoadSpan, 0), p.opt.WeightMax)
	f.stalls = f.w * p.patience(prefill*each)
	f.decoding = max(f.w, f.cached)
	f.unsure = doubts * max(1-f.w, 0)
}

// patience is what stalls weigh in a busy fleet where so many ms of prefill wait for
// each replica: little, as long as those are a few prompts; in full when they are more
// than it can catch up with. Then few long prompts have to wait for many short ones.
func (p *leastCost) patience(waiting float64) float64 {
	prompts := waiting / max(p.prefills.or(math.Inf(1)), 1e-3)
	return stallWeight + (1-stallWeight)*min(max(prompts/crowd-1, 0), 1)
}

// price makes the costs of all candidates.
func (p *leastCost) price(w *workspace) {
	p.survey(w)
	w.costs = slices.Grow(w.costs[:0], len(w.sights))[:len(w.sights)]
	p.costOf(w.costs, w)
}

// A prefill before a new request counts as a whole until its first token. With
// Progress, what is under way is partly done: by the time since it began, unless that
// is more than all of it should take. Then the credit shrinks again, for a replica
// that hangs must not look idle.
func (s *costSight) progress(now int64) {
	s.left = s.work
	if s.load.prefill == 0 || now == 0 {
		return
	}
	since := s.st.since.Load()
	took, all := float64(now-since)/1e6, s.work*s.trust
	if since != 0 && took > 0 && all > 0 {
		s.left = s.work * (1 - max(min(took, all, 2*all-took), 0)/all)
	}
}

// costOf prices all candidates, each by itself:
//
//	u      = L − h                                   L prompt tokens, h of them cached there
//	pre    = c·u + a·u·(L − u/2)                     its prefill
//	queue  = the same of everything before it, also of neighbours on the device
//	step   = t0 + tB·n + tK·K                        a decode step with n requests, K tokens of context
//	wait   = what u + O tokens lack in the KV cache, over the rate at which it empties
//	first  = trust·(overhead + queue + pre) + ceil((P + u)/budget)·step + wait
//	own    = O·(t0 + tB·(n+1) + tK·(K + L + O/2))    O output tokens
//	slowed = n·O·(tB + tK·(L + O/2))                 longer steps of n others
//	stalls = n·pre                                   which n others wait for
//	waste  = n̄·(pre(u) − pre(u*))                    what u* tokens elsewhere would have done
//	total  = first + overdue + max(w, g)·(own + slowed) + w·v·stalls + wasteWeight·waste + penalty
//
// w grows with the load of the fleet, v is stallWeight unless the fleet has more than it
// can carry, see patience. g = 1 − u*/L is how much of the prompt is cached somewhere.
// README.md says why each term is there, and what was tried.
//
// The step model is that of vLLM's V1 engine, a sum of a prefill part and a decode
// part; Mooncake (2407.00079) predicts the first token likewise, Preble
// (2407.00023) adds what is inflicted.
//
// The loop is within, and the terms are local variables until the end: calls for each
// candidate, and structs that are copied, took longer than the formula.
func (p *leastCost) costOf(costs []cost, w *workspace) {
	f, L, O := &w.fleet, w.asked.prompt, w.asked.output
	for i := range costs {
		s := &w.sights[i]
		k, u := &s.rates, s.uncached
		steps, wait, waste := 1.0, 0.0, 0.0
		if s.capacity > 0 {
			if over := s.occupied + u + O - kvUsable*s.capacity; over > 0 {
				wait = over / s.freeRate(w.asked.now, O*s.cycle)
			}
		}
		if tokens := int64(s.tokens + u); tokens > p.opt.Budget {
			steps = float64((tokens + p.opt.Budget - 1) / p.opt.Budget)
		}
		prefill := k.token*u + k.pair*u*(L-u/2)
		queue := s.left + s.devicePrefill
		first := k.trust*(k.overhead+queue+prefill) + steps*s.cycle + wait
		added := k.sequence + k.held*(L+O/2)
		own := O * (s.cycle + added)
		slowed := s.requests * O * added
		stalls := (s.requests + s.deviceRequests) * prefill
		if again := u - f.uncached; again > 0 {
			waste = f.requests * (k.token*again + k.pair*again*(L-f.uncached-again/2))
		}
		overdue := s.overdue(first, own)
		total := first + overdue + f.decoding*(own+slowed) + f.stalls*stalls + wasteWeight*waste + s.penalty
		c := &costs[i]
		c.prefill, c.queue, c.steps, c.wait, c.first, c.own = prefill, queue, steps, wait, first, own
		c.slowed, c.stalls, c.waste, c.overdue, c.penalty = slowed, stalls, waste, overdue, s.penalty
		c.total, c.doubt = total, s.doubt(first, f)
	}
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

// punish is the penalty for failures, a slow start and a pool that is full.
func (s *costSight) punish(now int64) float64 {
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

// doubts is how many standard errors the doubt is.
const doubts = 1.5

// doubt is how much dearer a cost may be than it looks, or cheaper, in ms: the error
// of the learned speed. It fades as the fleet fills, for what is queued then decides.
func (s *costSight) doubt(first float64, f *fleetwide) float64 {
	even := float64(evenMs)
	if part := evenPart * first; part > even {
		even = part
	}
	return even/2 + f.unsure*s.unsure*first
}

// best is the index of the least cost. Of those that may be as good, given what is
// sure, it is the one with the fewest requests, a random one if there are
// several: one that seems a little faster by chance would get all requests otherwise,
// and the others none to show that they are as fast.
func (p *leastCost) best(w *workspace) int {
	least, at := math.Inf(1), 0
	for i := range w.costs {
		if t := w.costs[i].total; t < least {
			least, at = t, i
		}
	}
	limit := least + w.costs[at].doubt
	w.ties = slices.Grow(w.ties[:0], len(w.costs))[:len(w.costs)]
	fewest, even := math.Inf(1), uint64(0)
	for i := range w.costs {
		w.ties[i] = math.Inf(1)
		if c := &w.costs[i]; !(c.total-c.doubt <= limit) {
			continue
		}
		n := w.sights[i].perWeight()
		if w.ties[i] = n; n < fewest {
			fewest, even, at = n, 1, i
		} else if n == fewest {
			even++
		}
	}
	if even < 2 {
		return at
	}
	k := below(p.uint64(), even)
	for i, n := range w.ties {
		if n == fewest {
			if k == 0 {
				return i
			}
			k--
		}
	}
	return at // costs that are no numbers
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

// reserve places the request on candidate i.
func (p *leastCost) reserve(w *workspace, i int, q *balancer.Request, r *balancer.Replica) balancer.Reservation {
	s, a := &w.sights[i], &w.asked
	c, pairs := &w.costs[i], s.uncached*(a.prompt-s.uncached/2)
	st, k := s.st, &s.rates
	t := ticketPool.Get().(*costTicket)
	t.p, t.st, t.stream, t.sent, t.bucket, t.text = p, st, q.Stream, q.Now, a.bucket, a.text
	t.hashes = append(t.hashes[:0], w.hashes...)
	t.incarnation = r.Incarnation()
	t.usage = balancer.Usage{Prompt: -1, Completion: -1, Cached: -1}
	t.predicted = int64(a.prompt - s.uncached)
	part := 1.0
	if s.work > 0 {
		part = s.left / s.work
	}
	t.features = vec{p.prior.Overhead, p.prior.PerToken * (part*s.tokens + s.uncached), p.prior.PerPair * (part*s.pairs + pairs)}
	t.ahead = c.steps*s.cycle + c.wait + k.trust*s.devicePrefill
	t.expected = c.prefill * k.trust
	t.total = k.overhead + c.queue + c.prefill + c.steps*s.cycle + c.wait
	t.step = s.cycle + k.sequence + k.held*(a.prompt+a.output/2)
	if s.load.prefill == 0 && a.now != 0 {
		st.since.Store(a.now)
	}
	if st.owner != nil {
		st.owner.Advance(int64(s.uncached))
		st.hits.asked.Add(int64(a.prompt))
		st.hits.predicted.Add(t.predicted)
	}
	st.memory.shared.Add(t.predicted)
	p.prefills.add(t.expected)
	work := balancer.Work{
		Prompt: int64(a.prompt), Uncached: int64(s.uncached), Pairs: int64(pairs),
		Prefill: time.Duration(t.expected * 1e6),
	}
	v := r.Place(work, &t.Placement, t)
	if !p.opt.LateCredit {
		t.remember()
	}
	t.awaited = true
	t.awaits().begin(a.now)
	if !q.Stream && !q.Now.IsZero() {
		t.expiry = a.now + int64(c.first*1e6)
		st.unseen.add(t)
	}
	return v
}
