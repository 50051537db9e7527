package daemon_test

import (
	"strings"
	"testing"
	"time"

	"lbd/balancer"
	"lbd/bench/sim"
)

// state waits until the replica is in that state.
func (p *proxied) becomes(s *sim.Server, want balancer.State) {
	p.t.Helper()
	p.until(s.Addr()+" "+want.String(), func() bool { return p.state(s).Health.State == want })
}

func fault(t *testing.T, s *sim.Server, f sim.Faults) {
	t.Helper()
	if err := s.SetFaults(f); err != nil {
		t.Fatal(err)
	}
}

// A replica that refuses connections leaves without a request, and is back after
// its restart.
func TestRefusedIsEjected(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{})
	p := lbd(t, urls(a, b))
	a.Kill()
	p.becomes(a, balancer.Ejected)
	if got := p.spread(llama, 4); got[b.Addr()] != 4 {
		t.Errorf("with %s down: %v", a.Addr(), got)
	}
	if h := p.state(a).Health; !strings.Contains(h.Reason, "refused") {
		t.Errorf("reason %q; want what happened", h.Reason)
	}
	if err := a.Start(""); err != nil {
		t.Fatal(err)
	}
	p.available(llama, a, b)
	p.counted(`lbd_ejections_total{reason="connect_refused",replica="`+a.Addr()+`"}`, "1")
}

// No request is lost to a replica that died a moment ago: it was not executed
// anywhere.
func TestDeadReplicaCostsNoRequest(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{})
	p := lbd(t, urls(a, b), "strategy", "cycle", "health-interval", "1h")
	p.spread(llama, 2)
	a.Kill()
	if got := p.spread(llama, 10); got[b.Addr()] != 10 {
		t.Errorf("answered by %v; want all by the one alive", got)
	}
	p.becomes(a, balancer.Ejected) // a refused request asks for a probe at once
}

// A row of 5xx takes a replica out; each further time it stays out longer.
func TestServerErrorsEject(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{})
	p := lbd(t, urls(a, b), "strategy", "cycle", "ejection-time", "200ms", "max-ejection-time", "10s")
	fault(t, a, sim.Faults{Status: &sim.Fault{Code: 500}})
	for i := range 3 {
		p.until("ejected again", func() bool {
			p.ask(llama)
			return p.state(a).Health.Ejections == i+1
		})
		for range 2 {
			at, _ := p.ask(llama)
			if h := p.state(a).Health; h.State == balancer.Ejected && at != b.Addr() { // and was all the time
				t.Errorf("while ejected: answered by %s", at)
			}
		}
		p.becomes(a, balancer.Healthy)
	}
	told := p.log.logged("replica ejected")
	if len(told) != 3 {
		t.Fatalf("%d lines for 3 ejections", len(told))
	}
	for i := 1; i < len(told); i++ {
		if was, is := told[i-1]["backoff_ms"].(float64), told[i]["backoff_ms"].(float64); is < 1.3*was {
			t.Errorf("back-off %d is %v ms after %v ms; want about twice", i+1, is, was)
		}
	}
	p.counted(`lbd_ejections_total{reason="server_error",replica="`+a.Addr()+`"}`, "3")
}

// What a client does wrong says nothing of the replica.
func TestClientErrorsNeverEject(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{})
	p := lbd(t, urls(a, b), "strategy", "cycle")
	for range 40 {
		if a := p.post("/v1/chat/completions", `{"model":"`+llama+`"}`); a.status != 400 {
			t.Fatalf("%d %s; want the replica's 400", a.status, a.body)
		}
	}
	for _, r := range []*sim.Server{a, b} {
		if h := p.state(r).Health; h.State != balancer.Healthy || h.Ejections != 0 {
			t.Errorf("%s: %+v", r.Addr(), h)
		}
	}
}

