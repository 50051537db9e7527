package daemon_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"lbd/bench/sim"
)

// stopping starts to stop and waits until nobody can connect any more.
func (p *proxied) stopping(ctx context.Context) (stopped <-chan error) {
	p.t.Helper()
	addr := p.Addr().String()
	done := make(chan error, 1)
	go func() { done <- p.Stop(ctx) }()
	p.until("new connections refused", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	return done
}

// Running requests finish, whatever they are at; nothing new is let in; an idle
// connection is closed.
func TestDrain(t *testing.T) {
	release := make(chan struct{})
	f := fakeReplica(t, func(c *fakeConn) {
		body := c.body()
		if strings.Contains(body, "stream") {
			c.send(sseHead + event("a"))
		}
		<-release
		if strings.Contains(body, "stream") {
			c.send(event("b") + lastEvents)
			c.keep = true
			return
		}
		c.answer(200, "whole")
	})
	p := lbd(t, []string{f.url()})
	idle, stream, whole, half := p.dial(), p.dial(), p.dial(), p.dial()
	idle.send("GET /ready HTTP/1.1\r\nHost: lbd\r\n\r\n")
	if a := idle.answer("GET"); a.StatusCode != 200 {
		t.Fatalf("ready: %s", a.Status)
	}
	stream.sendPost("/v1/x", `{"x":"stream"}`)
	resp := stream.head("POST")
	whole.sendPost("/v1/x", `{"x":"whole"}`)
	half.send("GET /ready HTT")
	p.until("both run", func() bool { return len(f.received()) == 2 })
	p.counted("lbd_connections", "5") // those four and the one that asks

	stopped := p.stopping(context.Background())
	half.send("P/1.1\r\nHost: lbd\r\n\r\n")
	if a := half.answer("GET"); a.StatusCode != 503 || !strings.Contains(a.body, "draining") || !a.Close {
		t.Errorf("/ready while draining: %s, close %t: %s", a.Status, a.Close, a.body)
	}
	if rest := idle.closed(); rest != "" {
		t.Errorf("an idle connection got %q", rest)
	}
	select {
	case err := <-stopped:
		t.Fatalf("stopped while requests run: %v", err)
	default:
	}
	close(release)
	if b, err := io.ReadAll(resp.Body); err != nil || !strings.HasSuffix(string(b), "data: [DONE]\n\n") || !strings.Contains(string(b), `"b"`) {
		t.Errorf("the stream: %q %v", b, err)
	}
	if a := whole.answer("POST"); a.body != "whole" || a.err != nil || !a.Close {
		t.Errorf("the whole answer: %s %q %v, close %t", a.Status, a.body, a.err, a.Close)
	}
	if rest := stream.closed(); rest != "" {
		t.Errorf("behind the stream came %q", rest)
	}
	select {
	case err := <-stopped:
		if err != nil {
			t.Errorf("stop: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("does not stop")
	}
	if err := p.Stop(context.Background()); err != nil {
		t.Errorf("second stop: %v", err)
	}
}

// When the time for draining is over, what still runs is cut: clients see it and
// replicas are freed.
func TestDrainTimeout(t *testing.T) {
	r := replica(t, sim.Config{})
	p := lbd(t, []string{r.URL()})
	fault(t, r, sim.Faults{HangStream: &sim.Fault{Events: 2}})
	w, waiting := p.dial(), p.dial()
	w.sendPost("/v1/chat/completions", chat(llama, true, longStream)) // a replica that falls behind puts several tokens into an event
	resp := w.head("POST")
	fault(t, r, sim.Faults{HangStream: &sim.Fault{}})
	waiting.sendPost("/v1/chat/completions", chat(llama, true, 50))
	p.until("both run", func() bool { return r.Stats().InFlight == 2 })

	ctx, cancel := context.WithCancel(context.Background())
	stopped := p.stopping(ctx)
	select {
	case err := <-stopped:
		t.Errorf("stopped while requests run: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	cancel()
	select {
	case err := <-stopped:
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "cut") {
			t.Errorf("stop: %v; want what was cut", err)
		}
	case <-time.After(patience):
		t.Fatal("does not stop")
	}
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("the cut stream looks whole")
	}
	if rest := waiting.closed(); strings.Contains(rest, "[DONE]") {
		t.Errorf("the other one got %q", rest)
	}
	p.until("the replica is free", func() bool { return r.Stats().Aborted == 2 })
	if err := p.Stop(context.Background()); err != nil {
		t.Errorf("second stop: %v", err)
	}
}

// A second Stop does not wait for the first one's requests.
func TestStopTwice(t *testing.T) {
	r := replica(t, sim.Config{})
	p := lbd(t, []string{r.URL()})
	fault(t, r, sim.Faults{Hang: &sim.Fault{}})
	w := p.dial()
	w.sendPost("/v1/chat/completions", chat(llama, true, 50))
	p.until("it runs", func() bool { return p.state(r).InFlight() == 1 })
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stopped := p.stopping(ctx)
	second := make(chan error, 1)
	now, cancelNow := context.WithCancel(context.Background())
	cancelNow()
	go func() { second <- p.Stop(now) }()
	select {
	case err := <-second:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("the second stop waits")
	}
	cancel()
	<-stopped
}
