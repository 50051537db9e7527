package rivals

import (
	"time"

	"lbd/bench/replay"
)

// cacheAware is the field's reference policy: sgl-model-gateway src/policies/cache_aware.rs and its fork in vllm-project/router.
// The imbalance test looks at all replicas, dead ones too.
type cacheAware struct {
	counts
	tree      *index
	threshold float64
	abs       int
	rel       float64
}

// sglangCommandLine and sglangLibrary are the two sets of defaults in use; trees hold so many characters.
func sglangCommandLine(s replay.Setup) replay.Router {
	return newCacheAware(s, .3, 64, 1.5, 1<<26, 120*time.Second)
}

func sglangLibrary(s replay.Setup) replay.Router {
	return newCacheAware(s, .5, 32, 1.1, 10000, 30*time.Second)
}

func newCacheAware(s replay.Setup, threshold float64, abs int, rel float64, chars int, every time.Duration) *cacheAware {
	r := &cacheAware{counts: newCounts(s), tree: newIndex(s, chars/charsPerToken, 0), threshold: threshold, abs: abs, rel: rel}
	r.tree.every = every
	return r
}

const charsPerToken = 4

func (r *cacheAware) Pick(now time.Duration, q *replay.Query, candidates []int) int {
	m := r.tree.match(now, q)
	w := r.choose(q, candidates, m)
	r.tree.insert(now, q, w)
	return r.sent(q, w, float64(q.PromptTokens-m[w]), 0)
}

func (r *cacheAware) choose(q *replay.Query, candidates, m []int) int {
	if r.imbalanced() {
		return r.leastLoaded(candidates)
	}
	w := deepest(m)
	if float64(m[w])/float64(q.PromptTokens) <= r.threshold {
		return r.leastLoaded(candidates)
	}
	for _, i := range candidates {
		if i == w {
			return w
		}
	}
	return candidates[0] // the longest match is out of service: the first healthy one
}

func (r *cacheAware) imbalanced() bool {
	low, high := r.load[0], r.load[0]
	for _, n := range r.load {
		low, high = min(low, n), max(high, n)
	}
	return high-low > r.abs && float64(high) > r.rel*float64(low)
}

// deepest is the replica with the longest match, the first of equals.
func deepest(m []int) int {
	best := 0
	for i, n := range m {
		if n > m[best] {
			best = i
		}
	}
	return best
}
