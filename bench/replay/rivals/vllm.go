package rivals

import (
	"time"

	"lbd/bench/replay"
)

// vllmDP is vLLM's own balancer of data-parallel engines (vllm/v1/engine/core_client.py): polled counts, plus
// client_count for each pick until the next poll. client_count is the number of lbds here.
type vllmDP struct {
	counts
	start int
}

// vllmDPPoll is how often its coordinator publishes counts when something changed.
const vllmDPPoll = 100 * time.Millisecond

func newVLLMDP(s replay.Setup) replay.Router {
	return &vllmDP{counts: newCounts(s), start: len(s.Replicas) * s.LBD / s.LBDs}
}

func (r *vllmDP) Pick(_ time.Duration, q *replay.Query, candidates []int) int {
	n := len(r.load)
	w, best := -1, 0.0
	for k := range n {
		i := (r.start + k) % n
		if !contains(candidates, i) {
			continue
		}
		if s := 4*r.polled[i].waiting + r.polled[i].running; w < 0 || s < best {
			w, best = i, s
		}
	}
	r.polled[w].waiting += float64(r.LBDs)
	return r.sent(q, w, float64(q.PromptTokens), 0)
}

// contains looks in candidates, which are in order.
func contains(candidates []int, i int) bool {
	if i < len(candidates) && candidates[i] == i {
		return true // nobody is missing before it
	}
	for _, c := range candidates {
		if c == i {
			return true
		}
	}
	return false
}

// polledOnly picks by polled gauges alone, until the next poll: the herd. waitingOnly is the naive least-waiting.
type polledOnly struct {
	counts
	score     func(*polled) float64
	firstWins bool
}

func naiveWaitingFirst(s replay.Setup) replay.Router {
	return &polledOnly{counts: newCounts(s), score: func(p *polled) float64 { return p.waiting }, firstWins: true}
}

func naiveWaitingRandom(s replay.Setup) replay.Router {
	return &polledOnly{counts: newCounts(s), score: func(p *polled) float64 { return p.waiting }}
}

func naiveRunning(s replay.Setup) replay.Router {
	return &polledOnly{counts: newCounts(s), score: func(p *polled) float64 { return p.waiting + p.running }}
}

func (r *polledOnly) Pick(_ time.Duration, q *replay.Query, candidates []int) int {
	score := func(i int) float64 { return r.score(&r.polled[i]) }
	if r.firstWins {
		return r.sent(q, first(candidates, score), float64(q.PromptTokens), 0)
	}
	return r.sent(q, r.least(candidates, score), float64(q.PromptTokens), 0)
}

// polledTwo is power_of_two of vllm-project/router and sgl-model-gateway: the polled figures of two random replicas when
// both are known, without what was sent since (vllm-project/router#177); else own load.
type polledTwo struct{ counts }

func newPolledTwo(s replay.Setup) replay.Router { return &polledTwo{newCounts(s)} }

// polledTwoPoll is how often vllm-project/router reads /load.
const polledTwoPoll = 30 * time.Second

func (r *polledTwo) Pick(_ time.Duration, q *replay.Query, candidates []int) int {
	w := candidates[0]
	if n := uint64(len(candidates)); n > 1 {
		i, j := r.below(n), r.below(n-1)
		if j >= i {
			j++
		}
		a, b := candidates[i], candidates[j]
		w = a
		if r.polled[a].known && r.polled[b].known {
			if r.polled[b].waiting+r.polled[b].running < r.polled[a].waiting+r.polled[a].running {
				w = b
			}
		} else if r.load[b] < r.load[a] {
			w = b
		}
	}
	return r.sent(q, w, float64(q.PromptTokens), 0)
}
