package export

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"lbd/bench/load"
)

// A report as guidellm 0.7 writes it (guidellm/benchmark/schemas), with the parts
// its reader asks for and those a run of lbd bench has.

// breakdown is guidellm's split of anything by what became of the request.
type breakdown[T any] struct {
	Successful T `json:"successful"`
	Errored    T `json:"errored"`
	Incomplete T `json:"incomplete"`
	Total      T `json:"total"`
}

// distribution is guidellm's DistributionSummary.
type distribution struct {
	Mean        float64            `json:"mean"`
	Median      float64            `json:"median"`
	Mode        float64            `json:"mode"`
	Variance    float64            `json:"variance"`
	StdDev      float64            `json:"std_dev"`
	Min         float64            `json:"min"`
	Max         float64            `json:"max"`
	Count       int                `json:"count"`
	TotalSum    float64            `json:"total_sum"`
	Percentiles map[string]float64 `json:"percentiles"`
}

// guidePercentiles are those of guidellm's Percentiles.
var guidePercentiles = map[string]float64{
	"p001": .001, "p01": .01, "p05": .05, "p10": .1, "p25": .25, "p50": .5, "p75": .75, "p90": .9, "p95": .95, "p99": .99, "p999": .999,
}

// distribute summarizes values; of none it is all zero, as guidellm has it.
func distribute(values []float64) distribution {
	d := distribution{Count: len(values), Percentiles: map[string]float64{}}
	for name := range guidePercentiles {
		d.Percentiles[name] = 0
	}
	if len(values) == 0 {
		return d
	}
	slices.Sort(values)
	s := statistic{values: values}
	d.Mean, d.StdDev, d.Min, d.Max = s.mean(), s.deviation(), values[0], values[len(values)-1]
	d.Variance, d.TotalSum = d.StdDev*d.StdDev, d.Mean*float64(len(values))
	d.Median, d.Mode = load.Percentile(values, .5), mode(values)
	for name, q := range guidePercentiles {
		d.Percentiles[name] = load.Percentile(values, q)
	}
	return d
}

// mode is the commonest of the sorted values, the smallest where several are.
func mode(sorted []float64) (common float64) {
	most := 0
	for i := 0; i < len(sorted); {
		j := i
		for j < len(sorted) && sorted[j] == sorted[i] {
			j++
		}
		if j-i > most {
			most, common = j-i, sorted[i]
		}
		i = j
	}
	return common
}

// rate is a distribution of which only the mean is known: so many per second over
// the whole run.
func rate(perSecond float64) breakdown[distribution] {
	d := distribute(nil)
	d.Mean, d.Median, d.Count = perSecond, perSecond, 1
	return breakdown[distribution]{Successful: d, Errored: distribute(nil), Incomplete: distribute(nil), Total: d}
}

// guide collects a report.
type guide struct {
	res      *load.Results
	measured [3][]*load.Record // successful, errored, incomplete
}

func newGuide(res *load.Results) *guide {
	g := &guide{res: res}
	for i := range res.Records {
		rec := &res.Records[i]
		kind := 1
		switch {
		case rec.Warmup:
			continue
		case rec.OK():
			kind = 0
		case rec.Cause == load.CauseCancelled:
			kind = 2
		}
		g.measured[kind] = append(g.measured[kind], rec)
	}
	return g
}

// of makes the distributions of a value; false leaves the record out.
func (g *guide) of(value func(*load.Record) (float64, bool)) breakdown[distribution] {
	var parts [3][]float64
	var all []float64
	for kind, recs := range g.measured {
		for _, rec := range recs {
			if v, ok := value(rec); ok {
				parts[kind] = append(parts[kind], v)
				all = append(all, v)
			}
		}
	}
	return breakdown[distribution]{distribute(parts[0]), distribute(parts[1]), distribute(parts[2]), distribute(all)}
}

func (g *guide) at(d time.Duration) float64 {
	return float64(g.res.Started.Add(d).UnixNano()) / 1e9
}

// mean is the mean of a time over the successful requests, in seconds.
func (g *guide) mean(of func(*load.Record) time.Duration) float64 {
	sum := time.Duration(0)
	for _, rec := range g.measured[0] {
		sum += of(rec)
	}
	return sum.Seconds() / float64(max(1, len(g.measured[0])))
}

// report is the whole document.
func (g *guide) report() map[string]any {
	backend := map[string]any{"kind": "openai_http", "target": g.res.Target, "request_format": "/" + endpointOf(g.res.API)}
	return map[string]any{
		// version is that of the schema; guidellm_version says who wrote it.
		"metadata": map[string]any{"version": 2, "guidellm_version": "none, " + g.res.Tool},
		"config": map[string]any{"spec": map[string]any{
			"backend": backend,
			"data":    []any{map[string]any{"kind": "synthetic_text", "prompt_tokens": max(1, g.meanPrompt())}},
		}},
		"benchmarks": []any{g.benchmark(backend)},
	}
}

