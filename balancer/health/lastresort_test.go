package health

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"lbd/balancer"
)

// likeliest returns who would be asked of all in the fleet.
func (b *bench) likeliest() (ids []string) {
	var rs []*balancer.Replica
	for _, s := range b.fleet.Snapshot().Replicas {
		rs = append(rs, s.Replica)
	}
	for _, r := range b.LastResort(rs) {
		ids = append(ids, r.ID)
	}
	return ids
}

// Those that are likelier to answer come first, and those that take their time never.
func TestLastResortOrder(t *testing.T) {
	run(t, func(b *bench) {
		b.fleet.set(b.T, "http://well:1", "http://speaks:1", "http://breaks:1", "http://refuses:1", "http://hangs:1", "http://far:1")
		for id, o := range map[string]balancer.Outcome{
			"speaks:1": balancer.ServerError, "breaks:1": balancer.Reset, "refuses:1": balancer.ConnectRefused,
			"hangs:1": balancer.Timeout, "far:1": balancer.ConnectTimeout,
		} {
			b.prober.set(id, o)
		}
		time.Sleep(31 * time.Second)
		for _, want := range [][]string{{"well:1"}, {"speaks:1", "breaks:1"}, {"refuses:1"}, nil} {
			got := b.likeliest()
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("asked (-want +got):\n%s", diff)
			}
			var left []string
			for _, s := range b.fleet.Snapshot().Replicas {
				if len(got) == 0 || s.ID != got[0] && s.ID != got[len(got)-1] {
					left = append(left, "http://"+s.ID)
				}
			}
			b.fleet.set(b.T, left...)
			// Having been asked for, they are probed; what is refused now stands for a moment.
			synctest.Wait()
			time.Sleep(freshRefusal + time.Millisecond)
		}
	})
}

// A host that nobody finds refuses late; one on which nobody listens does so at once.
func TestLastResortOfAHostThatIsGone(t *testing.T) {
	if s := signOf(balancer.ConnectRefused, 3*time.Second); s != hopeless {
		t.Errorf("sign %d; want no candidate", s)
	}
	if s := signOf(balancer.ConnectRefused, time.Millisecond); s != refuses {
		t.Errorf("sign %d; want the last of the candidates", s)
	}
}

// A dead fleet is not asked by every request: the probes that requests ask for stand for
// them, and show at once who is back.
func TestLastResortOfADeadFleet(t *testing.T) {
	run(t, func(b *bench) {
		b.prober.set("a:1", balancer.ConnectRefused)
		b.prober.set("b:1", balancer.ConnectRefused)
		time.Sleep(31 * time.Second)
		if got := b.likeliest(); len(got) != 2 {
			t.Errorf("asked %v; want both, the last refusal was a second ago", got)
		}
		for range 100 {
			time.Sleep(minProbeGap / 10)
			if got := b.likeliest(); got != nil {
				t.Fatalf("asked %v; want nobody, they refuse every probe", got)
			}
		}
		b.prober.set("a:1", balancer.Answered)
		time.Sleep(minProbeGap + time.Millisecond)
		b.wantState("a:1", balancer.Healthy)
	})
}

// Nobody has probed a replica that has just joined: it comes behind those that answer
// probes and before those that do not answer well.
func TestLastResortNotProbed(t *testing.T) {
	if !(answers < silent && silent < talks) {
		t.Error("not between")
	}
	var p passive
	if got := sign(p.sign.Load()); got != silent {
		t.Errorf("sign %d of a replica that was not asked; want %d", got, silent)
	}
}

// Being needed asks for a probe, which brings back who is well and has nobody beside it,
// and a flood of requests for no more than one in minProbeGap.
func TestLastResortAsksForAProbe(t *testing.T) {
	run(t, func(b *bench) {
		a := b.fleet.Snapshot().Replica("a:1").Replica
		for range consecutiveFailures {
			b.Report(a, balancer.ServerError)
		}
		synctest.Wait()
		if s := b.fleet.health("a:1").State; s != balancer.Ejected {
			t.Fatalf("a:1 is %s", s)
		}
		before := b.prober.probes("a:1")
		b.fleet.set(b.T, "http://a:1") // b leaves, and nothing else happens
		for range 20 {
			b.likeliest()
			time.Sleep(minProbeGap / 10)
		}
		if s := b.fleet.health("a:1").State; s != balancer.Healthy {
			t.Errorf("a:1 is %s; want in service", s)
		}
		if n := b.prober.probes("a:1") - before; n < 1 || n > 2 {
			t.Errorf("%d probes; want one or two", n)
		}
	})
}

// What requests have met counts until a probe says otherwise.
func TestLastResortAfterRequests(t *testing.T) {
	run(t, func(b *bench) {
		a := b.fleet.Snapshot().Replica("a:1").Replica
		for range consecutiveFailures {
			b.Report(a, balancer.Timeout)
		}
		synctest.Wait()
		if got := b.LastResort([]*balancer.Replica{a}); got != nil {
			t.Error("a replica that hangs is a candidate")
		}
		time.Sleep(2 * minProbeGap) // until the probe that was asked for
		if got := b.LastResort([]*balancer.Replica{a}); len(got) != 1 {
			t.Error("a replica that answers probes again is no candidate")
		}
	})
}
