package report

import (
	"strings"
	"testing"
)

// Seeds are short: the fuzzer spends its time on inputs, not on shortening them.
// The tools' own files are read by TestFind.
const (
	seedLbd = `{"schema":"lbd-bench/1","workload":{"arrival":"poisson 10/s"},"api":"chat","mode":"open","seed":1,"started":"2026-11-21T23:31:54Z",` +
		`"seconds":2,"lateness_ms":{"p99":1},"ok":2,"output_tokens":4,"ttft_ms":{"count":2,"mean":5,"p50":5},"itl_ms":{"count":2,"mean":1},` +
		`"itl_counts":[[1,2]],"slo":{"ttft_ms":9},"models":{"m":{"ok":2},"n":null},"timeline":{"step_ms":10,"replicas":{"r":{"in_flight":[1,0]}}},` +
		`"records":[{"model":"m","scheduled_ms":1,"sent_ms":1,"first_content_ms":3,"last_content_ms":4,"end_ms":5,"content_events":2,"output_tokens":2,` +
		`"replica":"r"},{"index":1,"model":"m","cause":"reset","end_ms":9}]}`
	seedGenaiRaw = `{"experiments":[{"experiment":{"mode":"concurrency","value":2},"requests":[{"timestamp":1000000,"request_inputs":{"payload":` +
		`"{\"model\":\"m\"}"},"response_timestamps":[2000000,3000000,4000000],"response_outputs":[{"response":"data: {\"choices\":[{\"delta\":` +
		`{\"content\":\"a\"}}]}\n\n"},{"response":"data: {\"choices\":[{\"text\":\"b\"}],\"usage\":{\"completion_tokens\":2}}"},` +
		`{"response":"data: [DONE]"}]}]}],"endpoint":"v1/chat/completions"}`
	seedGenai = `{"request_throughput":{"unit":"requests/sec","avg":20},"request_latency":{"unit":"ms","avg":136,"p50":135,"p99":161},"request_count":` +
		`{"avg":12},"time_to_first_token":{"unit":"ms","avg":63,"p1":1},"output_token_throughput":{"avg":462},"input_config":{"model_names":["m"],` +
		`"perf_analyzer":{"stimulus":{"concurrency":2}},"input":{"synthetic_tokens":{"mean":32}}}}`
	seedAiperfSummary = `{"aiperf_version":"0.13.0","start_time":"2026-11-21","request_latency":{"unit":"ms","avg":80,"count":300},"input_config":` +
		`{"models":{"items":[{"name":"m"}]},"phases":[{"kind":"profiling","concurrency":16}]}}`
	seedCSV = "Metric,avg,min,max,p99,p95\nRequest Latency (ms),\"1,136.58\",108.00,162.00,161.56,159.80\nTime To First Token (ms),63.83,36,89,88,85\n\n" +
		"Metric,Value\nRequest Throughput (per sec),20.10\nRequest Count (count),12.00\n"
	seedAiperf = `{"metadata":{"request_start_ns":1,"request_end_ns":9000000,"benchmark_phase":"profiling","was_cancelled":false},"metrics":` +
		`{"request_latency":{"value":9,"unit":"ms"},"time_to_first_token":{"value":3},"inter_chunk_latency":{"value":[1,2]},"output_sequence_length":` +
		`{"value":3}},"error":null}` + "\n" + `{"metadata":{"benchmark_phase":"warmup"},"metrics":{},"error":{"code":1}}`
	seedGuideOld = `{"benchmarks":[{"args":{"strategy":{"type_":"concurrent","streams":2}},"worker":{"backend_model":"m"},"start_time":1,"end_time":3,` +
		`"duration":2,"metrics":{"requests_per_second":{"successful":{"mean":3,"count":3},"total":{"mean":4}},"output_tokens_per_second":{"successful":` +
		`{"mean":9}},"tokens_per_second":{"successful":{"mean":9}},"output_token_count":{"successful":{"total_sum":9}},"request_latency":{"successful":` +
		`{"mean":1,"count":3,"percentiles":{"p50":1}}}},"requests":{"successful":[{"start_time":1,"end_time":2,"request_latency":1,` +
		`"time_to_first_token_ms":100,"inter_token_latency_ms":10,"prompt_tokens":5,"output_tokens":3}],"errored":[],"incomplete":[]}}]}`
	seedGuideNew = `{"metadata":{"version":2,"guidellm_version":"0.7.3"},"benchmarks":[{"config":{"strategy":{"type_":"constant","rate":3},"backend":` +
		`{"model":"m","target":"t"}},"start_time":1,"end_time":3,"metrics":{"requests_per_second":{"successful":{"mean":3,"count":3}},"text":{"tokens":{}}},` +
		`"requests":{"successful":[{"request_start_time":1,"request_end_time":2,"request_latency":null,"output_tokens":1}],"errored":[{}]}}]}`
	seedVllm = `{"date":"20261121-205019","backend":"openai-chat","model_id":"m","num_prompts":2,"request_rate":"inf","burstiness":1.0,` +
		`"max_concurrency":2,"duration":0.9,"completed":2,"failed":0,"total_output_tokens":4,"request_throughput":2,"output_throughput":4,` +
		`"request_goodput:":1,"mean_ttft_ms":29.6,"median_ttft_ms":28,"p99_ttft_ms":61,"input_lens":[3,3],"output_lens":[2,2],"ttfts":[0.02,0.01],` +
		`"itls":[[0.01],[0.02]],"start_times":[1,2],"errors":["",""]}`
)

