package load

import (
	"bytes"
	"encoding/json"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestBucketsHoldTheirPromise(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	last := -1
	for v := time.Duration(0); v < 20*time.Hour; v += 1 + v/300 + time.Duration(r.Int64N(1000)) {
		b := bucketOf(v)
		if b < last || b >= buckets {
			t.Fatalf("%v in bucket %d after bucket %d", v, b, last)
		}
		last = b
		off := (middleOf(b) - v).Abs()
		if v < 1<<maxBits*time.Microsecond && off > max(time.Microsecond/2, v/256)+1 {
			t.Fatalf("%v stands for %v in bucket %d", middleOf(b), v, b)
		}
	}
	if last != buckets-1 {
		t.Errorf("last bucket %d, want %d", last, buckets-1)
	}
	if bucketOf(-time.Second) != 0 {
		t.Error("a gap below 0 is not in bucket 0")
	}
}

func TestHistogramAgreesWithSamples(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 1))
	var h histogram
	var samples []float64
	for range 10000 {
		d := time.Duration(r.ExpFloat64() * float64(20*time.Millisecond))
		h.observe(d)
		samples = append(samples, millis(d))
	}
	slices.Sort(samples)
	s := h.summary()
	for _, q := range []struct{ q, got float64 }{{.5, s.P50}, {.9, s.P90}, {.99, s.P99}} {
		if want := Percentile(samples, q.q); q.got < want*.995-.001 || q.got > want*1.005+.001 {
			t.Errorf("quantile %v is %v, want %v", q.q, q.got, want)
		}
	}
	if s.Max != samples[len(samples)-1] || s.Count != 10000 {
		t.Errorf("%+v", s)
	}
	if diff := cmp.Diff(Summary{}, new(histogram).summary()); diff != "" {
		t.Error(diff)
	}
}

