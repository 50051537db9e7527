package report

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func workers(t *testing.T, files ...string) []Worker {
	t.Helper()
	var all []Worker
	for _, file := range files {
		w, err := ReadWorker(filepath.Join("testdata", file), false)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, w)
	}
	return all
}

// The sums are of the files' own means, in both of guidellm's schemas.
func TestAddGuidellm(t *testing.T) {
	for _, dir := range []string{"guidellm-0.3.1", "guidellm-0.7.3"} {
		all := workers(t, dir+"/0.json", dir+"/1.json")
		a := Add(all)
		var want, tokens float64
		for _, w := range []string{"/0.json", "/1.json"} {
			b, err := os.ReadFile("testdata/" + dir + w)
			if err != nil {
				t.Fatal(err)
			}
			var f struct {
				Benchmarks []struct {
					Metrics struct {
						Rate   struct{ Successful struct{ Mean float64 } } `json:"requests_per_second"`
						Output struct{ Successful struct{ Mean float64 } } `json:"output_tokens_per_second"`
					}
				}
			}
			if err := json.Unmarshal(b, &f); err != nil {
				t.Fatal(err)
			}
			want += f.Benchmarks[0].Metrics.Rate.Successful.Mean
			tokens += f.Benchmarks[0].Metrics.Output.Successful.Mean
		}
		if !close(a.PerSecond, want, 1e-9) || !close(a.OutputPerSecond, tokens, 1e-9) || want == 0 {
			t.Errorf("%s: %v requests/s, %v tokens/s; want %v and %v", dir, a.PerSecond, a.OutputPerSecond, want, tokens)
		}
		if !a.Merged[TTFT] || a.Summaries[TTFT].Count != 20 {
			t.Errorf("%s: TTFT of %d records, merged %v; want all 20", dir, a.Summaries[TTFT].Count, a.Merged[TTFT])
		}
	}
}

// Percentiles are those of all records: one slow worker in two is the tail.
func TestPercentilesAreMerged(t *testing.T) {
	fast, slow := Worker{Tool: "x"}, Worker{Tool: "x"}
	for i := range 90 {
		fast.Records = append(fast.Records, Request{TTFT: float64(i)})
	}
	for range 10 {
		slow.Records = append(slow.Records, Request{TTFT: 1000})
	}
	for _, w := range []*Worker{&fast, &slow} {
		w.Summaries = totals(w.Records, 0).Summaries
	}
	a := Add([]Worker{fast, slow})
	if got := a.Summaries[TTFT].Quantiles[.5]; !close(got, 49.5, 1e-9) {
		t.Errorf("p50 of both is %v; want 49.5, not the mean of 44.5 and 1000", got)
	}
	fast.Records = nil
	a = Add([]Worker{fast, slow})
	if a.Merged[TTFT] || !close(a.Summaries[TTFT].Quantiles[.5], .9*44.5+.1*1000, 1e-9) {
		t.Errorf("without records p50 is %v, merged %v; want the weighted mean, said to be one", a.Summaries[TTFT].Quantiles[.5], a.Merged[TTFT])
	}
	if !strings.Contains(strings.Join(a.Warnings, "\n"), "records are missing") {
		t.Errorf("warnings %q", a.Warnings)
	}
}

func TestWindows(t *testing.T) {
	at := func(s float64) time.Time { return time.Unix(1000, 0).Add(time.Duration(s * float64(time.Second))) }
	worker := func(from, to float64) Worker {
		return Worker{File: "f", Tool: "x", Start: at(from), End: at(to), OutputPerSecond: 100, OutputTokens: 100 * (to - from)}
	}
	for _, c := range []struct {
		name    string
		workers []Worker
		want    []string // parts of the warnings
	}{
		{"together", []Worker{worker(0, 10), worker(.2, 10.2)}, nil},
		{"half", []Worker{worker(0, 10), worker(5, 15)}, []string{"5.0 of 15.0 s (33 %)", "add up to 200 output tokens/s, their tokens over the whole time are 133/s (-33.3 %)"}},
		{"apart", []Worker{worker(0, 10), worker(20, 30)}, []string{"0.0 of 30.0 s", "(-66.7 %)"}},
		{"unknown", []Worker{worker(0, 10), {File: "g", Tool: "x"}}, []string{"g does not tell when"}},
		{"tools", []Worker{worker(0, 10), func() Worker { w := worker(0, 10); w.Tool = "y"; return w }()}, []string{"not of one tool"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Add(c.workers).Warnings
			if len(got) != len(c.want) {
				t.Fatalf("warnings %q; want %d", got, len(c.want))
			}
			for i, part := range c.want {
				if !strings.Contains(strings.Join(got, "\n"), part) {
					t.Errorf("warning %q; want %q", got[i], part)
				}
			}
		})
	}
}

// With total, guidellm's figures are those of all requests.
func TestUseTotal(t *testing.T) {
	file := `{"benchmarks":[{"start_time":1,"end_time":2,"metrics":{` + metric("requests_per_second") + `,` + metric("output_tokens_per_second") + `,` +
		metric("tokens_per_second") + `,` + metric("output_token_count") + `,` + metric("request_latency") + `}}]}`
	for total, want := range map[bool]float64{false: 3, true: 5} {
		w, err := parseWorker([]byte(file), total)
		if err != nil {
			t.Fatal(err)
		}
		if w.PerSecond != want || w.AllPerSecond != want {
			t.Errorf("total %v: %v requests/s, %v tokens/s; want %v", total, w.PerSecond, w.AllPerSecond, want)
		}
	}
}

func metric(name string) string {
	return `"` + name + `":{"successful":{"mean":3,"count":3,"total_sum":9},"total":{"mean":5,"count":5,"total_sum":25}}`
}

func TestVllmWorkers(t *testing.T) {
	a := Add(workers(t, "vllm/result.json", "vllm/result.json"))
	if !close(a.OutputPerSecond, 2*799.9985199948641, 1e-6) || a.Requests != 24 || !a.Merged[ITL] {
		t.Errorf("%v tokens/s of %v requests, gaps merged %v", a.OutputPerSecond, a.Requests, a.Merged[ITL])
	}
	var text, doc bytes.Buffer
	if err := a.WriteText(&text, true); err != nil {
		t.Fatal(err)
	}
	if err := a.WriteJSON(&doc); err != nil {
		t.Fatal(err)
	}
	if strings.Count(text.String(), "result.json") < 2 || !strings.Contains(text.String(), "2 workers") || !json.Valid(doc.Bytes()) {
		t.Errorf("text\n%s\nJSON\n%s", &text, &doc)
	}
}

func TestSweepIsNoWorker(t *testing.T) {
	b, err := os.ReadFile("testdata/guidellm-0.3.1/0.json")
	if err != nil {
		t.Fatal(err)
	}
	var f map[string][]json.RawMessage
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	f["benchmarks"] = append(f["benchmarks"], f["benchmarks"][0])
	two, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseWorker(two, false); err == nil || !strings.Contains(err.Error(), "2 benchmarks; want one") {
		t.Errorf("a sweep: %v", err)
	}
}
