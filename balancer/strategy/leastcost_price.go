package strategy

import (
	"math"
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
	jam     float64 // how much is queued where how many run
	waste   float64 // prefill that it would not take where more is cached
	overdue float64 // how long a first token, or an answer, has been due there
	penalty float64
	total   float64
	doubt   float64 // what that may be off
}

// fleetwide is what candidates are compared with.
type fleetwide struct {
	requests float64 // the mean number
	prefill  float64 // the mean that is still to be done, in ms
	dear     int     // how many of them have a penalty, or a slow start
	usual    float64 // ms of prefill of a request, by which crowded was found
	uncached float64 // u*, the least of all
	cached   float64 // g, the part of the prompt that is cached somewhere
	load     float64 // U
	w        float64 // how busy that is, up to 1
	crowded  float64 // how far beyond what it can carry, up to 1
	others   float64 // what delays of others weigh
	decoding float64 // what decoding weighs
	jams     float64 // what jams weigh
	unsure   float64 // what the error of learned speeds weighs
}

// sum adds up what does not depend on the request.
func (p *leastCost) sum(w *workspace) {
	t := add(w.parts)
	if t.untold > 0 {
		w.suppose()
		t = add(w.parts)
	}
	each, f := 1/float64(len(w.parts)), &w.fleet
	f.requests = t.requests * each
	f.prefill = t.prefill * each
	f.load = f.prefill / milliseconds(p.opt.PrefillScale)
	if t.holders > 0 {
		f.load = max(f.load, p.opt.LoadFrom+p.opt.LoadSpan*(t.fill/float64(t.holders)-fillFrom)/(1-fillFrom))
	}
	f.w = min(max((f.load-p.opt.LoadFrom)/p.opt.LoadSpan, 0), p.opt.WeightMax)
	f.unsure = doubts * max(1-f.w, 0)
	f.dear, f.usual = t.dear, math.NaN() // which is no usual prefill: survey asks for patience
}

// sums are what the parts of all candidates add up to.
type sums struct {
	requests, prefill, fill float64
	holders, untold, dear   int
}

func add(parts []part) (t sums) {
	for i := range parts {
		c := &parts[i]
		t.requests += c.requests
		t.prefill += c.prefill
		t.fill += c.fill
		if c.holds {
			t.holders++
		}
		if c.untold {
			t.untold++
		}
		if c.dear {
			t.dear++
		}
	}
	return t
}

// survey looks at all candidates at once: how busy they are, and what is cached.
func (p *leastCost) survey(w *workspace) {
	a, f := &w.asked, &w.fleet
	f.uncached, f.cached = a.prompt, 0
	if w.matched {
		w.share()
	}
	if f.dear > 0 {
		w.punish()
	}
	if usual := p.prefills.or(math.Inf(1)); usual != f.usual {
		f.usual, f.crowded = usual, crowded(f.prefill, max(crowd*usual, milliseconds(p.opt.PrefillScale)))
		f.others = f.w * (othersWeight + (1-othersWeight)*f.crowded)
	}
	f.decoding = max(f.w, f.cached)
	f.jams = jamWeight * f.decoding * (1 - f.crowded)
}

// share finds how much of the prompt each candidate has to compute.
func (w *workspace) share() {
	a, f := &w.asked, &w.fleet
	depth, cached := 0, 0.0 // of the candidate before: many have as much
	for i := range w.parts {
		if d := int(w.depths[w.parts[i].place]); d != depth {
			depth, cached = d, a.cached(d)
		}
		w.uncached[i] = a.prompt - cached
		f.uncached = min(f.uncached, w.uncached[i])
	}
	f.cached = 1 - f.uncached/a.prompt
}

// computes is how many tokens of the prompt candidate i has to compute.
func (w *workspace) computes(i int) float64 {
	if w.matched {
		return w.uncached[i]
	}
	return w.asked.prompt
}

// crowded is how far a fleet is beyond what it can carry where so many ms of prefill
// wait for each replica: 0 up to what it can bear, 1 at twice as much. Then delays of
// others count in full, so that few long prompts have to wait for many short ones.
func crowded(waiting, bearable float64) float64 {
	return min(max(waiting/bearable-1, 0), 1)
}