// meanPrompt stands for the workload in the one place guidellm has for it; the
// workload itself is in results.json.
func (g *guide) meanPrompt() int {
	sum := 0
	for _, rec := range g.measured[0] {
		sum += rec.PromptTokens
	}
	return sum / max(1, len(g.measured[0]))
}

func (g *guide) benchmark(backend map[string]any) map[string]any {
	first, last := window(g.res)
	from, to := float64(first)/1e9, float64(last)/1e9
	requests := breakdown[[]any]{Successful: []any{}, Errored: []any{}, Incomplete: []any{}}
	for kind, list := range []*[]any{&requests.Successful, &requests.Errored, &requests.Incomplete} {
		for _, rec := range g.measured[kind] {
			*list = append(*list, g.request(rec))
		}
	}
	return map[string]any{
		"type_": "generative_benchmark",
		"config": map[string]any{
			"run_id": fmt.Sprintf("lbd-%d", g.res.Seed), "run_index": 0, "strategy": g.strategy(), "constraints": map[string]any{},
			"profile": map[string]any{}, "requests": map[string]any{}, "backend": backend, "environment": map[string]any{},
		},
		"scheduler_state":   map[string]any{},
		"scheduler_metrics": g.scheduler(from, to),
		"metrics":           g.metrics(),
		"requests":          requests,
		"start_time":        from, "end_time": to, "duration": to - from,
	}
}

func (g *guide) strategy() map[string]any {
	kind, level := loadOf(g.res)
	if kind == "concurrency" {
		return map[string]any{"type_": "concurrent", "streams": g.res.Concurrency}
	}
	return map[string]any{"type_": "poisson", "rate": level}
}

// scheduler maps the run's clocks to guidellm's. It has no queue of requests.
func (g *guide) scheduler(from, to float64) map[string]any {
	lateness := g.mean((*load.Record).Lateness)
	return map[string]any{
		"start_time": from, "request_start_time": from, "measure_start_time": from, "measure_end_time": to, "request_end_time": to, "end_time": to,
		"requests_made":   g.counts(),
		"queued_time_avg": 0, "resolve_end_delay_avg": 0, "finalized_delay_avg": 0, "processed_delay_avg": 0,
		"resolve_start_delay_avg": lateness, "resolve_targeted_start_delay_avg": lateness,
		"request_start_delay_avg":          g.mean(func(r *load.Record) time.Duration { return r.Sent - r.Dispatched }),
		"request_targeted_start_delay_avg": g.mean(func(r *load.Record) time.Duration { return r.Sent - r.Scheduled }),
		"request_time_avg":                 g.mean((*load.Record).E2EFromSend),
		"resolve_time_avg":                 g.mean(func(r *load.Record) time.Duration { return r.End - r.Dispatched }),
	}
}

func (g *guide) counts() breakdown[int] {
	ok, errored, incomplete := len(g.measured[0]), len(g.measured[1]), len(g.measured[2])
	return breakdown[int]{ok, errored, incomplete, ok + errored + incomplete}
}

// metrics are those of guidellm that the run has; the reader wants the others to
// be there, and takes an empty object.
func (g *guide) metrics() map[string]any {
	res := g.res
	m := map[string]any{
		"request_totals":      g.counts(),
		"requests_per_second": rate(res.RequestsPerSecond),
		"request_latency":     g.of(func(r *load.Record) (float64, bool) { return r.E2E().Seconds(), r.OK() }),
		"request_streaming_iterations_count": g.of(func(r *load.Record) (float64, bool) {
			return float64(r.Events), r.Stream
		}),
		"prompt_token_count": g.of(func(r *load.Record) (float64, bool) { return float64(r.PromptTokens), r.PromptTokens > 0 }),
		"output_token_count": g.of(func(r *load.Record) (float64, bool) { return float64(r.OutputTokens), r.OutputTokens > 0 }),
		"total_token_count": g.of(func(r *load.Record) (float64, bool) {
			return float64(r.PromptTokens + r.OutputTokens), r.OutputTokens > 0
		}),
		"time_to_first_token_ms":   g.of(func(r *load.Record) (float64, bool) { return ms(r.TTFT()), r.Events > 0 }),
		"inter_token_latency_ms":   g.of(func(r *load.Record) (float64, bool) { return ms(r.TPOT()), r.Events > 1 && r.OutputTokens > 1 }),
		"time_per_output_token_ms": g.of(perToken),
		"output_tokens_per_second": rate(res.OutputTokensPerSecond),
	}
	if res.Seconds > 0 {
		m["prompt_tokens_per_second"] = rate(float64(res.PromptTokens) / res.Seconds)
		m["tokens_per_second"] = rate(float64(res.PromptTokens+res.OutputTokens) / res.Seconds)
	}
	if res.Seconds > 0 {
		// Little's law: the mean number of successful requests in flight.
		busy := 0.0
		for _, rec := range g.measured[0] {
			busy += rec.E2EFromSend().Seconds()
		}
		m["request_concurrency"] = rate(busy / res.Seconds)
	}
	for _, name := range []string{
		"request_concurrency", "time_to_first_output_token_ms", "prompt_tokens_per_second", "tokens_per_second",
		"output_tokens_per_iteration", "iter_tokens_per_iteration",
	} {
		if m[name] == nil {
			m[name] = breakdown[distribution]{distribute(nil), distribute(nil), distribute(nil), distribute(nil)}
		}
	}
	for _, name := range []string{"text", "image", "video", "audio", "tool_call"} {
		m[name] = domains[name]
	}
	return m
}