// The last replica of a model stays: its 5xx tell clients more than a 503 of
// lbd's, and some requests may succeed.
func TestLastReplicaIsSpared(t *testing.T) {
	r := replica(t, sim.Config{})
	p := lbd(t, urls(r))
	fault(t, r, sim.Faults{Status: &sim.Fault{Code: 500}})
	p.until("spared", func() bool {
		if _, a := p.ask(llama); a.status != 500 {
			t.Fatalf("%d %s; want the replica's own 500", a.status, a.body)
		}
		return len(p.log.logged("replica spared")) > 0
	})
	for range 20 {
		p.ask(llama)
	}
	if h := p.state(r).Health; h.State != balancer.Healthy {
		t.Errorf("%+v; want in service", h)
	}
	fault(t, r, sim.Faults{})
	p.spread(llama, 1)
	if n := len(p.log.logged("replica spared")); n != 1 {
		t.Logf("told %d times that it was spared", n) // once per good probe between
	}
}

// Two replicas that both fail: one goes, the other is the last and stays.
func TestAllFailing(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{})
	p := lbd(t, urls(a, b), "strategy", "cycle", "ejection-time", "30s")
	for _, r := range []*sim.Server{a, b} {
		fault(t, r, sim.Faults{Status: &sim.Fault{Code: 503}})
	}
	p.until("one ejected, one spared", func() bool {
		p.ask(llama)
		return len(p.log.logged("replica spared")) > 0 && len(p.log.logged("replica ejected")) == 1
	})
	if _, got := p.ask(llama); got.status != 503 || strings.Contains(got.body, "no_healthy_replica") {
		t.Errorf("%d %s; want the last replica's own 503", got.status, got.body)
	}
}

// A /health that never answers takes a replica out after threshold timeouts,
// when no request is answered either.
func TestHungHealthEjects(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{})
	p := lbd(t, urls(a, b), "health-timeout", "500ms", "unhealthy-threshold", "2")
	fault(t, a, sim.Faults{Hang: &sim.Fault{}})
	p.becomes(a, balancer.Ejected)
	if got := p.spread(llama, 4); got[b.Addr()] != 4 {
		t.Errorf("while it hangs: %v", got)
	}
	fault(t, a, sim.Faults{})
	p.available(llama, a, b)
}

// A loading replica answers /health 503: not well, and back when it has loaded.
func TestLoadingIsOut(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{})
	p := lbd(t, urls(a, b))
	fault(t, a, sim.Faults{Loading: &sim.Fault{}})
	p.becomes(a, balancer.Ejected)
	fault(t, a, sim.Faults{})
	p.available(llama, a, b)
}

// Slow is not sick: a replica deep in work keeps its place.
func TestBusyReplicaIsNotEjected(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{}) // not the last one, which stays anyway
	p := lbd(t, urls(a, b), "strategy", "cycle", "unhealthy-threshold", "1")
	for _, r := range []*sim.Server{a, b} {
		fault(t, r, sim.Faults{Slow: &sim.Fault{Factor: 40}})
	}
	var streams []*running
	for range 8 {
		streams = append(streams, p.stream(llama, 10))
	}
	for _, s := range streams {
		s.finish()
	}
	for _, r := range []*sim.Server{a, b} {
		if h := p.state(r).Health; h.State != balancer.Healthy || h.Ejections != 0 {
			t.Errorf("%+v; want in service all the time", h)
		}
	}
}

// With every replica of a model gone clients are told to come back: the model is
// known, but not now.
func TestNobodyLeft(t *testing.T) {
	r := replica(t, sim.Config{})
	p := lbd(t, urls(r))
	r.Kill()
	p.becomes(r, balancer.Ejected)
	_, a := p.ask(llama)
	if a.status != 503 || a.header.Get("Retry-After") == "" || !strings.Contains(a.body, `"no_healthy_replica"`) {
		t.Errorf("%d %v %s", a.status, a.header, a.body)
	}
	if err := r.Start(""); err != nil {
		t.Fatal(err)
	}
	p.available(llama, r)
	p.spread(llama, 1)
}

// A restart comes and goes between two probes, while requests are under way.
func TestQuickRestart(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{})
	p := lbd(t, urls(a, b), "health-interval", "30s")
	for range 3 {
		p.spread(llama, 2)
		a.Kill()
		if err := a.Start(""); err != nil {
			t.Fatal(err)
		}
		p.spread(llama, 4)
		time.Sleep(20 * time.Millisecond)
	}
}
