package replay

import (
	"math"
	"testing"
	"time"

	"lbd/bench/sim/engine"
	"lbd/bench/trace"
)

// steady has no jitter, so that what steps take is what the ceiling reckons with.
var steady = engine.Config{Jitter: -1}

// However a workload is served, replicas compute no less than the ceiling's sum for as many good requests.
func TestLeastWork(t *testing.T) {
	for name, fleet := range map[string]Fleet{
		"alike": {{Count: 3, Engine: steady}},
		"mixed": {{Count: 2, Engine: steady}, {Count: 1, Speed: .5, Engine: steady}, {Count: 1, Preset: "llama-3.1-8b-tp2", Engine: steady}},
	} {
		for _, load := range []float64{10, 40, 80} {
			for _, policy := range []string{"cycle", "least-inflight", "least-cost"} {
				w := poisson(t, load, 1200)
				c := Config{Fleet: fleet, Policy: shippedNamed(t, policy), Seed: 1, Limits: Limits{TTFT: time.Second, TPOT: 20 * time.Millisecond}}
				r := served(t, c, w)
				good := 0
				for _, s := range r.each {
					if s.Good {
						good++
					}
				}
				demands, _, err := r.cfg.demands(w)
				if err != nil {
					t.Fatal(err)
				}
				closest := 0.0
				for _, steep := range []float64{.25, .5, .8, 1} {
					_, need := leastWork(r.servers, demands, steep, 20, float64(good)/float64(len(demands)))
					took := 0.0
					for _, s := range r.servers {
						took += millis(s.busy) * lineBelow(s, steep).weight
					}
					closest = max(closest, need/took)
				}
				if closest > 1 {
					t.Errorf("%s, %s at %g/s: it took %.3f of what the ceiling calls the least", name, policy, load, 1/closest)
				}
				if load == 80 && closest < .5 {
					t.Errorf("%s, %s at %g/s: the least is %.2f of what it took: not close", name, policy, load, closest)
				}
			}
		}
	}
}

// served is a run to its end, with its replicas.
func served(t *testing.T, c Config, w *Workload) *run {
	t.Helper()
	if err := c.fill(); err != nil {
		t.Fatal(err)
	}
	r := &run{cfg: c, workload: w, source: w.open(), computed: map[uint64]bool{}}
	if err := r.prepare(); err != nil {
		t.Fatal(err)
	}
	r.loop()
	if err := r.source.close(); err != nil {
		t.Fatal(err)
	}
	return r
}

// Prompts that share nothing and get one token: only the steepest line below the table matters.
func TestCeilingOfPrompts(t *testing.T) {
	var all []trace.Arrival
	for i := range 101 {
		all = append(all, trace.Arrival{At: time.Duration(i) * time.Second, PromptTokens: 1024, OutputTokens: 1})
	}
	got, err := Ceiling(Config{Fleet: Fleet{{Count: 2}}}, Open("prompts", trace.Of(0, all...)), .9)
	if err != nil {
		t.Fatal(err)
	}
	// 20.2 ms for 1,024 tokens is the table's best row, attention takes 0.79 ns a pair, a sequence 36 µs; 101 come in 100 s.
	if want := 2000 / (20.2 + .79e-6*1024*1024/2 + .036) / 1.01; math.Abs(got/want-1) > 1e-9 {
		t.Errorf("ceiling %.3f, want %.3f", got, want)
	}
}

// No rule carries more for long, whatever it knows.
func TestCeilingHolds(t *testing.T) {
	at := func(load float64) *Workload { return poisson(t, load, 4000) }
	c := Config{Fleet: Fleet{{Count: 1}, {Count: 1, Speed: .5}}, Limits: Limits{TTFT: time.Second, TPOT: 50 * time.Millisecond}}
	ceiling, err := Ceiling(c, at(1), .9)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []Policy{shippedNamed(t, "cycle"), shippedNamed(t, "least-cost"), Central()} {
		c.Policy = p
		load, _, err := Search{Config: c, Workload: at, Requests: 4000, Good: .9, From: 0.8 * ceiling}.Capacity()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %.1f of %.1f", p.Name, load, ceiling)
		if load > ceiling {
			t.Errorf("%s carries %.2f/s, the ceiling is %.2f", p.Name, load, ceiling)
		}
	}
}