// perToken is guidellm's time per output token: the whole latency over all tokens.
func perToken(r *load.Record) (float64, bool) {
	if !r.OK() || r.OutputTokens == 0 {
		return 0, false
	}
	return ms(r.LastContent-r.Scheduled) / float64(r.OutputTokens), r.Events > 0
}

// domains are guidellm's figures by kind of content: lbd bench measures none.
var domains = map[string]map[string]any{
	"text":      domain(map[string]any{}, "tokens", "words", "characters"),
	"image":     domain(nil, "tokens", "images", "pixels", "bytes"),
	"video":     domain(nil, "tokens", "frames", "seconds", "bytes"),
	"audio":     domain(nil, "tokens", "samples", "seconds", "bytes"),
	"tool_call": domain(nil, "tokens", "mixed_tokens", "count"),
}

func domain(none map[string]any, kinds ...string) map[string]any {
	all := map[string]any{}
	for _, kind := range kinds {
		parts := map[string]any{}
		for _, side := range []string{"input", "output", "total"} {
			for _, suffix := range []string{"", "_per_second", "_concurrency"} {
				parts[side+suffix] = none
			}
		}
		all[kind] = parts
	}
	return all
}

// request is one GenerativeRequestStats. The times count from the scheduled one.
func (g *guide) request(rec *load.Record) map[string]any {
	timings := map[string]any{
		"targeted_start": g.at(rec.Scheduled), "resolve_start": g.at(rec.Dispatched), "request_start": g.at(rec.Scheduled),
		"request_end": g.at(rec.End), "resolve_end": g.at(rec.End),
	}
	stats := map[string]any{
		"request_start_time": g.at(rec.Scheduled), "request_end_time": g.at(rec.End), "request_latency": rec.E2E().Seconds(),
		"prompt_tokens": rec.PromptTokens, "output_tokens": rec.OutputTokens, "total_tokens": rec.PromptTokens + rec.OutputTokens,
	}
	if rec.Events > 0 {
		timings["first_request_iteration"], timings["first_token_iteration"] = g.at(rec.FirstContent), g.at(rec.FirstContent)
		timings["last_request_iteration"], timings["last_token_iteration"] = g.at(rec.LastContent), g.at(rec.LastContent)
		timings["request_iterations"], timings["token_iterations"] = rec.Events, rec.Events
		stats["time_to_first_token_ms"] = ms(rec.TTFT())
		if rec.OutputTokens > 1 {
			stats["inter_token_latency_ms"] = ms(rec.TPOT())
		}
	}
	id := fmt.Sprintf("%d-%d", rec.Index, rec.Turn)
	info := map[string]any{"request_id": id, "conversation_id": fmt.Sprint(rec.Index), "turn_index": rec.Turn, "status": "completed", "timings": timings}
	if !rec.OK() {
		info["status"], info["error"] = "errored", rec.Cause+" "+rec.Code+": "+rec.Detail
		if rec.Cause == load.CauseCancelled {
			info["status"] = "cancelled"
		}
	}
	stats["type_"], stats["request_id"], stats["info"] = "generative_request_stats", id, info
	stats["input_metrics"] = map[string]any{"text_tokens": rec.PromptTokens, "total_tokens": rec.PromptTokens}
	stats["output_metrics"] = map[string]any{"text_tokens": rec.OutputTokens, "total_tokens": rec.OutputTokens}
	if rec.Kept != nil {
		stats["output"] = json.RawMessage(`"` + string(rec.Kept.Text) + `"`)
	}
	return stats
}
