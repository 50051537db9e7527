package report

import (
	"math"
	"time"
)

// Run is one measurement: one load, sent once to one environment.
type Run struct {
	// Files are what it was read from.
	Files []string
	// Tool is the load generator, with its version where the file tells.
	Tool    string
	Target  string
	Started time.Time
	// Seconds is how long requests were measured; 0 when unknown.
	Seconds  float64
	Workload Workload
	// Requests are those that were measured, in the order they were meant to be
	// sent; empty when the files have totals only.
	Requests []Request
	// Total and Models are the figures over all requests and by model.
	Total  Totals
	Models map[string]Totals
	// Fingerprint is empty when the file does not tell what was sent; runs of equal
	// fingerprints were sent the same requests.
	Fingerprint string
	// Timeline is requests in flight at each replica; nil when the file does not
	// tell replicas apart.
	Timeline *Timeline
	// Limits are those of goodput, in words.
	Limits string
	// Faults are why the run is not to be trusted.
	Faults []string
	// Notes are what a reader of its figures should know.
	Notes []string
}

// Timeline is the load of each replica over a run.
type Timeline struct {
	Step     float64              // seconds
	InFlight map[string][]float64 // mean number of requests in each step
}

// Totals are the figures of a set of requests.
type Totals struct {
	OK, Failed                 int
	PromptTokens, OutputTokens float64
	// PerSecond and TokensPerSecond are answers and output tokens.
	PerSecond, TokensPerSecond float64
	// Goodput is answers within the limits of Run.Limits per second; NaN without.
	Goodput float64
	// Summaries are what the tool itself says of each quantity.
	Summaries map[Quantity]Summary
}

// Quantity is a latency that is measured, in milliseconds.
type Quantity string

// The quantities, as `lbd bench` defines them.
const (
	TTFT Quantity = "TTFT"
	// ITL is over all gaps between two pieces of content.
	ITL Quantity = "ITL"
	// TPOT is one value for each request, the mean time per output token after the
	// first. genai-perf, aiperf and guidellm call it inter-token latency.
	TPOT Quantity = "TPOT"
	E2E  Quantity = "E2E"
)

// Summary describes a set of latencies. Quantiles may lack those that a tool does
// not report.
type Summary struct {
	Count     int
	Mean      float64
	Quantiles map[float64]float64
}

// at is the summary's quantile, the mean for a negative q.
func (s Summary) at(q float64) float64 {
	if s.Count == 0 {
		return math.NaN()
	}
	if q < 0 {
		return s.Mean
	}
	if v, ok := s.Quantiles[q]; ok {
		return v
	}
	return math.NaN()
}

// Request is what became of one request. Latencies are milliseconds, NaN where
// there are none.
type Request struct {
	Model, Replica  string
	Sent, End       float64 // seconds from the start of the run
	TTFT, TPOT, E2E float64
	Gaps            []float64 // between pieces of content, where the file has them
	Prompt, Output  int
	Failed          bool
}

func (r *Request) value(q Quantity) float64 {
	if r.Failed {
		return math.NaN()
	}
	switch q {
	case TTFT:
		return r.TTFT
	case TPOT:
		return r.TPOT
	case E2E:
		return r.E2E
	}
	return math.NaN()
}

// values are the quantity of each request, in order.
func values(requests []Request, q Quantity) []float64 {
	vs := make([]float64, len(requests))
	for i := range requests {
		vs[i] = requests[i].value(q)
	}
	return vs
}

// gaps are all gaps of the requests that were answered.
func gaps(requests []Request) []float64 {
	var all []float64
	for i := range requests {
		if !requests[i].Failed {
			all = append(all, requests[i].Gaps...)
		}
	}
	return all
}

// totals adds up requests that were measured for the given time.
func totals(requests []Request, seconds float64) Totals {
	t := Totals{Goodput: math.NaN(), Summaries: map[Quantity]Summary{}}
	for i := range requests {
		r := &requests[i]
		if r.Failed {
			t.Failed++
			continue
		}
		t.OK++
		t.PromptTokens += float64(r.Prompt)
		t.OutputTokens += float64(r.Output)
	}
	if seconds > 0 {
		t.PerSecond, t.TokensPerSecond = float64(t.OK)/seconds, t.OutputTokens/seconds
	}
	for _, q := range []Quantity{TTFT, TPOT, E2E} {
		t.Summaries[q] = summarize(values(requests, q))
	}
	if g := gaps(requests); len(g) > 0 {
		t.Summaries[ITL] = summarize(g)
	}
	return t
}

// byModel are the totals of each model.
func byModel(requests []Request, seconds float64) map[string]Totals {
	models := map[string]Totals{}
	for name, of := range splitModels(requests) {
		models[name] = totals(of, seconds)
	}
	return models
}

func splitModels(requests []Request) map[string][]Request {
	models := map[string][]Request{}
	for _, r := range requests {
		models[r.Model] = append(models[r.Model], r)
	}
	return models
}
