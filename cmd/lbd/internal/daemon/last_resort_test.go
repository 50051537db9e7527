package daemon_test

import (
	"fmt"
	"strings"
	"testing"

	"lbd/balancer"
	"lbd/bench/sim"
)

// ejected takes a replica out for the rest of a test, in which it is well again.
func (p *proxied) eject(s *sim.Server) {
	p.t.Helper()
	fault(p.t, s, sim.Faults{Status: &sim.Fault{Code: 500}})
	p.until("ejected", func() bool {
		p.ask(llama)
		return p.state(s).Health.State == balancer.Ejected
	})
	fault(p.t, s, sim.Faults{})
}

// out is for a replica that stays out once it is ejected, however well it probes.
var out = []string{"strategy", "cycle", "ejection-time", "1h", "max-ejection-time", "1h"}

// One replica waits for the end of its back-off, the other one dies: no client hears of it.
func TestLastOneDiesWhileAnotherIsOut(t *testing.T) {
	// That the other one is dead is found out by a request, not by probes.
	well := append([]string{"unhealthy-threshold", "1000"}, out...)
	for name, settings := range map[string][]string{"probes well": well, "not probed since": append(quiet, "ejection-time", "1h", "max-ejection-time", "1h")} {
		t.Run(name, func(t *testing.T) {
			a, b := replica(t, sim.Config{}), replica(t, sim.Config{})
			p := lbd(t, urls(a, b), settings...)
			p.eject(b)
			executed := len(executions(a, b))
			w := p.dial()
			allOK(t, w.inARow(3, "one-left"))
			a.Kill()
			answers := w.inARow(6, "none-left")
			allOK(t, answers)
			once(t, executions(a, b), executed+9)
			picks := fmt.Sprintf(`lbd_picks_total{model=%q,replica=%q,strategy="last-resort"}`, llama, b.Addr())
			switch by := answers[0].Header.Get("X-Lbd-Strategy"); {
			case by == "last-resort":
				if got := p.metric(picks); got == "" || got == "0" {
					t.Errorf("%s is %q", picks, got)
				}
			// Known to be well, b may be back in service before the second attempt, as nobody is left without it.
			case name == "probes well" && by == "cycle" && strings.Contains(p.log.String(), "replica readmitted"):
			default:
				t.Errorf("picked by %q; want the last resort", by)
			}
			p.becomes(b, balancer.Healthy) // as nobody is left without it
		})
	}
}

// The same for a first attempt, when an operator drains the only one in service.
func TestNobodyInServiceButOneIsOut(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{})
	p := lbd(t, urls(a, b), append(out, "health-interval", "1h")...)
	p.eject(b)
	if got := p.onAdmin("POST", "/replicas/"+a.Addr()+"/drain", ""); got.status != 200 {
		t.Fatal(got)
	}
	if got := decode[pickPage](t, p.onAdmin("POST", "/pick", chat(llama, false, 1))); got.Picked == nil || *got.Picked != b.Addr() || got.Strategy != "last-resort" {
		t.Errorf("dry run: %+v; want %s as the last resort", got, b.Addr())
	}
	for i := range 5 {
		if at, got := p.ask(llama); got.status != 200 || at != b.Addr() {
			t.Errorf("request %d: %d from %q %s", i, got.status, at, got.body)
		}
	}
	p.becomes(b, balancer.Healthy) // those requests have asked for a probe
}

