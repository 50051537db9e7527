package report

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// guideFile is a results file of guidellm: up to 0.3.1 it has benchmarks only,
// from 0.4 on metadata as well.
type guideFile struct {
	Metadata *struct {
		Version string `json:"guidellm_version"`
	} `json:"metadata"`
	Benchmarks []guideBenchmark `json:"benchmarks"`
}

type guideBenchmark struct {
	// Up to 0.3.1.
	Args   map[string]any `json:"args"`
	Worker map[string]any `json:"worker"`
	Loader map[string]any `json:"request_loader"`
	// From 0.4 on.
	Config map[string]any `json:"config"`

	Start    float64                `json:"start_time"`
	End      float64                `json:"end_time"`
	Duration float64                `json:"duration"`
	Metrics  map[string]guideMetric `json:"-"`
	Requests struct {
		Successful []guideRequest `json:"successful"`
		Errored    []guideRequest `json:"errored"`
		Incomplete []guideRequest `json:"incomplete"`
	} `json:"requests"`
}

// guideMetric is one of the metrics by what became of the requests.
type guideMetric struct {
	Successful *guideSummary `json:"successful"`
	Errored    *guideSummary `json:"errored"`
	Total      *guideSummary `json:"total"`
}

type guideSummary struct {
	Mean        float64            `json:"mean"`
	Count       float64            `json:"count"`
	Sum         float64            `json:"total_sum"`
	Percentiles map[string]float64 `json:"percentiles"`
}

// guideRequest is one request; the second names of its times are those from 0.4
// on.
type guideRequest struct {
	Start     *float64 `json:"start_time"`
	StartNew  *float64 `json:"request_start_time"`
	End       *float64 `json:"end_time"`
	EndNew    *float64 `json:"request_end_time"`
	Latency   *float64 `json:"request_latency"` // seconds
	TTFT      *float64 `json:"time_to_first_token_ms"`
	ITL       *float64 `json:"inter_token_latency_ms"`
	Prompt    *float64 `json:"prompt_tokens"`
	Output    *float64 `json:"output_tokens"`
	OutputOld *float64 `json:"output_tokens_count"`
}