// What the ceiling counts on: who gives up the requests that need not be good, all to one replica whose queue grows without
// end, has the others for the rest, and carries more.
func TestCeilingIsForAllRequests(t *testing.T) {
	at := func(load float64) *Workload {
		var all []trace.Arrival
		for i := range 4000 {
			a := trace.Arrival{At: time.Duration(float64(i) / load * float64(time.Second)), PromptTokens: 1024, OutputTokens: 1}
			if i%11 == 10 {
				a.PromptTokens = 16 * 1024
			}
			all = append(all, a)
		}
		return Open("long and short", trace.Of(0, all...))
	}
	c := Config{Fleet: Fleet{{Count: 4, Engine: steady}}, Limits: Limits{TTFT: time.Second, TPOT: time.Second}}
	ceiling, err := Ceiling(c, at(1), .9)
	if err != nil {
		t.Fatal(err)
	}
	c.Policy = Policy{Name: "sacrifice", New: func(Setup) Router { return &sacrifice{} }}
	r, good := served(t, c, at(1.2*ceiling)), 0
	for _, s := range r.each {
		if s.Good {
			good++
		}
	}
	if share := float64(good) / float64(len(r.each)); share < .9 {
		t.Errorf("%.3f are good at 1.2 times the ceiling of %.1f/s; want .9", share, ceiling)
	}
}

// sacrifice sends long prompts to the first replica and short ones to the others in turn.
type sacrifice struct {
	turn int
	ignored
}

func (s *sacrifice) Pick(_ time.Duration, q *Query, candidates []int) int {
	if q.PromptTokens > 1024 {
		return candidates[0]
	}
	s.turn++
	return candidates[1+s.turn%(len(candidates)-1)]
}

func (*sacrifice) FirstToken(time.Duration, *Query) {}
func (*sacrifice) Done(time.Duration, *Query, bool) {}
func (*sacrifice) Restarted(time.Duration, int)     {}

func TestCeilingNeedsArrivals(t *testing.T) {
	closed := Sessions{List: []trace.Session{{ID: "a", Turns: []trace.Turn{{PromptTokens: 1, OutputTokens: 1}}}}, Concurrent: 1}.Workload("closed")
	one := Open("one", trace.Of(0, trace.Arrival{PromptTokens: 1, OutputTokens: 1}))
	for _, w := range []*Workload{closed, one} {
		if got, err := Ceiling(Config{Fleet: Fleet{{Count: 1}}}, w, .9); err == nil {
			t.Errorf("%s: ceiling %v; want an error", w.Name, got)
		}
	}
}

// One replica in place of all has their speed and their memory.
func TestPooled(t *testing.T) {
	c := Config{
		Fleet: Fleet{{Count: 2}, {Count: 2, Speed: .5}}, KVFactor: .5, LBDs: 3, StepFactor: 1.25,
		Faults: []Fault{{Replica: 1}}, Policy: shippedNamed(t, "cycle"),
	}
	pooled, err := c.Pooled()
	if err != nil {
		t.Fatal(err)
	}
	if g := pooled.Fleet[0]; len(pooled.Fleet) != 1 || g.Count != 1 || math.Abs(g.Speed-3) > 1e-9 || g.Engine.MaxNumSeqs != 4096 || pooled.KVFactor != 2 {
		t.Errorf("pooled %+v, want one of three times the speed and four times the memory", pooled)
	}
	if len(pooled.Faults) > 0 || pooled.LBDs != 1 || pooled.StepFactor != 1.25 {
		t.Errorf("pooled %+v, want no faults, one lbd, and steps as they are", pooled)
	}
	c.StepError, c.Faults = .25, nil
	if pooled, err = c.Pooled(); err != nil || pooled.StepError != 0 || math.Abs(pooled.Fleet[0].Speed-3) < 1e-9 {
		t.Errorf("pooled %+v, %v; want the speed that the replicas have with their errors", pooled, err)
	}
	if _, err := Run(pooled, poisson(t, 20, 100)); err != nil {
		t.Error(err)
	}
}
