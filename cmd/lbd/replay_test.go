package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lbd/bench/replay"
)

const azureRows = "../../bench/trace/testdata/azure.csv"

// TestReplay: a table to read, a file to keep, the same twice.
func TestReplay(t *testing.T) {
	run := func() (result, string) {
		file := filepath.Join(t.TempDir(), "out.json")
		res := lbd(t, "replay", "--trace", azureRows, "--trace-format", "azure", "--strategies", "cycle,least-waiting",
			"--replicas", "3,1", "--seeds", "2", "--warmup", "0", "--quiet", "--json", file)
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err, res)
		}
		return res, string(text)
	}
	res, file := run()
	if res.code != 0 || res.stderr != "" || strings.Count(res.stdout, "\n") != 5 {
		t.Fatalf("%+v; want a head and four rows", res)
	}
	var kept struct{ Results []replay.Result }
	if err := json.Unmarshal([]byte(file), &kept); err != nil || len(kept.Results) != 8 {
		t.Fatalf("%d results (%v), want 2 fleets x 2 strategies x 2 seeds", len(kept.Results), err)
	}
	for _, r := range kept.Results {
		if r.Completed != 4 || r.TTFT.Mean <= 0 || r.E2E.Mean < r.TTFT.Mean {
			t.Errorf("%+v; want 4 requests served", r)
		}
	}
	if again, second := run(); again != res || second != file {
		t.Error("a second run differs from the first")
	}
}

func TestReplayRefuses(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--strategies", "least-wating"}, "did you mean least-waiting?"},
		{[]string{"--replicas", "0"}, "--replicas"},
		{[]string{"--fleet", "2xgpt-2"}, "preset"},
		{[]string{"--trace", "/nowhere"}, "--trace"},
		{[]string{"--trace-speed", "0"}, "--trace-speed"},
		{[]string{"--non-streaming", "2"}, "2"},
		{[]string{"--strategies", "nonsense"}, "want cycle, random, "},
		{[]string{"--fault", "crash:1"}, "--fault"},
		{[]string{"--replicas", "8,6", "--fault", "crash:6@1s"}, `--fault "crash:6@1s": a fault of replica 6 in a fleet of 6; want 0 to 5`},
		{[]string{"--trace-format", "csv"}, `--trace-format "csv"; want one of azure, mooncake, access-log, agents`},
		{[]string{"--made", "poisson"}, "--made"},
		{[]string{"--sessions", "0"}, "--sessions"},
		{[]string{"--kv-factor", "0"}, "--kv-factor 0; want more than 0"},
		{[]string{"--admission-max-ttft", "-1s"}, "--admission-max-ttft -1s"},
		{[]string{"--admission-max-tpot", "-1s"}, "--admission-max-tpot -1s"},
		{[]string{"--tpot", "0"}, "output tokens within 0s each; want more than 0"},
		{[]string{"--admission-ttft-per-token", "1ms"}, "--admission-ttft-per-token 1ms adds to no limit; want --admission-max-ttft as well"},
		{[]string{"--seeds", "0"}, "--seeds 0; want more than 0"},
		{[]string{"--trace-format", "agents", "--bounds"}, "--bounds with --trace-format agents"},
	} {
		args := append([]string{"replay", "--quiet", "--trace", azureRows, "--trace-format", "azure"}, c.args...)
		if res := lbd(t, args...); res.code != exitUsage || !strings.Contains(res.stderr, c.want) {
			t.Errorf("%v: %+v; want exit 1 and %q", c.args, res, c.want)
		}
	}
}

// Made-up traffic, a rule of another project, a crash and the limits.
func TestReplayMadeUp(t *testing.T) {
	res := lbd(t, "replay", "--quiet", "--made", "shared-prefix", "--rate", "20", "--requests", "200", "--replicas", "3",
		"--strategies", "cycle,lmetric", "--fault", "crash:1@2s+3s", "--bounds", "--block-size", "64")
	if res.code != 0 || !strings.Contains(res.stdout, "lmetric") || !strings.Contains(res.stdout, "central queue") {
		t.Errorf("%+v; want both strategies and the limits", res)
	}
	if res := lbd(t, "replay", "--quiet", "--made", "rain"); res.code != exitUsage || !strings.Contains(res.stderr, "poisson") {
		t.Errorf("%+v; want the kinds there are", res)
	}
}