// price finds what each candidate may cost at least, and what the cheapest one may cost
// at most.
func (p *leastCost) price(w *workspace) {
	p.survey(w)
	w.cheapest, w.limit = p.costOf(w, 0, len(w.bases), nil)
}

// cost is what the pick has found of candidate i, term by term.
func (p *leastCost) cost(w *workspace, i int) *cost {
	p.costOf(w, i, i+1, &w.terms)
	return &w.terms
}

// A prefill before a new request counts as a whole until its first token. With
// Progress, what is under way is partly done: by the time since it began, unless that
// is more than all of it should take. Then the credit shrinks again, for a replica
// that hangs must not look idle.
func (s *costSight) progress(now int64) {
	if s.load.prefill == 0 || now == 0 {
		return
	}
	since := s.st.since.Load()
	took, all := float64(now-since)/1e6, s.work*s.trust
	if since != 0 && took > 0 && all > 0 {
		s.left = s.work * (1 - max(min(took, all, 2*all-took), 0)/all)
	}
}

// costOf prices some of the candidates, each by itself, finds the cheapest of them and what
// that may cost at most, and shows the terms of the last one to who asks:
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
//	jam    = n·(overhead + queue)                    what LMetric (2603.15202) compares
//	total  = first + overdue + max(w, g)·(own + j·jam) + w·v·(stalls + slowed) + wasteWeight·waste + penalty
//
// w grows with the load of the fleet, g = 1 − u*/L is how much of the prompt is cached
// somewhere. v is othersWeight and j is jamWeight, unless the fleet has more than it can
// carry: then v grows to 1 and j falls to 0, see crowded.
// README.md says why each term is there, and what was tried.
//
// The step model is that of vLLM's V1 engine, a sum of a prefill part and a decode
// part; Mooncake (2407.00079) predicts the first token likewise, Preble
// (2407.00023) adds what is inflicted.
//
// The loop is within, and the terms are local variables until the end: calls for each
// candidate, and structs that are copied, took longer than the formula.
func (p *leastCost) costOf(w *workspace, from, to int, terms *cost) (cheapest int, limit float64) {
	f, L, O, now := &w.fleet, w.asked.prompt, w.asked.output, w.asked.now
	bases, lowest := w.bases[:to], w.lowest[:to]
	context, decoding, jams, others, unsure := L+O/2, f.decoding, f.jams, f.others, f.unsure
	matched, least := w.matched, math.Inf(1)
	u, ends, waste := L, L/2, 0.0 // ends is where the middle one of the tokens to compute ends
	for i := from; i < to; i++ {
		b := &bases[i]
		if matched {
			u = w.uncached[i]
			ends, waste = L-u/2, 0
			if again := u - f.uncached; again > 0 {
				waste = f.requests * (b.token*again + b.pair*again*(L-f.uncached-again/2))
			}
		}
		steps, wait, overdue := 1.0, 0.0, 0.0
		if u+O > b.spare {
			steps, wait = w.sights[i].delays(u, O, now, p.opt.Budget)
		}
		prefill := b.token*u + b.pair*u*ends
		first := b.trust*(b.before+prefill) + steps*b.cycle + wait
		added := b.sequence + b.held*context
		own := O * (b.cycle + added)
		slowed := b.requests * O * added
		stalls := b.stalled * prefill
		jam := b.requests * b.before
		if now > b.late {
			overdue = w.sights[i].overdue(now, first, own)
		}
		total := first + overdue + decoding*own + jams*jam + others*(stalls+slowed) + wasteWeight*waste + b.penalty
		doubt := doubt(first, unsure*b.unsure)
		lowest[i] = total - doubt
		if total < least {
			least, limit, cheapest = total, total+doubt, i
		}
		if terms != nil {
			*terms = cost{prefill, w.sights[i].queue(), steps, wait, first, own, slowed, stalls, jam, waste, overdue, b.penalty, total, doubt}
		}
	}
	return cheapest, limit
}

// delays is by how many decode steps a prefill is cut, and how many ms a request waits
// for room in the KV cache.
func (s *costSight) delays(u, output float64, now, budget int64) (steps, wait float64) {
	steps = 1
	if tokens := int64(s.tokens + u); tokens > budget {
		steps = float64((tokens + budget - 1) / budget)
	}
	if s.capacity > 0 {
		if over := s.occupied + u + output - kvUsable*s.capacity; over > 0 {
			wait = over / s.freeRate(now, output*s.cycle)
		}
	}
	return steps, wait
}

