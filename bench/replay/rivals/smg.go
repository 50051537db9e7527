package rivals

import (
	"math"
	"time"

	"lbd/balancer"
	"lbd/bench/replay"
)

// leastLoad is smg-project/smg model_gateway/src/policies/least_load.rs in the form for gRPC workers, where token counts
// are known: seconds to work off what is queued, plus a penalty for a full KV cache.
type leastLoad struct {
	counts
	dispatched []float64 // tokens since the last poll
	sum        float64   // prompt tokens of all requests
	n          float64
	two        bool // of two random replicas only (power_of_two)
}

// Constants of least_load.rs.
const (
	smgKVWeight   = .15  // seconds
	smgMeanTokens = 1024 // of a request, before any was seen
	smgThroughput = 2000 // tokens per second
	smgPoll       = 10 * time.Second
)

func newLeastLoad(s replay.Setup) *leastLoad {
	return &leastLoad{counts: newCounts(s), dispatched: make([]float64, len(s.Replicas))}
}

func smgLeastLoad(s replay.Setup) replay.Router { return newLeastLoad(s) }

func smgTwo(s replay.Setup) replay.Router {
	r := newLeastLoad(s)
	r.two = true
	return r
}

func (r *leastLoad) Pick(_ time.Duration, q *replay.Query, candidates []int) int {
	if r.two && len(candidates) > 2 {
		i := r.below(uint64(len(candidates)))
		j := r.below(uint64(len(candidates) - 1))
		if j >= i {
			j++
		}
		candidates = []int{candidates[i], candidates[j]}
	}
	return r.take(q, r.pick(candidates), float64(q.PromptTokens))
}

// take notes the request at w.
func (r *leastLoad) take(q *replay.Query, w int, uncached float64) int {
	r.dispatched[w] += float64(q.PromptTokens)
	r.sum += float64(q.PromptTokens)
	r.n++
	return r.sent(q, w, uncached, 0)
}

// pick is the least score. A replica without a report is judged by the best one that has, and its own load.
func (r *leastLoad) pick(candidates []int) int {
	best, rates, told := math.Inf(1), 0.0, 0
	for _, i := range candidates {
		if r.polled[i].known {
			best, rates, told = min(best, r.score(i)), rates+r.throughput(i), told+1
		}
	}
	if told == 0 {
		return r.leastLoaded(candidates)
	}
	return r.least(candidates, func(i int) float64 {
		if r.polled[i].known {
			return r.score(i)
		}
		return best + float64(r.load[i])*r.meanTokens()/(rates/float64(told))
	})
}

func (r *leastLoad) score(w int) float64 {
	p := &r.polled[w]
	k := min(p.kv, .999)
	return (p.waiting*r.meanTokens()+r.dispatched[w])/r.throughput(w) + smgKVWeight*k/(1-k)
}

func (r *leastLoad) meanTokens() float64 {
	if r.n == 0 {
		return smgMeanTokens
	}
	return r.sum / r.n
}

func (r *leastLoad) throughput(w int) float64 {
	if rate := r.polled[w].rate; rate > 0 {
		return rate
	}
	return smgThroughput
}

func (r *leastLoad) Poll(now time.Duration, replica int, s *balancer.Sample) {
	r.counts.Poll(now, replica, s)
	r.dispatched[replica] = 0
}

// smgCacheAware is model_gateway/src/policies/cache_aware.rs of 2026 with the character radix tree: pressure on the chosen
// replica sends a request elsewhere, not the spread of the whole fleet.
type smgCacheAware struct {
	*leastLoad
	tree                            *index
	threshold, gateFactor, gateLoad float64
	group, safe, calm               []int
}

const (
	smgThreshold  = .3
	smgGateFactor = 1.5
	smgGateLoad   = 64
)

func newSMGCacheAware(s replay.Setup) replay.Router {
	return makeSMGCacheAware(s, smgThreshold, smgGateFactor, smgGateLoad)
}

func makeSMGCacheAware(s replay.Setup, threshold, gateFactor, gateLoad float64) replay.Router {
	return &smgCacheAware{
		leastLoad: newLeastLoad(s), tree: newIndex(s, 1<<26/charsPerToken, 0),
		threshold: threshold, gateFactor: gateFactor, gateLoad: gateLoad,
	}
}

func (r *smgCacheAware) Pick(now time.Duration, q *replay.Query, candidates []int) int {
	m := r.tree.match(now, q)
	w := r.choose(q, candidates, m)
	r.tree.insert(now, q, w) // also where it spills to: a hot prefix spreads
	return r.take(q, w, float64(q.PromptTokens-m[w]))
}

func (r *smgCacheAware) choose(q *replay.Query, candidates, m []int) int {
	longest := m[deepest(m)]
	r.group = where(r.group, candidates, func(i int) bool {
		return m[i] == longest && float64(longest)/float64(q.PromptTokens) > r.threshold
	})
	mean := r.meanLoad(candidates)
	pressed := func(i int) bool {
		return float64(r.load[i]) > r.gateFactor*mean && float64(r.load[i]) > mean+r.gateLoad
	}
	r.safe = where(r.safe, r.group, func(i int) bool { return !pressed(i) })
	switch {
	case len(r.safe) > 0:
		return r.pick(r.safe)
	case len(r.group) == 0:
		return r.pick(candidates)
	}
	if r.calm = where(r.calm, candidates, func(i int) bool { return !pressed(i) }); len(r.calm) > 0 {
		return r.pick(r.calm)
	}
	return r.pick(candidates)
}
