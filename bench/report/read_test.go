package report

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// brief is what of a run is worth a line.
func brief(r *Run) string {
	t := r.Total
	s := fmt.Sprintf("%s; %s; ok %d failed %d; prompt %.0f output %.0f; %.2f/s %.1f tok/s", r.Tool, r.Workload.Load, t.OK, t.Failed,
		t.PromptTokens, t.OutputTokens, t.PerSecond, t.TokensPerSecond)
	for _, q := range []Quantity{TTFT, ITL, TPOT, E2E} {
		if sum := t.Summaries[q]; sum.Count > 0 {
			s += fmt.Sprintf("; %s %d %.2f p50 %.2f p99 %.2f", q, sum.Count, sum.at(-1), sum.at(.5), sum.at(.99))
		}
	}
	return s + fmt.Sprintf("; %d requests; models %s", len(r.Requests), r.modelNames())
}

// The figures are those that the tools' own files and printouts have.
func TestFind(t *testing.T) {
	for dir, want := range map[string][]string{
		"lbd": {"lbd bench; 10.0 requests/s; ok 24 failed 0; prompt 6124 output 196; 11.60/s 94.7 tok/s; TTFT 24 8.71 p50 5.57 p99 37.54; " +
			"ITL 97 2.35 p50 2.30 p99 12.70; TPOT "},
		"genai-perf": {"genai-perf; concurrency 2.00; ok 12 failed 0; prompt 0 output 276; 20.10/s 462.3 tok/s; TTFT 12 63.83 p50 66.50 p99 88.34; " +
			"ITL 84 "},
		"aiperf": {"aiperf 0.13.0; concurrency 16.0; ok 20 failed 0; prompt 958 output 640; "},
		"guidellm-0.3.1": {
			"guidellm; concurrency 2.00; ok 10 failed 0; prompt 115 output 80; 56.42/s 451.3 tok/s; TTFT 10 ",
			"guidellm; concurrency 2.00; ok 10 failed 0; ",
		},
		"guidellm-0.7.3": {
			"guidellm 0.7.3; concurrency 2.00; ok 10 failed 0; ",
			"guidellm 0.7.3; concurrency 2.00; ok 10 failed 0; ",
		},
		"vllm": {"vllm bench serve; concurrency 2.00; ok 12 failed 0; prompt 387 output 96; 100.00/s 800.0 tok/s; "},
		"vllm-summary": {"vllm bench serve; concurrency 32.0; ok 400 failed 0; prompt 51474 output 19200; 447.60/s 21484.6 tok/s; " +
			"TTFT 400 29.68 p50 28.51 p99 61.58; ITL 400 1.97 p50 0.62 p99 11.27; TPOT 400 0.79 p50 0.80 p99 1.07; 0 requests; models meta-llama/Llama-3.1-8B-Instruct"},
	} {
		t.Run(dir, func(t *testing.T) {
			runs, err := Find(filepath.Join("testdata", dir))
			if err != nil {
				t.Fatal(err)
			}
			if len(runs) != len(want) {
				t.Fatalf("%d runs; want %d", len(runs), len(want))
			}
			for i, r := range runs {
				if !strings.HasPrefix(brief(r), want[i]) {
					t.Errorf("run %d is\n%s\nwant it to begin\n%s", i, brief(r), want[i])
				}
			}
		})
	}
}

// A summary without records is a run too, as JSON and as CSV.
func TestSummariesAlone(t *testing.T) {
	for _, file := range []string{"profile_export_genai_perf.json", "profile_export_genai_perf.csv"} {
		dir := t.TempDir()
		b, err := os.ReadFile(filepath.Join("testdata/genai-perf", file))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), b, 0o600); err != nil {
			t.Fatal(err)
		}
		runs, err := Find(dir)
		if err != nil || len(runs) != 1 {
			t.Fatalf("%s: %d runs, %v", file, len(runs), err)
		}
		got := brief(runs[0])
		for _, want := range []string{"ok 12 failed 0", "462.3 tok/s", "TTFT 12 63.83 p50 66.50 p99 88.34", "E2E 12 136.58", "0 requests"} {
			if !strings.Contains(got, want) {
				t.Errorf("%s is %s; want %s", file, got, want)
			}
		}
	}
}

// What lbd bench leaves for other tools' readers is the same run, not a repeat.
func TestExportsAreNoRepeats(t *testing.T) {
	dir := t.TempDir()
	for _, file := range []string{"lbd/results.json", "genai-perf/profile_export.json", "genai-perf/profile_export_genai_perf.json", "guidellm-0.7.3/0.json"} {
		b, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	runs, err := Find(dir)
	if err != nil || len(runs) != 1 || runs[0].Tool != "lbd bench" {
		t.Errorf("%d runs, %v; want the one of lbd bench", len(runs), err)
	}
}

func TestBrokenFilesAreNamed(t *testing.T) {
	for name, content := range map[string]string{
		"cut.json":   `{"schema":"lbd-bench/1","seconds":`,
		"later.json": `{"schema":"lbd-bench/9"}`,
		"vllm.json":  `{"request_throughput":1,"mean_ttft_ms":1,"num_prompts":1,`,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Find(dir); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error %v; want one that names it", name, err)
		}
	}
}

// A run whose results are lost, as on a full disk, is not passed over as if it had not
// been: its environment would have a repeat less, or look empty.
func TestLostResultsAreNamed(t *testing.T) {
	for content, lost := range map[string]bool{"": true, "{": true, `{"of":"another tool"}`: false} {
		dir := filepath.Join(t.TempDir(), "lbd-bench_m_20260101-000000")
		path := filepath.Join(dir, "results.json")
		if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
		_, err := Find(dir)
		if named := err != nil && strings.HasPrefix(err.Error(), "cannot read results: "+path+": is no JSON"); named != lost {
			t.Errorf("%q: error %v; want one: %v", content, err, lost)
		}
	}
}

func TestOtherFilesArePassedOver(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"inputs.json": `{"data":[]}`, "notes.txt": "lbd-bench/", ".hidden.json": `{"schema":"lbd-bench/1"`, "other.csv": "a,b\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if runs, err := Find(dir); err != nil || len(runs) != 0 {
		t.Errorf("%d runs, %v; want none", len(runs), err)
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct{ dirs, want []string }{
		{[]string{"results/baseline", "results/managed"}, []string{"baseline", "managed"}},
		{[]string{"results/baseline/x", "results/managed/x"}, []string{"baseline", "managed"}},
		{[]string{"/a/b/", "/c/b"}, []string{"a", "c"}},
		{[]string{"/a/b", "/a/b"}, []string{"/a/b", "/a/b"}},
		{[]string{"results"}, []string{"results"}},
	} {
		if diff := cmp.Diff(c.want, names(c.dirs)); diff != "" {
			t.Errorf("%v: %s", c.dirs, diff)
		}
	}
}
