package rivals

import (
	"lbd/bench/replay"
	"lbd/bench/sim/engine"
)

// theta are the constants of a replica's step time, in milliseconds: what a rule that predicts times would have learned.
type theta struct {
	perToken, perPair             float64 // of a prompt
	step, perSequence, perKVToken float64 // of a decode step
	budget                        float64 // tokens in a step
	kv                            float64 // tokens
}

func thetaOf(r *replay.ReplicaInfo) theta {
	at := func(s engine.Shape) float64 {
		return float64(r.Preset.StepTime(r.Engine.Profile, s)) / 1e6 / r.Speed
	}
	budget := r.Engine.MaxNumBatchedTokens
	one := at(engine.Shape{Sequences: 1, Tokens: 1, Decodes: 1})
	return theta{
		perToken:    (at(engine.Shape{Sequences: 1, Tokens: budget}) - one) / float64(budget),
		perPair:     r.Preset.PairNS / 1e6 / r.Speed,
		step:        one,
		perSequence: (at(engine.Shape{Sequences: 65, Tokens: 65, Decodes: 65}) - one) / 64,
		perKVToken:  r.Preset.KVTokenUS / 1e3 / r.Speed,
		budget:      float64(budget),
		kv:          float64(r.KVTokens()),
	}
}

// prefill is how long x uncached tokens take that end at position y, in milliseconds.
func (t *theta) prefill(x, y float64) float64 { return t.perToken*x + t.perPair*x*(y-x/2) }
