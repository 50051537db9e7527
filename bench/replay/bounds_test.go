package replay

import (
	"testing"
	"time"

	"lbd/bench/trace"
)

func TestBounds(t *testing.T) {
	blocks := func(family uint64, n int) []uint64 {
		ids := make([]uint64, n)
		for i := range ids {
			ids[i] = family<<32 | uint64(i)
		}
		return ids
	}
	var all []trace.Arrival
	for i := range 10 {
		all = append(all, trace.Arrival{
			At: time.Duration(i) * time.Second, PromptTokens: 1024, OutputTokens: 11, Blocks: blocks(uint64(i%2), 2),
		})
	}
	w := Open("families", trace.Of(512, all...))
	b, err := BoundsOf(Config{Fleet: Fleet{{Count: 2}}, Seed: 1}, w, true)
	if err != nil {
		t.Fatal(err)
	}
	// Eight of ten prompts were seen before; a token of each is computed again, in a block of 16.
	if want := .8 * 1008 / 1024; b.ReuseRate < want-1e-9 || b.ReuseRate > want+1e-9 {
		t.Errorf("reuse %.4f, want %.4f", b.ReuseRate, want)
	}
	if b.IsolatedCached.TTFT.Mean >= b.Isolated.TTFT.Mean || b.Isolated.E2E.Mean <= b.Isolated.TTFT.Mean {
		t.Errorf("isolated %+v, with caches %+v", b.Isolated, b.IsolatedCached)
	}
	if b.Work <= 0 || b.Work > .2 {
		t.Errorf("work %.3f, want little: one request a second on two replicas", b.Work)
	}
	if b.Central.HitRate < .75 || b.Central.Completed != 10 {
		t.Errorf("central queue: %d completed, hit rate %.2f; it shares all caches", b.Central.Completed, b.Central.HitRate)
	}
	alone := mustRun(t, Config{Fleet: Fleet{{Count: 2}}, Policy: shippedNamed(t, "cycle"), Seed: 1}, w)
	if alone.TTFT.Mean < .9*b.IsolatedCached.TTFT.Mean || alone.TTFT.Mean > 1.1*b.Isolated.TTFT.Mean {
		t.Errorf("an idle fleet's TTFT is %.1f ms, want between %.1f and %.1f", alone.TTFT.Mean, b.IsolatedCached.TTFT.Mean, b.Isolated.TTFT.Mean)
	}
}

// However overloaded, a fleet does not end before the work bound says.
func TestWorkBound(t *testing.T) {
	for _, rate := range []float64{20, 100, 2000} {
		w := poisson(t, rate, 1500)
		c := Config{Fleet: Fleet{{Count: 1}, {Count: 2, Speed: .5}}, Policy: shippedNamed(t, "least-inflight"), Seed: 1}
		res := mustRun(t, c, w)
		b, err := BoundsOf(c, w, false)
		if err != nil {
			t.Fatal(err)
		}
		least := b.Work * b.Seconds
		if least > 1.05*res.Seconds {
			t.Errorf("%g/s: all has ended after %.1f s, and the work bound is %.1f", rate, res.Seconds, least)
		}
		if rate == 2000 && least < .4*res.Seconds {
			t.Errorf("%g/s: a fleet that is never idle takes %.1f s, and the work bound is %.1f: not close", rate, res.Seconds, least)
		}
	}
}

// A search finds the load that is carried beside one that is not.
func TestCapacity(t *testing.T) {
	at := func(load float64) *Workload { return poisson(t, load, 600) }
	c := Config{Fleet: Fleet{{Count: 1}}, Policy: shippedNamed(t, "cycle"), Limits: Limits{TTFT: time.Second, TPOT: 50 * time.Millisecond}}
	s := Search{Config: c, Workload: at, Requests: 600, Good: .9, From: 1}
	load, runs, err := s.Capacity()
	if err != nil {
		t.Fatal(err)
	}
	if below, above := mustRun(t, c, at(load)), mustRun(t, c, at(1.06*load)); below.Good < .9 || above.Good >= .9 || runs < 5 {
		t.Errorf("capacity %.2f/s in %d runs: %.3f good there and %.3f above", load, runs, below.Good, above.Good)
	}
}

func TestSessionsCloseTheLoop(t *testing.T) {
	s := trace.Session{ID: "a", Turns: []trace.Turn{{PromptTokens: 100, OutputTokens: 10}, {Think: time.Second, PromptTokens: 200, OutputTokens: 10}}}
	w := Sessions{List: []trace.Session{s, s, s}, Concurrent: 1, Seed: 1}.Workload("sessions")
	var begun []time.Duration
	p := shippedNamed(t, "least-waiting")
	inner := p.New
	p.New = func(set Setup) Router { return &watched{Router: inner(set), at: &begun} }
	res := mustRun(t, Config{Fleet: Fleet{{Count: 2}}, Policy: p, Seed: 1}, w)
	if res.Completed != 6 || len(begun) != 6 {
		t.Fatalf("%d completed, %d begun; want three conversations of two turns", res.Completed, len(begun))
	}
	for i := 1; i < 6; i += 2 {
		if gap := begun[i] - begun[i-1]; gap < time.Second+50*time.Millisecond {
			t.Errorf("turn 2 came %v after turn 1, want its answer and a second to think", gap)
		}
	}
}

type watched struct {
	Router
	at *[]time.Duration
}

func (w *watched) Pick(now time.Duration, q *Query, candidates []int) int {
	*w.at = append(*w.at, now)
	return w.Router.Pick(now, q, candidates)
}