// fuzz holds: whatever the bytes, a run or an error, never both or neither, and
// figures that the rest of the package can take.
func fuzz(f *testing.F, read func([]byte) ([]*Run, error), seeds ...string) {
	for _, seed := range seeds {
		f.Add([]byte(seed))
		if runs, err := read([]byte(seed)); err != nil || len(runs) == 0 {
			f.Fatalf("the seed is no run: %v", err)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		runs, err := read(b)
		if (err == nil) != (len(runs) > 0) {
			t.Fatalf("%d runs and error %v", len(runs), err)
		}
		if err != nil {
			return
		}
		c, err := Compare([]Environment{{"a", runs}, {"b", runs}}, Options{Draws: 2, MaxErrorRate: 1})
		if err == nil {
			c.Page()
		}
	})
}

func FuzzLbd(f *testing.F) {
	fuzz(f, func(b []byte) ([]*Run, error) { return one(readLbd(b)) }, seedLbd)
}

func FuzzGenaiRaw(f *testing.F) {
	fuzz(f, func(b []byte) ([]*Run, error) { return one(readGenaiRaw(b)) }, seedGenaiRaw)
}

func summaryOnly(read func([]byte) (*genaiSummary, error)) func([]byte) ([]*Run, error) {
	return func(b []byte) ([]*Run, error) {
		g, err := read(b)
		if err != nil {
			return nil, err
		}
		return []*Run{g.run("genai-perf")}, nil
	}
}

func FuzzGenaiSummary(f *testing.F) {
	fuzz(f, summaryOnly(readGenaiSummary), seedGenai, seedAiperfSummary)
}

func FuzzGenaiCSV(f *testing.F) { fuzz(f, summaryOnly(readGenaiCSV), seedCSV) }

func FuzzAiperf(f *testing.F) {
	fuzz(f, func(b []byte) ([]*Run, error) { return one(readAiperf(b)) }, seedAiperf)
}

func FuzzGuidellm(f *testing.F) { fuzz(f, readGuide, seedGuideOld, seedGuideNew) }

func FuzzVllm(f *testing.F) { fuzz(f, readVllm, seedVllm) }

func FuzzWorker(f *testing.F) {
	for _, seed := range []string{seedGuideOld, seedGuideNew, seedVllm} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, b []byte, total bool) {
		if w, err := parseWorker(b, total); err == nil {
			var text strings.Builder
			if err := Add([]Worker{w, w}).WriteText(&text, true); err != nil {
				t.Fatal(err)
			}
		}
	})
}
