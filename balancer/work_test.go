package balancer

import (
	"math/rand/v2"
	"testing"
	"time"
)

// told records what a reservation tells its strategy.
type told struct {
	Placement
	first, done int
	tokens      []int
	usage       Usage
	ending      Ending
}

func (t *told) FirstToken(time.Time)      { t.first++; t.EndPrefill() }
func (t *told) Tokens(n int, _ time.Time) { t.tokens = append(t.tokens, n); t.Grow(int64(n)) }
func (t *told) Usage(u Usage)             { t.usage = u }
func (t *told) Done(e Ending, _ time.Time) {
	t.done++
	t.ending = e
	t.Placement.Done()
}

func wantWork(t *testing.T, r *Replica, tokens, pairs, resident int64, prefill time.Duration) {
	t.Helper()
	if r.PrefillTokens() != tokens || r.PrefillPairs() != pairs || r.Resident() != resident || r.PrefillTime() != prefill {
		t.Errorf("prefill %d tokens, %d pairs, %v; %d resident; want %d, %d, %v; %d",
			r.PrefillTokens(), r.PrefillPairs(), r.PrefillTime(), r.Resident(), tokens, pairs, prefill, resident)
	}
}

func TestPlacementCountsOnce(t *testing.T) {
	r, p := newTestReplica(t), &told{}
	v := r.Place(Work{Prompt: 1000, Uncached: 400, Pairs: 320_000, Prefill: 9 * time.Millisecond}, &p.Placement, p)
	wantWork(t, r, 400, 320_000, 1000, 9*time.Millisecond)
	v.FirstToken(time.Time{})
	wantWork(t, r, 0, 0, 1000, 0)
	if p.EndPrefill() {
		t.Error("the prefill ended twice")
	}
	for range 2*tokenBatch + 3 {
		v.Tokens(1, time.Time{})
	}
	wantWork(t, r, 0, 0, 1000+2*tokenBatch, 0)
	v.Usage(Usage{Prompt: 990, Completion: 36, Cached: -1})
	v.End(Finished, time.Time{})
	v.End(Failed, time.Time{})
	v.Done()
	wantWork(t, r, 0, 0, 0, 0)
	if p.first != 1 || p.done != 1 || p.ending != Finished || p.usage.Completion != 36 || len(p.tokens) != 2 {
		t.Errorf("told %+v", p)
	}
	if r.InFlight() != 0 || r.Pending() != 0 {
		t.Errorf("%d in flight, %d pending", r.InFlight(), r.Pending())
	}
}

// However requests end, and however polls fall between, own work comes back to zero.
func TestWorkIsZeroSum(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	r := newTestReplica(t)
	type open struct {
		Reservation
		t *told
	}
	var reservations []open
	for range 20_000 {
		switch k := rng.IntN(10); {
		case k < 3 || len(reservations) == 0:
			p := &told{}
			w := Work{Prompt: rng.Int64N(1 << 17), Uncached: rng.Int64N(1 << 17), Pairs: rng.Int64N(1 << 34), Prefill: time.Duration(rng.Int64N(1e9))}
			reservations = append(reservations, open{r.Place(w, &p.Placement, p), p})
		case k == 9:
			mark := r.BeginPoll()
			r.EndPoll(mark, Sample{KVUsage: Known(rng.Float64()), KVTokens: Known(1e6), Running: Known(1), Waiting: Known(0)}, time.Time{})
		default:
			i := rng.IntN(len(reservations))
			v := &reservations[i]
			switch k {
			case 3:
				v.FirstToken(time.Time{})
			case 4:
				v.t.EndPrefill()
			case 5, 6:
				v.Tokens(rng.IntN(40), time.Time{})
			default:
				v.End(Ending(rng.IntN(3)), time.Time{})
				reservations = append(reservations[:i], reservations[i+1:]...)
			}
		}
	}
	for i := range reservations {
		reservations[i].Done()
	}
	wantWork(t, r, 0, 0, 0, 0)
	if n := sumResident(r.load.polled.Load().since); n != 0 {
		t.Errorf("%d resident tokens stay in the epochs", n)
	}
}

