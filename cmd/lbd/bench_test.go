package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lbd/bench/load"
)

// benchTarget is a server that answers with the length asked for at once.
type benchTarget struct {
	*httptest.Server
	mu     sync.Mutex
	status int // of every answer
	asked  map[string]int
	bodies [][]byte
	heard  func() // at each request; nil = nothing is done
}

func newBenchTarget(t *testing.T, status int) *benchTarget {
	s := &benchTarget{status: status, asked: map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"object":"list","data":[{"id":"org/a"},{"id":"org/b"}]}`)
	})
	mux.HandleFunc("POST /v1/chat/completions", s.complete)
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func (s *benchTarget) complete(w http.ResponseWriter, q *http.Request) {
	var body bytes.Buffer
	body.ReadFrom(q.Body)
	var ask struct {
		Model     string `json:"model"`
		MaxTokens int    `json:"max_tokens"`
		Stream    bool   `json:"stream"`
	}
	json.Unmarshal(body.Bytes(), &ask)
	s.mu.Lock()
	s.asked[ask.Model]++
	s.bodies = append(s.bodies, body.Bytes())
	s.mu.Unlock()
	if s.heard != nil {
		s.heard()
	}
	if s.status != http.StatusOK {
		http.Error(w, `{"error":{"message":"full","code":"overloaded"}}`, s.status)
		return
	}
	if !ask.Stream {
		fmt.Fprintf(w, `{"choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":1,"completion_tokens":%d}}`, ask.MaxTokens)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	for range ask.MaxTokens {
		fmt.Fprint(w, `data: {"choices":[{"index":0,"delta":{"content":"x"}}]}`+"\n\n")
	}
	fmt.Fprintf(w, "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":%d}}\n\ndata: [DONE]\n\n", ask.MaxTokens)
}

// bench runs lbd bench with the arguments.
func bench(t *testing.T, ctx context.Context, args ...string) result {
	t.Helper()
	root := newRootCommand()
	if found, _, err := root.Find([]string{"bench"}); err != nil || found == root {
		sub := newBenchCommand()
		sub.Args = usageArgs(sub.Args)
		root.AddCommand(sub)
	}
	var stdout, stderr bytes.Buffer
	if !slices.ContainsFunc(args, func(arg string) bool {
		return strings.HasPrefix(arg, "--output") || strings.HasPrefix(arg, "--results")
	}) {
		args = append(args, "--results", t.TempDir())
	}
	root.SetArgs(append([]string{"bench"}, args...))
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	cmd, err := root.ExecuteContextC(ctx)
	code := report(&stderr, cmd, err)
	return result{code, stdout.String(), stderr.String()}
}

func readResults(t *testing.T, path string) load.Results {
	t.Helper()
	document, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var res load.Results
	if err := json.Unmarshal(document, &res); err != nil {
		t.Fatal(err)
	}
	return res
}

func TestBenchClosedLoop(t *testing.T) {
	s := newBenchTarget(t, http.StatusOK)
	file := filepath.Join(t.TempDir(), "out.json")
	got := bench(t, t.Context(), "--target", s.URL, "--concurrency=4", "--requests=40", "--input-tokens=20..40", "--output-tokens=3", "--output", file)
	if got.code != 0 || got.stderr != "" || !strings.Contains(got.stdout, "40 ok, 0 failed") || !strings.Contains(got.stdout, "org/a") {
		t.Fatalf("%+v", got)
	}
	res := readResults(t, file)
	if res.OK != 40 || res.Concurrency != 4 || len(res.Records) != 40 || res.OutputTokens != 120 || res.Seed == 0 {
		t.Errorf("%+v", res)
	}
	if s.asked["org/a"]+s.asked["org/b"] != 40 || s.asked["org/a"] == 0 || s.asked["org/b"] == 0 {
		t.Errorf("asked for %v, want both that are served", s.asked)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), ".out*")); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}

func TestBenchOpenLoopAndSeed(t *testing.T) {
	plan := func(args ...string) []load.Record {
		s := newBenchTarget(t, http.StatusOK)
		file := filepath.Join(t.TempDir(), "out.json")
		got := bench(t, t.Context(), append([]string{"--target", s.URL, "--rate=300", "--requests=30", "--model=a=3", "--model=b", "--input-tokens=lognormal:50,1",
			"--output-tokens=1..5", "--output", file}, args...)...)
		// Exit 3 is for a machine too busy to be on time.
		if got.code != 0 && !strings.Contains(got.stderr, "generator late") {
			t.Fatalf("%+v", got)
		}
		var asked []load.Record
		for _, rec := range readResults(t, file).Records {
			asked = append(asked, load.Record{Index: rec.Index, Model: rec.Model, Scheduled: rec.Scheduled, AskedPrompt: rec.AskedPrompt, AskedOutput: rec.AskedOutput})
		}
		return asked
	}
	first := plan("--seed=5")
	if diff := cmp.Diff(first, plan("--seed=5")); diff != "" || len(first) != 30 {
		t.Errorf("the same seed plans otherwise: %s", diff)
	}
	if cmp.Equal(first, plan()) {
		t.Error("without a seed the plan is that of a seed")
	}
}

func TestBenchTrace(t *testing.T) {
	s := newBenchTarget(t, http.StatusOK)
	got := bench(t, t.Context(), "--target", s.URL, "--model=m", "--trace", "../../bench/trace/testdata/mooncake.jsonl", "--trace-format=mooncake",
		"--trace-speed=1000", "--max-length=2400", "--max-error-rate=0", "--seed=1", "--records=false")
	// Rows of 2290+316 tokens do not fit, 2012+354, 915+355, 1053+26, 1477+615, 2293+31 do.
	if got.code != 0 && !strings.Contains(got.stderr, "generator late") || !strings.Contains(got.stdout, "5 ok, 0 failed") ||
		!strings.Contains(got.stdout, "1 trace requests above --max-length 2400 left out") {
		t.Fatalf("%+v", got)
	}
	// All rows start with block 0: so do the prompts, for 512 tokens.
	prompt := func(body []byte) string {
		_, text, _ := strings.Cut(string(body), `"content":"`)
		return text
	}
	a, b := prompt(s.bodies[0]), prompt(s.bodies[1])
	if a[:2048] != b[:2048] || a[2048:2112] == b[2048:2112] {
		t.Error("prompts do not share what the trace says")
	}
}

