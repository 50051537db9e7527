package daemon_test

import (
	"io"
	"strings"
	"testing"
	"time"

	"lbd/bench/sim"
)

// The ways a client leaves. For uvicorn a closed sending side is the end of the
// client, and so it is for lbd.
var leavings = []struct {
	name  string
	leave func(*wire)
}{
	{"FIN", func(w *wire) { w.nc.Close() }},
	{"half-close", func(w *wire) { w.nc.CloseWrite() }},
	{"RST", (*wire).reset},
}

// cancelled are the moments at which clients leave a simulated replica: how the
// replica behaves, and what the client waits for before it goes.
var cancelled = []struct {
	name   string
	body   string
	faults sim.Faults
	wait   func(w *wire, r *sim.Server)
}{
	{"whole answer, before the head", chat(llama, false, 8000), sim.Faults{}, underWay},
	{"stream, before the head", chat(llama, true, 8000), sim.Faults{Slow: &sim.Fault{Factor: 1000}}, underWay},
	{"stream, while it streams", chat(llama, true, 8000), sim.Faults{}, events(3)},
	{"stream, replica silent from the head on", chat(llama, true, 100), sim.Faults{HangStream: &sim.Fault{}}, underWay},
	{"stream, replica silent in the middle", chat(llama, true, 8000), sim.Faults{HangStream: &sim.Fault{Events: 3}}, events(3)},
}

// underWay waits until the replica works on the request.
func underWay(w *wire, r *sim.Server) {
	w.t.Helper()
	until(w.t, "the replica has the request", func() bool { return r.Stats().InFlight == 1 })
}

// events waits for the head and the first n events.
func events(n int) func(*wire, *sim.Server) {
	return func(w *wire, _ *sim.Server) {
		w.t.Helper()
		resp := w.head("POST")
		buf := make([]byte, 1)
		for seen := 0; seen < 2*n; {
			if _, err := io.ReadFull(resp.Body, buf); err != nil {
				w.t.Fatal(err)
			}
			if buf[0] == '\n' {
				seen++
			}
		}
	}
}

// A client that leaves frees its replica at once, whenever and however it goes.
func TestClientLeaves(t *testing.T) {
	for _, c := range cancelled {
		for _, l := range leavings {
			t.Run(c.name+"/"+l.name, func(t *testing.T) {
				t.Parallel()
				r := replica(t, sim.Config{Speed: 5})
				p := lbd(t, []string{r.URL()})
				if err := r.SetFaults(c.faults); err != nil {
					t.Fatal(err)
				}
				w := p.dial()
				w.sendPost("/v1/chat/completions", c.body)
				c.wait(w, r)
				if n := p.state(r).InFlight(); n != 1 {
					t.Errorf("own load is %d while the request runs; want 1", n)
				}
				l.leave(w)
				p.until("the replica's request aborted", func() bool { return r.Stats().Aborted == 1 })
				p.until("own load 0", func() bool { return p.state(r).InFlight() == 0 })
				p.until("the disconnect counted", func() bool {
					return p.metric(`lbd_client_disconnects_total{model="`+llama+`"}`) == "1" &&
						p.metric(`lbd_requests_total{code="499",model="`+llama+`"}`) == "1"
				})
				if r.Faults() == (sim.Faults{}) {
					r.SetFaults(sim.Faults{})
					goodRequest(t, p.dial())
				}
				if got := p.metric(`lbd_upstream_errors_total{reason="reset",replica="` + r.Addr() + `"}`); got != "" && got != "0" {
					t.Errorf("the replica is blamed for %s errors", got)
				}
				if s := r.Stats(); s.Aborted != 1 {
					t.Errorf("aborted %d requests; want 1", s.Aborted)
				}
			})
		}
	}
}

// The same where only a raw replica can stop: between the head and the first
// byte, within a body of known length, and before the replica has read anything.
func TestClientLeavesRawReplica(t *testing.T) {
	for _, c := range []struct {
		name  string
		sends string
		head  bool // the client sees the head
	}{
		{"nothing sent", "", false},
		{"half a head", "HTTP/1.1 200 OK\r\ncontent-", false},
		{"head without a byte", sseHead, false},
		{"small body half sent", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf", false},
		{"large body half sent", "HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\nhalf", true},
		{"until close", "HTTP/1.1 200 OK\r\n\r\nhalf", true},
		{"within a chunk", sseHead + "10\r\nhalf", true},
		{"within a chunk's size", sseHead + "4\r\nhalf\r\n1", true},
	} {
		for _, l := range leavings {
			t.Run(c.name+"/"+l.name, func(t *testing.T) {
				t.Parallel()
				sent, gone := make(chan struct{}), make(chan struct{})
				f := fakeReplica(t, func(fc *fakeConn) {
					fc.body()
					fc.send(c.sends)
					close(sent)
					fc.gone()
					close(gone)
				})
				p := lbd(t, []string{f.url()})
				w := p.dial()
				w.sendPost("/v1/chat/completions", chat(llama, true, 1))
				<-sent
				if c.head {
					if b, err := w.br.ReadString('h'); err != nil || !strings.HasPrefix(b, "HTTP/1.1 200 OK\r\n") {
						t.Fatalf("%q %v", b, err)
					}
				}
				l.leave(w)
				select {
				case <-gone:
				case <-time.After(patience):
					t.Fatal("the replica's connection stays open")
				}
				p.until("own load 0", func() bool { return p.Snapshot().Replicas[0].InFlight() == 0 })
				p.until("the disconnect counted", func() bool {
					return p.metric(`lbd_client_disconnects_total{model="`+llama+`"}`) == "1"
				})
			})
		}
	}
}

// A client that leaves while it still sends its request leaves nothing behind.
func TestClientLeavesWhileSending(t *testing.T) {
	f := fakeReplica(t, echo)
	p := lbd(t, []string{f.url()})
	for _, l := range leavings {
		w := p.dial()
		w.send(postStart + "Content-Length: 100\r\n\r\n{")
		l.leave(w)
	}
	w := p.dial()
	w.sendPost("/v1/x", `{}`)
	if a := w.answer("POST"); a.StatusCode != 200 || len(f.requests()) != 1 {
		t.Errorf("%s, the replica got %d requests; want 1", a.Status, len(f.requests()))
	}
}

// A client that leaves while lbd uploads its large body to a replica that does
// not read.
func TestClientLeavesDuringUpload(t *testing.T) {
	seen := make(chan *fakeConn, 1)
	hold := make(chan struct{})
	f := fakeReplica(t, func(c *fakeConn) { seen <- c; <-hold })
	p := lbd(t, []string{f.url()})
	w := p.dial()
	w.sendPost("/v1/x", padded(32<<20))
	c := <-seen
	w.reset()
	p.until("own load 0", func() bool { return p.Snapshot().Replicas[0].InFlight() == 0 })
	close(hold)
	c.gone()
}

// A client that leaves after its answer has not left anything.
func TestClientLeavesAfterAnswer(t *testing.T) {
	r := replica(t, sim.Config{})
	p := lbd(t, []string{r.URL()})
	for _, l := range leavings {
		w := p.dial()
		goodRequest(t, w)
		l.leave(w)
	}
	goodRequest(t, p.dial())
	if got := p.metric(`lbd_client_disconnects_total{model="` + llama + `"}`); got != "" && got != "0" {
		t.Errorf("%s disconnects counted; want none", got)
	}
	p.until("four finished", func() bool { return r.Stats().Finished == 4 })
	if s := r.Stats(); s.Aborted != 0 {
		t.Errorf("%d aborted; want 0", s.Aborted)
	}
}
