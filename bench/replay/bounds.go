package replay

import (
	"math"
	"time"

	"lbd/bench/sim/engine"
)

// Bounds are limits to hold results against. They belong to a workload and a fleet, not to a policy.
type Bounds struct {
	// Isolated is what requests would get each alone on an idle replica of the fastest kind, without any reuse of
	// prefixes; IsolatedCached with all prefixes of earlier arrivals in its cache (LB0).
	Isolated       BoundTimes `json:"isolated"`
	IsolatedCached BoundTimes `json:"isolated_cached"`
	// ReuseRate is the hit rate of one infinite cache shared by all.
	ReuseRate float64 `json:"reuse_rate"`
	// Work is the share of the fleet's time that the workload needs at least while it arrives: prompts computed once in
	// the whole fleet, everything else decoded in the largest batches that memory holds (LB1). Above 1 no policy can keep up.
	Work float64 `json:"work"`
	// Seconds is how long the workload takes to arrive.
	Seconds float64 `json:"seconds"`
	// Headroom is 1/Work: how much faster the workload could arrive at most.
	Headroom float64 `json:"headroom"`
	// Central is a run of one central queue: late binding, exact state, and a KV cache that all replicas share at no cost
	// (LB2). Nil when it was not asked for.
	Central *Result `json:"central,omitempty"`
}

// BoundTimes are means and tails in milliseconds.
type BoundTimes struct {
	TTFT Spread `json:"ttft_ms"`
	E2E  Spread `json:"e2e_ms"`
}

// BoundsOf computes the bounds of a workload in open loop on a fleet. central adds a run of the central queue.
func BoundsOf(c Config, w *Workload, central bool) (*Bounds, error) {
	c.Policy = Central()
	if err := c.fill(); err != nil {
		return nil, err
	}
	servers, err := c.servers()
	if err != nil {
		return nil, err
	}
	b := &bounder{c: c, w: w, servers: servers, seen: map[uint64]bool{}}
	if err := b.read(); err != nil {
		return nil, err
	}
	out := b.bounds()
	if central {
		c.sharedCache = true
		if out.Central, err = Run(c, w); err != nil {
			return nil, err
		}
		out.Central.Each = nil
	}
	return out, nil
}

type bounder struct {
	c       Config
	w       *Workload
	servers []*server
	seen    map[uint64]bool

	plainTTFT, plainE2E, cachedTTFT, cachedE2E []float64
	tokens, reused                             float64
	prefillMS, decodeMS                        float64 // work, on the fastest replica
	last                                       time.Duration
}

// fastest is the replica of the fleet with the quickest steps.
func (b *bounder) fastest() *server {
	best := b.servers[0]
	for _, s := range b.servers {
		if s.stepMS(engine.Shape{Sequences: 1, Tokens: 1024}) < best.stepMS(engine.Shape{Sequences: 1, Tokens: 1024}) {
			best = s
		}
	}
	return best
}

func (s *server) stepMS(w engine.Shape) float64 {
	return millis(s.Preset.StepTime(s.Engine.Profile, w)) / s.Speed
}

func (b *bounder) read() error {
	src, s := b.w.open(), b.fastest()
	for src.next() != never {
		q := src.take()
		b.last = q.At
		reused := b.reuse(&q)
		front := millis(engine.FrontEnd(charsPerToken*q.PromptTokens, unit(b.c.Seed, saltFrontEnd, q.ID)))
		b.plainTTFT = append(b.plainTTFT, front+s.prefillMS(0, q.PromptTokens))
		b.cachedTTFT = append(b.cachedTTFT, front+s.prefillMS(reused, q.PromptTokens))
		decode := s.decodeMS(q.PromptTokens, q.OutputTokens)
		b.plainE2E = append(b.plainE2E, b.plainTTFT[q.ID]+decode)
		b.cachedE2E = append(b.cachedE2E, b.cachedTTFT[q.ID]+decode)
		b.tokens += float64(q.PromptTokens)
		b.reused += float64(reused)
		b.prefillMS += s.marginalMS(reused, q.PromptTokens)
		b.decodeMS += s.shareMS(q.PromptTokens, q.OutputTokens)
		src.ended(&q, q.At)
	}
	return src.close()
}

// reuse is how many tokens of the prompt earlier arrivals had, in whole blocks of the engine.
func (b *bounder) reuse(q *Request) int {
	n := 0
	for n < len(q.Blocks) && b.seen[q.Blocks[n]] {
		n++
	}
	for _, id := range q.Blocks[n:] {
		b.seen[id] = true
	}
	size := b.c.BlockSize
	return max(0, min(n*b.w.BlockTokens/size*size, (q.PromptTokens-1)/size*size))
}

