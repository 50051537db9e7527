package demo

import (
	"fmt"
	"io"
	"time"

	"lbd/bench/sim"
	"lbd/bench/trace"
)

// Options are what a user can choose.
type Options struct {
	BaselineListen, ManagedListen     string
	BaselineStrategy, ManagedStrategy string
	// Once measures for Duration and compares; else traffic runs until the
	// context ends.
	Once     bool
	Duration time.Duration
	// Rate is the number of requests per second sent to each environment.
	Rate float64
	// Prompt and Output are the lengths in tokens.
	Prompt, Output string
	Profile        sim.Profile
	Seed           uint64
	// Log takes what the two lbds say.
	Log io.Writer
}

// DefaultOptions is traffic like retrieval-augmented chat: long prompts of very
// different lengths and short answers, at about four fifths of what the
// replicas can do. The lengths keep a laptop able to simulate twelve replicas:
// answers cost it work per token, prompts do not.
func DefaultOptions() Options {
	return Options{
		BaselineListen: ":8080", ManagedListen: ":8081", BaselineStrategy: "cycle", ManagedStrategy: "least-waiting",
		Duration: 30 * time.Second, Rate: 30, Prompt: "lognormal:4000,0.9", Output: "lognormal:40,0.6",
		Profile: sim.ProfileV019, Seed: 1,
	}
}

// The seed layout: three models, two replicas each.
var models = []string{
	"meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen2.5-7B-Instruct", "mistralai/Mixtral-8x7B-Instruct-v0.1",
}

const replicasPerModel = 2

// maxTokens keeps prompt and answer within the smallest context of the models.
const maxTokens = 32000

// arrivals are the requests of one run; equal options give equal requests.
func (o *Options) arrivals(duration time.Duration) (*trace.Trace, error) {
	prompt, err := trace.ParseLengths(o.Prompt)
	if err != nil {
		return nil, fmt.Errorf("--input-tokens: %w", err)
	}
	output, err := trace.ParseLengths(o.Output)
	if err != nil {
		return nil, fmt.Errorf("--output-tokens: %w", err)
	}
	mix, err := trace.ParseMix(models)
	if err != nil {
		return nil, err
	}
	s := trace.Synthetic{Rate: o.Rate, Duration: duration, Prompt: prompt, Output: output, Models: mix, Seed: o.Seed}
	t, err := s.Trace()
	if err != nil {
		return nil, err
	}
	return t.MaxTokens(maxTokens, nil), nil
}
