package rivals

import (
	"math"
	"slices"
	"time"

	"lbd/bench/replay"
)

// lmetric multiplies new work by load, so that no weight is needed (arXiv 2603.15202). The paper's form counts outstanding
// prefill as work; sgl-model-gateway's (src/policies/lmetric.rs) only the request's own.
type lmetric struct {
	counts
	tree  *index
	paper bool
}

func lmetricPaper(s replay.Setup) replay.Router {
	return &lmetric{counts: newCounts(s), tree: newIndex(s, 0, indexTTL), paper: true}
}

func lmetricGateway(s replay.Setup) replay.Router {
	return &lmetric{counts: newCounts(s), tree: newIndex(s, 1<<26/charsPerToken, 0)}
}

// indexTTL bounds indexes whose source says nothing of eviction: 80 % of reuse happens within ten minutes (arXiv 2506.02634).
const indexTTL = 10 * time.Minute

func (r *lmetric) Pick(now time.Duration, q *replay.Query, candidates []int) int {
	m := r.tree.match(now, q)
	work := func(i int) float64 {
		w := float64(q.PromptTokens - m[i])
		if r.paper {
			w += r.prefill[i]
		}
		return w
	}
	score := func(i int) float64 { return work(i) * float64(r.load[i]+1) }
	w := slices.MinFunc(candidates, func(a, b int) int {
		switch sa, sb := score(a), score(b); {
		case sa != sb:
			return compare(sa, sb)
		case r.load[a] != r.load[b]:
			return r.load[a] - r.load[b]
		case work(a) != work(b):
			return compare(work(a), work(b))
		}
		return a - b
	})
	if r.refuses(now, q, w) {
		return replay.Refuse
	}
	r.tree.insert(now, q, w)
	return r.sent(q, w, float64(q.PromptTokens-m[w]), 0)
}

func compare(a, b float64) int {
	if a < b {
		return -1
	}
	return 1
}

// smetric is vllm-project/router src/policies/smetric.rs: stay where the conversation was while that meets the TTFT limit.
// Its turn gate and its estimate of the hit are read as: the prompt was seen before, and the estimate is the whole prompt.
type smetric struct {
	counts
	tree   *index
	start  int
	rates  []rateSamples
	sentAt map[uint64]time.Duration
	smetricParameters
}

type smetricParameters struct{ attention, base, hitRatio float64 }

// The example constants of smetric.rs, in characters and seconds.
const (
	smetricLinear    = 1.0
	smetricAttention = 1e-4
	smetricSlack     = 1.0
	smetricHitRatio  = .1
	smetricBase      = .2
	smetricPerChar   = 1e-4
	smetricSamples   = 64
	smetricEnough    = 8
)

type rateSamples struct {
	ring [smetricSamples]float64
	n    int
}

// p90 of the samples, 0 with too few.
func (s *rateSamples) p90() float64 {
	n := min(s.n, smetricSamples)
	if n < smetricEnough {
		return 0
	}
	sorted := slices.Clone(s.ring[:n])
	slices.Sort(sorted)
	return sorted[int(math.Ceil(.9*float64(n)))-1]
}

func newSmetric(s replay.Setup) replay.Router {
	return makeSmetric(s, smetricParameters{smetricAttention, smetricBase, smetricHitRatio})
}

func makeSmetric(s replay.Setup, p smetricParameters) replay.Router {
	return &smetric{
		smetricParameters: p, counts: newCounts(s), tree: newIndex(s, 1<<26/charsPerToken, 0), rates: make([]rateSamples, len(s.Replicas)),
		sentAt: map[uint64]time.Duration{},
	}
}

// cost is in units of work; pending is kept as counts.prefill.
func (p *smetricParameters) cost(chars, hit float64) float64 {
	n := chars - hit
	return math.Ceil(smetricLinear*n + p.attention*n*(chars-n/2))
}

func (r *smetric) Pick(now time.Duration, q *replay.Query, candidates []int) int {
	m := r.tree.match(now, q)
	chars := float64(charsPerToken * q.PromptTokens)
	queue := func(i int) float64 { return r.prefill[i] + r.cost(chars, float64(charsPerToken*m[i])) }
	meets := func(i int) bool {
		rate := r.rates[i].p90()
		return rate == 0 || queue(i)/rate <= smetricSlack*(r.base+smetricPerChar*chars)
	}
	r.start++
	k := r.start % len(candidates)
	w := first(slices.Concat(candidates[k:], candidates[:k]), func(i int) float64 { return queue(i) * float64(max(r.load[i], 1)) })
	if prev := first(candidates, func(i int) float64 { return -float64(m[i]) }); float64(m[prev]) > r.hitRatio*float64(q.PromptTokens) &&
		(meets(prev) || !slices.ContainsFunc(candidates, meets)) {
		w = prev
	}
	if r.refuses(now, q, w) {
		return replay.Refuse
	}
	work := r.cost(chars, float64(charsPerToken*m[w]))
	r.tree.insert(now, q, w)
	r.sentAt[q.ID] = now
	q.Charge[chargeOwn] = work
	return r.sent(q, w, work, 0)
}

func (r *smetric) FirstToken(now time.Duration, q *replay.Query) {
	if at, ok := r.sentAt[q.ID]; ok && now > at {
		s := &r.rates[q.Replica]
		s.ring[s.n%smetricSamples] = q.Charge[chargeOwn] / (now - at).Seconds()
		s.n++
	}
	delete(r.sentAt, q.ID)
	r.counts.FirstToken(now, q)
}

func (r *smetric) Done(now time.Duration, q *replay.Query, ok bool) {
	delete(r.sentAt, q.ID)
	r.counts.Done(now, q, ok)
}