func TestBenchFailsItsChecks(t *testing.T) {
	s := newBenchTarget(t, http.StatusTooManyRequests)
	got := bench(t, t.Context(), "--target", s.URL, "--model=m", "--concurrency=1", "--requests=3")
	want := "lbd: not to be trusted: no request succeeded; 3 of 3 requests failed (100.00 %); want at most 1.00 %\n"
	if got.code != exitMeasure || got.stderr != want || !strings.Contains(got.stdout, "failed: status_429 overloaded 3   full\n") {
		t.Errorf("%+v", got)
	}
	if got := bench(t, t.Context(), "--target", s.URL, "--model=m", "--concurrency=1", "--requests=3", "--max-error-rate=1", "--quiet"); got.code != exitMeasure || got.stdout != "" {
		t.Errorf("nothing succeeded: %+v", got)
	}
}

func TestBenchInterrupted(t *testing.T) {
	s := newBenchTarget(t, http.StatusOK)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.heard = cancel
	file := filepath.Join(t.TempDir(), "out.json")
	got := bench(t, ctx, "--target", s.URL, "--model=m", "--rate=20", "--duration=1h", "--output", file)
	if got.code != exitMeasure || !strings.Contains(got.stderr, "interrupted") || !readResults(t, file).Interrupted {
		t.Errorf("%+v", got)
	}
}

