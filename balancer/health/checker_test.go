package health

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"lbd/balancer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testFleet is a fleet of one model.
type testFleet struct {
	holder balancer.Holder
	mu     sync.Mutex
	states []balancer.ReplicaState
	gen    uint64
}

func (f *testFleet) Snapshot() *balancer.Snapshot { return f.holder.Load() }

func (f *testFleet) SetHealth(id string, h balancer.Health) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.states {
		if f.states[i].ID == id {
			f.states[i].Health = h
		}
	}
	f.publish()
}

// set makes the fleet these replicas; those that stay keep their state.
func (f *testFleet) set(t *testing.T, urls ...string) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	var next []balancer.ReplicaState
	for _, u := range urls {
		e, err := balancer.ParseEndpoint(u)
		if err != nil {
			t.Fatal(err)
		}
		s := balancer.ReplicaState{Replica: balancer.NewReplica(e, "", 1), Models: []balancer.ModelInfo{{ID: "m"}}}
		for _, old := range f.states {
			if old.ID == s.ID {
				s = old
			}
		}
		next = append(next, s)
	}
	f.states = next
	f.publish()
}

func (f *testFleet) publish() {
	states := append([]balancer.ReplicaState(nil), f.states...)
	m := &balancer.Model{Name: "m"}
	for i := range states {
		m.Replicas = append(m.Replicas, states[i].Replica)
		if states[i].Available() {
			m.Available = append(m.Available, states[i].Replica)
		}
	}
	f.gen++
	f.holder.Store(balancer.NewSnapshot(f.gen, states, []*balancer.Model{m}))
}

func (f *testFleet) health(id string) balancer.Health { return f.Snapshot().Replica(id).Health }

// fakeProber answers what it is told to.
type fakeProber struct {
	mu     sync.Mutex
	answer map[string]balancer.Outcome
	count  map[string]int
}

func (p *fakeProber) set(id string, o balancer.Outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer[id] = o
}

func (p *fakeProber) probes(id string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count[id]
}

func (p *fakeProber) Probe(ctx context.Context, r *balancer.Replica, _ string) (balancer.Outcome, error) {
	p.mu.Lock()
	o := p.answer[r.ID]
	p.count[r.ID]++
	p.mu.Unlock()
	switch o {
	case balancer.Answered:
		return o, nil
	case balancer.Timeout, balancer.ConnectTimeout:
		<-ctx.Done()
	}
	return o, errors.New(o.String())
}

type bench struct {
	*testing.T
	fleet  *testFleet
	prober *fakeProber
	*Checker
	mu     sync.Mutex
	events []Event
}

// cfg: probes every 5 s, three strikes, 10 s back-off, at most 40 s.
var cfg = Config{
	Interval: 5 * time.Second, Timeout: 2 * time.Second, Path: "/health", UnhealthyThreshold: 3,
	EjectionTime: 10 * time.Second, MaxEjectionTime: 40 * time.Second,
}

// run runs f in a bubble with two replicas, a:1 and b:1, in service.
func run(t *testing.T, f func(b *bench)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{T: t, fleet: &testFleet{}, prober: &fakeProber{answer: map[string]balancer.Outcome{}, count: map[string]int{}}}
		b.fleet.set(t, "http://a:1", "http://b:1")
		b.Checker = New(cfg, b.fleet, Options{Prober: b.prober, Rand: func() float64 { return 0 }, OnEvent: func(e Event) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.events = append(b.events, e)
		}})
		b.Start()
		defer b.Stop()
		synctest.Wait()
		f(b)
	})
}

func (b *bench) take() (kinds []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.events {
		s := e.Replica + " " + e.Kind.String()
		if e.Reason != "" {
			s += " " + e.Reason
		}
		kinds = append(kinds, s)
	}
	b.events = nil
	// Probes of different replicas end in any order.
	slices.SortStableFunc(kinds, func(x, y string) int { return strings.Compare(x[:3], y[:3]) })
	return kinds
}

func (b *bench) wantEvents(want ...string) {
	b.Helper()
	if diff := cmp.Diff(want, b.take()); diff != "" {
		b.Errorf("events (-want +got):\n%s", diff)
	}
}

