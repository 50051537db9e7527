package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// vllmResult is the result JSON of `vllm bench serve` and benchmark_serving.py.
type vllmResult struct {
	Date        string          `json:"date"` // of the end, local time
	Backend     string          `json:"backend"`
	Model       string          `json:"model_id"`
	NumPrompts  int             `json:"num_prompts"`
	Rate        json.RawMessage `json:"request_rate"` // a number or "inf"
	Burstiness  *float64        `json:"burstiness"`
	Concurrency *float64        `json:"max_concurrency"`

	Duration     float64 `json:"duration"`
	Completed    int     `json:"completed"`
	Failed       *int    `json:"failed"`
	InputTokens  float64 `json:"total_input_tokens"`
	OutputTokens float64 `json:"total_output_tokens"`

	RequestThroughput float64  `json:"request_throughput"`
	OutputThroughput  float64  `json:"output_throughput"`
	TotalThroughput   float64  `json:"total_token_throughput"`
	Goodput           *float64 `json:"request_goodput"`
	GoodputOld        *float64 `json:"request_goodput:"` // its name until July 2025

	InputLens  []int       `json:"input_lens"`
	OutputLens []int       `json:"output_lens"`
	TTFTs      []float64   `json:"ttfts"`
	ITLs       [][]float64 `json:"itls"`
	Starts     []float64   `json:"start_times"`
	Errors     []string    `json:"errors"`

	numbers map[string]float64 // mean_ttft_ms, p99_itl_ms ...
}

func (v *vllmResult) UnmarshalJSON(b []byte) error {
	type plain vllmResult
	if err := json.Unmarshal(b, (*plain)(v)); err != nil {
		return err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(b, &all); err != nil {
		return err
	}
	v.numbers = map[string]float64{}
	for name, raw := range all {
		var n *float64
		if strings.HasSuffix(name, "_ms") && json.Unmarshal(raw, &n) == nil && n != nil {
			v.numbers[name] = *n
		}
	}
	return nil
}

// parseVllm reads the results in a file: one, or with --append-result one each
// line.
func parseVllm(b []byte) ([]*vllmResult, error) {
	var all []*vllmResult
	for dec := json.NewDecoder(bytes.NewReader(b)); ; {
		var v vllmResult
		if err := dec.Decode(&v); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("not a result of vllm bench serve: %w", err)
		}
		if v.Duration <= 0 || v.NumPrompts <= 0 {
			return nil, fmt.Errorf("num_prompts %d in a duration of %v s; want a result of vllm bench serve", v.NumPrompts, v.Duration)
		}
		all = append(all, &v)
	}
	if len(all) == 0 {
		return nil, errors.New("empty")
	}
	return all, nil
}

func readVllm(b []byte) ([]*Run, error) {
	results, err := parseVllm(b)
	if err != nil {
		return nil, err
	}
	var runs []*Run
	for _, v := range results {
		runs = append(runs, v.run())
	}
	return runs, nil
}

func (v *vllmResult) run() *Run {
	r := &Run{Tool: "vllm bench serve", Seconds: v.Duration, Requests: v.requests(), Total: v.totals()}
	if end, ok := v.end(); ok {
		r.Started = end.Add(-time.Duration(v.Duration * float64(time.Second)))
	}
	r.Models = map[string]Totals{v.Model: r.Total}
	if len(r.Requests) == 0 {
		r.Notes = append(r.Notes, "no records (want --save-detailed): intervals come from the repeats alone")
	}
	rate := strings.Trim(string(v.Rate), `"`)
	asked := map[string]string{
		"tool": r.Tool, "backend": v.Backend, "models": v.Model, "requests": fmt.Sprint(v.NumPrompts), "rate": rate,
	}
	if n, err := json.Number(rate).Float64(); err == nil && !math.IsInf(n, 0) {
		r.Workload.Load = Load{"rate", n}
		if v.Burstiness != nil {
			asked["burstiness"] = trimZero(*v.Burstiness)
		}
	}
	if v.Concurrency != nil {
		r.Workload.Load = Load{"concurrency", *v.Concurrency}
		asked["concurrency"] = trimZero(*v.Concurrency)
	}
	r.Workload.Fields = fields(asked)
	n := float64(max(1, v.Completed))
	r.Workload.Measured = []Measured{
		{Name: "prompt tokens per request", Value: v.InputTokens / n}, {Name: "output tokens per request", Value: v.OutputTokens / n},
	}
	return r
}

