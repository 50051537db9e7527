package workload

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"lbd/bench/load"
	"lbd/bench/trace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// draw makes at most n requests.
func draw(w *Workload, seed uint64, n int) []load.Request {
	mix, err := trace.NewMix([]string{"a", "b"}, []float64{1, 3})
	if err != nil {
		panic(err)
	}
	var all []load.Request
	for q := range w.Draw(mix, seed) {
		if all = append(all, q); len(all) == n {
			break
		}
	}
	return all
}

func simple(change func(*Workload)) *Workload {
	w := &Workload{Name: "w", Arrival: Arrival{Rate: 10}, Requests: 1000, Classes: []Class{NewClass("c")}}
	change(w)
	return w
}

func TestEqualSeedsDrawEqualRequests(t *testing.T) {
	w := simple(func(w *Workload) {
		c := &w.Classes[0]
		c.Turns, c.Think = trace.Lengths{Min: 1, Max: 4}, Think{Mean: time.Second}
		c.Prefix = Prefix{Tenants: 9, Tokens: 100, Skew: 1}
	})
	if diff := cmp.Diff(fmt.Sprint(draw(w, 1, 0)), fmt.Sprint(draw(w, 1, 0))); diff != "" {
		t.Error(diff)
	}
	if fmt.Sprint(draw(w, 1, 20)) == fmt.Sprint(draw(w, 2, 20)) {
		t.Error("another seed draws the same")
	}
	longer := *w
	longer.Classes = slices.Clone(w.Classes)
	longer.Classes[0].Output = trace.Fixed(999)
	a, b := draw(w, 1, 50), draw(&longer, 1, 50)
	for i := range a {
		if a[i].At != b[i].At || a[i].Model != b[i].Model || a[i].PromptTokens != b[i].PromptTokens || a[i].Prefix != b[i].Prefix {
			t.Fatalf("another output length moves request %d: %+v, %+v", i, a[i], b[i])
		}
	}
}

// The number of requests counts turns and cuts the last conversation.
func TestRequestsCountTurns(t *testing.T) {
	w := simple(func(w *Workload) { w.Requests = 10; w.Classes[0].Turns = trace.Fixed(4) })
	var turns []int
	for _, q := range draw(w, 1, 0) {
		turns = append(turns, 1+len(q.Turns))
	}
	if diff := cmp.Diff([]int{4, 4, 2}, turns); diff != "" {
		t.Error(diff)
	}
}

func TestClassesAndModels(t *testing.T) {
	w := simple(func(w *Workload) {
		w.Requests = 8000
		second := NewClass("d")
		second.Weight, second.Models, second.Stream = 3, map[string]float64{"x": 1}, false
		second.Prefix = Prefix{Tenants: 2, Tokens: 5, Skew: 1}
		w.Classes = append(w.Classes, second)
	})
	count := map[string]float64{}
	for _, q := range draw(w, 1, 0) {
		count[fmt.Sprintf("%s %s %v %x %d", q.Class, q.Model, q.Stream, q.Prefix, q.PromptTokens)]++
	}
	// A quarter c, of it a quarter a; three quarters d, of it two thirds the first tenant.
	want := map[string]float64{"c a true 0 512": 500, "c b true 0 512": 1500, "d x false 100000001 517": 4000, "d x false 100000002 517": 2000}
	for key, n := range want {
		if got := count[key]; math.Abs(got-n) > 4*math.Sqrt(n) {
			t.Errorf("%q %v times, want about %v", key, got, n)
		}
	}
	if len(count) != len(want) {
		t.Errorf("%v", count)
	}
}

// gaps are the times between arrivals in seconds.
func gaps(w *Workload) []float64 {
	var all []float64
	last := time.Duration(0)
	for _, q := range draw(w, 1, 0) {
		all = append(all, (q.At - last).Seconds())
		last = q.At
	}
	return all
}

func moments(x []float64) (mean, cv float64) {
	for _, v := range x {
		mean += v / float64(len(x))
	}
	for _, v := range x {
		cv += (v - mean) * (v - mean) / float64(len(x))
	}
	return mean, math.Sqrt(cv) / mean
}