// prefillMS is the time of all steps of a prompt alone, of which cached tokens are there.
func (s *server) prefillMS(cached, prompt int) (ms float64) {
	for done := cached; done < prompt; {
		x := min(prompt-done, s.Engine.MaxNumBatchedTokens)
		ms += s.stepMS(engine.Shape{Sequences: 1, Tokens: x, Pairs: float64(x) * (float64(done) + float64(x)/2)})
		done += x
	}
	return ms
}

// decodeMS is the time of the further tokens alone. A step's time is linear in the tokens it attends to, so the mean
// step does for all.
func (s *server) decodeMS(prompt, output int) float64 {
	return float64(output-1) * s.stepMS(engine.Shape{Sequences: 1, Tokens: 1, Decodes: 1, KVTokens: prompt + output/2})
}

// marginalMS is what a prompt adds to full steps: the time per token of a full step, and its attention.
func (s *server) marginalMS(cached, prompt int) float64 {
	full := s.Engine.MaxNumBatchedTokens
	x := float64(prompt - cached)
	perToken := s.stepMS(engine.Shape{Tokens: full}) / float64(full)
	attention := s.Preset.PairNS / 1e6 / s.Speed
	return perToken*x + attention*x*(float64(cached)+x/2)
}

// shareMS is a request's part of decode steps in which as many requests of its size run as the KV cache holds.
func (s *server) shareMS(prompt, output int) float64 {
	size := prompt + output/2
	batch := max(1, min(s.KVTokens()/(prompt+output), s.Engine.MaxNumSeqs))
	step := s.stepMS(engine.Shape{Sequences: batch, Tokens: batch, Decodes: batch, KVTokens: batch * size})
	return float64(output-1) * step / float64(batch)
}

func (b *bounder) bounds() *Bounds {
	out := &Bounds{
		Isolated:       BoundTimes{spreadOf(b.plainTTFT), spreadOf(b.plainE2E)},
		IsolatedCached: BoundTimes{spreadOf(b.cachedTTFT), spreadOf(b.cachedE2E)},
	}
	if b.tokens > 0 {
		out.ReuseRate = b.reused / b.tokens
	}
	capacity := 0.0 // replicas of the fastest kind
	fast := b.fastest()
	for _, s := range b.servers {
		capacity += fast.stepMS(engine.Shape{Tokens: 1024}) / s.stepMS(engine.Shape{Tokens: 1024})
	}
	if out.Seconds = b.last.Seconds(); b.last > 0 {
		out.Work = (b.prefillMS + b.decodeMS) / (capacity * millis(b.last))
		out.Headroom = 1 / out.Work
	}
	if math.IsInf(out.Headroom, 0) {
		out.Headroom = 0
	}
	return out
}

// Central is one queue in front of all replicas, first come first served: a request leaves it when a replica could
// compute all of its prompt in its next step and has the memory, for the replica with the least to do. With the shared
// cache of BoundsOf it stands for late binding with free migration.
func Central() Policy {
	return Policy{Name: "central-queue", What: "one queue, late binding, exact state", New: func(s Setup) Router {
		return &central{setup: s, prefill: make([]int, len(s.Replicas)), load: make([]int, len(s.Replicas))}
	}}
}

type central struct {
	setup   Setup
	prefill []int // tokens sent and not computed
	load    []int
	ignored
}

func (r *central) Pick(_ time.Duration, q *Query, candidates []int) int {
	best, idle := Hold, true
	for _, i := range candidates {
		idle = idle && r.load[i] == 0
		if r.fits(i, q) && (best == Hold || r.less(i, best)) {
			best = i
		}
	}
	if best == Hold && idle {
		best = candidates[0] // it fits nowhere and never will: chunks
	}
	if best != Hold {
		r.load[best]++
		q.Charge[0] = float64(q.PromptTokens)
		r.prefill[best] += q.PromptTokens
	}
	return best
}

// fits says that the replica has nothing else to compute, or the prompt fits one step with it, and has the memory.
func (r *central) fits(i int, q *Query) bool {
	info := &r.setup.Replicas[i]
	_, waiting, used := r.setup.Truth.Load(i)
	memory := used+r.prefill[i]+q.PromptTokens+q.OutputTokens <= info.KVTokens()
	return memory && waiting == 0 && (r.prefill[i] == 0 || r.prefill[i]+q.PromptTokens <= info.Engine.MaxNumBatchedTokens)
}

// less compares what there is to do per speed.
func (r *central) less(i, j int) bool {
	si, sj := r.setup.Replicas[i].Speed, r.setup.Replicas[j].Speed
	if a, b := float64(r.prefill[i])/si, float64(r.prefill[j])/sj; a != b {
		return a < b
	}
	return float64(r.load[i]+1)/si < float64(r.load[j]+1)/sj
}

func (r *central) FirstToken(_ time.Duration, q *Query) {
	r.prefill[q.Replica] -= int(q.Charge[0])
	q.Charge[0] = 0
}

func (r *central) Done(now time.Duration, q *Query, _ bool) {
	r.FirstToken(now, q)
	r.load[q.Replica]--
}
