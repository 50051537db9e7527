package strategy

import (
	"testing"
	"time"

	"lbd/balancer"
)

// picks counts n picks by position; each reserves, and nothing ends.
func picks(t *testing.T, p balancer.Picker, rs []*balancer.Replica, n int) []int {
	t.Helper()
	counts := make([]int, len(rs))
	for range n {
		r := p.Pick(&balancer.Request{}, rs)
		r.Reserve()
		for i := range rs {
			if rs[i] == r {
				counts[i]++
			}
		}
	}
	return counts
}

func TestLeastWaitingOrder(t *testing.T) {
	for _, c := range []struct {
		name    string
		weights []int
		polls   [][2]float64 // waiting, running
		own     []int        // requests sent before the poll and answered since, so that they run
		want    int
	}{
		{"waiting decides", []int{1, 1}, [][2]float64{{3, 0}, {2, 200}}, nil, 1},
		{"then running", []int{1, 1}, [][2]float64{{2, 50}, {2, 49}}, nil, 1},
		{"nothing waits, running decides", []int{1, 1, 1}, [][2]float64{{0, 9}, {0, 8}, {0, 10}}, nil, 1},
		{"own load counts once", []int{1, 1}, [][2]float64{{0, 5}, {0, 6}}, []int{5, 0}, 0},
		{"waiting per weight", []int{1, 4}, [][2]float64{{2, 0}, {4, 100}}, nil, 1},
		{"running per weight", []int{1, 4}, [][2]float64{{0, 20}, {0, 60}}, nil, 1},
		{"idle: the larger", []int{1, 4}, [][2]float64{{0, 0}, {0, 0}}, nil, 1},
	} {
		rs := replicas(t, c.weights...)
		for i, r := range rs {
			var own []balancer.Reservation
			if c.own != nil {
				for range c.own[i] {
					own = append(own, r.Reserve())
				}
			}
			poll(r, c.polls[i][0], c.polls[i][1])
			for j := range own {
				own[j].FirstByte()
			}
		}
		if r := newLeastWaiting(seeded(1)).Pick(&balancer.Request{}, rs); r != rs[c.want] {
			t.Errorf("%s: picked %s, want %s", c.name, r.ID, rs[c.want].ID)
		}
	}
}

// A queue of 6 that a poll has seen costs its replica requests, not the whole poll period: 6 at least, as each pick there
// waits like those in the queue, and 12 at most, when the other replica has taken the part of both. What is sent to the
// idle replica counts against it at once.
func TestLeastWaitingCorrectsTheGauge(t *testing.T) {
	rs := replicas(t, 1, 1)
	poll(rs[0], 6, 20)
	poll(rs[1], 0, 20)
	p := newLeastWaiting(seeded(1))
	if got := picks(t, p, rs, 3); got[1] != 3 {
		t.Errorf("first picks %v, want all to the replica without a queue", got)
	}
	if got := picks(t, p, rs, 37); got[0] < 14 || got[0] > 20 {
		t.Errorf("picks %v, want the replicas to draw level", got)
	}
}

// The same queue, seen again by the next poll, counts again.
func TestLeastWaitingBelievesTheNextPoll(t *testing.T) {
	rs := replicas(t, 1, 1)
	p := newLeastWaiting(seeded(1))
	for second := range int64(3) {
		pollAt(rs[0], time.Unix(second, 0), 50, 50)
		pollAt(rs[1], time.Unix(second, 0), 0, 50)
		for range 20 {
			r := p.Pick(&balancer.Request{}, rs)
			if r != rs[1] {
				t.Fatalf("second %d: picked the replica with 50 waiting", second)
			}
			res := r.Reserve()
			res.FirstByte()
			res.Done()
		}
	}
}

// Own requests that waited at the poll and are answered since wait no more.
func TestLeastWaitingSeesOwnQueueDrain(t *testing.T) {
	rs := replicas(t, 1, 1)
	var own []balancer.Reservation
	for range 5 {
		own = append(own, rs[0].Reserve())
	}
	poll(rs[0], 5, 0)
	poll(rs[1], 0, 5)
	for i := range own {
		own[i].FirstByte()
		own[i].Done()
	}
	if r := newLeastWaiting(seeded(1)).Pick(&balancer.Request{}, rs); r != rs[0] {
		t.Error("a queue that is known to be gone still counts")
	}
}

func TestTwoByWeight(t *testing.T) {
	for _, weights := range [][]int{{1, 1}, {1, 1, 1}, {5, 1, 1, 3}, {1, 9}} {
		rs, rng := replicas(t, weights...), seeded(2).Uint64
		seen := make(map[[2]int]int)
		for range 2000 {
			i, j := twoByWeight(rs, rng(), rng())
			if i == j {
				t.Fatalf("weights %v: drew %d twice", weights, i)
			}
			seen[[2]int{i, j}]++
		}
		if n := len(rs); len(seen) != n*(n-1) {
			t.Errorf("weights %v: %d of %d pairs were drawn", weights, len(seen), n*(n-1))
		}
		for _, u := range []uint64{0, 1<<64 - 1} {
			for _, v := range []uint64{0, 1<<64 - 1} {
				if i, j := twoByWeight(rs, u, v); i == j {
					t.Errorf("weights %v: drew %d twice from %x and %x", weights, i, u, v)
				}
			}
		}
	}
}

// Two-choices compares own load alone when the foreign load of one is unknown.
func TestLesserIgnoresHalfKnownLoad(t *testing.T) {
	rs := replicas(t, 1, 1)
	poll(rs[0], 50, 100)
	rs[1].Reserve()
	if lesser(rs[0], rs[1]) != rs[0] {
		t.Error("unknown foreign load was taken for none")
	}
	poll(rs[1], 0, 1)
	if lesser(rs[0], rs[1]) != rs[1] {
		t.Error("known foreign load was not counted")
	}
}

// Weights are mixed evenly: in any stretch of turns each replica comes by its weight to within three.
func TestCycleMixesWeights(t *testing.T) {
	rs := replicas(t, 100, 1, 50)
	p := newCycle(seeded(4))
	counts := make(map[*balancer.Replica]float64)
	for n := 1.0; n <= 1510; n++ {
		counts[p.Pick(&balancer.Request{}, rs)]++
		for _, r := range rs {
			if want := n * float64(r.Weight) / 151; counts[r] < want-3 || counts[r] > want+3 {
				t.Fatalf("after %v turns %s had %v, want %.1f", n, r.ID, counts[r], want)
			}
		}
	}
}
