package daemon_test

import (
	"fmt"
	"strings"
	"testing"

	"lbd/balancer"
	"lbd/bench/sim"
)

// longStream is the tokens of a stream during which other things happen: at testSpeed
// 1.5 s, after which it ends by itself, and minutes at a replica that is held.
const longStream = 4000

// slowly is the fault of a replica that is held.
var slowly = &sim.Fault{Factor: 100}

// hold keeps streams of the replicas from ending before the test says so. What a test
// does while they run takes as long as the machine needs.
func hold(t *testing.T, rs ...*sim.Server) {
	t.Helper()
	for _, r := range rs {
		fault(t, r, sim.Faults{Slow: slowly})
	}
}

// letGo ends that, and every other fault.
func letGo(t *testing.T, rs ...*sim.Server) {
	t.Helper()
	for _, r := range rs {
		fault(t, r, sim.Faults{})
	}
}

// begin starts a stream at each of the replicas, so that own load is 1 each until ends.
func (p *proxied) begin(rs ...*sim.Server) map[*sim.Server]*running {
	p.t.Helper()
	hold(p.t, rs...)
	at := map[*sim.Server]*running{}
	for range rs {
		s := p.stream(llama, longStream)
		for _, r := range rs {
			if r.Addr() == s.replica {
				s.at, at[r] = r, s
			}
		}
	}
	if len(at) != len(rs) {
		p.t.Fatalf("%d streams on %d replicas", len(rs), len(at))
	}
	return at
}

// An ejected replica finishes what it has, and its own load is there when it
// comes back.
func TestOwnLoadSurvivesEjection(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{})
	p := lbd(t, urls(a, b), "strategy", "cycle")
	at := p.begin(a, b)
	fault(t, a, sim.Faults{Slow: slowly, Refuse: &sim.Fault{}})
	p.becomes(a, balancer.Ejected)
	if n := p.inFlight(a); n != 1 {
		t.Errorf("own load of the ejected one is %d; want 1", n)
	}
	hold(t, a)
	p.available(llama, a, b)
	if n := p.inFlight(a); n != 1 {
		t.Errorf("own load after readmission is %d; want 1", n)
	}
	p.ends(at[a], at[b])
}

// ends finishes streams that begin has begun and holds own load to zero.
func (p *proxied) ends(streams ...*running) {
	p.t.Helper()
	for _, s := range streams {
		letGo(p.t, s.at)
	}
	for _, s := range streams {
		if n := s.finish(); n != longStream {
			p.t.Errorf("stream of %s ended after %d tokens; want %d", s.replica, n, longStream)
		}
	}
	p.until("own load 0", func() bool {
		for _, r := range p.Snapshot().Replicas {
			if r.InFlight() != 0 {
				return false
			}
		}
		return true
	})
}

// A replica that dies takes its own streams along, nobody else's, and comes back
// with nothing on its account.
func TestOwnLoadSurvivesRestart(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{})
	p := lbd(t, urls(a, b), "strategy", "cycle")
	at := p.begin(a, b)
	a.Kill()
	p.until("the dead one's stream off the account", func() bool { return p.inFlight(a) == 0 })
	if err := a.Start(""); err != nil {
		t.Fatal(err)
	}
	p.available(llama, a, b)
	if na, nb := p.inFlight(a), p.inFlight(b); na != 0 || nb != 1 {
		t.Errorf("own load %d and %d; want 0 and 1", na, nb)
	}
	p.ends(at[b])
	if _, err := at[a].body.ReadString(0); err == nil || err.Error() == "EOF" {
		t.Errorf("the stream of the dead replica ended with %v; want an error the client can see", err)
	}
}

// Reloads of every kind pass by running streams: other strategy, more replicas,
// other limits, and a replica that leaves and comes back.
func TestOwnLoadSurvivesReload(t *testing.T) {
	a, b, c := replica(t, sim.Config{}), replica(t, sim.Config{}), replica(t, sim.Config{})
	p, file := configured(t, "strategy: cycle\n"+endpoints(a, b))
	p.available(llama, a, b)
	at := p.begin(a, b)
	before := p.state(a).Replica
	for _, yaml := range []string{
		"strategy: least-inflight\n" + endpoints(a, b),
		"connect_timeout: 1s\nfirst_byte_timeout: 1m\nmax_attempts: 1\n" + endpoints(c, a, b),
		"health_interval: 60ms\nmetrics_poll_interval: 60ms\n" + endpoints(b, a),
	} {
		write(t, file, yaml)
		if err := p.Reload(); err != nil {
			t.Fatal(err)
		}
		if na, nb := p.inFlight(a), p.inFlight(b); na != 1 || nb != 1 {
			t.Errorf("own load %d and %d after %q; want 1 and 1", na, nb, yaml)
		}
	}
	if p.state(a).Replica != before {
		t.Error("a replica that stays is another one after the reload")
	}
	series := fmt.Sprintf(`lbd_inflight_requests{model=%q,replica=%q}`, llama, a.Addr())
	if got := p.metric(series); got != "1" {
		t.Errorf("%s is %q; want 1", series, got)
	}

	write(t, file, endpoints(b))
	if err := p.Reload(); err != nil {
		t.Fatal(err)
	}
	at[a].event()
	write(t, file, endpoints(a, b))
	if err := p.Reload(); err != nil {
		t.Fatal(err)
	}
	p.available(llama, a, b)
	if n := p.inFlight(a); n != 1 {
		t.Errorf("own load of a replica that left and came back is %d; want 1", n)
	}
	p.ends(at[a], at[b])
	p.until("in flight 0 on the page", func() bool { return p.metric(series) == "0" })
}

// A stream on a replica that has left for good finishes as well.
func TestStreamOutlivesItsReplica(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{})
	p, file := configured(t, "strategy: cycle\n"+endpoints(a, b))
	p.available(llama, a, b)
	at := p.begin(a, b)
	gone := p.state(a).Replica
	write(t, file, endpoints(b))
	if err := p.Reload(); err != nil {
		t.Fatal(err)
	}
	if got := p.spread(llama, 4); got[b.Addr()] != 4 {
		t.Errorf("after %s left: %v", a.Addr(), got)
	}
	p.ends(at[a], at[b])
	p.until("own load of who left 0", func() bool { return gone.InFlight() == 0 })
	p.until("no series of who left", func() bool { return !strings.Contains(p.get("/metrics").body, a.Addr()) })
}
