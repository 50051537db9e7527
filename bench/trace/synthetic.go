package trace

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// Random streams, the second word of each PCG: what is drawn in one never moves
// what is drawn in another, so that two runs with other lengths or models still
// have the same arrival times.
const (
	streamArrival = iota + 1
	streamPrompt
	streamOutput
	streamModel
	streamJitter
	streamPrefix
)

// Synthetic describes made-up traffic.
type Synthetic struct {
	// Rate is the mean number of arrivals per second of a Poisson process. 0 puts
	// every arrival at time 0, for closed-loop use.
	Rate float64
	// CV is the coefficient of variation of the gaps between arrivals; 0 means 1, a Poisson process. Others are drawn
	// lognormal: code completion traffic has some 13.
	CV float64
	// Requests and Duration end the trace, whichever comes first; 0 means no such
	// end.
	Requests int
	Duration time.Duration
	// Prompt and Output are the distributions of the lengths in tokens.
	Prompt, Output Lengths
	// Models assigns a model to each arrival; the zero Mix leaves it empty.
	Models Mix
	// Tenants, when above 0, gives each arrival the prompt prefix of one of so many
	// tenants, chosen uniformly: TenantTokens tokens before the drawn prompt, in
	// Blocks of TenantBlock tokens.
	Tenants      int
	TenantTokens int
	// TenantBlock is the size of those blocks; 0 means DefaultTenantBlock. Large ones make long prompts cheap to carry.
	TenantBlock int
	Seed        uint64
}

// DefaultTenantBlock is the block size of synthetic prefixes: vLLM's own.
const DefaultTenantBlock = 16

func (s Synthetic) block() int { return cmp.Or(s.TenantBlock, DefaultTenantBlock) }

// Trace checks the description and returns its arrivals.
func (s Synthetic) Trace() (*Trace, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	t := &Trace{Arrivals: s.generate}
	if s.Tenants > 0 {
		t.BlockTokens = s.block()
	}
	return t, nil
}

func (s Synthetic) validate() error {
	// Below one request per quarter of an hour times overflow within a long trace.
	if s.Rate != 0 && !(s.Rate >= 1e-3 && s.Rate <= 1e6) {
		return fmt.Errorf("rate %v; want 0, or 0.001 to 1e6 requests per second", s.Rate)
	}
	if s.CV != 0 && !(s.CV >= .01 && s.CV <= 100) {
		return fmt.Errorf("coefficient of variation %v; want 0, or 0.01 to 100", s.CV)
	}
	if s.Requests < 0 || s.Duration < 0 {
		return fmt.Errorf("requests %d and duration %v; want neither below 0", s.Requests, s.Duration)
	}
	if s.Rate == 0 && s.Duration > 0 && s.Requests == 0 {
		return fmt.Errorf("duration %v with rate 0 never ends; want a rate or a number of requests", s.Duration)
	}
	if s.TenantBlock < 0 || s.TenantBlock > maxTokens {
		return fmt.Errorf("%d tokens in a block; want 0 to %d", s.TenantBlock, maxTokens)
	}
	if s.Tenants < 0 || s.TenantTokens < 0 || s.TenantTokens > maxTokens {
		return fmt.Errorf("%d tenants with %d prefix tokens; want neither below 0", s.Tenants, s.TenantTokens)
	}
	if err := s.Prompt.validate(); err != nil {
		return fmt.Errorf("prompt length: %w", err)
	}
	if err := s.Output.validate(); err != nil {
		return fmt.Errorf("output length: %w", err)
	}
	return nil
}

func (s Synthetic) generate(yield func(Arrival, error) bool) {
	stream := func(n uint64) *rand.Rand { return rand.New(rand.NewPCG(s.Seed, n)) }
	arrival, prompt, output := stream(streamArrival), stream(streamPrompt), stream(streamOutput)
	model, prefix := stream(streamModel), stream(streamPrefix)
	var at float64 // seconds
	for n := 0; s.Requests == 0 || n < s.Requests; n++ {
		if s.Rate > 0 {
			at += s.gap(arrival) / s.Rate
		}
		a := Arrival{
			At:           time.Duration(at * float64(time.Second)),
			Model:        s.Models.Draw(model),
			PromptTokens: s.Prompt.Draw(prompt),
			OutputTokens: s.Output.Draw(output),
		}
		if s.Duration > 0 && a.At >= s.Duration {
			return
		}
		if s.Tenants > 0 {
			s.addPrefix(&a, uint64(prefix.IntN(s.Tenants)), uint64(n))
		}
		if !yield(a, nil) {
			return
		}
	}
}

// gap draws the time to the next arrival, of mean 1. A lognormal one has the mean exp(mu+sigma²/2) and the squared
// coefficient of variation exp(sigma²)-1.
func (s Synthetic) gap(r *rand.Rand) float64 {
	if s.CV == 0 || s.CV == 1 {
		return r.ExpFloat64()
	}
	variance := math.Log(1 + s.CV*s.CV)
	return math.Exp(math.Sqrt(variance)*r.NormFloat64() - variance/2)
}

// addPrefix puts the tenant's whole blocks before the arrival's own ones. The
// tenant's ids have the top bit set, so the two kinds never meet.
func (s Synthetic) addPrefix(a *Arrival, tenant, n uint64) {
	size := s.block()
	shared := s.TenantTokens / size
	a.PromptTokens += shared * size
	count := (a.PromptTokens + size - 1) / size
	a.Blocks = make([]uint64, count)
	for i := range a.Blocks {
		if i < shared {
			a.Blocks[i] = 1<<63 | tenant<<24 | uint64(i)
		} else {
			a.Blocks[i] = n<<24 | uint64(i-shared)
		}
	}
}
