package inbound

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"lbd/proxy/internal/sock"
)

// shutting begins Shutdown and waits until every answer ends its connection.
func (r *running) shutting(t *testing.T, ctx context.Context) <-chan error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- r.Shutdown(ctx) }()
	eventually(t, "the stop", r.Stopping)
	return done
}

// With a grace every connection without a request may send one more: one that has
// just been made, one that is kept alive, one without a goroutine.
func TestGraceTakesOneMore(t *testing.T) {
	r := start(t, newAnswerer(), plentiful)
	r.SetGrace(time.Hour)
	parkedOne, kept := r.dial(t), r.dial(t)
	for _, c := range []net.Conn{parkedOne, kept} {
		send(t, c, get("/1"))
		recv(t, c, answerTo("/1"))
	}
	r.park(t, 2)
	send(t, kept, get("/1"))
	recv(t, kept, answerTo("/1"))
	fresh := r.dial(t)
	eventually(t, "the accept", func() bool { return r.Open() == 3 })
	done := r.shutting(t, soon(t))
	if _, err := net.Dial("tcp", r.addr); err == nil {
		t.Error("the listener is open")
	}
	for _, c := range []net.Conn{fresh, kept, parkedOne} {
		select {
		case err := <-done:
			t.Fatalf("shut down with connections open: %v", err)
		default:
		}
		send(t, c, get("/2"))
		ends(t, c, answerTo("/2"))
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// The answer during which the server began to leave may have promised another request.
func TestGraceAfterAnAnswer(t *testing.T) {
	a := newAnswerer()
	r := start(t, promising{a}, plentiful)
	r.SetGrace(time.Hour)
	c := r.dial(t)
	send(t, c, get("/hold"))
	<-a.entered
	done := r.shutting(t, soon(t))
	close(a.release)
	recv(t, c, answerTo("/hold"))
	send(t, c, get("/2"))
	recv(t, c, answerTo("/2"))
	c.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// promising keeps connections whatever happens.
type promising struct{ *answerer }

func (p promising) Serve(c *Conn) bool {
	p.answerer.Serve(c)
	return true
}

func TestGraceEnds(t *testing.T) {
	r := start(t, newAnswerer(), plentiful)
	r.SetGrace(20 * time.Millisecond)
	idle, fresh := r.dial(t), r.dial(t)
	send(t, idle, get("/1"))
	recv(t, idle, answerTo("/1"))
	eventually(t, "the accept", func() bool { return r.Open() == 2 })
	done := r.shutting(t, soon(t))
	ends(t, idle, "")
	ends(t, fresh, "")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A grace does not outlast the time for shutting down.
func TestGraceIsCut(t *testing.T) {
	w := newWatch(t)
	r := startOn(t, newAnswerer(), plentiful, w)
	r.SetGrace(time.Hour)
	r.dial(t)
	eventually(t, "the accept", func() bool { return r.Open() == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	done := r.shutting(t, ctx)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("%v; want that a connection is left", err)
	}
	w.CloseAll()
}

// A request that has come is not shut out, although nobody has looked at it yet.
func TestShutSparesWhatHasCome(t *testing.T) {
	for _, state := range []int32{waiting, parked} {
		sc, peer := newPair(t, nil).next(t)
		defer peer.Close()
		c := &Conn{Conn: sc, srv: still(newAnswerer(), plentiful)}
		c.state.Store(state)
		send(t, peer, "G")
		eventually(t, "the arrival", c.Unread)
		if closed, _ := c.shut(0); closed {
			t.Errorf("state %d: closed over a request", state)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if closed, orphan := c.shut(0); !closed || orphan != (state == parked) {
			t.Errorf("state %d: closed %t, orphan %t without a request", state, closed, orphan)
		}
		ends(t, peer, "")
	}
}

// deaf accepts nobody until it is closed.
type deaf struct {
	*sock.Listener
	closed chan struct{}
	once   sync.Once
}

func (d *deaf) AcceptConn() (*sock.Conn, error) {
	<-d.closed
	return d.Listener.AcceptConn()
}

func (d *deaf) Close() error {
	d.once.Do(func() { close(d.closed) })
	return d.Listener.Close()
}

// Whoever has connected when the listener is closed is served, not reset.
func TestShutdownTakesInTheQueue(t *testing.T) {
	const n = 20
	ln := newPair(t, newWatch(t)).ln
	s := NewServer(newAnswerer(), plentiful)
	s.SetGrace(time.Hour)
	served := make(chan error, 1)
	go func() { served <- s.Serve(&deaf{Listener: ln, closed: make(chan struct{})}) }()
	eventually(t, "the start", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.ln != nil })
	peers := make([]net.Conn, n)
	for i := range peers {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		peers[i] = c
	}
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(soon(t)) }()
	eventually(t, "the stop", s.Stopping)
	for _, c := range peers {
		send(t, c, get("/1"))
		ends(t, c, answerTo("/1"))
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
