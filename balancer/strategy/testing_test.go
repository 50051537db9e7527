package strategy

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lbd/balancer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// seeded makes options whose randomness repeats.
func seeded(seed uint64) Options {
	rng := rand.New(rand.NewPCG(seed, 0))
	var mu sync.Mutex
	return Options{Uint64: func() uint64 {
		mu.Lock()
		defer mu.Unlock()
		return rng.Uint64()
	}}
}

// replicas makes one replica per weight.
func replicas(t testing.TB, weights ...int) []*balancer.Replica {
	t.Helper()
	rs := make([]*balancer.Replica, len(weights))
	for i, w := range weights {
		e, err := balancer.ParseEndpoint(fmt.Sprintf("http://r%d:8000", i))
		if err != nil {
			t.Fatal(err)
		}
		rs[i] = balancer.NewReplica(e, "", w)
	}
	return rs
}

func even(n int) []int {
	weights := make([]int, n)
	for i := range weights {
		weights[i] = 1
	}
	return weights
}

// poll publishes what a poll at this instant would read.
func poll(r *balancer.Replica, waiting, running float64) {
	pollAt(r, time.Unix(0, 0), waiting, running)
}

func pollAt(r *balancer.Replica, at time.Time, waiting, running float64) {
	r.EndPoll(r.BeginPoll(), balancer.Sample{Waiting: balancer.Known(waiting), Running: balancer.Known(running)}, at)
}

// forEach runs the test on every strategy of the table.
func forEach(t *testing.T, test func(t *testing.T, e Entry)) {
	for _, e := range Table {
		t.Run(e.Name, func(t *testing.T) { test(t, e) })
	}
}

// place picks and reserves, as balancer.Model.Pick does.
func place(p balancer.Picker, q *balancer.Request, rs []*balancer.Replica) balancer.Reservation {
	m := balancer.Model{Picker: p, Available: rs}
	res, err := m.Pick(q, nil)
	if err != nil {
		panic(err)
	}
	return res
}

// share is how many of n picks each of rs gets, by position, while inflight requests are always under way: each pick
// reserves, and ends the oldest. Every replica takes equally long.
func share(t *testing.T, p balancer.Picker, rs []*balancer.Replica, inflight, n int) []float64 {
	t.Helper()
	index := make(map[*balancer.Replica]int, len(rs))
	for i, r := range rs {
		index[r] = i
	}
	counts := make([]float64, len(rs))
	var open []balancer.Reservation
	for range n {
		res := place(p, &balancer.Request{}, rs)
		i, ok := index[res.Replica()]
		if !ok {
			t.Fatalf("picked %v, which is no candidate", res.Replica())
		}
		counts[i] += 1 / float64(n)
		open = append(open, res)
		if len(open) >= inflight {
			open[0].Done()
			open = open[1:]
		}
	}
	for i := range open {
		open[i].Done()
	}
	return counts
}

func benchName(strategy string, n int, load string) string {
	return fmt.Sprintf("%s/%d/%s", strategy, n, load)
}