func TestProcesses(t *testing.T) {
	for _, c := range []struct {
		arrival Arrival
		cv      float64 // of gamma with shape b: 1/sqrt(b)
	}{
		{Arrival{Rate: 10}, 1},
		{Arrival{Rate: 10, Process: Constant}, 0},
		{Arrival{Rate: 10, Process: Gamma, Burstiness: 1}, 1},
		{Arrival{Rate: 10, Process: Gamma, Burstiness: .25}, 2},
		{Arrival{Rate: 10, Process: Gamma, Burstiness: 4}, .5},
	} {
		w := simple(func(w *Workload) { w.Arrival = c.arrival; w.Requests = 40000 })
		if mean, cv := moments(gaps(w)); math.Abs(mean-.1) > .003 || math.Abs(cv-c.cv) > .05*max(1, c.cv) {
			t.Errorf("%s: mean %v s, variation %v; want 0.1 and %v", &c.arrival, mean, cv, c.cv)
		}
	}
}

// The number due by a time is the integral of the rate.
func TestRamp(t *testing.T) {
	for _, c := range []struct {
		arrival Arrival
		due     func(t float64) float64
	}{
		{Arrival{Rate: 20, RampOver: 10 * time.Second}, func(t float64) float64 { return t * t }},
		{Arrival{Rate: 20, RampOver: 10 * time.Second, RampFrom: 4}, func(t float64) float64 { return 4*t + .8*t*t }},
		{Arrival{Rate: 2, RampOver: 10 * time.Second, RampFrom: 20}, func(t float64) float64 { return 20*t - .9*t*t }},
		{Arrival{Rate: 20, RampOver: 10 * time.Second, RampFrom: 2, RampShape: Exponential},
			func(t float64) float64 { return 20 / math.Log(10) * (math.Pow(10, t/10) - 1) }},
		{Arrival{Rate: 5, RampOver: 10 * time.Second, RampFrom: 5, RampShape: Exponential}, func(t float64) float64 { return 5 * t }},
	} {
		if err := c.arrival.validate(); err != nil {
			t.Error(err)
		}
		for s := .5; s < 15; s += .5 {
			n := c.due(min(s, 10)) + c.arrival.Rate*max(0, s-10)
			if got := c.arrival.at(n); math.Abs(got-s) > 1e-9 {
				t.Errorf("%s: %v are due at %v s, want %v", &c.arrival, n, got, s)
			}
		}
	}
}

