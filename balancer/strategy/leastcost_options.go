package strategy

import "time"

// Coefficients say how long a replica takes, in milliseconds.
type Coefficients struct {
	// Overhead is per request: API server, tokenizer, the step under way.
	Overhead float64
	// PerToken is per prompt token to compute, PerPair per pair of tokens that
	// attention visits for it.
	PerToken, PerPair float64
	// Step is a decode step of nothing, PerSequence what each running request adds
	// to it, PerResident each token in the KV cache.
	Step, PerSequence, PerResident float64
}

// prior is Llama-3.1-8B in bfloat16 on one H100 under vLLM 0.19: the GEMMs of a
// prompt take 177 ms per 8192 tokens, attention 0.79 ns per pair; a decode step
// takes 5.4 ms for the weights, 0.4 for lm_head, 0.3 for attention and 1.2 on the
// CPU, 5.5 µs of GPU and 36 µs of CPU per sequence, 0.044 µs per resident token
// (kernel tables of ai-dynamo/aiconfigurator @095f58a). Overhead is half of the
// 2 to 15 ms that API server and tokenizer take. Whatever the device really is, the
// first requests show it; see learner.
var prior = Coefficients{
	Overhead: 7, PerToken: 0.0216, PerPair: 0.79e-6,
	Step: 7.3, PerSequence: 0.0415, PerResident: 0.044e-3,
}

// LeastCostOptions are knobs for experiments; the zero value is what is shipped.
// A number below zero means none.
type LeastCostOptions struct {
	// Prior replaces the built-in coefficients.
	Prior *Coefficients
	// Frozen keeps the coefficients as they are.
	Frozen bool
	// WeightMax bounds w, what decoding counts and, less, the delay inflicted on others;
	// default 1.
	WeightMax float64
	// The load U at which w begins to grow, and over how much more it reaches
	// WeightMax.
	LoadFrom, LoadSpan float64
	// PrefillScale is the outstanding prefill that makes a load of 1.
	PrefillScale time.Duration
	// Budget is the tokens of one step: max_num_batched_tokens.
	Budget int64
	// NoPrefixes leaves prompt caches out.
	NoPrefixes bool
	// LateCredit takes a prompt for cached only after its first token, not where it
	// was sent.
	LateCredit bool
	// Progress takes the time since a prefill began off what it counts. It is off:
	// on the Mooncake trace at 70 % load it cost a point of good requests.
	Progress bool
}

func (o LeastCostOptions) filled() LeastCostOptions {
	set := func(v *float64, to float64) {
		if *v == 0 {
			*v = to
		}
		*v = max(*v, 0)
	}
	if o.Prior == nil {
		p := prior
		o.Prior = &p
	}
	set(&o.WeightMax, 1)
	set(&o.LoadFrom, loadFrom)
	set(&o.LoadSpan, loadSpan)
	if o.PrefillScale == 0 {
		o.PrefillScale = prefillScale
	}
	if o.Budget == 0 {
		o.Budget = stepBudget
	}
	return o
}