// queue is how many ms of prefill there are before a request.
func (s *costSight) queue() float64 { return s.left + s.devicePrefill }

// freeRate is how fast the KV cache empties, in tokens per ms: as seen of late, and
// no less than a quarter of what it holds per lifetime of a request.
func (s *costSight) freeRate(now int64, lifetime float64) float64 {
	rate := s.occupied / max(lifetime, 1) / 4
	if at := s.st.freedAt.Load(); at > 0 && now > 0 {
		rate = max(rate, s.st.freed.load()*halved(float64(max(now-at, 0))/float64(freeSpan)))
	}
	return max(rate, 1e-3)
}

// punish finds the penalties, which change with the time.
func (w *workspace) punish() {
	for i := range w.parts {
		if w.parts[i].dear {
			w.bases[i].penalty = w.sights[i].penalty(w.asked.now)
		}
	}
}

// penalty is that for failures, a slow start and a pool that is full.
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

// doubts is how many standard errors the doubt is.
const doubts = 1.5

// doubt is how much dearer a cost may be than it looks, or cheaper, in ms: the error
// of the learned speed. It fades as the fleet fills, for what is queued then decides.
func doubt(first, unsure float64) float64 {
	even := float64(evenMs)
	if part := evenPart * first; part > even {
		even = part
	}
	return even/2 + unsure*first
}

// best is the index of the least cost. Of those that may be as good, given what is
// sure, it is the one with the fewest requests, a random one if there are
// several: one that seems a little faster by chance would get all requests otherwise,
// and the others none to show that they are as fast.
func (p *leastCost) best(w *workspace) int {
	limit, fewest, even := w.limit, math.Inf(1), 0
	bases, ties := w.bases[:len(w.lowest)], w.ties[:len(w.lowest)]
	for i, low := range w.lowest {
		if !(low <= limit) {
			continue
		}
		n := bases[i].perWeight
		if n > fewest {
			continue
		}
		if n < fewest {
			fewest, even = n, 0
		}
		ties[even] = int32(i)
		even++
	}
	switch even {
	case 0:
		return w.cheapest // costs that are no numbers
	case 1:
		return int(ties[0])
	}
	return int(ties[below(p.uint64(), uint64(even))])
}

// reserve places the request on candidate i.
func (p *leastCost) reserve(w *workspace, i int, q *balancer.Request, r *balancer.Replica) balancer.Reservation {
	s, a := &w.sights[i], &w.asked
	c, uncached := p.cost(w, i), w.computes(i)
	pairs := uncached * (a.prompt - uncached/2)
	st, k := s.st, &s.rates
	t := ticketPool.Get().(*costTicket)
	t.p, t.st, t.stream, t.sent, t.bucket, t.text = p, st, q.Stream, q.Now, a.bucket, a.text
	t.hashes = append(t.hashes[:0], w.hashes...)
	t.incarnation = r.Incarnation()
	t.usage = balancer.Usage{Prompt: -1, Completion: -1, Cached: -1}
	t.predicted = int64(a.prompt - uncached)
	part := 1.0
	if s.work > 0 {
		part = s.left / s.work
	}
	t.features = vec{p.prior.Overhead, p.prior.PerToken * (part*s.tokens + uncached), p.prior.PerPair * (part*s.pairs + pairs)}
	t.ahead = c.steps*s.cycle + c.wait + k.trust*s.devicePrefill
	t.expected = c.prefill * k.trust
	t.total = k.overhead + c.queue + c.prefill + c.steps*s.cycle + c.wait
	t.step = s.cycle + k.sequence + k.held*(a.prompt+a.output/2)
	if s.load.prefill == 0 && a.now != 0 {
		st.since.Store(a.now)
	}
	if st.owner != nil {
		st.owner.Advance(int64(uncached))
		st.hits.asked.Add(int64(a.prompt))
		st.hits.predicted.Add(t.predicted)
	}
	st.memory.shared.Add(t.predicted)
	p.prefills.add(t.expected)
	work := balancer.Work{
		Prompt: int64(a.prompt), Uncached: int64(uncached), Pairs: int64(pairs),
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
		w.expect(st)
	}
	st.changes.Add(1)
	return v
}