func (b *bench) wantState(id string, want balancer.State) {
	b.Helper()
	if h := b.fleet.health(id); h.State != want {
		b.Errorf("%s is %v (%s), want %v", id, h.State, h.Reason, want)
	}
}

func (b *bench) report(id string, outcomes ...balancer.Outcome) {
	for _, o := range outcomes {
		b.Report(b.fleet.Snapshot().Replica(id).Replica, o)
	}
	synctest.Wait()
}

func (b *bench) sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func times(n int, o balancer.Outcome) []balancer.Outcome {
	os := make([]balancer.Outcome, n)
	for i := range os {
		os[i] = o
	}
	return os
}

func TestFirstProbeAtOnce(t *testing.T) {
	run(t, func(b *bench) {
		b.wantState("a:1", balancer.Healthy)
		b.wantState("b:1", balancer.Healthy)
		b.wantEvents("a:1 replica up", "b:1 replica up")
		if b.fleet.health("a:1").Restarted {
			b.Error("restarted, though it was there from the beginning")
		}
		b.sleep(12 * time.Second)
		if n := b.prober.probes("a:1"); n != 3 {
			b.Errorf("%d probes in 12 s, want 3", n)
		}
	})
}

func TestReplicaThatComesLaterJoins(t *testing.T) {
	run(t, func(b *bench) {
		b.take()
		b.prober.set("c:1", balancer.ConnectRefused)
		b.fleet.set(t, "http://c:1", "http://a:1", "http://b:1")
		b.SetConfig(cfg)
		synctest.Wait()
		if b.prober.probes("c:1") != 1 {
			b.Error("a replica of a reload is not probed at once")
		}
		b.sleep(time.Minute)
		b.wantState("c:1", balancer.Ejected)
		b.prober.set("c:1", balancer.Answered)
		b.sleep(cfg.Interval)
		b.wantState("c:1", balancer.Healthy)
		if h := b.fleet.health("c:1"); !h.Restarted || h.Ejections != 0 {
			b.Errorf("health %+v, want restarted and no ejection: it was never in service", h)
		}
		b.wantEvents("c:1 replica down connect_refused", "c:1 replica up")
	})
}

// The fleet's page shows why a replica is not in service from its first probe on, not
// only when it is given up.
func TestFirstFailuresAreShown(t *testing.T) {
	run(t, func(b *bench) {
		b.prober.set("c:1", balancer.ServerError)
		b.fleet.set(t, "http://a:1", "http://b:1", "http://c:1")
		b.sleep(cfg.Interval)
		b.wantState("c:1", balancer.Unknown)
		if h := b.fleet.health("c:1"); h.Reason != "probe: "+balancer.ServerError.String() {
			b.Errorf("reason %q after %d probes", h.Reason, b.prober.probes("c:1"))
		}
		b.prober.set("c:1", balancer.Answered)
		b.sleep(cfg.Interval)
		b.wantState("c:1", balancer.Healthy)
		if h := b.fleet.health("c:1"); h.Reason != "" {
			b.Errorf("in service, because of %q", h.Reason)
		}
	})
}

func TestProbesEjectAfterThreshold(t *testing.T) {
	for _, o := range []balancer.Outcome{balancer.ConnectRefused, balancer.Reset, balancer.ServerError, balancer.BadResponse, balancer.Timeout, balancer.ConnectTimeout} {
		run(t, func(b *bench) {
			b.take()
			b.prober.set("a:1", o)
			b.sleep(2*cfg.Interval + 2*cfg.Timeout)
			b.wantState("a:1", balancer.Healthy)
			b.sleep(cfg.Interval)
			b.wantState("a:1", balancer.Ejected)
			b.wantState("b:1", balancer.Healthy)
			b.wantEvents("a:1 replica ejected " + o.String())
			b.prober.set("a:1", balancer.Answered)
			b.sleep(5 * time.Second)
			b.wantState("a:1", balancer.Ejected) // back-off: a probe has done well already
			b.sleep(4 * time.Second)
			b.wantState("a:1", balancer.Healthy)
			if h := b.fleet.health("a:1"); h.Restarted != connectionLevel(o) || h.Ejections != 1 {
				b.Errorf("%v: health %+v", o, h)
			}
			b.wantEvents("a:1 replica readmitted")
		})
	}
}