func TestBenchStartErrors(t *testing.T) {
	s := newBenchTarget(t, http.StatusOK)
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	load := []string{"--rate=1", "--requests=1", "--model=m"}
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"no target", load, exitUsage, "no target; want --env baseline, managed or a URL"},
		{"no load", []string{"--target", s.URL}, exitUsage, "no load; want --rate, --concurrency, --workload or --trace"},
		{"two loads", append(load, "--target", s.URL, "--concurrency=1"), exitUsage, "--rate goes neither"},
		{"no end", []string{"--target", s.URL, "--rate=1"}, exitUsage, "no end; want --requests or --duration"},
		{"no format", []string{"--target", s.URL, "--trace=x"}, exitUsage, "want --trace-format azure, mooncake or access-log"},
		{"bad format", []string{"--target", s.URL, "--trace=x", "--trace-format=y"}, exitUsage, `unknown trace format "y"`},
		{"no trace file", []string{"--target", s.URL, "--trace=none", "--trace-format=azure"}, exitUsage, "cannot open trace"},
		{"trace flag without trace", append(load, "--target", s.URL, "--trace-speed=2"), exitUsage, "--trace-speed without --trace"},
		{"speed", []string{"--target", s.URL, "--trace=x", "--trace-format=azure", "--trace-speed=0"}, exitUsage, "--trace-speed 0; want more"},
		{"negative", append(load, "--target", s.URL, "--warmup=-1s"), exitUsage, "--warmup below 0"},
		{"input", append(load, "--target", s.URL, "--input-tokens=x"), exitUsage, `--input-tokens: length distribution "x"`},
		{"output", append(load, "--target", s.URL, "--output-tokens=0"), exitUsage, `--output-tokens: length distribution "0"`},
		{"model", []string{"--target", s.URL, "--rate=1", "--requests=1", "--model=a=0"}, exitUsage, `--model: model "a" with weight 0`},
		{"URL", append(load, "--target=x:1"), exitUsage, `target "x:1"; want baseline, managed or a URL like`},
		{"API", append(load, "--target", s.URL, "--api=x"), exitUsage, `unknown API "x"`},
		{"two targets", append(load, "--target", s.URL, "--env=managed"), exitUsage, "--env and --target; want one of both"},
		{"workload and trace", []string{"--env", s.URL, "--workload=x", "--trace=y"}, exitUsage, "--workload and --trace; want one of both"},
		{"class flag with workload", []string{"--env", s.URL, "--workload=x", "--turns=2"}, exitUsage, "--turns with --workload; want it in the file"},
		{"class flag with trace", []string{"--env", s.URL, "--trace=x", "--trace-format=azure", "--turns=2"}, exitUsage, "--turns with --trace, which has its own"},
		{"ramp with trace", []string{"--env", s.URL, "--trace=x", "--trace-format=azure", "--ramp=2s"}, exitUsage, "--ramp with --trace, which has its own times"},
		{"no workload file", []string{"--env", s.URL, "--workload=none.json"}, exitUsage, "cannot read workload: open none.json"},
		{"bad workload", []string{"--env", s.URL, "--workload=../../bench/load/workload/testdata/arrival.bad.json"}, exitUsage, `arrival.bad.json:2: arrival.ramp: no "over"`},
		{"arrival", append(load, "--env", s.URL, "--arrival=x"), exitUsage, `arrival process "x"; want poisson, constant, gamma`},
		{"burstiness", append(load, "--env", s.URL, "--burstiness=2"), exitUsage, "burstiness 2 with poisson arrivals; want gamma"},
		{"arrival of a closed loop", []string{"--concurrency=1", "--requests=1", "--model=m", "--env", s.URL, "--ramp-from=2"}, exitUsage, "--ramp-from with --concurrency; want it with --rate"},
		{"think time", append(load, "--env", s.URL, "--think-time=2"), exitUsage, `--think-time: think time "2"; want one like`},
		{"half a prefix", append(load, "--env", s.URL, "--prefix-tokens=2"), exitUsage, "0 tenants with 2 prefix tokens; want both"},
		{"limits", append(load, "--env", s.URL, "--slo=ttft"), exitUsage, `--slo: limit "ttft"; want a time above 0`},
		{"results", append(load, "--env", s.URL, "--results=bench.go/x"), exitUsage, "cannot write results: mkdir bench.go"},
		{"file", append(load, "--target", s.URL, "--output=none/x.json"), exitUsage, "cannot write --output"},
		{"error rate", append(load, "--target", s.URL, "--max-error-rate=5"), exitUsage, "--max-error-rate 5; want 0 to 1"},
		{"target gone", []string{"--target", closed.URL, "--rate=1", "--requests=1"}, exitStart, "cannot list models"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := bench(t, t.Context(), c.args...)
			if got.code != c.code || !strings.Contains(got.stderr, c.want) || got.stdout != "" {
				t.Errorf("%+v; want %d and %q", got, c.code, c.want)
			}
		})
	}
	if len(s.bodies) != 0 {
		t.Errorf("%d requests sent", len(s.bodies))
	}
}

func TestBenchBrokenTraceIsNoResult(t *testing.T) {
	s := newBenchTarget(t, http.StatusOK)
	path := filepath.Join(t.TempDir(), "t.csv")
	os.WriteFile(path, []byte("TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:15:46.6805900,3,4\r\n2023-11-16 18:15:46.69,x,4"), 0o600)
	file := filepath.Join(t.TempDir(), "out.json")
	got := bench(t, t.Context(), "--target", s.URL, "--model=m", "--trace", path, "--trace-format=azure", "--output", file)
	if got.code != exitUsage || !strings.Contains(got.stderr, `line 3: ContextTokens "x"`) || got.stdout != "" {
		t.Errorf("%+v", got)
	}
	if left, _ := os.ReadDir(filepath.Dir(file)); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestProgressLine(t *testing.T) {
	ms := time.Millisecond
	got := progressLine(load.Snapshot{Elapsed: 12 * time.Second, Done: 100, InFlight: 7, Errors: 1, RecentDone: 9.5,
		RecentTTFT: load.Quantiles{P50: 120 * ms, P99: 900 * ms}, RecentITL: load.Quantiles{P50: 15 * ms, P99: 40 * ms}})
	want := "12 s: 100 done, 7 in flight, 1 failed, 9.5/s  TTFT p50 120 p99 900  ITL p50 15.0 p99 40.0 ms"
	if got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