// What others hold is what is in use beyond our own from before the poll.
func TestForeignTokens(t *testing.T) {
	r, p := newTestReplica(t), &told{}
	before := r.Place(Work{Prompt: 3000}, &p.Placement, p)
	mark := r.BeginPoll()
	q := &told{}
	since := r.Place(Work{Prompt: 5000}, &q.Placement, q)
	polled := r.EndPoll(mark, Sample{Running: Known(2), Waiting: Known(0), KVUsage: Known(0.5), KVTokens: Known(20_000)}, time.Time{})
	if got := polled.ForeignTokens; got != Known(7000) {
		t.Errorf("foreign tokens %v, want 7000", got)
	}
	before.Done()
	since.Done()
	if p := r.EndPoll(r.BeginPoll(), Sample{Running: Known(1), Waiting: Known(0), KVUsage: Known(0.5)}, time.Time{}); p.ForeignTokens.Known {
		t.Errorf("foreign tokens %v without a capacity, want unknown", p.ForeignTokens)
	}
}

// A pool that is in use while the replica does nothing is shared with neighbours.
func TestElasticPool(t *testing.T) {
	r := newTestReplica(t)
	poll := func(running, usage float64) *Polled {
		return r.EndPoll(r.BeginPoll(), Sample{
			Running: Known(running), Waiting: Known(0), KVUsage: Known(usage), KVTokens: Known(1e6),
		}, time.Time{})
	}
	for _, c := range []struct {
		running, usage float64
		elastic        bool
	}{{4, 0.6, false}, {0, 0.56, true}, {4, 0.9, true}, {0, 0.001, false}, {4, 0.9, false}} {
		if p := poll(c.running, c.usage); p.Elastic != c.elastic || p.ForeignTokens.Known == c.elastic {
			t.Errorf("running %v, use %v: elastic %v, foreign tokens %v", c.running, c.usage, p.Elastic, p.ForeignTokens)
		}
	}
}

// Of the engines of a data-parallel server one may be full and the others empty: what is
// in use is the mean, though what makes requests wait is the fullest.
func TestForeignTokensOfSeveralEngines(t *testing.T) {
	r := newTestReplica(t)
	p := r.EndPoll(r.BeginPoll(), Sample{
		Running: Known(9), Waiting: Known(0), KVTokens: Known(8000), KVUsage: Known(0.9), KVMean: Known(0.2),
	}, time.Time{})
	if p.ForeignTokens != Known(1600) {
		t.Errorf("%v foreign tokens, want a fifth of 8,000", p.ForeignTokens)
	}
}

func TestRestartIsSeen(t *testing.T) {
	r := newTestReplica(t)
	for i, c := range []struct {
		Sample
		want uint64
	}{
		{Sample{StartTime: Known(100), PromptTokens: Known(10)}, 0},
		{Sample{PromptTokens: Known(20)}, 0},
		{Sample{}, 0},
		{Sample{StartTime: Known(100), PromptTokens: Known(20)}, 0},
		{Sample{StartTime: Known(200), PromptTokens: Known(20)}, 1},
		{Sample{StartTime: Known(200), PromptTokens: Known(5)}, 2},
		{Sample{PromptTokens: Known(7)}, 2},
		{Sample{StartTime: Known(300), PromptTokens: Known(9)}, 3},
		{Sample{PrefixQueries: Known(40)}, 3},
		// A V0 server shows nothing before its first step.
		{Sample{}, 3},
		{Sample{PromptTokens: Known(8)}, 4},
		// What the process before has counted is not held against this one.
		{Sample{PrefixQueries: Known(30)}, 4},
		{Sample{StartTime: Known(400)}, 4},
		{Sample{StartTime: Known(500), PromptTokens: Known(8)}, 5},
	} {
		r.EndPoll(r.BeginPoll(), c.Sample, time.Time{})
		if got := r.Incarnation(); got != c.want {
			t.Errorf("poll %d: incarnation %d, want %d", i, got, c.want)
		}
	}
}

func TestNeighbours(t *testing.T) {
	make := func(device string) *Replica { r := newTestReplica(t); return r.With(device, 1) }
	a, b, c, d := make("gpu0"), make("gpu0"), make("gpu1"), make("")
	states := []ReplicaState{{Replica: a}, {Replica: b}, {Replica: c}, {Replica: d}}
	NewSnapshot(1, states, nil)
	if n := a.Neighbours(); len(n) != 2 || n[0] != a || n[1] != b {
		t.Errorf("neighbours of a: %v", n)
	}
	if c.Neighbours() != nil || d.Neighbours() != nil {
		t.Error("who shares nothing has neighbours")
	}
	NewSnapshot(2, states[1:], nil)
	if b.Neighbours() != nil {
		t.Error("a neighbour that left is still there")
	}
}