func TestFailuresBelowThresholdAreForgiven(t *testing.T) {
	run(t, func(b *bench) {
		for range 5 {
			b.prober.set("a:1", balancer.ServerError)
			b.sleep(2 * cfg.Interval)
			b.prober.set("a:1", balancer.Answered)
			b.sleep(cfg.Interval)
		}
		b.wantState("a:1", balancer.Healthy)
	})
}

// A busy event loop (llm-d-benchmark #1734): probes time out, requests are
// answered. Only when those stop too is the replica taken out.
func TestProbeTimeoutOfABusyReplicaDoesNotCount(t *testing.T) {
	run(t, func(b *bench) {
		b.take()
		b.prober.set("a:1", balancer.Timeout)
		for range 20 {
			b.sleep(cfg.Interval)
			b.report("a:1", balancer.Answered)
		}
		b.wantState("a:1", balancer.Healthy)
		b.wantEvents()
		b.sleep(4 * cfg.Interval)
		b.wantState("a:1", balancer.Ejected)
	})
}

// What is not a timeout counts, whoever is answered.
func TestProbeErrorOfAnAnsweringReplicaCounts(t *testing.T) {
	run(t, func(b *bench) {
		b.prober.set("a:1", balancer.ServerError)
		for range 4 {
			b.report("a:1", balancer.Answered)
			b.sleep(cfg.Interval)
		}
		b.wantState("a:1", balancer.Ejected)
	})
}

func TestRefusedRequestIsFollowedByAProbe(t *testing.T) {
	run(t, func(b *bench) {
		b.take()
		b.sleep(time.Second)
		b.report("a:1", balancer.ConnectRefused)
		b.wantState("a:1", balancer.Healthy) // the probe found it well
		if n := b.prober.probes("a:1"); n != 2 {
			b.Errorf("%d probes, want one at once", n)
		}
		b.sleep(time.Second)
		b.prober.set("a:1", balancer.ConnectRefused)
		b.report("a:1", balancer.ConnectRefused)
		b.wantState("a:1", balancer.Ejected)
		b.wantEvents("a:1 replica ejected connect_refused")
		b.prober.set("a:1", balancer.Answered)
		b.sleep(cfg.EjectionTime)
		if h := b.fleet.health("a:1"); h.State != balancer.Healthy || !h.Restarted {
			b.Errorf("health %+v, want healthy and restarted", h)
		}
	})
}

// A storm of refusals does not become a storm of probes.
func TestRefusedRequestsDoNotStormProbes(t *testing.T) {
	run(t, func(b *bench) {
		before := b.prober.probes("a:1")
		for range 100 {
			b.report("a:1", balancer.Answered, balancer.ConnectRefused)
			b.sleep(10 * time.Millisecond)
		}
		if n := b.prober.probes("a:1") - before; n < 5 || n > 11 {
			b.Errorf("%d probes in a second of refusals, want about ten", n)
		}
	})
}

func TestConsecutiveFailuresEject(t *testing.T) {
	for _, o := range []balancer.Outcome{balancer.Reset, balancer.BadResponse, balancer.Timeout, balancer.ConnectTimeout, balancer.ServerError} {
		run(t, func(b *bench) {
			b.take()
			b.report("a:1", times(4, o)...)
			b.report("a:1", balancer.Answered) // a 4xx counts as answered: the row ends
			b.report("a:1", times(4, o)...)
			b.wantState("a:1", balancer.Healthy)
			b.report("a:1", o)
			b.wantState("a:1", balancer.Ejected)
			b.wantEvents("a:1 replica ejected " + o.String())
		})
	}
}

