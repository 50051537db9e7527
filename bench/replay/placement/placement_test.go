package main

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"lbd/bench/replay/rivals"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func filled(t *testing.T, path string) *store {
	t.Helper()
	s, err := openStore(path)
	if err != nil {
		t.Fatal(err)
	}
	rev := cells[0].rev
	for seed := range uint64(5) {
		for policy, capacity := range map[string]float64{ours: 9 + float64(seed)/10, "lmetric": 10, "dynamo": 8, "oracle": 12, "cycle": 5, pooledName: 15, ceilingName: 10.5,
			ours + "-max-ttft": 14, ours + "-max-tpot": 16, "lmetric-max-ttft": 12.5, "smetric-max-ttft": 11} {
			o := outcome{Cell: "mooncake", Rev: rev, Policy: policy, Seed: seed + 1, Capacity: capacity}
			if policy == ours || strings.HasPrefix(policy, ours+"-max") || policy == "cycle" {
				o.PolicyRev = 3
			}
			if err := s.add(o); err != nil {
				t.Fatal(err)
			}
		}
	}
	return s
}

// What was added is there when the file is opened again, and nothing of it is run twice.
func TestStoreResumes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "p.jsonl")
	filled(t, path)
	again, err := openStore(path)
	if err != nil || len(again.done) != 55 {
		t.Fatalf("%d outcomes, %v; want 55", len(again.done), err)
	}
	w := worker{options: &options{rev: 3}, store: again}
	for _, p := range allPolicies() {
		if p.Name == "lmetric" || p.Name == ours {
			for i := range cells {
				if cells[i].name != "mooncake" {
					continue
				}
				if _, ok := again.get(w.job(task{c: &cells[i], p: p, seed: 2})); !ok {
					t.Errorf("%s would be run again", p.Name)
				}
			}
		}
	}
	if err := os.WriteFile(path, []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := openStore(path); err == nil || !strings.Contains(err.Error(), "p.jsonl:1") {
		t.Errorf("error %v, want one that names file and line", err)
	}
}

func TestReport(t *testing.T) {
	s := filled(t, filepath.Join(t.TempDir(), "p.jsonl"))
	text := report(s)
	for _, want := range []string{
		"| mooncake | yes | 5 | 9.2 x | lmetric | 10 | -8.0 % (-9.2 to -6.8) | cycle 5 | 12 | 15 (+50 %) | 10.5 (+5 %) |", // the oracle is no rival
		"less than 10 % above the best rival in 1: no rule that serves\nevery request can reach the goal there for long (mooncake)",
		"- mooncake: lmetric -8.0 %",
		"| mooncake | yes | 5 | 14 x | +52.2 % (+50.2 to +54.2) | lmetric +40.0 % (+40.0 to +40.0) | lmetric | +12.0 % (+12.0 to +12.0) | - | - |",
		"| mooncake | yes | 5 | 16 x | +74.0 % (+71.7 to +76.2) | lmetric +60.0 % (+60.0 to +60.0) | - | - | - | - |",
		"refuses nothing, in 1; of the 1 heavy ones at least 10 %\nabove in 1.",
		"| oracle | 100 |", "| lmetric | 83 |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "| pooled | 1") || strings.Contains(text, "pooled, lmetric") {
		t.Error("a yardstick is among the rules")
	}
	if strings.Contains(text, "| lmetric-max-ttft |") || strings.Contains(text, "| "+ours+"-max-ttft | 1") {
		t.Error("what refuses is among the rules")
	}
	if strings.Contains(text, "dynamo -") {
		t.Error("a rival that carries less is among the losses")
	}
	newer := outcome{Cell: "mooncake", Rev: cells[0].rev, Policy: ours, PolicyRev: 4, Seed: 1, Capacity: 11}
	if err := s.add(newer); err != nil {
		t.Fatal(err)
	}
	if text := report(s); strings.Contains(text, "9.2 x") || !strings.Contains(text, "| 1 | 11 x") {
		t.Error("outcomes of an older revision of lbd's own rules are shown")
	}
}

func TestBootstrap(t *testing.T) {
	low, high := bootstrap([]float64{1, 1.1, .9, 1.05, .95})
	if !(low > .9 && low < 1 && high > 1 && high < 1.1) {
		t.Errorf("%v to %v, want an interval around 1 within the values", low, high)
	}
	if low, high := bootstrap([]float64{1, 2}); !math.IsNaN(low) || !math.IsNaN(high) {
		t.Errorf("%v to %v from two values, want none", low, high)
	}
	if r := compare(sample{1: 2, 2: 4, 3: 9}, sample{1: 1, 2: 2, 4: 1}); r.n != 2 || r.mean != 2 {
		t.Errorf("%+v; want the ratio 2 over the two seeds both have", r)
	}
}

func TestCellsAreWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range cells {
		if c.name == "" || seen[c.name] || c.rev < 1 || c.traffic == nil || c.unit == "" || c.from <= 0 || c.good <= 0 || c.good >= 1 || c.count < 100 {
			t.Errorf("cell %+v is not whole, or twice there", c.name)
		}
		seen[c.name] = true
	}
	for _, name := range []string{"shared-prefix", "bursty-code"} {
		for i := range cells {
			if cells[i].name != name {
				continue
			}
			w, err := cells[i].traffic(newData(""), 1, 10)
			if err != nil || w == nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// No setting that was tried was better in the tuning cells than the one that is taken.
func TestTheBestSettingsAreTaken(t *testing.T) {
	s, err := openStore("../../results/placement.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for i := range rivals.Tunables {
		tn := &rivals.Tunables[i]
		scores := tuning(s, tn)
		for k, score := range scores {
			if score == 0 {
				t.Errorf("%s: no outcomes in the tuning cells; run -tune", tn.Policy(k).Name)
			}
			if score > scores[tn.Taken]+1e-9 {
				t.Errorf("%s reaches %.4f, more than the %.4f of %q, which is taken", tn.Policy(k).Name, score, scores[tn.Taken], tn.Tried[tn.Taken].Label)
			}
		}
	}
}
