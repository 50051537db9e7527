package engine

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// queue is an engine whose step takes perStep + perToken * tokens, fed with one-token prompts: a textbook queue.
func queue(t *testing.T, servers int, perStep, perToken float64) *Engine {
	p := Preset{Name: "queue", MaxModelLen: 1 << 20, NumBlocks: 1 << 20}
	p.Lin, p.SlopeUS = []Point{{1, perStep + perToken}}, perToken*1e3
	return start(t, steady(Config{
		Model: &p, Quiet: true, MaxNumSeqs: servers, MaxNumBatchedTokens: servers, PrefixCaching: flag(false),
	}))
}

// sojourn offers n Poisson arrivals at the given rate per second and returns the mean time to the first and to the last
// token, in seconds.
func sojourn(t *testing.T, e *Engine, n int, rate float64, length func(*rand.Rand) int) (firstToken, lastToken float64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(11, 13))
	arrived := make([]float64, 0, n)
	now, next, evs := 0.0, rng.ExpFloat64()/rate, []Event(nil)
	for {
		for len(arrived) < n && next <= now {
			submit(t, e, Request{ID: uint64(len(arrived)), PromptTokens: 1, OutputTokens: length(rng)})
			arrived = append(arrived, next)
			next += rng.ExpFloat64() / rate
		}
		var d time.Duration
		d, evs = e.Step(evs[:0])
		now += d.Seconds()
		for _, ev := range evs {
			if ev.First {
				firstToken += now - arrived[ev.ID]
			}
			if ev.Finished {
				lastToken += now - arrived[ev.ID]
			}
		}
		if d == 0 {
			if len(arrived) == n {
				return firstToken / float64(n), lastToken / float64(n)
			}
			now = next
		}
	}
}

func geometric(mean float64) func(*rand.Rand) int {
	return func(rng *rand.Rand) int { return 1 + int(math.Log(1-rng.Float64())/math.Log(1-1/mean)) }
}

// With steps of constant length max_num_seqs sequences are so many servers: M/M/R, whose mean wait is Erlang's C formula.
func TestConstantStepIsMMR(t *testing.T) {
	const servers, load, mean = 4, .75, 100
	const service = mean * 1e-3 // steps of 1 ms
	wait, _ := sojourn(t, queue(t, servers, 1, 0), 30000, load*servers/service, geometric(mean))
	sum, term := 0.0, 1.0 // sum of a^k/k! for k < servers, then a^R/R!
	for k := range servers {
		sum += term
		term *= load * servers / float64(k+1)
	}
	c := term / (1 - load) / (sum + term/(1-load))
	want := c*service/servers/(1-load) + 1.5e-3 // half a step until the engine looks, one for the first token
	if math.Abs(wait/want-1) > .06 {
		t.Errorf("mean wait %.2f ms, Erlang C says %.2f", wait*1e3, want*1e3)
	}
}

// With steps in proportion to the batch the engine is one server shared by all: M/G/1-PS, whose mean sojourn is
// E[S]/(1-load) whatever the distribution of S.
func TestProportionalStepIsProcessorSharing(t *testing.T) {
	const load, mean = .6, 100
	const service = mean * 1e-3
	want := service / (1 - load)
	for name, length := range map[string]func(*rand.Rand) int{
		"geometric": geometric(mean),
		"constant":  func(*rand.Rand) int { return mean },
		"two sizes": func(rng *rand.Rand) int { return 10 + 450*(rng.IntN(5)/4) }, // 10 or 460, mean 100
	} {
		if _, got := sojourn(t, queue(t, 1024, 0, 1), 30000, load/service, length); math.Abs(got/want-1) > .06 {
			t.Errorf("%s lengths: mean sojourn %.1f ms, processor sharing says %.1f", name, got*1e3, want*1e3)
		}
	}
}