func TestErrorRateEjects(t *testing.T) {
	run(t, func(b *bench) {
		b.take()
		for range 10 { // half of them: not more than half
			b.report("a:1", balancer.Answered, balancer.ServerError)
		}
		b.wantState("a:1", balancer.Healthy)
		b.report("a:1", balancer.ServerError)
		b.wantState("a:1", balancer.Ejected)
		b.wantEvents("a:1 replica ejected error_rate")
	})
}

// The head of a stream comes before its engine has looked at the request: one that
// sends heads and hangs has answered nothing.
func TestAnswersThatBreakOffEject(t *testing.T) {
	run(t, func(b *bench) {
		b.take()
		r := b.fleet.Snapshot().Replica("a:1").Replica
		breaks := func(n int) {
			for range n {
				b.report("a:1", balancer.Answered)
				b.Retract(r)
				b.report("a:1", balancer.Timeout)
			}
		}
		b.report("a:1", times(50, balancer.Answered)...)
		breaks(consecutiveFailures - 1)
		b.Finished(r)
		breaks(consecutiveFailures - 1)
		b.wantState("a:1", balancer.Healthy)
		breaks(1)
		b.wantState("a:1", balancer.Ejected)
		b.wantEvents("a:1 replica ejected timeout")
	})
}

// They count by their rate as well, if others finish between.
func TestAnswersThatBreakOffHaveARate(t *testing.T) {
	run(t, func(b *bench) {
		b.take()
		r := b.fleet.Snapshot().Replica("a:1").Replica
		for i := range 8 { // eight failures and three that did well
			b.wantState("a:1", balancer.Healthy)
			b.report("a:1", balancer.Answered)
			b.Retract(r)
			b.report("a:1", balancer.Reset)
			if i%3 == 0 {
				b.report("a:1", balancer.Answered)
				b.Finished(r)
			}
		}
		b.wantState("a:1", balancer.Ejected)
		b.wantEvents("a:1 replica ejected error_rate")
	})
}

// Those that began minutes ago do not weigh on those of now.
func TestRetractionsAreForgotten(t *testing.T) {
	run(t, func(b *bench) {
		r := b.fleet.Snapshot().Replica("a:1").Replica
		for range 3 * minOutcomes {
			b.Retract(r)
		}
		b.sleep(windowSlots * windowSlot)
		b.Finished(r)
		b.report("a:1", times(minOutcomes-1, balancer.Answered)...)
		b.report("a:1", times(consecutiveFailures-1, balancer.Timeout)...)
		b.wantState("a:1", balancer.Healthy)
		stranger := balancer.NewReplica(balancer.Endpoint{Addr: "x:1"}, "", 1)
		b.Retract(stranger)
		b.Finished(stranger)
	})
}

func TestErrorRateWindowMoves(t *testing.T) {
	run(t, func(b *bench) {
		for range 30 { // one failure in three seconds, nothing else: never ten in 10 s
			b.report("a:1", balancer.ServerError, balancer.ServerError, balancer.ServerError)
			b.sleep(5 * time.Second)
			b.report("a:1", balancer.Answered)
			b.sleep(6 * time.Second)
		}
		b.wantState("a:1", balancer.Healthy)
	})
}

func TestLastAvailableReplicaIsSpared(t *testing.T) {
	run(t, func(b *bench) {
		b.report("a:1", times(5, balancer.ServerError)...)
		b.wantState("a:1", balancer.Ejected)
		b.take()
		b.report("b:1", times(50, balancer.ServerError)...)
		b.wantState("b:1", balancer.Healthy)
		b.wantEvents("b:1 replica spared server_error")
		// When the other one is back, it goes like any other.
		b.sleep(cfg.EjectionTime)
		b.wantState("a:1", balancer.Healthy)
		b.report("b:1", times(5, balancer.ServerError)...)
		b.wantState("b:1", balancer.Ejected)
		// Nobody listening is another matter.
		b.prober.set("a:1", balancer.ConnectRefused)
		b.report("a:1", balancer.ConnectRefused)
		b.sleep(minProbeGap)
		b.wantState("a:1", balancer.Ejected)
		b.wantState("b:1", balancer.Healthy) // before its back-off is over: a probe found it well
	})
}