// Nobody else has a response: its replica is asked though it is out of service, as long as
// it answers.
func TestResponseOfAReplicaThatIsOut(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{})
	p := lbd(t, urls(a, b), append(out, "health-interval", "1h")...)
	id, home := p.madeResponse(llama, false)
	there, other := a, b
	if b.Addr() == home {
		there, other = b, a
	}
	p.eject(there)
	before := asked(other)
	for what, got := range map[string]answer{
		"asked for": p.get("/v1/responses/" + id),
		"gone on":   p.post("/v1/responses", response(llama, false, `"previous_response_id":"`+id+`"`)),
	} {
		if by := got.header.Get("X-Lbd-Strategy"); got.status != 200 || got.header.Get("X-Lbd-Replica") != home || by != "last-resort" {
			t.Errorf("%s: %d by %q from %q %s", what, got.status, by, got.header.Get("X-Lbd-Replica"), got.body)
		}
	}
	dry := decode[pickPage](t, p.onAdmin("POST", "/pick", response(llama, false, `"previous_response_id":"`+id+`"`)))
	if dry.Picked == nil || *dry.Picked != home || dry.Strategy != "last-resort" {
		t.Errorf("dry run: %+v; want %s as the last resort", dry, home)
	}
	p.drain(home)
	if got := p.get("/v1/responses/" + id); got.status != 200 {
		t.Errorf("drains besides: %d %s", got.status, got.body)
	}
	there.Kill()
	if got := p.get("/v1/responses/" + id); got.status != 503 {
		t.Errorf("dead: %d %s; want 503", got.status, got.body)
	}
	if n := asked(other) - before; n != 0 {
		t.Errorf("the other replica was asked %d times", n)
	}
}

// Whoever drains is no last resort: it was taken out by hand.
func TestDrainingIsNoLastResort(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{})
	p := lbd(t, urls(a, b), quiet...)
	if got := p.onAdmin("POST", "/replicas/"+b.Addr()+"/drain", ""); got.status != 200 {
		t.Fatal(got)
	}
	a.Kill()
	_, got := p.ask(llama)
	if got.status != 502 || !strings.Contains(got.body, a.Addr()) {
		t.Errorf("%d %s; want the refusal of %s", got.status, got.body, a.Addr())
	}
	if n := len(executions(b)); n != 0 {
		t.Errorf("%d requests at the one that drains", n)
	}
}

// A last resort that has come back as another model is none, and what it says of the model
// is not the answer.
func TestLastResortServesAnotherModel(t *testing.T) {
	for name, c := range map[string]struct{ body, code string }{
		"named":   {`{"model":"` + llama + `","prompt":"x","max_tokens":1}`, "no_healthy_replica"},
		"unnamed": {`{"prompt":"x","max_tokens":1}`, ""},
	} {
		t.Run(name, func(t *testing.T) { // each the first request: it has the replica probed, which may bring it back
			a, b := replica(t, sim.Config{}), replica(t, sim.Config{})
			p := lbd(t, urls(a, b), append(out, "health-interval", "1h", "models-poll-interval", "1h", "metrics-poll-interval", "1h")...)
			p.eject(b)
			if err := b.SetModel(qwen); err != nil {
				t.Fatal(err)
			}
			a.Kill()
			got := p.post("/v1/completions", c.body)
			_, code, _ := errorOf(t, got.header.Get("Content-Type"), got.body)
			if got.status < 500 || c.code != "" && (got.status != 503 || code != c.code) {
				t.Errorf("%d %s; want an error, the only one left serves another model", got.status, got.body)
			}
		})
	}
}

// A last resort counts as an attempt like any other.
func TestLastResortIsAnAttempt(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{})
	p := lbd(t, urls(a, b), append(quiet, "ejection-time", "1h", "max-ejection-time", "1h", "max-attempts", "1")...)
	p.eject(b)
	a.Kill()
	if _, got := p.ask(llama); got.status != 502 {
		t.Errorf("%d %s; want the refusal of the first attempt", got.status, got.body)
	}
}

// A request that may have run is not sent to a last resort either.
func TestNoLastResortAfterArrival(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{})
	p := lbd(t, urls(a, b), append(quiet, "ejection-time", "1h", "max-ejection-time", "1h")...)
	p.eject(b)
	before := len(executions(b))
	fault(t, a, sim.Faults{ResetBefore: &sim.Fault{}})
	for _, got := range p.dial().inARow(3, "read") {
		if got.StatusCode != 502 {
			t.Errorf("%s %s", got.Status, got.body)
		}
	}
	if n := len(executions(b)) - before; n != 0 {
		t.Errorf("%d requests sent again", n)
	}
}
