package rivals

import (
	"time"

	"lbd/bench/replay"
)

// dynamo is the KV router of ai-dynamo/dynamo (docs/components/router): prefill it would have to do plus KV blocks in use,
// in tokens here. AddRequest, MarkPrefillCompleted and Free are Pick, FirstToken and Done.
type dynamo struct {
	counts
	tree   *index // nil = told by KV events
	older  bool
	scale  float64 // prefill_load_scale
	cached []int
}

// dynamoTTL is of the approximate index, used without KV events.
const dynamoTTL = 120 * time.Second

func dynamoApproximate(s replay.Setup) replay.Router {
	return makeDynamo(s, 1, dynamoTTL)
}

func makeDynamo(s replay.Setup, scale float64, ttl time.Duration) replay.Router {
	return &dynamo{counts: newCounts(s), tree: newIndex(s, 0, ttl), scale: scale}
}

func dynamoEvents(s replay.Setup) replay.Router { return &dynamo{counts: newCounts(s), scale: 1} }

func dynamoOlder(s replay.Setup) replay.Router {
	return &dynamo{counts: newCounts(s), tree: newIndex(s, 0, dynamoTTL), older: true}
}

func (r *dynamo) overlap(now time.Duration, q *replay.Query, candidates []int) []int {
	if r.tree != nil {
		return r.tree.match(now, q)
	}
	r.cached = append(r.cached[:0], make([]int, len(r.load))...)
	for _, i := range candidates {
		r.cached[i] = r.Truth.Cached(i, q)
	}
	return r.cached
}

func (r *dynamo) Pick(now time.Duration, q *replay.Query, candidates []int) int {
	m := r.overlap(now, q, candidates)
	w := r.least(candidates, func(i int) float64 {
		uncached := float64(q.PromptTokens - m[i])
		if r.older { // overlap_score_weight * prefill_blocks + decode_blocks, up to 1.0
			return uncached + r.tokens[i]
		}
		return r.scale*max(r.prefill[i]+uncached, 0) + r.tokens[i] + uncached
	})
	if r.refuses(now, q, w) {
		return replay.Refuse
	}
	uncached := float64(q.PromptTokens - m[w])
	if r.tree != nil {
		r.tree.insert(now, q, w)
	}
	return r.sent(q, w, uncached, float64(q.PromptTokens))
}