// When the last replica dies, those that were taken out for their answers are better than
// none: at once where they have answered a probe since, else as soon as they do.
func TestLastOneIsReplaced(t *testing.T) {
	run(t, func(b *bench) {
		b.fleet.set(t, "http://a:1", "http://b:1", "http://c:1", "http://d:1")
		b.sleep(cfg.Interval) // the newcomers are probed
		b.prober.set("d:1", balancer.ServerError)
		for _, id := range []string{"a:1", "b:1", "d:1"} {
			b.report(id, times(5, balancer.Reset)...)
			b.wantState(id, balancer.Ejected)
		}
		b.sleep(cfg.Interval) // they are probed
		b.report("c:1", times(5, balancer.ConnectRefused)...)
		b.wantState("c:1", balancer.Healthy) // so far nothing but refused requests: its probe is good
		b.prober.set("c:1", balancer.ConnectRefused)
		b.report("c:1", balancer.ConnectRefused)
		b.sleep(2 * minProbeGap)
		b.wantState("c:1", balancer.Ejected)
		b.wantState("a:1", balancer.Healthy)
		b.wantState("b:1", balancer.Healthy)
		b.wantState("d:1", balancer.Ejected)
	})
}

// Two replicas that break at the same instant are not both taken out.
func TestTwoAtOnceLeaveOne(t *testing.T) {
	run(t, func(b *bench) {
		b.prober.set("a:1", balancer.ServerError)
		b.prober.set("b:1", balancer.ServerError)
		b.sleep(time.Minute)
		if n := len(b.fleet.Snapshot().Models[0].Available); n != 1 {
			b.Errorf("%d replicas available, want one", n)
		}
	})
}

// Resets can be caused by requests: they do not take the last replica.
func TestResetsSpareTheLast(t *testing.T) {
	run(t, func(b *bench) {
		b.report("a:1", times(5, balancer.Reset)...)
		b.wantState("a:1", balancer.Ejected)
		b.prober.set("a:1", balancer.ConnectRefused)
		b.report("b:1", times(50, balancer.Reset)...)
		b.wantState("b:1", balancer.Healthy)
		b.report("b:1", times(5, balancer.ConnectTimeout)...)
		b.wantState("b:1", balancer.Ejected)
	})
}

func TestBackOffDoublesAndIsForgiven(t *testing.T) {
	run(t, func(b *bench) {
		out := func() (d time.Duration) {
			b.report("a:1", times(5, balancer.Reset)...)
			b.wantState("a:1", balancer.Ejected)
			for b.fleet.health("a:1").State == balancer.Ejected && d < time.Hour {
				b.sleep(time.Second)
				d += time.Second
			}
			return d
		}
		var got []time.Duration
		for range 4 {
			got = append(got, out())
		}
		b.sleep(401 * time.Second) // ten times the last back-off
		got = append(got, out())
		b.sleep(24 * time.Hour)
		got = append(got, out())
		s := time.Second
		if diff := cmp.Diff([]time.Duration{10 * s, 20 * s, 40 * s, 40 * s, 40 * s, 10 * s}, got); diff != "" {
			b.Errorf("back-offs (-want +got):\n%s", diff)
		}
		if n := b.fleet.health("a:1").Ejections; n != 6 {
			b.Errorf("%d ejections counted, want 6", n)
		}
	})
}

func TestJitterShortens(t *testing.T) {
	c := New(cfg, &testFleet{}, Options{Rand: func() float64 { return 0.999 }})
	w, now := &watch{}, time.Unix(0, 0)
	c.backOff(w, now)
	if w.backoff < 8*time.Second || w.backoff > 8100*time.Millisecond {
		t.Errorf("back-off %v, want about 8 s", w.backoff)
	}
}

func TestOwnLoadIsNotTouched(t *testing.T) {
	run(t, func(b *bench) {
		r := b.fleet.Snapshot().Replica("a:1").Replica
		v := r.Reserve()
		b.report("a:1", times(5, balancer.Reset)...)
		b.sleep(time.Minute)
		if r.InFlight() != 1 {
			b.Errorf("%d in flight, want 1", r.InFlight())
		}
		v.Done()
	})
}

