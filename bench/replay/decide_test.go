package replay

import (
	"slices"
	"testing"
	"time"

	"lbd/bench/sim/engine"
)

// A run that is ended early decides what the whole run shows, at any load, with crashes and answers that are not streamed.
func TestEarlyDecisionsAreRight(t *testing.T) {
	const requests, skip, allowed = 400, 40, 36
	stopped, enough := 0, 0
	for _, rate := range []float64{5, 10, 15, 18, 21, 24, 30, 60} {
		for _, faults := range [][]Fault{nil, {{Replica: 0, At: 4 * time.Second, For: 3 * time.Second}}} {
			c := Config{
				Fleet: Fleet{{Count: 2}}, Policy: shippedNamed(t, "least-waiting"), Seed: 3, NonStreaming: .3, Faults: faults,
				Limits: Limits{TTFT: 300 * time.Millisecond, TPOT: 30 * time.Millisecond},
			}
			bad := 0
			for _, s := range mustRun(t, c, poisson(t, rate, requests)).Each[skip:] {
				if !s.Good {
					bad++
				}
			}
			c.Skip, c.MaxBad, c.MinGood = skip, allowed, requests-skip-allowed
			r, err := Run(c, poisson(t, rate, requests))
			if err != nil {
				t.Fatal(err)
			}
			if r.Stopped == r.Enough || r.Stopped != (bad > allowed) {
				t.Errorf("%g/s, %d faults: stopped %v, enough %v; %d of %d are bad in the whole run", rate, len(faults), r.Stopped, r.Enough, bad, requests-skip)
			}
			if r.Stopped {
				stopped++
			}
			if r.Enough {
				enough++
			}
		}
	}
	if stopped < 2 || enough < 2 {
		t.Errorf("%d runs stopped, %d had enough: the loads decide nothing", stopped, enough)
	}
}

// Beyond capacity a search learns of it from requests that are late, not from their ends.
func TestLateRequestsEndARunEarly(t *testing.T) {
	c := Config{
		Fleet: Fleet{{Count: 1}}, Policy: shippedNamed(t, "cycle"), Limits: Limits{TTFT: 200 * time.Millisecond, TPOT: time.Second}, MaxBad: 50, MinGood: 550,
	}
	r, err := Run(c, poisson(t, 500, 600))
	if err != nil || !r.Stopped {
		t.Fatal(r, err)
	}
	if r.Completed > 200 {
		t.Errorf("%d requests ended before the run was known to be beyond capacity", r.Completed)
	}
}

// A search ends on the same grid wherever it begins, with few runs when it begins near the end.
func TestSearchGrid(t *testing.T) {
	at := func(load float64) *Workload { return poisson(t, load, 600) }
	c := Config{Fleet: Fleet{{Count: 1}}, Policy: shippedNamed(t, "cycle"), Limits: Limits{TTFT: time.Second, TPOT: 50 * time.Millisecond}}
	from := func(load float64, stride int) (float64, int) {
		got, runs, err := Search{Config: c, Workload: at, Requests: 600, Skip: 60, Good: .9, From: load, Stride: stride}.Capacity()
		if err != nil {
			t.Fatal(err)
		}
		return got, runs
	}
	far, many := from(1, 0)
	near, few := from(1.03*far, 2)
	if far/near > 1.1 || near/far > 1.1 {
		t.Errorf("capacity %g from far and %g from near", far, near)
	}
	if few >= many || few > 5 {
		t.Errorf("%d runs from near, %d from far; want fewer", few, many)
	}
	if s := (Search{}); s.load(s.index(far)) != far {
		t.Errorf("%v is not of the grid", far)
	}
	whole := Search{Whole: true}
	if whole.load(whole.index(.2)) != 1 || whole.load(whole.index(65.4)) != 65 || whole.lowest() != 1 {
		t.Error("whole loads are not whole")
	}
}

// A load at which nothing is good is no capacity: the search gives up at the end of the grid.
func TestNothingIsCarried(t *testing.T) {
	c := Config{Fleet: Fleet{{Count: 1}}, Policy: shippedNamed(t, "cycle"), Limits: Limits{TTFT: time.Nanosecond, TPOT: time.Nanosecond}}
	s := Search{Config: c, Workload: func(load float64) *Workload { return poisson(t, max(load, .01), 100) }, Requests: 100, Good: .9, From: 1}
	if load, _, err := s.Capacity(); load != 0 || err != nil {
		t.Errorf("capacity %g, %v; want none", load, err)
	}
}

// What the replicas are and what routers are told of them part ways with CoefficientError and StepFactor.
func TestModelErrorsAreUnknownToRouters(t *testing.T) {
	load := func() *Workload { return poisson(t, 5, 200) }
	base := Config{Fleet: Fleet{{Count: 2}}, Policy: shippedNamed(t, "least-cost"), Seed: 2}
	if err := base.fill(); err != nil {
		t.Fatal(err)
	}
	plain := mustRun(t, base, load())
	slow := base
	slow.StepFactor = 1.25
	if r := mustRun(t, slow, load()); r.TPOT.Mean < 1.2*plain.TPOT.Mean {
		t.Errorf("TPOT %.2f with steps 25 %% longer, %.2f without", r.TPOT.Mean, plain.TPOT.Mean)
	}
	off := base
	off.CoefficientError = .3
	if r := mustRun(t, off, load()); r.TPOT.Mean == plain.TPOT.Mean {
		t.Error("other coefficients change nothing")
	}
	servers, err := off.servers()
	if err != nil {
		t.Fatal(err)
	}
	told, simulated := servers[0].ReplicaInfo.Preset, servers[0].e.Preset()
	nominal, err := engine.PresetNamed(told.Name)
	if err != nil {
		t.Fatal(err)
	}
	if told.PairNS != nominal.PairNS || simulated.PairNS == nominal.PairNS || simulated.PairNS != servers[1].e.Preset().PairNS {
		t.Errorf("told %g, simulated %g and %g, nominal %g", told.PairNS, simulated.PairNS, servers[1].e.Preset().PairNS, nominal.PairNS)
	}
	for i, p := range simulated.Lin {
		if f := p.MS / nominal.Lin[i].MS; f < .7 || f > 1.3 {
			t.Errorf("row %d of Lin by %g; want 0.7 to 1.3", i, f)
		}
	}
}

func TestCoarseBlocks(t *testing.T) {
	ids := []uint64{1, 2, 3, 4, 5, 6, 7}
	if got := coarse(ids, 3); !slices.Equal(got, []uint64{3, 6}) {
		t.Errorf("%v; want the last of each whole group", got)
	}
	if got := coarse(ids, 1); !slices.Equal(got, ids) {
		t.Errorf("%v", got)
	}
}