// A limit on first tokens refuses, and says how many.
func TestReplayRefusing(t *testing.T) {
	args := []string{"replay", "--quiet", "--made", "shared-prefix", "--rate", "40", "--requests", "300", "--replicas", "2", "--strategies", "least-cost"}
	last := func(res result) string {
		t.Helper()
		fields := strings.Fields(res.stdout)
		if res.code != 0 || len(fields) == 0 {
			t.Fatalf("%+v", res)
		}
		return fields[len(fields)-1]
	}
	if n := last(lbd(t, args...)); n != "0.0" {
		t.Errorf("%s %% refused without a limit", n)
	}
	if n := last(lbd(t, append(args, "--admission-max-ttft", "200ms")...)); n == "0.0" {
		t.Error("nobody refused at ten times what two replicas carry")
	}
	if n := last(lbd(t, append(args, "--admission-max-tpot", "20ms")...)); n == "0.0" {
		t.Error("nobody refused for slow tokens")
	}
	if n := last(lbd(t, append(args, "--admission-max-ttft", "200ms", "--admission-ttft-per-token", "1s")...)); n != "0.0" {
		t.Errorf("%s %% refused of those that have a second for each token", n)
	}
}

// An access log of several models says so, and one of them can be taken.
func TestReplayOneModelOfSeveral(t *testing.T) {
	log := filepath.Join(t.TempDir(), "access.log")
	var lines strings.Builder
	for i, model := range []string{"a", "b", "a", "b", "a"} {
		fmt.Fprintf(&lines, `{"message":"request","status":200,"model":%q,"prompt_tokens":10,"completion_tokens":5,"duration_ms":100,"time":"2026-01-01T00:00:0%d.000Z"}`+"\n", model, i)
	}
	if err := os.WriteFile(log, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"replay", "--quiet", "--trace", log, "--trace-format", "access-log", "--strategies", "cycle", "--warmup", "0"}
	requests := func(more ...string) (n int, stderr string) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "out.json")
		res := lbd(t, append(append(args, "--json", file), more...)...)
		text, err := os.ReadFile(file)
		if res.code != 0 || err != nil {
			t.Fatal(res, err)
		}
		var kept struct{ Results []replay.Result }
		if err := json.Unmarshal(text, &kept); err != nil {
			t.Fatal(err)
		}
		return kept.Results[0].Completed, res.stderr
	}
	if n, said := requests(); n != 5 || !strings.Contains(said, "2 models") || !strings.Contains(said, "a, b") {
		t.Errorf("all: %d requests, %q; want 5 and the names of both models", n, said)
	}
	if n, said := requests("--model", "a"); n != 3 || said != "" {
		t.Errorf("of a: %d requests, %q; want 3 and nothing to say", n, said)
	}
	if res := lbd(t, append(args, "--model", "c")...); res.code == 0 || !strings.Contains(res.stderr, `--model "c"`) {
		t.Errorf("of c: %+v; want an error", res)
	}
}

// The page has every strategy and fleet, with curves.
func TestReplayPage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "what-if.html")
	res := lbd(t, "replay", "--quiet", "--made", "poisson", "--rate", "20", "--requests", "200", "--replicas", "3,1", "--seeds", "2",
		"--strategies", "cycle,least-cost", "--html", file)
	text, err := os.ReadFile(file)
	if res.code != 0 || err != nil {
		t.Fatal(res, err)
	}
	for _, want := range []string{
		"What if: poisson, 20 requests per second", "least-cost", "3 replicas", "1 replica:", "Sizes of the fleet", "p99 TTFT",
		"Time to first token (TTFT)", "200 requests", "2 seeds",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if n := strings.Count(string(text), `role="img"`); n != 2+2*3 {
		t.Errorf("%d charts; want two over the fleets and three for each", n)
	}
	if strings.Contains(string(text), "NaN") {
		t.Error("a number that is none")
	}
	if res := lbd(t, "replay", "--quiet", "--made", "poisson", "--requests", "100", "--strategies", "cycle", "--html", "/nowhere/x.html"); res.code == 0 {
		t.Error("a page that cannot be written is no error")
	}
}
