package export

import (
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"lbd/bench/load"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const msec = time.Millisecond

// sample is two successful requests, one that failed, one of the warm-up.
func sample() *load.Results {
	kept := func() *load.Kept {
		return &load.Kept{Body: []byte(`{"model":"m","messages":[{"role":"user","content":"a b"}]}`),
			Text: []byte(`on\"e two thre`), Ends: []int32{5, 9, 14}, Gaps: []time.Duration{0, 10 * msec}}
	}
	stream := load.Record{Index: 1, Model: "m", Stream: true, Scheduled: 100 * msec, Dispatched: 101 * msec, Sent: 102 * msec, FirstContent: 150 * msec,
		LastContent: 160 * msec, End: 161 * msec, Events: 3, PromptTokens: 1200, OutputTokens: 5, Status: 200, Kept: kept()}
	whole := load.Record{Index: 2, Model: "m", Scheduled: 200 * msec, Dispatched: 200 * msec, Sent: 200 * msec, End: 300 * msec, PromptTokens: 10, OutputTokens: 5,
		Status: 200, Kept: &load.Kept{Body: []byte(`{}`), Text: []byte(`whole`)}}
	failed, warm := stream, stream
	failed.Index, failed.Cause, failed.Detail = 3, load.CauseTruncated, "cut"
	warm.Index, warm.Warmup, warm.Kept = 0, true, nil
	return &load.Results{
		Schema: load.Schema, Tool: "lbd bench 1", Target: "http://h", API: load.Chat, Mode: "closed", Concurrency: 2, Seconds: .2,
		Started:  time.Unix(1_800_000_000, 0).UTC(),
		Workload: map[string]string{"name": "w"},
		Group:    load.Group{Requests: 3, OK: 2, Failed: 1, OutputTokens: 10, PromptTokens: 1210, RequestsPerSecond: 10, OutputTokensPerSecond: 50},
		Records:  []load.Record{warm, stream, whole, failed},
	}
}

func read(t *testing.T, path string, to any) {
	t.Helper()
	document, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(document, to); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func write(t *testing.T, res *load.Results) string {
	t.Helper()
	dir := t.TempDir()
	if err := Write(dir, res); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestRawExport(t *testing.T) {
	dir := write(t, sample())
	var got struct {
		Experiments []struct {
			Experiment struct {
				Mode  string
				Value float64
			}
			Requests []rawRequest
			Window   []int64 `json:"window_boundaries"`
		}
		Kind     string `json:"service_kind"`
		Endpoint string
	}
	read(t, filepath.Join(dir, "profile_export.json"), &got)
	at := func(ms int64) int64 { return 1_800_000_000_000_000_000 + ms*1_000_000 }
	event := func(text string) string {
		return `data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"` + text + "\"}}]}\n\n"
	}
	want := []rawRequest{
		// Two events came in one read: one response with both.
		{at(100), rawInputs{`{"model":"m","messages":[{"role":"user","content":"a b"}]}`}, []int64{at(150), at(160)},
			[]rawResponse{{event(`on\"e`) + event(" two")}, {event(" thre")}}},
		{at(200), rawInputs{"{}"}, []int64{at(300)},
			[]rawResponse{{`{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"whole"}}]}`}}},
	}
	e := got.Experiments[0]
	if diff := cmp.Diff(want, e.Requests); diff != "" {
		t.Error(diff)
	}
	if e.Experiment.Mode != "concurrency" || e.Experiment.Value != 2 || !cmp.Equal(e.Window, []int64{at(100), at(300)}) || got.Kind != "openai" || got.Endpoint != "v1/chat/completions" {
		t.Errorf("%+v", got)
	}
}

func TestNoRawExportOfAPart(t *testing.T) {
	res := sample()
	res.NotKept = 3
	dir := write(t, res)
	if _, err := os.Stat(filepath.Join(dir, "profile_export.json")); !os.IsNotExist(err) || len(res.Warnings) != 1 {
		t.Errorf("%v, warnings %q", err, res.Warnings)
	}
}

// genai-perf's numbers, computed by hand by its definitions.
func TestSummaries(t *testing.T) {
	dir := write(t, sample())
	var got map[string]map[string]any
	read(t, filepath.Join(dir, "profile_export_genai_perf.json"), &got)
	for name, want := range map[string]map[string]any{
		"time_to_first_token":   {"unit": "ms", "avg": 50., "p99": 50., "std": 0.},
		"request_latency":       {"unit": "ms", "avg": 80., "min": 60., "max": 100., "p25": 70., "std": 20.},
		"inter_token_latency":   {"unit": "ms", "avg": 2.5},
		"input_sequence_length": {"unit": "tokens", "avg": 605.},
		"request_throughput":    {"unit": "requests/sec", "avg": 10.},
	} {
		for key, value := range want {
			if got[name][key] != value {
				t.Errorf("%s %s is %v, want %v", name, key, got[name][key], value)
			}
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "profile_export.csv"))
	if err != nil {
		t.Fatal(err)
	}
	r := csv.NewReader(strings.NewReader(string(text)))
	r.FieldsPerRecord = -1
	rows, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, row := range rows {
		names = append(names, row[0])
	}
	want := []string{"Metric", "Time To First Token (ms)", "Time To Second Token (ms)", "Request Latency (ms)", "Inter Token Latency (ms)",
		"Output Token Throughput Per User (tokens/sec/user)", "Output Sequence Length (tokens)", "Input Sequence Length (tokens)",
		"Metric", "Output Token Throughput (tokens/sec)", "Request Throughput (per sec)", "Request Count (count)"}
	if diff := cmp.Diff(want, names); diff != "" || !strings.Contains(string(text), "\r\n\r\nMetric,Value\r\n") || !strings.Contains(string(text), `"1,200.00"`) {
		t.Errorf("%s%s", text, diff)
	}
}

func TestGuidellmReport(t *testing.T) {
	dir := write(t, sample())
	var got struct {
		Benchmarks []struct {
			Metrics struct {
				TTFT struct{ Successful, Errored distribution } `json:"time_to_first_token_ms"`
			}
			Requests struct {
				Successful, Errored []struct {
					TTFT   *float64 `json:"time_to_first_token_ms"`
					Output string
					Info   struct{ Status string }
				}
			}
		}
	}
	read(t, filepath.Join(dir, "guidellm.json"), &got)
	ttft, r := got.Benchmarks[0].Metrics.TTFT, got.Benchmarks[0].Requests
	if ttft.Successful.Mean != 50 || ttft.Successful.Count != 1 || ttft.Successful.Percentiles["p99"] != 50 || ttft.Errored.Count != 1 {
		t.Errorf("%+v", ttft)
	}
	if len(r.Successful) != 2 || len(r.Errored) != 1 || r.Successful[0].Output != `on"e two thre` || r.Successful[1].TTFT != nil || r.Errored[0].Info.Status != "errored" {
		t.Errorf("%+v", r)
	}
}

func TestOldGuidellmReport(t *testing.T) {
	dir := write(t, sample())
	var got struct {
		Benchmarks []struct {
			Totals   breakdown[int] `json:"request_totals"`
			Requests struct {
				Successful, Errored []struct {
					Type   string  `json:"type_"`
					TTFT   float64 `json:"time_to_first_token_ms"`
					Output string
				}
			}
		}
	}
	read(t, filepath.Join(dir, "guidellm_0.3.json"), &got)
	b := got.Benchmarks[0]
	// The answer that was whole has no place there.
	if diff := cmp.Diff(breakdown[int]{1, 1, 0, 2}, b.Totals); diff != "" {
		t.Error(diff)
	}
	if r := b.Requests; r.Successful[0].TTFT != 50 || r.Successful[0].Output != `on"e two thre` || r.Errored[0].Type != "generative_text_error" {
		t.Errorf("%+v", r)
	}
}

func TestDistribute(t *testing.T) {
	d := distribute([]float64{3, 1, 1, 5})
	if d.Mean != 2.5 || d.Mode != 1 || d.Median != 2 || d.Variance != 2.75 || d.TotalSum != 10 || d.Max != 5 || len(d.Percentiles) != 11 {
		t.Errorf("%+v", d)
	}
	if d := distribute(nil); d.Count != 0 || len(d.Percentiles) != 11 {
		t.Errorf("%+v", d)
	}
}

func TestGrouped(t *testing.T) {
	for v, want := range map[float64]string{0: "0.00", 999.999: "1,000.00", 12.345: "12.35", 1234567.891: "1,234,567.89", -1234.5: "-1,234.50"} {
		if got := grouped(v); got != want {
			t.Errorf("%v is %q, want %q", v, got, want)
		}
	}
}
