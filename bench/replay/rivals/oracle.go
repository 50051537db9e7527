package rivals

import (
	"time"

	"lbd/bench/replay"
)

// oracle is the rule of marginal cost with everything known: the true length of the answer, the true content of every
// cache, the true state of every replica and the constants of its step time. It bounds what better information could
// bring that rule, not what a better rule could.
type oracle struct {
	counts
	theta   []theta
	work    []float64 // ms of prefill outstanding
	predict bool      // TTFT alone
}

func newOracle(s replay.Setup) replay.Router     { return makeOracle(s, false) }
func newOracleTTFT(s replay.Setup) replay.Router { return makeOracle(s, true) }

func makeOracle(s replay.Setup, predict bool) *oracle {
	r := &oracle{counts: newCounts(s), work: make([]float64, len(s.Replicas)), predict: predict}
	for i := range s.Replicas {
		r.theta = append(r.theta, thetaOf(&s.Replicas[i]))
	}
	return r
}

// Utilisation at which the delay inflicted on others begins to count, the width of the ramp, and the outstanding work that
// counts as full (milliseconds).
const (
	oracleCalm = .4
	oracleRamp = .5
	oracleWork = 1000
)

func (r *oracle) Pick(now time.Duration, q *replay.Query, candidates []int) int {
	w := r.weight(candidates)
	var chosen float64
	best := r.least(candidates, func(i int) float64 { return r.cost(i, q, w) })
	uncached := float64(q.PromptTokens - r.Truth.Cached(best, q))
	chosen = r.theta[best].prefill(uncached, float64(q.PromptTokens))
	r.work[best] += chosen
	q.Charge[chargeOwn] = chosen
	return r.sent(q, best, uncached, float64(q.PromptTokens))
}

// weight of the delay inflicted on others.
func (r *oracle) weight(candidates []int) float64 {
	if r.predict {
		return 0
	}
	kv, work := 0.0, 0.0
	for _, i := range candidates {
		_, _, tokens := r.Truth.Load(i)
		kv += float64(tokens) / r.theta[i].kv / float64(len(candidates))
		work += r.work[i] / oracleWork / float64(len(candidates))
	}
	return min(max((max(kv, work)-oracleCalm)/oracleRamp, 0), 1)
}

func (r *oracle) cost(i int, q *replay.Query, w float64) float64 {
	t := &r.theta[i]
	running, waiting, tokens := r.Truth.Load(i)
	n, kv := float64(max(running+waiting, r.load[i])), float64(tokens)
	length, out := float64(q.PromptTokens), float64(q.OutputTokens)
	uncached := length - float64(r.Truth.Cached(i, q))
	prefill := t.prefill(uncached, length)
	step := t.step + t.perSequence*n + t.perKVToken*kv
	ttft := r.work[i] + prefill + float64(int((r.prefill[i]+uncached)/t.budget)+1)*step
	if over := kv + length + out - .9*t.kv; over > 0 {
		ttft += over * kvWait
	}
	own := out * (t.step + t.perSequence*(n+1) + t.perKVToken*(kv+length+out/2))
	inflicted := n*prefill + n*out*(t.perSequence+t.perKVToken*(length+out/2))
	return ttft + w*(own+inflicted)
}

// kvWait is the time to free one token when the KV cache is full, in milliseconds.
const kvWait = .05

func (r *oracle) FirstToken(now time.Duration, q *replay.Query) {
	r.work[q.Replica] -= q.Charge[chargeOwn]
	q.Charge[chargeOwn] = 0
	r.counts.FirstToken(now, q)
}

func (r *oracle) Done(now time.Duration, q *replay.Query, ok bool) {
	r.FirstToken(now, q)
	r.counts.Done(now, q, ok)
}
