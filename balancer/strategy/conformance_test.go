package strategy

import (
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"lbd/balancer"
)

func TestNoCandidates(t *testing.T) {
	forEach(t, func(t *testing.T, e Entry) {
		p := e.New(seeded(1))
		for _, rs := range [][]*balancer.Replica{nil, {}} {
			if r := p.Pick(&balancer.Request{}, rs); r != nil {
				t.Errorf("picked %s from none", r.ID)
			}
		}
	})
}

func TestSingleCandidate(t *testing.T) {
	forEach(t, func(t *testing.T, e Entry) {
		p := e.New(seeded(1))
		rs := replicas(t, 5)
		poll(rs[0], 1000, 1000)
		for range 10 {
			if p.Pick(&balancer.Request{}, rs) != rs[0] {
				t.Fatal("the only candidate was not picked")
			}
		}
	})
}

// Only candidates are picked, whatever subset they are, however they are ordered and with or without a request.
func TestOnlyCandidates(t *testing.T) {
	forEach(t, func(t *testing.T, e Entry) {
		p := e.New(seeded(1))
		all := replicas(t, 1, 2, 3, 1, 2, 3, 1, 2)
		for subset := 1; subset < 1<<len(all); subset++ {
			var rs []*balancer.Replica
			for i, r := range all {
				if subset>>i&1 == 1 {
					rs = append(rs, r)
				}
			}
			if subset%2 == 0 {
				slices.Reverse(rs)
			}
			want := slices.Clone(rs)
			for range 3 {
				if r := p.Pick(&balancer.Request{Model: "m", MaxTokens: -1}, rs); !slices.Contains(rs, r) {
					t.Fatalf("subset %b: picked %v", subset, r)
				}
			}
			if !slices.Equal(rs, want) {
				t.Fatal("the candidates were changed")
			}
		}
	})
}

// Equal replicas get equal shares: alone, lightly and heavily loaded; by turns exactly, by chance within 4 sigma.
func TestFairShares(t *testing.T) {
	forEach(t, func(t *testing.T, e Entry) {
		for _, n := range []int{2, 3, 8} {
			for _, inflight := range []int{1, 2, 5, 50} {
				const picks = 6000
				got := share(t, e.New(seeded(7)), replicas(t, even(n)...), inflight, picks)
				fair := 1 / float64(n)
				sigma := math.Sqrt(fair * (1 - fair) / picks)
				if slices.Min(got) < fair-4*sigma || slices.Max(got) > fair+4*sigma {
					t.Errorf("%d replicas, %d in flight: shares %.3v, want %.3f each", n, inflight, got, fair)
				}
			}
		}
	})
}

// Weights are kept under load: the share of a replica is its part of all weights. For least-cost a weight is a guess of
// speed, and there is more to win at a fast replica than a shorter queue: it may get more than its part, in their order.
func TestWeightsHonoured(t *testing.T) {
	forEach(t, func(t *testing.T, e Entry) {
		for _, weights := range [][]int{{1, 3}, {1, 1, 1, 3}, {80, 141, 80, 1}, {2, 2, 4, 4, 8}} {
			total := 0
			for _, w := range weights {
				total += w
			}
			got := share(t, e.New(seeded(3)), replicas(t, weights...), 40*len(weights), 20000)
			for i, w := range weights {
				if e.Name == "least-cost" {
					fair := float64(w) / float64(total)
					if j := slices.Index(weights, slices.Max(weights)); got[i] > got[j]+0.03 || got[i] < fair/3-0.01 {
						t.Errorf("weights %v: shares %.3v", weights, got)
					}
					continue
				}
				if want := float64(w) / float64(total); math.Abs(got[i]-want) > 0.03 {
					t.Errorf("weights %v: shares %.3v, want %.3f at %d", weights, got, want, i)
				}
			}
		}
	})
}

// Idle equals take turns: nobody is always the first, and the first pick of a new process is not the first endpoint.
func TestTiesRotate(t *testing.T) {
	forEach(t, func(t *testing.T, e Entry) {
		rs := replicas(t, even(4)...)
		first := make(map[*balancer.Replica]bool)
		for seed := range uint64(64) {
			p := e.New(seeded(seed))
			last, run := p.Pick(&balancer.Request{}, rs), 1
			first[last] = true
			for range 200 {
				if r := p.Pick(&balancer.Request{}, rs); r == last {
					run++
				} else {
					last, run = r, 1
				}
				if run > 12 { // by chance once in 4^11 picks
					t.Fatalf("%s was picked %d times in a row", last.ID, run)
				}
			}
		}
		if len(first) != len(rs) {
			t.Errorf("the first pick went to %d of %d replicas only", len(first), len(rs))
		}
	})
}

