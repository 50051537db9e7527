package daemon_test

import (
	"runtime"
	"strings"
	"testing"

	"lbd/balancer"
	"lbd/bench/sim"
	"lbd/cmd/lbd/internal/daemon"
)

// Housekeeping reads the fleet, and by the time it forgets what is not in it a
// model may have been learned and a request for it be over. At the start of lbd,
// where models are learned while the first round runs, this lost a client that left.
func TestForgetAsOfAnOlderSnapshot(t *testing.T) {
	r := replica(t, sim.Config{})
	p := lbd(t, urls(r))
	goodRequest(t, p.dial())
	answered := `lbd_requests_total{code="200",model="` + llama + `"}`
	picked := `lbd_picks_total{model="` + llama + `",replica="` + r.Addr() + `",strategy="least-waiting"}`
	p.until("counted", func() bool { return p.metric(answered) == "1" })
	daemon.Forget(p.Daemon, balancer.NewSnapshot(0, nil, nil))
	runtime.GC()
	daemon.Forget(p.Daemon, p.Snapshot())
	for _, series := range []string{answered, picked} {
		if got := p.metric(series); got != "1" {
			t.Errorf("%s is %q; want 1", series, got)
		}
	}
}

// A stream whose model and replica have left counts on until it ends.
func TestForgetWhileAStreamRuns(t *testing.T) {
	more := make(chan struct{})
	f := fakeReplica(t, func(c *fakeConn) {
		c.body()
		c.send(sseHead + event("a"))
		for range more {
			c.send(event("b"))
		}
		c.gone()
	})
	defer close(more)
	other := replica(t, sim.Config{Model: qwen})
	p, file := configured(t, "endpoints: ["+f.url()+", "+other.URL()+"]\n")
	p.until("served", func() bool { m := p.Snapshot().Model([]byte(llama)); return m != nil && len(m.Available) == 1 })
	w := p.dial()
	w.sendPost("/v1/chat/completions", chat(llama, true, 8))
	counted := func(name, value string) {
		t.Helper()
		p.counted(name+`{model="`+llama+`"}`, value)
	}
	counted("lbd_time_to_first_token_seconds_count", "1")

	write(t, file, endpoints(other))
	if err := p.Reload(); err != nil {
		t.Fatal(err)
	}
	for _, gaps := range []string{"1", "2", "3"} {
		daemon.Forget(p.Daemon, p.Snapshot())
		runtime.GC()
		more <- struct{}{}
		counted("lbd_inter_token_latency_seconds_count", gaps)
	}
	counted("lbd_time_to_first_token_seconds_count", "1")
	series := `lbd_inflight_requests{model="` + llama + `",replica="` + f.ln.Addr().String() + `"}`
	if got := p.metric(series); got != "1" {
		t.Errorf("%s is %q; want 1", series, got)
	}
	w.reset()
	p.until("no series of who left", func() bool { return !strings.Contains(p.get("/metrics").body, llama) })
}
