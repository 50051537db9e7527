package admission

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"lbd/balancer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a fleet with one model, m, whose replicas are polled by the test.
type rig struct {
	*Admission
	t      testing.TB
	holder balancer.Holder
	model  *balancer.Model
}

// least picks the replica with the fewest requests.
type least struct{}

func (least) Pick(_ *balancer.Request, rs []*balancer.Replica) *balancer.Replica {
	if len(rs) == 0 {
		return nil
	}
	return slices.MinFunc(rs, func(a, b *balancer.Replica) int { return int(a.InFlight() - b.InFlight()) })
}

func newRig(t testing.TB, c Config, replicas int) *rig {
	t.Helper()
	r := &rig{t: t, model: &balancer.Model{Name: "m", Picker: least{}}}
	for i := range replicas {
		e, err := balancer.ParseEndpoint(fmt.Sprintf("http://replica-%d:8000", i))
		if err != nil {
			t.Fatal(err)
		}
		r.model.Replicas = append(r.model.Replicas, balancer.NewReplica(e, "", 1))
	}
	r.model.Available = r.model.Replicas
	r.serve(r.model)
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	r.Admission = New(c, r.holder.Load)
	t.Cleanup(r.end)
	return r
}

// inFlight is a configuration that lets n requests run at each replica.
func inFlight(n int) Config {
	c := DefaultConfig()
	c.MaxInFlight = n
	return c
}

func (r *rig) serve(models ...*balancer.Model) {
	r.holder.Store(balancer.NewSnapshot(1, nil, models))
}

func (r *rig) end() {
	r.Close()
	for _, rep := range r.model.Replicas {
		if n := rep.InFlight(); n != 0 {
			r.t.Errorf("own load of %s is %d at the end; want 0", rep.ID, n)
		}
	}
	if n := r.waiting.Load(); n != 0 {
		r.t.Errorf("%d wait at the end; want 0", n)
	}
}

// poll has all replicas tell these gauges.
func (r *rig) poll(running, waiting float64) {
	for _, rep := range r.model.Replicas {
		rep.EndPoll(rep.BeginPoll(), balancer.Sample{Running: balancer.Known(running), Waiting: balancer.Known(waiting)}, time.Now())
	}
}

// ask is a request of the tests.
type ask struct {
	r    *rig
	gone atomic.Bool
	mu   sync.Mutex
	left func()

	prefers *balancer.Replica
	first   time.Duration
	each    time.Duration // per output token
	err     error
	ill     bool // Place panics
}

func (a *ask) Place(m *balancer.Model, full []*balancer.Replica) (balancer.Reservation, error) {
	if a.ill {
		panic("BUG: ill")
	}
	if a.err != nil {
		return balancer.Reservation{}, a.err
	}
	return m.Pick(&balancer.Request{}, full)
}

func (a *ask) Prefers(*balancer.Model) *balancer.Replica { return a.prefers }
func (a *ask) Predict(*balancer.Model) (p balancer.Prediction, ok bool) {
	return balancer.Prediction{TTFT: a.first, TPOT: a.each}, a.first > 0
}
func (a *ask) Gone() bool { return a.gone.Load() }

func (a *ask) Watch(left func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.left = left
}

// leave is the client's going; heard says that the watch notices.
func (a *ask) leave(heard bool) {
	a.gone.Store(true)
	a.mu.Lock()
	left := a.left
	a.mu.Unlock()
	if heard && left != nil {
		left()
	}
}

// held is a request on its way.
type held struct {
	*ask
	res    balancer.Reservation
	ticket Ticket
	err    error
	done   chan struct{}
}

// begin sends a request, which passes, waits or is refused.
func (r *rig) begin(what Ask, with ...func(*ask)) *held {
	h := &held{ask: &ask{r: r}, done: make(chan struct{})}
	for _, f := range with {
		f(h.ask)
	}
	go func() {
		defer close(h.done)
		if m := r.holder.Load().Model([]byte("m")); m != nil && r.Pass(m) {
			h.res, h.err = h.Place(m, nil)
			return
		}
		h.res, h.ticket, h.err = r.Enter(r.model, h.ask, what)
	}()
	return h
}

// sent is begin, and that the request has been looked at: of two that pass at once
// each might be placed before the other counts.
func (r *rig) sent(what Ask) *held {
	h := r.begin(what)
	synctest.Wait()
	return h
}

// over says whether waiting has ended, one way or the other.
func (h *held) over() bool {
	select {
	case <-h.done:
		return true
	default:
		return false
	}
}

// runs says whether the request has a place.
func (h *held) runs() bool { return h.over() && h.err == nil }

// finish ends a request that runs.
func (h *held) finish() {
	h.r.t.Helper()
	if !h.runs() {
		h.r.t.Fatalf("the request does not run: over %t, %v", h.over(), h.err)
	}
	rep := h.res.Replica()
	h.res.Done()
	h.r.Freed(rep)
}

// refused returns why.
func (h *held) refused() *Refusal {
	h.r.t.Helper()
	var f *Refusal
	if !h.over() || !errors.As(h.err, &f) {
		h.r.t.Fatalf("the request is not refused: over %t, %v", h.over(), h.err)
	}
	return f
}