// end is when the benchmark ended, to the second.
func (v *vllmResult) end() (time.Time, bool) {
	t, err := time.ParseInLocation("20060102-150405", v.Date, time.Local)
	return t, err == nil
}

// requests are known with --save-detailed.
func (v *vllmResult) requests() []Request {
	n := len(v.TTFTs)
	if n == 0 || len(v.ITLs) != n || len(v.OutputLens) != n {
		return nil
	}
	first := math.Inf(1)
	for _, s := range v.Starts {
		first = min(first, s)
	}
	all := make([]Request, n)
	for i := range all {
		q := Request{Model: v.Model, TTFT: 1000 * v.TTFTs[i], TPOT: math.NaN(), Output: v.OutputLens[i]}
		q.Failed = i < len(v.Errors) && v.Errors[i] != "" || q.Output == 0
		if i < len(v.InputLens) {
			q.Prompt = v.InputLens[i]
		}
		q.E2E = q.TTFT
		for _, gap := range v.ITLs[i] {
			q.Gaps = append(q.Gaps, 1000*gap)
			q.E2E += 1000 * gap
		}
		if q.Output > 1 {
			q.TPOT = (q.E2E - q.TTFT) / float64(q.Output-1)
		}
		if i < len(v.Starts) {
			q.Sent = v.Starts[i] - first
		}
		q.End = q.Sent + q.E2E/1000
		all[i] = q
	}
	return all
}

func (v *vllmResult) totals() Totals {
	t := Totals{
		OK: v.Completed, Failed: max(0, v.NumPrompts-v.Completed), PromptTokens: v.InputTokens, OutputTokens: v.OutputTokens,
		PerSecond: v.RequestThroughput, TokensPerSecond: v.OutputThroughput, Goodput: math.NaN(), Summaries: map[Quantity]Summary{},
	}
	if v.Failed != nil {
		t.Failed = *v.Failed
	}
	for _, g := range []*float64{v.GoodputOld, v.Goodput} {
		if g != nil {
			t.Goodput = *g
		}
	}
	for name, q := range map[string]Quantity{"ttft": TTFT, "itl": ITL, "tpot": TPOT, "e2el": E2E} {
		if s, ok := v.summary(name); ok {
			t.Summaries[q] = s
		}
	}
	if _, ok := t.Summaries[E2E]; !ok { // not among the default --percentile-metrics
		t.Summaries[E2E] = summarize(values(v.requests(), E2E))
	}
	if requests := v.requests(); requests != nil {
		// Percentiles that were not asked for are in the records.
		for q, s := range totals(requests, 0).Summaries {
			if s.Count > 0 { // else it has no map to copy to
				maps.Copy(s.Quantiles, t.Summaries[q].Quantiles)
				t.Summaries[q] = s
			}
		}
	}
	return t
}

// summary reads mean_, median_ and pNN_ of a metric.
func (v *vllmResult) summary(name string) (Summary, bool) {
	average, ok := v.numbers["mean_"+name+"_ms"]
	if !ok {
		return Summary{}, false
	}
	s := Summary{Count: v.Completed, Mean: average, Quantiles: map[float64]float64{}}
	if m, ok := v.numbers["median_"+name+"_ms"]; ok {
		s.Quantiles[.5] = m
	}
	for _, key := range slices.Sorted(maps.Keys(v.numbers)) {
		number, found := strings.CutSuffix(key, "_"+name+"_ms")
		var p float64
		if n, err := fmt.Sscanf(number, "p%f", &p); found && n == 1 && err == nil && p > 0 && p < 100 {
			s.Quantiles[math.Round(1000*p)/100000] = v.numbers[key]
		}
	}
	return s, true
}
