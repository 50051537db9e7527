package engine

import (
	"math"
	"time"
)

// CPU time of one step of a single-step V0 engine (v0.6.x): fits 3958 tok/s at 256 sequences of vLLM v0.6.0
// (LambdaLabs vllm-benchmark). The per-sequence part is known to 0.10 to 0.16 ms only.
const (
	v0OverheadMS       = 5.0
	v0OverheadPerSeqMS = 0.13
)

// Shape is the work of one step.
type Shape struct {
	Sequences int     // n: sequences with at least one token in the step
	Tokens    int     // m: decodes and prefill chunk tokens
	Decodes   int     // b: sequences that decode
	KVTokens  int     // K: tokens the decoding sequences have in the KV cache
	Pairs     float64 // sum over prefill chunks of x*(ctx + x/2)
}

// gpuMS is the part of a step that is the same in both generations.
func (p *Preset) gpuMS(s Shape) float64 {
	return p.linear(s.Tokens) + p.HeadMS + p.AttentionMS +
		p.DecodeUS/1e3*float64(s.Decodes) + p.KVTokenUS/1e3*float64(s.KVTokens) + p.PairNS/1e6*s.Pairs
}

// StepTime is the expected duration of one step, without jitter.
func (p *Preset) StepTime(profile Profile, s Shape) time.Duration {
	return milliseconds(p.stepMS(profile, s))
}

func (p *Preset) stepMS(profile Profile, s Shape) float64 {
	if profile == ProfileV0 {
		return p.gpuMS(s) + v0OverheadMS + v0OverheadPerSeqMS*float64(s.Sequences)
	}
	return p.gpuMS(s) + p.OverheadMS + p.OverheadPerSeqUS/1e3*float64(s.Sequences)
}

func milliseconds(ms float64) time.Duration {
	return time.Duration(ms * float64(time.Millisecond))
}

// jitter is a lognormal factor of mean 1.
func (e *Engine) jitter() float64 {
	sigma := e.cfg.Jitter
	if sigma <= 0 {
		return 1
	}
	return math.Exp(sigma*e.rng.NormFloat64() - sigma*sigma/2)
}

// Time a request spends in the API server, outside the engine and invisible to its gauges.
const (
	frontEndMin     = 2 * time.Millisecond  // HTTP, validation, chat template, IPC: 2 to 5 ms on an idle server,
	frontEndMax     = 5 * time.Millisecond  // up to 15 ms on a busy one
	frontEndPerChar = 250 * time.Nanosecond // tokeniser: about 1 ms per 4,000 characters
	streamPerToken  = 46 * time.Microsecond // detokenise and stream (BLIS trained-physics coefficient)
)

// FrontEnd is the time between a request's arrival at the API server and Submit. u in [0,1) places it between the
// fastest and the slowest idle server.
func FrontEnd(promptChars int, u float64) time.Duration {
	return frontEndMin + time.Duration(u*float64(frontEndMax-frontEndMin)) + time.Duration(promptChars)*frontEndPerChar
}

// StreamTime is the API server's CPU time to detokenise and write so many output tokens.
func StreamTime(tokens int) time.Duration {
	return time.Duration(tokens) * streamPerToken
}