// Requests that leave no choice, as those of a session do that has a home, do not decide where the next one goes that does:
// new sessions spread, however many requests each has.
func TestNoChoiceTakesNoTurn(t *testing.T) {
	const fleet, sessions = 3, 300
	for hits := range 2 * fleet {
		forEach(t, func(t *testing.T, e Entry) {
			rs := replicas(t, even(fleet)...)
			p := e.New(seeded(1))
			counts := map[*balancer.Replica]int{}
			for range sessions {
				res := place(p, &balancer.Request{}, rs)
				home := res.Replica()
				counts[home]++
				res.Done()
				for range hits {
					res := place(p, &balancer.Request{}, []*balancer.Replica{home})
					res.Done()
				}
			}
			for i, r := range rs {
				if n := counts[r]; n < sessions/fleet*3/5 {
					t.Errorf("with %d more requests each, replica %d is home of %d of %d sessions; want a third", hits, i, n, sessions)
				}
			}
		})
	}
}

// The strategies that know the load find the idle replica, wherever it stands.
func TestOrderMeansNothing(t *testing.T) {
	for _, name := range []string{"least-inflight", "least-waiting"} {
		e, _ := Lookup(name)
		rs := replicas(t, even(5)...)
		idle := rs[2]
		for _, r := range rs {
			if r != idle {
				res := r.Reserve()
				defer res.Done()
			}
		}
		p := e.New(seeded(1))
		for range rs {
			rs = append(rs[1:], rs[0])
			if got := p.Pick(&balancer.Request{}, rs); got != idle {
				t.Errorf("%s: picked %s, want the idle one", name, got.ID)
			}
		}
	}
}

// Shares do not depend on the order, and not on its changing with every pick.
func TestOrderDoesNotShift(t *testing.T) {
	forEach(t, func(t *testing.T, e Entry) {
		rs := replicas(t, even(4)...)
		p, counts := e.New(seeded(5)), make(map[string]int)
		rng := seeded(6).Uint64
		for range 8000 {
			i, j := rng()%4, rng()%4
			rs[i], rs[j] = rs[j], rs[i]
			r := p.Pick(&balancer.Request{}, rs)
			counts[r.ID]++
		}
		for id, n := range counts {
			if n < 1800 || n > 2200 {
				t.Errorf("%s was picked %d times of 8000, want about 2000", id, n)
			}
		}
	})
}

// A replica without metrics, or with stale ones, is neither a sink nor shunned.
func TestUnknownIsNotZero(t *testing.T) {
	fresh := func(waiting, running float64) func(*balancer.Replica) {
		return func(r *balancer.Replica) { poll(r, waiting, running) }
	}
	stale := func(waiting, running float64) func(*balancer.Replica) {
		return func(r *balancer.Replica) {
			poll(r, waiting, running)
			r.MarkStale()
		}
	}
	never := func(*balancer.Replica) {}
	forEach(t, func(t *testing.T, e Entry) {
		for _, c := range []struct {
			name          string
			first, others func(*balancer.Replica)
		}{
			{"none polled", never, never},
			{"one never polled, others busy", never, fresh(20, 100)},
			{"one never polled, others idle", never, fresh(0, 0)},
			{"one stale and idle, others busy", stale(0, 0), fresh(20, 100)},
			{"one stale and busy, others idle", stale(500, 500), fresh(0, 0)},
			{"one without gauges", func(r *balancer.Replica) { r.EndPoll(r.BeginPoll(), balancer.Sample{}, time.Unix(0, 0)) }, fresh(20, 100)},
			{"one not a number", fresh(math.NaN(), 0), fresh(20, 0)},
			{"all stale", stale(0, 0), stale(50, 100)},
		} {
			rs := replicas(t, even(4)...)
			c.first(rs[0])
			for _, r := range rs[1:] {
				c.others(r)
			}
			got := share(t, e.New(seeded(9)), rs, 40, 4000)
			if got[0] < 0.15 || got[0] > 0.35 {
				t.Errorf("%s: it gets %.2f of the picks, want about 0.25 (%.2v)", c.name, got[0], got)
			}
		}
	})
}