func TestHangingProbeDelaysNobody(t *testing.T) {
	run(t, func(b *bench) {
		b.prober.set("a:1", balancer.Timeout)
		b.sleep(cfg.Interval)
		b.report("b:1", times(5, balancer.Reset)...)
		b.wantState("b:1", balancer.Ejected)
		if a, other := b.prober.probes("a:1"), b.prober.probes("b:1"); a != 2 || other != 2 {
			b.Errorf("%d and %d probes, want 2 and 2", a, other)
		}
	})
}

func TestReloadKeepsStateAndChangesPace(t *testing.T) {
	run(t, func(b *bench) {
		b.report("a:1", times(5, balancer.Reset)...)
		b.take()
		faster := cfg
		faster.Interval = time.Second
		b.SetConfig(faster)
		before := b.prober.probes("b:1")
		b.sleep(3500 * time.Millisecond)
		if n := b.prober.probes("b:1") - before; n != 3 {
			b.Errorf("%d probes in 3.5 s, want 3", n)
		}
		b.wantState("a:1", balancer.Ejected)
		// Removed and back between two looks: the fleet forgot, the checker did not.
		b.fleet.set(t, "http://a:1")
		b.fleet.set(t, "http://a:1", "http://b:1")
		b.wantState("b:1", balancer.Unknown)
		b.sleep(time.Second)
		b.wantState("b:1", balancer.Healthy)
		b.fleet.set(t, "http://a:1")
		b.sleep(time.Second)
		b.report("a:1", balancer.Answered)
		gone := b.prober.probes("b:1")
		b.sleep(10 * time.Second)
		if b.prober.probes("b:1") != gone {
			b.Error("a removed replica is still probed")
		}
	})
}

func TestStopIsIdempotentAndMayComeFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &testFleet{}
		f.set(t, "http://a:1")
		p := &fakeProber{answer: map[string]balancer.Outcome{"a:1": balancer.Timeout}, count: map[string]int{}}
		never := New(cfg, f, Options{Prober: p})
		never.Stop()
		never.Start()
		never.Stop()
		if p.probes("a:1") != 0 {
			t.Error("started after Stop")
		}
		c := New(cfg, f, Options{Prober: p})
		c.Report(f.Snapshot().Replicas[0].Replica, balancer.Reset) // not started: ignored
		c.Start()
		synctest.Wait()
		c.Stop() // in the middle of a probe
		c.Stop()
	})
}

func TestAnsweredDoesNotAllocate(t *testing.T) {
	f := &testFleet{}
	f.set(t, "http://a:1")
	c := New(cfg, f, Options{})
	c.sync()
	r := f.Snapshot().Replicas[0].Replica
	for _, o := range []balancer.Outcome{balancer.Answered, balancer.ServerError, balancer.ConnectRefused} {
		if n := testing.AllocsPerRun(100, func() { c.Report(r, o) }); n != 0 {
			t.Errorf("%v allocations for %v, want 0", n, o)
		}
	}
}

func TestConcurrentReports(t *testing.T) {
	f := &testFleet{}
	f.set(t, "http://a:1", "http://b:1")
	p := &fakeProber{answer: map[string]balancer.Outcome{}, count: map[string]int{}}
	c := New(cfg, f, Options{Prober: p})
	c.Start()
	defer c.Stop()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			r := f.Snapshot().Replicas[i%2].Replica
			for n := range 2000 {
				c.Report(r, balancer.Outcome(n%7))
			}
		})
	}
	for range 20 {
		c.SetConfig(cfg)
		f.set(t, "http://a:1", "http://b:1", "http://c:1")
		f.set(t, "http://a:1", "http://b:1")
	}
	wg.Wait()
}

func BenchmarkReportAnswered(b *testing.B) {
	f := &testFleet{}
	var t testing.T
	f.set(&t, "http://a:1")
	c := New(cfg, f, Options{})
	c.sync()
	r := f.Snapshot().Replicas[0].Replica
	b.ReportAllocs()
	for b.Loop() {
		c.Report(r, balancer.Answered)
	}
}