// numpy.Percentile([1, 2, 3, 4, 10], [0, 50, 90, 99, 100]) = 1, 3, 7.6, 9.76, 10.
func TestPercentileIsNumpys(t *testing.T) {
	samples := []float64{1, 2, 3, 4, 10}
	for q, want := range map[float64]float64{0: 1, .5: 3, .9: 7.6, .99: 9.76, 1: 10} {
		if got := Percentile(samples, q); got < want-1e-9 || got > want+1e-9 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
}

// sample is a small run, computed by hand.
func sample(t *testing.T) *Results {
	t.Helper()
	r, err := New(Options{Target: "http://127.0.0.1:8080", Requests: every(0, 0), Seed: 7, KeepRecords: true,
		SLO: SLO{TTFT: 100 * time.Millisecond, E2E: time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	r.start = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	add := func(rec Record, gaps ...time.Duration) { r.recorder.add(&exchange{rec: rec, gaps: gaps}) }
	// Out of order on purpose: a later request may end first.
	add(Record{Index: 1, Model: "b", Stream: true, Scheduled: ms(100), Dispatched: ms(104), Sent: ms(105), FirstContent: ms(205),
		LastContent: ms(225), End: ms(230), AskedPrompt: 10, AskedOutput: 3, Events: 3, PromptTokens: 10, OutputTokens: 3, Replica: "r2", Status: 200}, ms(5), ms(15))
	add(Record{Index: 0, Model: "a", Stream: true, Sent: ms(1), FirstContent: ms(51), LastContent: ms(61), End: ms(300),
		AskedPrompt: 20, AskedOutput: 2, Events: 2, PromptTokens: 20, OutputTokens: 2, CachedTokens: 16, Replica: "r1", Status: 200}, ms(10))
	add(Record{Index: 2, Model: "a", Stream: true, Scheduled: ms(200), Dispatched: ms(200), Sent: ms(200), FirstContent: ms(250), LastContent: ms(900),
		End: ms(900), AskedPrompt: 20, AskedOutput: 2, Events: 2, Replica: "r1", Status: 200, Cause: CauseTruncated, Detail: "unexpected EOF"}, ms(650))
	add(Record{Index: 3, Model: "a", Scheduled: ms(300), Dispatched: ms(300), Sent: ms(300), End: ms(310), AskedPrompt: 20, AskedOutput: 2,
		Status: 429, Cause: "status_429", Code: "overloaded", Detail: "full"})
	add(Record{Index: 4, Model: "a", Scheduled: ms(400), Dispatched: ms(400), Sent: ms(400), End: ms(1000), AskedPrompt: 20, AskedOutput: 2, Cause: CauseCancelled})
	r.recorder.abandon(2)
	res := r.results()
	res.Tool, res.Environment, res.Workload = "lbd bench 1.2.3", "managed", map[string]string{"output_tokens": "2..3"}
	res.Timeline.Sampled = &Sampled{Source: "http://127.0.0.1:8080/metrics", Replicas: map[string]*SampledLoad{}}
	res.Timeline.Sampled.add(0, parseGauges([]byte("lbd_replica_requests_waiting{replica=\"r1\"} 3\n")))
	return res
}

func TestResults(t *testing.T) {
	res := sample(t)
	good, goodput := 1, 1.
	want := Group{
		Requests: 5, OK: 2, Failed: 2, Cancelled: 1,
		Errors:       map[string]int{"truncated": 1, "status_429 overloaded": 1},
		PromptTokens: 30, OutputTokens: 5, CachedTokens: 16, RequestsPerSecond: 2, OutputTokensPerSecond: 5,
		Good: &good, GoodputPerSecond: &goodput, ITLCounts: [][2]float64{{5.008, 1}, {10.016, 1}, {15.008, 1}},
		TTFT:         Summary{Count: 2, Mean: 78, P50: 78, P90: 99.6, P99: 104.46, Max: 105},
		TTFTFromSend: Summary{Count: 2, Mean: 75, P50: 75, P90: 95, P99: 99.5, Max: 100},
		ITL:          Summary{Count: 3, Mean: 10, P50: 10, P90: 15, P99: 15, Max: 15},
		TPOT:         Summary{Count: 2, Mean: 10, P50: 10, P90: 10, P99: 10, Max: 10},
		E2E:          Summary{Count: 2, Mean: 215, P50: 215, P90: 283, P99: 298.3, Max: 300},
		E2EFromSend:  Summary{Count: 2, Mean: 212, P50: 212, P90: 281.6, P99: 297.26, Max: 299},
	}
	if diff := cmp.Diff(want, res.Group, cmpopts.EquateApprox(.004, 0)); diff != "" {
		t.Error(diff)
	}
	if a, b := res.Models["a"], res.Models["b"]; a.Requests != 4 || a.ITL.Count != 1 || b.Requests != 1 || b.ITL.Count != 2 {
		t.Errorf("models: %+v, %+v", a, b)
	}
	if r := res.Replicas; len(r) != 3 || r["r1"].Requests != 2 || r["r2"].OK != 1 || r[""].Requests != 2 {
		t.Errorf("replicas: %v", r)
	}
	if res.Lateness.Max != 4 || res.Lateness.Count != 5 || res.Seconds != 1 {
		t.Errorf("lateness %+v in %v s", res.Lateness, res.Seconds)
	}
}

func TestCheck(t *testing.T) {
	good := func() *Results { return &Results{Group: Group{OK: 99, Failed: 1, Requests: 100}} }
	tests := []struct {
		name   string
		change func(*Results)
		rate   float64
		want   string // empty: passes
	}{
		{"at the limit", func(*Results) {}, .01, ""},
		{"above the limit", func(*Results) {}, .009, "1 of 100 requests failed (1.00 %); want at most 0.90 %"},
		{"late", func(r *Results) { r.Lateness.P99 = 50.1 }, .01, "generator late: 50.1 ms at p99; want at most 50ms"},
		{"just in time", func(r *Results) { r.Lateness.P99 = 50 }, .01, ""},
		{"nothing", func(r *Results) { r.Group = Group{} }, 1, "no request succeeded"},
		{"interrupted", func(r *Results) { r.Interrupted = true }, .01, "interrupted"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := good()
			tt.change(r)
			got := ""
			if err := r.Check(tt.rate); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("check %q, want %q", got, tt.want)
			}
		})
	}
}

func TestGoldenOutput(t *testing.T) {
	res := sample(t)
	var table bytes.Buffer
	if err := res.WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	document, err := json.MarshalIndent(res, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "results.txt", table.Bytes())
	golden(t, "results.json", append(document, '\n'))
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s: %s", path, diff)
	}
}

func TestResultsSurviveJSON(t *testing.T) {
	res := sample(t)
	document, err := json.Marshal(res)
	if err != nil {
		t.Fatal(err)
	}
	var back Results
	if err := json.Unmarshal(document, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(res, &back); diff != "" {
		t.Error(diff)
	}
}

// The schema in doc.go names every field of the file.
func TestDocNamesEveryField(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	document, err := json.Marshal(sample(t))
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(document, &fields); err != nil {
		t.Fatal(err)
	}
	for name := range fields {
		if !strings.Contains(string(doc), name) {
			t.Errorf("doc.go does not name %q", name)
		}
	}
}