// Picks, reservations and snapshot swaps at once: run with -race. In the end nothing is reserved.
func TestSnapshotSwaps(t *testing.T) {
	forEach(t, func(t *testing.T, e Entry) {
		rs := replicas(t, 1, 1, 2, 3, 1, 1, 2, 3)
		var holder balancer.Holder
		picker := e.New(Options{})
		publish := func(generation uint64, available []*balancer.Replica) {
			m := &balancer.Model{Name: "m", Picker: picker, Replicas: rs, Available: available}
			holder.Store(balancer.NewSnapshot(generation, nil, []*balancer.Model{m}))
		}
		publish(0, rs)
		stop := make(chan struct{})
		var pickers, swapper sync.WaitGroup
		swapper.Go(func() {
			for i := uint64(1); ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				publish(i, rs[i%4:4+i%5])
				poll(rs[i%8], float64(i%3), float64(i%7))
				if i%5 == 0 {
					rs[i%8].MarkStale()
				}
			}
		})
		for range 4 {
			pickers.Go(func() { pickAndFinish(t, &holder, 2000) })
		}
		pickers.Wait()
		close(stop)
		swapper.Wait()
		for _, r := range rs {
			if r.InFlight() != 0 || r.Pending() != 0 {
				t.Errorf("%s: %d in flight, %d pending after all is done", r.ID, r.InFlight(), r.Pending())
			}
		}
	})
}

func pickAndFinish(t *testing.T, holder *balancer.Holder, n int) {
	var open []balancer.Reservation
	for range n {
		m := holder.Load().Model([]byte("m"))
		res, err := m.Pick(&balancer.Request{}, nil)
		if err != nil {
			t.Errorf("%d available: %v", len(m.Available), err)
			return
		}
		if !slices.Contains(m.Available, res.Replica()) {
			t.Errorf("%s is not available", res.Replica().ID)
		}
		open = append(open, res)
		if len(open) == 8 {
			open[0].FirstByte()
			open[0].Done()
			open = open[1:]
		}
	}
	for i := range open {
		open[i].Done()
	}
}

func TestNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("under the race detector a sync.Pool forgets at random; make unit runs this test without it")
	}
	forEach(t, func(t *testing.T, e Entry) {
		for _, n := range []int{1, 8, 64} {
			p, rs, q := e.New(Options{}), mixedLoad(t, n), &balancer.Request{Model: "m"}
			allocs := testing.AllocsPerRun(100, func() {
				res := place(p, q, rs)
				res.Done()
			})
			if allocs != 0 {
				t.Errorf("%d replicas: %v allocations, want 0", n, allocs)
			}
		}
	})
}

// mixedLoad are n replicas of all kinds: weights differ, one in eight has no metrics.
func mixedLoad(t testing.TB, n int) []*balancer.Replica {
	weights := even(n)
	for i := range weights {
		weights[i] += i % 3
	}
	rs := replicas(t, weights...)
	for i, r := range rs {
		if i%8 != 7 {
			poll(r, float64(i%3), float64(i%5))
		}
	}
	return rs
}

func TestTable(t *testing.T) {
	names := Names()
	for i, e := range Table {
		if got, ok := Lookup(e.Name); !ok || got.Summary != e.Summary || names[i] != e.Name {
			t.Errorf("%q: looked up %+v %v, named %q", e.Name, got, ok, names[i])
		}
		if slices.Index(names, e.Name) != i {
			t.Errorf("%q is listed twice", e.Name)
		}
	}
	if e, ok := Lookup("best"); ok {
		t.Errorf("found %q", e.Name)
	}
}

func BenchmarkPick(b *testing.B) {
	for _, e := range Table {
		for _, n := range []int{2, 8, 64} {
			for _, load := range []struct {
				name string
				make func(testing.TB, int) []*balancer.Replica
			}{{"even", polledEvenly}, {"mixed", mixedLoad}} {
				b.Run(benchName(e.Name, n, load.name), func(b *testing.B) {
					p, rs, q := e.New(Options{}), load.make(b, n), &balancer.Request{}
					b.ReportAllocs()
					for b.Loop() {
						p.Pick(q, rs)
					}
				})
			}
		}
	}
}

func polledEvenly(t testing.TB, n int) []*balancer.Replica {
	rs := replicas(t, even(n)...)
	for i, r := range rs {
		poll(r, 0, float64(i%5))
	}
	return rs
}

// BenchmarkPickParallel picks and reserves on all processors at once.
func BenchmarkPickParallel(b *testing.B) {
	for _, e := range Table {
		b.Run(e.Name, func(b *testing.B) {
			p, rs := e.New(Options{}), polledEvenly(b, 8)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				q := &balancer.Request{}
				for pb.Next() {
					res := place(p, q, rs)
					res.Done()
				}
			})
		})
	}
}
