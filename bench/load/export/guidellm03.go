package export

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"lbd/bench/load"
)

// old is a report as guidellm 0.2 and 0.3 write it (guidellm/benchmark/benchmark.py
// at v0.3.1). It has words for streams only: answers that were whole are left out.
func (g *guide) old() map[string]any { return map[string]any{"benchmarks": []any{g.oldBenchmark()}} }

func (g *guide) oldBenchmark() map[string]any {
	first, last := window(g.res)
	from, to := float64(first)/1e9, float64(last)/1e9
	requests := breakdown[[]any]{Successful: []any{}, Errored: []any{}, Incomplete: []any{}}
	for kind, list := range []*[]any{&requests.Successful, &requests.Errored, &requests.Incomplete} {
		for _, rec := range g.measured[kind] {
			if kind != 0 || rec.Events > 0 {
				*list = append(*list, g.oldRequest(rec, kind))
			}
		}
	}
	totals := breakdown[int]{len(requests.Successful), len(requests.Errored), len(requests.Incomplete), 0}
	totals.Total = totals.Successful + totals.Errored + totals.Incomplete
	return map[string]any{
		"type_": "generative_benchmark", "run_id": fmt.Sprintf("lbd-%d", g.res.Seed),
		"args": g.oldArgs(), "run_stats": g.oldStats(from, to, totals),
		"worker": map[string]any{
			"type_": "generative_requests_worker", "backend_type": "openai_http", "backend_target": g.res.Target, "backend_model": g.modelNames(),
		},
		"request_loader": map[string]any{
			"type_": "generative_request_loader", "data": g.res.Tool + ": " + g.res.Workload["name"], "data_args": nil, "processor": "none", "processor_args": nil,
		},
		"extras": map[string]any{"workload": g.res.Workload}, "metrics": g.metrics(),
		"start_time": from, "end_time": to, "duration": to - from, "request_totals": totals, "requests": requests,
	}
}

func (g *guide) modelNames() string {
	names := map[string]bool{}
	var all []string
	for i := range g.res.Records {
		if m := g.res.Records[i].Model; !names[m] {
			names[m] = true
			all = append(all, m)
		}
	}
	return strings.Join(all, ",")
}

func (g *guide) oldArgs() map[string]any {
	args := map[string]any{"strategy_index": 0}
	for _, none := range []string{"max_number", "max_duration", "warmup_number", "warmup_duration", "cooldown_number", "cooldown_duration"} {
		args[none] = nil
	}
	if kind, level := loadOf(g.res); kind != "concurrency" {
		args["profile"] = map[string]any{"type_": "async", "strategy_type": "poisson", "rate": level}
		args["strategy"] = map[string]any{"type_": "poisson", "rate": level}
	} else {
		args["profile"] = map[string]any{"type_": "concurrent", "streams": g.res.Concurrency}
		args["strategy"] = map[string]any{"type_": "concurrent", "streams": g.res.Concurrency}
	}
	return args
}

// oldStats maps the run's clocks to guidellm's: a request is taken up (worker
// start) when it is dispatched, and begins when it is sent.
func (g *guide) oldStats(from, to float64, totals breakdown[int]) map[string]any {
	lateness := g.mean((*load.Record).Lateness)
	connect := g.mean(func(r *load.Record) time.Duration { return r.Sent - r.Dispatched })
	return map[string]any{
		"start_time": from, "end_time": to, "requests_made": totals,
		"queued_time_avg": 0, "scheduled_time_delay_avg": 0, "scheduled_time_sleep_avg": 0,
		"worker_start_delay_avg": lateness, "worker_start_time_targeted_delay_avg": lateness,
		"worker_time_avg":                       g.mean(func(r *load.Record) time.Duration { return r.End - r.Dispatched }),
		"request_start_time_delay_avg":          connect,
		"request_start_time_targeted_delay_avg": g.mean(func(r *load.Record) time.Duration { return r.Sent - r.Scheduled }),
		"request_time_delay_avg":                connect,
		"request_time_avg":                      g.mean((*load.Record).E2EFromSend),
	}
}

func (g *guide) oldRequest(rec *load.Record, kind int) map[string]any {
	api := "chat_completions"
	if g.res.API == load.Completions {
		api = "text_completions"
	}
	r := map[string]any{
		"type_": "generative_text_response", "request_id": fmt.Sprintf("%d-%d", rec.Index, rec.Turn), "request_type": api,
		"scheduler_info": map[string]any{
			"requested": true, "completed": kind == 0, "errored": kind == 1, "canceled": kind == 2,
			"targeted_start_time": g.at(rec.Scheduled), "queued_time": g.at(rec.Scheduled), "dequeued_time": g.at(rec.Scheduled), "scheduled_time": g.at(rec.Scheduled),
			"worker_start": g.at(rec.Dispatched), "request_start": g.at(rec.Sent), "request_end": g.at(rec.End), "worker_end": g.at(rec.End), "process_id": 0,
		},
		"prompt": "", "output": "", "prompt_tokens": rec.PromptTokens, "output_tokens": rec.OutputTokens,
		"start_time": g.at(rec.Scheduled), "end_time": g.at(rec.End), "first_token_time": nil, "last_token_time": nil,
	}
	if rec.Events > 0 {
		r["first_token_time"], r["last_token_time"] = g.at(rec.FirstContent), g.at(rec.LastContent)
		r["request_latency"], r["time_to_first_token_ms"], r["inter_token_latency_ms"] = rec.E2E().Seconds(), ms(rec.TTFT()), ms(rec.TPOT())
	}
	if rec.Kept != nil {
		r["output"] = json.RawMessage(`"` + string(rec.Kept.Text) + `"`)
	}
	if kind != 0 {
		r["type_"], r["error"] = "generative_text_error", rec.Cause+" "+rec.Code+": "+rec.Detail
	}
	return r
}
