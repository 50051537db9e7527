package strategy

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"lbd/balancer"
)

// What a pick keeps from the one before is what it would read: after any event, a workspace that has seen everything since
// the start and one that has seen nothing come to the same costs, to the bit.
func TestKeptIsAsRead(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { keptIsAsRead(t, seed) })
	}
}

func keptIsAsRead(t *testing.T, seed uint64) {
	f := newCostFleet(t, seed)
	kept := &workspace{opt: &f.p.opt}
	for step := range 1500 {
		f.happen()
		q, some := f.request(), f.rs
		if f.rng.IntN(8) == 0 {
			some = f.rs[:1+f.rng.IntN(len(f.rs))]
		}
		f.p.look(&workspace{opt: &f.p.opt}, q, some) // takes over polls and ends prefills that are due
		f.p.look(kept, q, some)
		read := &workspace{opt: &f.p.opt}
		f.p.look(read, q, some)
		if want, got := f.costs(read), f.costs(kept); !reflect.DeepEqual(want, got) { // which is ten times as fast as cmp
			t.Fatalf("step %d, read and kept (-, +):\n%s", step, cmp.Diff(want, got, cmp.AllowUnexported(cost{}, basis{}, part{})))
		}
	}
}

// costFleet is a fleet under requests, polls, failures and restarts at random.
type costFleet struct {
	p    *leastCost
	rs   []*balancer.Replica
	rng  *rand.Rand
	now  float64 // ms
	open []*balancer.Reservation
	text [][]byte
}

func newCostFleet(t *testing.T, seed uint64) *costFleet {
	rng := rand.New(rand.NewPCG(seed, 5))
	f := &costFleet{p: newLeastCost(seeded(seed)).(*leastCost), rng: rng}
	weights := even([]int{2, 8, 30}[seed%3])
	for i := range weights {
		weights[i] += rng.IntN(2)
	}
	f.rs = replicas(t, weights...)
	if seed%2 == 1 {
		for i, r := range f.rs {
			f.rs[i] = r.With(fmt.Sprint("gpu", i/2), weights[i])
		}
		balancer.ShareDevices(f.rs)
	}
	for i := range 12 {
		f.text = append(f.text, words(200+rng.IntN(20_000), uint64(i)))
	}
	return f
}

// costs are what a workspace has come to, term by term.
func (f *costFleet) costs(w *workspace) (all []any) {
	for i := range w.lowest {
		all = append(all, w.lowest[i], *f.p.cost(w, i), w.bases[i], w.parts[i], w.computes(i))
	}
	return append(all, w.fleet.load, w.fleet.others, w.fleet.jams)
}

func (f *costFleet) request() *balancer.Request {
	q := &balancer.Request{Model: "m", Stream: f.rng.IntN(4) > 0, Now: msec(f.now), MaxTokens: 1 << f.rng.IntN(12)}
	if f.rng.IntN(3) > 0 {
		q.Prompt = f.text[f.rng.IntN(len(f.text))]
	}
	return q
}

func (f *costFleet) happen() {
	f.now += f.rng.ExpFloat64() * 10
	if n := f.rng.IntN(8); n < 3 || len(f.open) == 0 {
		v := f.p.Place(f.request(), f.rs)
		f.open = append(f.open, &v)
	} else if n < 7 {
		f.proceed(n)
	} else {
		f.poll(f.rs[f.rng.IntN(len(f.rs))])
	}
}

func (f *costFleet) proceed(n int) {
	k := f.rng.IntN(len(f.open))
	v := f.open[k]
	switch n {
	case 3:
		v.FirstToken(msec(f.now))
	case 4:
		v.Tokens(16, msec(f.now))
	default:
		f.open = append(f.open[:k], f.open[k+1:]...)
		v.Usage(balancer.Usage{Prompt: 100 + f.rng.IntN(4000), Completion: 1 + f.rng.IntN(300), Cached: f.rng.IntN(3000) - 1})
		v.End(balancer.Ending(f.rng.IntN(3)), msec(f.now))
	}
}

func (f *costFleet) poll(r *balancer.Replica) {
	known := func(v float64) balancer.Metric { return balancer.Metric{Value: v, Known: f.rng.IntN(9) > 0} }
	switch f.rng.IntN(12) {
	case 0:
		r.MarkStale()
	case 1:
		r.Restarted()
	default:
		busy := float64(f.rng.IntN(2))
		r.EndPoll(r.BeginPoll(), balancer.Sample{
			Waiting: known(busy * float64(f.rng.IntN(4))), Running: known(busy * float64(f.rng.IntN(20))),
			KVUsage: known(f.rng.Float64()), KVTokens: known(200_000),
		}, msec(f.now))
	}
}

// What most picks read of a replica that has changed is one cache line of its state, as far as the allocator keeps to them.
func TestPicksReadOneLine(t *testing.T) {
	var st costState
	from, to := unsafe.Offsetof(st.changes), unsafe.Offsetof(st.unseen)+unsafe.Offsetof(st.unseen.earliest)
	if from%64 != 0 || to/64 != from/64 || unsafe.Sizeof(st)%64 != 0 {
		t.Errorf("bytes %d to %d of %d", from, to+8, unsafe.Sizeof(st))
	}
}

// Picks, requests, polls and explanations at once, with -race: everything that was reserved is given back.
func TestPicksAtOnce(t *testing.T) {
	p, rs := newLeastCost(Options{}).(*leastCost), polledEvenly(t, 16)
	var all sync.WaitGroup
	for g := range uint64(4) {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(g, 1))
			for i := range 300 {
				now := msec(float64(10 * i))
				q := &balancer.Request{Model: "m", Prompt: words(300+rng.IntN(5000), rng.Uint64N(5)), Stream: i%3 > 0, Now: now}
				v := p.Place(q, rs)
				p.Pick(q, rs[:1+rng.IntN(len(rs))])
				v.FirstToken(now.Add(msec(20).Sub(msec(0))))
				v.Tokens(16, now.Add(msec(90).Sub(msec(0))))
				v.End(balancer.Ending(rng.IntN(3)), now.Add(msec(100).Sub(msec(0))))
			}
		})
	}
	all.Go(func() {
		for i := range 200 {
			pollAt(rs[i%len(rs)], msec(float64(i)), float64(i%3), float64(i%7))
			p.Explain(&balancer.Request{Now: msec(float64(i))}, rs)
		}
	})
	all.Wait()
	for _, r := range rs {
		if n := r.InFlight() + r.PrefillTokens() + r.PrefillPairs() + r.Resident(); n != 0 {
			t.Errorf("%s is left with %d", r.ID, n)
		}
	}
}