func TestThink(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for in, want := range map[string]string{"5s": "5s", "2s..8s": "2s..8s", "exponential:4s": "exponential:4s", "0s": "0s", "3s..3s": "3s"} {
		got, err := ParseThink(in)
		if err != nil || got.String() != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
		sum := time.Duration(0)
		const n = 4000
		for range n {
			d := got.draw(r)
			if d < 0 || got.High > 0 && (d < got.Low || d > got.High) {
				t.Fatalf("%v draws %v", got, d)
			}
			sum += d
		}
		mean := got.Mean + (got.Low+got.High)/2
		if d := (sum/n - mean).Abs(); d > mean/10 {
			t.Errorf("%v: mean %v", got, sum/n)
		}
	}
	for _, bad := range []string{"", "5", "-1s", "3s..2s", "exponential:0s", "exponential:", "1s..", "x..2s"} {
		if _, err := ParseThink(bad); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("think time %q; want", bad)) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		change func(*Workload)
		want   string
	}{
		{func(w *Workload) {}, ""},
		{func(w *Workload) { w.Arrival = Arrival{} }, "no load; want a rate or a concurrency"},
		{func(w *Workload) { w.Arrival.Concurrency = 1 }, "a rate and a concurrency; want one of both"},
		{func(w *Workload) { w.Requests = 0 }, "no end; want a number of requests or a duration"},
		{func(w *Workload) { w.Classes = nil }, "no classes; want at least one"},
		{func(w *Workload) { w.Arrival.Rate = 1e-9 }, "rate 1e-09; want 0.001 to 1e+06 per second"},
		{func(w *Workload) { w.Arrival.Process = "x" }, `arrival process "x"; want poisson, constant, gamma`},
		{func(w *Workload) { w.Arrival.Burstiness = 2 }, "burstiness 2 with poisson arrivals; want gamma"},
		{func(w *Workload) { w.Arrival.RampShape = Linear }, "a ramp without its length; want one"},
		{func(w *Workload) { w.Arrival.RampOver, w.Arrival.RampShape = 1, Exponential }, "an exponential ramp from 0; want a rate above 0"},
		{func(w *Workload) { w.Classes[0].Weight = 0 }, `class "c": weight 0; want a number above 0`},
		{func(w *Workload) { w.Classes[0].Name, w.Classes[0].Prefix.Tokens = "", 2 }, "0 tenants with 2 prefix tokens; want both"},
		{func(w *Workload) { w.Classes[0].Prefix.Tenants = 1 }, `class "c": 1 tenants with 0 prefix tokens; want both`},
		{func(w *Workload) { w.Classes[0].Turns = trace.Fixed(2000) }, `class "c": turns 2000; want at most 1000`},
	} {
		got := ""
		if err := simple(c.change).Validate(); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestDescribe(t *testing.T) {
	w, err := Read("../../workloads/default.json")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"name": "default", "arrival": "poisson 8/s, ramp over 10s from 1/s", "duration": "2m0s", "warmup": "20s", "slo": "ttft=1s,tpot=50ms",
		"question.weight": "5", "question.models": "a=1,b=2", "question.input_tokens": "lognormal:256,0.9,16..4096", "question.output_tokens": "lognormal:160,0.7,8..1024",
		"conversation.weight": "3", "conversation.models": "a=1,b=2", "conversation.input_tokens": "lognormal:96,0.8,8..1024", "conversation.output_tokens": "lognormal:160,0.6,8..768",
		"conversation.prefix": "20 tenants of 1024 tokens, skew 1", "conversation.turns": "2..6", "conversation.later_input_tokens": "lognormal:48,0.8,4..512",
		"conversation.think_time": "exponential:4s",
		"document.models":         "a=1,b=2", "document.input_tokens": "lognormal:6000,0.5,1024..24000", "document.output_tokens": "lognormal:120,0.5,16..512",
	}
	if diff := cmp.Diff(want, w.Describe(map[string]float64{"b": 2, "a": 1})); diff != "" {
		t.Error(diff)
	}
}

// The workloads that come with lbd can be run as they are.
func TestShippedWorkloads(t *testing.T) {
	paths, err := filepath.Glob("../../workloads/*.json")
	if err != nil || len(paths) < 4 {
		t.Fatalf("%d workloads, %v", len(paths), err)
	}
	for _, path := range paths {
		w, err := Read(path)
		if err != nil {
			t.Error(err)
			continue
		}
		if err := w.Validate(); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if name := strings.TrimSuffix(filepath.Base(path), ".json"); w.Name != name || w.Description == "" {
			t.Errorf("%s is named %q and described %q", path, w.Name, w.Description)
		}
		if len(draw(w, 1, 500)) < 20 {
			t.Errorf("%s has next to no requests", path)
		}
	}
}

func TestErrorsNameFileLineAndKey(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.bad.json")
	if err != nil || len(paths) == 0 {
		t.Fatal(err)
	}
	for _, path := range paths {
		want, err := os.ReadFile(strings.TrimSuffix(path, ".json") + ".txt")
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if _, err := Read(path); err != nil {
			got = err.Error() + "\n"
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Error(diff)
		}
	}
	if _, err := Read("testdata/none.json"); err == nil || !strings.Contains(err.Error(), "cannot read workload: open testdata/none.json") {
		t.Errorf("%v", err)
	}
}

// What is accepted can be drawn from, without a panic and without an end to it.
func FuzzParse(f *testing.F) {
	paths, _ := filepath.Glob("testdata/*.json")
	shipped, _ := filepath.Glob("../../workloads/*.json")
	for _, path := range append(paths, shipped...) {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		w, err := Parse(text)
		if err != nil || w.Validate() != nil {
			return
		}
		last := time.Duration(0)
		for _, q := range draw(w, 1, 20) {
			if q.PromptTokens < 1 || q.OutputTokens < 1 || q.At < last {
				t.Errorf("%+v after %v", q, last)
			}
			last = q.At
		}
	})
}
