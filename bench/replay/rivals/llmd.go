package rivals

import (
	"time"

	"lbd/bench/replay"
)

// llmdBlend is llm-d's scheduler with its built-in weights: prefix 3, queue 2, KV use 2 (pkg/epp/config/loader/defaults.go).
// Queue and KV use are what the last poll said and nothing else.
type llmdBlend struct {
	counts
	tree              *index
	prefix, queue, kv float64 // weights
}

// llmdPoll is its refresh interval of metrics.
const llmdPoll = 50 * time.Millisecond

// llmdBlocks is the size of its index for a replica when num_gpu_blocks is not known, in blocks of 64 tokens.
const (
	llmdBlocks     = 31250
	llmdBlockToken = 64
)

func newLLMDBlend(s replay.Setup) replay.Router {
	return makeLLMDBlend(s, 3, 2, 2)
}

func makeLLMDBlend(s replay.Setup, prefix, queue, kv float64) replay.Router {
	return &llmdBlend{counts: newCounts(s), tree: newIndex(s, llmdLimit(s), 0), prefix: prefix, queue: queue, kv: kv}
}

func llmdLimit(s replay.Setup) int {
	if len(s.Replicas) > 0 {
		return s.Replicas[0].Engine.NumBlocks * llmdBlockToken // vllm:cache_config_info, whatever the engine's own block
	}
	return llmdBlocks * llmdBlockToken
}

func (r *llmdBlend) Pick(now time.Duration, q *replay.Query, candidates []int) int {
	m := r.tree.match(now, q)
	low, high := r.polled[candidates[0]].waiting, r.polled[candidates[0]].waiting
	for _, i := range candidates {
		low, high = min(low, r.polled[i].waiting), max(high, r.polled[i].waiting)
	}
	w := r.least(candidates, func(i int) float64 {
		queue := 1.0
		if high > low {
			queue = (high - r.polled[i].waiting) / (high - low)
		}
		prefix := float64(m[i]) / float64(q.PromptTokens)
		return -(r.prefix*prefix + r.queue*queue + r.kv*(1-r.polled[i].kv))
	})
	r.tree.insert(now, q, w)
	return r.sent(q, w, float64(q.PromptTokens-m[w]), 0)
}

// llmdSticky is llm-d's "sticky until saturated" of August 2026 (filter/prefixcacheaffinity): stay with replicas that hold
// 80 % of the prompt unless their estimated TTFT is that much worse, then take the fewest outstanding uncached tokens.
type llmdSticky struct {
	counts
	tree         *index
	affinity     float64                   // share of the prompt to hold
	peak         func(replica int) float64 // tokens per second
	penalty      float64                   // seconds
	sticky, rest []int
}

const (
	stickyAffinity = .8
	stickyPeak     = 15928. // Qwen-32B on two H100
	stickyPenalty  = 18.    // seconds
)

func llmdStickyDefault(s replay.Setup) replay.Router {
	return newLLMDSticky(s, stickyAffinity, func(int) float64 { return stickyPeak }, stickyPenalty)
}

// calibratedSticky has its throughput measured as its guide says: tokens of a full step by its time.
func calibratedSticky(s replay.Setup, affinity, penalty float64) replay.Router {
	return newLLMDSticky(s, affinity, func(i int) float64 { return 1 / thetaOf(&s.Replicas[i]).perToken * 1e3 }, penalty)
}

func newLLMDSticky(s replay.Setup, affinity float64, peak func(int) float64, penalty float64) *llmdSticky {
	return &llmdSticky{counts: newCounts(s), tree: newIndex(s, llmdLimit(s), 0), affinity: affinity, peak: peak, penalty: penalty}
}

func (r *llmdSticky) Pick(now time.Duration, q *replay.Query, candidates []int) int {
	m := r.tree.match(now, q)
	holds := func(i int) bool { return float64(m[i]) >= r.affinity*float64(q.PromptTokens) }
	r.sticky = where(r.sticky, candidates, holds)
	r.rest = where(r.rest, candidates, func(i int) bool { return !holds(i) })
	keep := r.sticky
	if len(keep) == 0 || len(r.rest) > 0 && r.ttft(r.sticky)-r.ttft(r.rest) > r.penalty {
		keep = candidates
	}
	w := r.least(keep, func(i int) float64 { return r.prefill[i] + float64(q.PromptTokens-m[i]) })
	r.tree.insert(now, q, w)
	return r.sent(q, w, float64(q.PromptTokens-m[w]), 0)
}

// ttft is the least estimate among replicas, in seconds.
func (r *llmdSticky) ttft(replicas []int) float64 {
	w := first(replicas, func(i int) float64 { return r.prefill[i] / r.peak(i) })
	return r.prefill[w] / r.peak(w)
}
