package main

import (
	"encoding/csv"
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// runDir is the only directory of a run below root.
func runDir(t *testing.T, root string) string {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(root, "*", "*"))
	if err != nil || len(dirs) != 1 {
		t.Fatalf("%q, %v; want one directory", dirs, err)
	}
	return dirs[0]
}

func TestBenchLeavesTheFilesOfTheRun(t *testing.T) {
	s := newBenchTarget(t, http.StatusOK)
	root := t.TempDir()
	got := bench(t, t.Context(), "--env", s.URL, "--model=org/a", "--concurrency=2", "--requests=6", "--turns=3", "--input-tokens=4", "--output-tokens=5",
		"--slo=ttft=1m", "--seed=3", "--results", root)
	dir := runDir(t, root)
	late := strings.Contains(got.stderr, "generator late") // which a busy machine makes it
	if got.code != 0 && !late || !strings.Contains(got.stdout, "goodput: 6 of 6 within ttft=1m0s") || !strings.HasSuffix(got.stdout, "\nfiles: "+dir+"\n") {
		t.Fatalf("%+v", got)
	}
	if want := regexp.MustCompile(`/127\.0\.0\.1_\d+/lbd-bench_org_a_\d{8}-\d{6}$`); !want.MatchString(dir) {
		t.Errorf("directory %q", dir)
	}
	res := readResults(t, filepath.Join(dir, "results.json"))
	want := map[string]string{"name": "flags", "arrival": "concurrency 2", "requests": "6", "models": "org/a=1", "input_tokens": "4", "output_tokens": "5",
		"turns": "3", "later_input_tokens": "4", "slo": "ttft=1m0s"}
	if diff := cmp.Diff(want, res.Workload); diff != "" || len(res.Records) != 6 || !strings.HasPrefix(res.Tool, "lbd bench ") {
		t.Errorf("%d records of %q: %s", len(res.Records), res.Tool, diff)
	}
	if res.Records[2].Turn != 2 || res.Records[2].AskedPrompt != 22 || *res.Good != 6 || res.Timeline == nil {
		t.Errorf("%+v", res.Records[2])
	}
	names := []string{}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	for _, name := range []string{"profile_export.json", "profile_export.csv", "profile_export_genai_perf.json", "profile_export_genai_perf.csv"} {
		if !slices.Contains(names, name) {
			t.Errorf("no %s in %q", name, names)
		}
	}
}

func TestBenchWorkloadFile(t *testing.T) {
	s := newBenchTarget(t, http.StatusOK)
	root := t.TempDir()
	got := bench(t, t.Context(), "--env", s.URL, "--workload=../../bench/workloads/smoke.json", "--model=m", "--concurrency=3", "--requests=20", "--warmup-requests=2",
		"--results", root, "--records=false", "--profile-export=false")
	if got.code != 0 && !strings.Contains(got.stderr, "generator late") { // which a busy machine makes it
		t.Fatalf("%+v", got)
	}
	res := readResults(t, filepath.Join(runDir(t, root), "results.json"))
	if res.Workload["name"] != "smoke" || res.Workload["arrival"] != "concurrency 3" || res.Workload["talk.turns"] != "3" || res.Workload["talk.models"] != "m=1" ||
		res.OK+res.WarmupRequests != 20 || res.WarmupRequests < 2 || len(res.Records) != 0 {
		t.Errorf("%d ok, %d warm-up, %v", res.OK, res.WarmupRequests, res.Workload)
	}
	if _, err := os.Stat(filepath.Join(runDir(t, root), "profile_export.json")); !os.IsNotExist(err) {
		t.Errorf("profile_export.json is there: %v", err)
	}
}

// An interrupted or failed start leaves no directory of a run.
func TestBenchLeavesNothingWithoutARun(t *testing.T) {
	s := newBenchTarget(t, http.StatusOK)
	root := t.TempDir()
	bench(t, t.Context(), "--env", s.URL, "--model=m", "--concurrency=1", "--requests=1", "--api=x", "--results", root)
	if dirs, _ := filepath.Glob(filepath.Join(root, "*", "*")); len(dirs) > 0 {
		t.Errorf("left over: %q", dirs)
	}
}

func TestRunDirectoriesDiffer(t *testing.T) {
	parent, now := t.TempDir(), time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	var got []string
	for _, models := range [][]string{{"org/m:1"}, {"org/m:1"}, {"a", "b"}} {
		dir, err := runDirectory(parent, "lbd-bench", models, now)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, filepath.Base(dir))
	}
	want := []string{"lbd-bench_org_m_1_20260801-120000", "lbd-bench_org_m_1_20260801-120000-2", "lbd-bench_mix_20260801-120000"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestMix(t *testing.T) {
	o := &benchOptions{models: []string{"b=3", "a", "b", "x=y"}}
	m, err := o.mix(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]float64{"a": 1, "b": 4, "x=y": 1}, m.weights); diff != "" || !slices.Equal(m.names, slices.Sorted(maps.Keys(m.weights))) {
		t.Errorf("%q: %s", m.names, diff)
	}
}

func TestEnvironments(t *testing.T) {
	for _, c := range []struct{ env, target, url, name string }{
		{"baseline", "", "http://localhost:8080", "baseline"},
		{"managed", "", "http://localhost:8081", "managed"},
		{"http://h:1/v1", "", "http://h:1/v1", "h_1"},
		{"", "https://h", "https://h", "h"},
	} {
		o := &benchOptions{env: c.env, target: c.target}
		if err := o.resolveTarget(); err != nil || o.target != c.url || o.env != c.name {
			t.Errorf("%q %q: %q, %q, %v", c.env, c.target, o.target, o.env, err)
		}
	}
}

// The summaries say what results.json says.
func TestBenchSummariesAgree(t *testing.T) {
	s := newBenchTarget(t, http.StatusOK)
	root := t.TempDir()
	bench(t, t.Context(), "--env", s.URL, "--model=m", "--concurrency=2", "--requests=9", "--output-tokens=2..9", "--results", root)
	dir := runDir(t, root)
	res := readResults(t, filepath.Join(dir, "results.json"))
	document, err := os.ReadFile(filepath.Join(dir, "profile_export_genai_perf.json"))
	if err != nil {
		t.Fatal(err)
	}
	var summary struct {
		TTFT struct{ Avg, P99, Max float64 } `json:"time_to_first_token"`
		N    struct{ Avg float64 }           `json:"request_count"`
	}
	if err := json.Unmarshal(document, &summary); err != nil {
		t.Fatal(err)
	}
	// Results give latencies to the nanosecond, so the sums may differ in the last bit.
	near := func(a, b float64) bool { return a-b < 1e-6 && b-a < 1e-6 }
	if !near(summary.TTFT.Avg, res.TTFT.Mean) || !near(summary.TTFT.P99, res.TTFT.P99) || summary.TTFT.Max != res.TTFT.Max || summary.N.Avg != 9 {
		t.Errorf("%+v, results %+v", summary, res.TTFT)
	}
	f, err := os.Open(filepath.Join(dir, "profile_export.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.FieldsPerRecord = -1
	rows, err := r.ReadAll()
	if err != nil || rows[0][0] != "Metric" || rows[1][0] != "Time To First Token (ms)" || len(rows[1]) != 13 {
		t.Errorf("%q, %v", rows, err)
	}
}