// UnmarshalJSON takes of the metrics those that are numbers by outcome; from 0.4
// on there are others, of text and images.
func (b *guideBenchmark) UnmarshalJSON(data []byte) error {
	type plain guideBenchmark
	if err := json.Unmarshal(data, (*plain)(b)); err != nil {
		return err
	}
	var m struct {
		Metrics map[string]json.RawMessage `json:"metrics"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return err
	}
	b.Metrics = map[string]guideMetric{}
	for name, raw := range m.Metrics {
		var g guideMetric
		if json.Unmarshal(raw, &g) == nil && g.Successful != nil {
			b.Metrics[name] = g
		}
	}
	return nil
}

func parseGuide(data []byte) (*guideFile, error) {
	var f guideFile
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, fmt.Errorf("not a results file of guidellm: %w", err)
	}
	if len(f.Benchmarks) == 0 {
		return nil, errors.New("no benchmarks")
	}
	return &f, nil
}

func (f *guideFile) tool() string {
	if f.Metadata == nil || f.Metadata.Version == "" {
		return "guidellm"
	}
	return "guidellm " + f.Metadata.Version
}

// readGuide reads a results file of guidellm; each benchmark is a run.
func readGuide(data []byte) ([]*Run, error) {
	f, err := parseGuide(data)
	if err != nil {
		return nil, err
	}
	var runs []*Run
	for i := range f.Benchmarks {
		b := &f.Benchmarks[i]
		if b.Metrics["requests_per_second"].Successful == nil {
			return nil, fmt.Errorf("benchmark %d has no metrics", i)
		}
		runs = append(runs, b.run(f.tool()))
	}
	return runs, nil
}

func (b *guideBenchmark) run(tool string) *Run {
	r := &Run{Tool: tool, Started: seconds(b.Start), Seconds: cmp.Or(b.Duration, b.End-b.Start), Requests: b.requests()}
	r.count()
	model := b.text("config.backend.model", "worker.backend_model")
	r.Target = b.text("config.backend.target", "worker.backend_target")
	if len(r.Requests) == 0 {
		r.Total = b.totals(r.Seconds)
		r.Notes = append(r.Notes, "no records: intervals come from the repeats alone")
	}
	r.Models = map[string]Totals{model: r.Total}
	for i := range r.Requests {
		r.Requests[i].Model = model
	}
	r.Workload.Load = b.load()
	asked := map[string]string{
		"tool": tool, "models": model,
		"format":     b.text("config.backend.request_format"),
		"data":       b.text("config.data", "config.requests.data", "request_loader.data"),
		"strategy":   b.text("config.strategy.type_", "args.strategy.type_"),
		"duration":   b.text("config.constraints.max_duration.args", "args.max_duration"),
		"max_number": b.text("config.constraints.max_number.args", "args.max_number"),
		"warmup":     b.text("config.warmup", "args.warmup_duration"),
	}
	if l := r.Workload.Load; l.Kind != "" {
		asked[l.Kind] = trimZero(l.Value)
	}
	r.Workload.Fields = fields(asked)
	if len(r.Requests) > 0 {
		r.Workload.Measured = sent(r.Requests, false)
	} else {
		n := float64(max(1, r.Total.OK))
		r.Workload.Measured = []Measured{
			{Name: "prompt tokens per request", Value: r.Total.PromptTokens / n}, {Name: "output tokens per request", Value: r.Total.OutputTokens / n},
		}
	}
	return r
}

func seconds(unix float64) time.Time {
	if !(unix > 0) || unix > 1e11 {
		return time.Time{}
	}
	return time.Unix(0, int64(unix*1e9)).UTC()
}

// text is the first of the values that is there, as JSON.
func (b *guideBenchmark) text(paths ...string) string {
	all := map[string]any{"args": b.Args, "worker": b.Worker, "request_loader": b.Loader, "config": b.Config}
	for _, path := range paths {
		if text := lookup(all, strings.Split(path, ".")); text != "" && text != "null" {
			return text
		}
	}
	return ""
}

// load is the strategy's rate or number of streams.
func (b *guideBenchmark) load() Load {
	for kind, paths := range map[string][]string{
		"concurrency": {"config.strategy.streams", "args.strategy.streams"},
		"rate":        {"config.strategy.rate", "args.strategy.rate"},
	} {
		if v, err := strconv.ParseFloat(b.text(paths...), 64); err == nil {
			return Load{kind, v}
		}
	}
	return Load{}
}

// requests are those that succeeded or failed; guidellm cuts off those that ran
// at the end and calls them incomplete.
func (b *guideBenchmark) requests() []Request {
	var all []Request
	for _, g := range b.Requests.Successful {
		all = append(all, g.request(b.Start, false))
	}
	for _, g := range b.Requests.Errored {
		all = append(all, g.request(b.Start, true))
	}
	slices.SortStableFunc(all, func(a, b Request) int { return cmp.Compare(a.Sent, b.Sent) })
	return all
}

func (g *guideRequest) request(start float64, failed bool) Request {
	first := func(vs ...*float64) float64 {
		for _, v := range vs {
			if v != nil {
				return *v
			}
		}
		return math.NaN()
	}
	began, end := first(g.Start, g.StartNew), first(g.End, g.EndNew)
	e2e := 1000 * first(g.Latency)
	if math.IsNaN(e2e) {
		e2e = 1000 * (end - began)
	}
	q := Request{Sent: began - start, End: end - start, TTFT: first(g.TTFT), TPOT: first(g.ITL), E2E: e2e, Failed: failed}
	if v := first(g.Prompt); v > 0 && v < math.MaxInt32 {
		q.Prompt = int(v)
	}
	if v := first(g.Output, g.OutputOld); v > 0 && v < math.MaxInt32 {
		q.Output = int(v)
	}
	if q.Output < 2 {
		q.TPOT = math.NaN() // guidellm writes 0 for an answer of one token
	}
	return q
}

// guidePercentiles are the names of guidellm's percentiles.
var guidePercentiles = map[string]float64{"p01": .01, "p05": .05, "p10": .1, "p25": .25, "p50": .5, "p75": .75, "p90": .9, "p95": .95, "p99": .99, "p999": .999}

func (s *guideSummary) summary(scale float64) Summary {
	if s == nil || s.Count <= 0 {
		return Summary{}
	}
	sum := Summary{Count: int(s.Count), Mean: s.Mean * scale, Quantiles: map[float64]float64{}}
	for name, v := range s.Percentiles {
		if q, ok := guidePercentiles[name]; ok {
			sum.Quantiles[q] = v * scale
		}
	}
	return sum
}

// totals are the file's own figures, for files without records.
func (b *guideBenchmark) totals(seconds float64) Totals {
	of := func(name string) *guideSummary {
		if s := b.Metrics[name].Successful; s != nil {
			return s
		}
		return &guideSummary{}
	}
	t := Totals{
		OK: int(of("request_latency").Count), PromptTokens: of("prompt_token_count").Sum, OutputTokens: of("output_token_count").Sum,
		PerSecond: of("requests_per_second").Mean, Goodput: math.NaN(),
		Summaries: map[Quantity]Summary{
			TTFT: of("time_to_first_token_ms").summary(1), TPOT: of("inter_token_latency_ms").summary(1), E2E: of("request_latency").summary(1000),
		},
	}
	if e := b.Metrics["request_latency"].Errored; e != nil {
		t.Failed = int(e.Count)
	}
	if seconds > 0 {
		t.TokensPerSecond = t.OutputTokens / seconds
	}
	return t
}
