package inbound

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"lbd/internal/loopback"
	"lbd/proxy/internal/sock"
)

// answerer answers a request with its target. Some targets ask for more.
type answerer struct {
	entered chan struct{} // a request to /hold has come
	release chan struct{} // and may be answered
}

func newAnswerer() *answerer {
	return &answerer{entered: make(chan struct{}, 16), release: make(chan struct{})}
}

func (a *answerer) Admit(c *Conn) error {
	if string(c.Request().Target) == "/no" {
		return errors.New("not admitted")
	}
	return nil
}

func (a *answerer) Serve(c *Conn) bool {
	req := c.Request()
	target := string(req.Target)
	if target == "/hold" {
		a.entered <- struct{}{}
		<-a.release
	}
	if target == "/now" {
		c.Write([]byte(answerTo(target)))
	} else {
		o := GetOut()
		o.B = append(append(o.B, answerTo(target)...), req.Body...)
		c.Reply(o)
	}
	return !req.Close && target != "/close" && !c.srv.Stopping()
}

func (a *answerer) Refuse(c *Conn, err error) {
	c.LingerOnClose()
	o := GetOut()
	o.B = append(o.B, "refused: "+kind(err)...)
	c.Reply(o)
}

func answerTo(target string) string { return "answer to " + target + "\n" }

func get(target string) string { return "GET " + target + " HTTP/1.1\r\nHost: a\r\n\r\n" }

func put(target, body string) string {
	return fmt.Sprintf("PUT %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", target, len(body), body)
}

// the returns the only connection of a server.
func (r *running) the(t testing.TB) *Conn {
	t.Helper()
	eventually(t, "the accept", func() bool { return r.Open() == 1 })
	return r.list()[0]
}

// allRead says that nothing waits to be read.
func (r *running) allRead() bool {
	for _, c := range r.list() {
		if waitsIn(c.Conn) > 0 {
			return false
		}
	}
	return true
}

// startStill runs a server without a clock, so that nothing but what happens on a
// connection can make it go on.
func startStill(t *testing.T, h Handler) (*running, *net.TCPConn, *Conn) {
	t.Helper()
	p := newPair(t, newWatch(t))
	s := still(h, plentiful)
	sc, peer := p.next(t)
	s.begin(sc)
	t.Cleanup(func() {
		peer.Close()
		if err := s.Shutdown(soon(t)); err != nil {
			t.Error(err)
		}
	})
	r := &running{Server: s}
	return r, peer, r.the(t)
}

func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func TestKeepAlive(t *testing.T) {
	r := start(t, newAnswerer(), plentiful)
	c := r.dial(t)
	for _, target := range []string{"/1", "/now", "/2", "/3"} {
		send(t, c, get(target))
		recv(t, c, answerTo(target))
	}
	send(t, c, get("/close"))
	ends(t, c, answerTo("/close"))
	c = r.dial(t)
	send(t, c, "GET / HTTP/1.0\r\n\r\n")
	ends(t, c, answerTo("/"))
}

func TestPipelining(t *testing.T) {
	r := start(t, newAnswerer(), plentiful)
	var in, out strings.Builder
	for i := range 100 {
		target := fmt.Sprintf("/%d", i)
		switch i % 4 {
		case 0:
			in.WriteString(get(target))
		case 1:
			in.WriteString(put(target, strings.Repeat("b", i)))
		case 2:
			in.WriteString("\r\n" + get(target))
		case 3:
			in.WriteString("PUT " + target + " HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n")
		}
		out.WriteString(answerTo(target))
		out.WriteString(map[int]string{1: strings.Repeat("b", i), 3: "abc"}[i%4])
	}
	c := r.dial(t)
	send(t, c, in.String())
	recv(t, c, out.String())
	for seed := range uint64(20) {
		for _, piece := range cuts(in.String(), seed) {
			send(t, c, string(piece))
			runtime.Gosched()
		}
		recv(t, c, out.String())
	}
}

// The second request comes while the first one is answered, or with the rest of its
// body: nothing more will happen on the connection that could wake anybody.
func TestRequestThatCameEarly(t *testing.T) {
	t.Run("while answering", func(t *testing.T) {
		a := newAnswerer()
		_, peer, c := startStill(t, a)
		send(t, peer, get("/hold"))
		<-a.entered
		send(t, peer, get("/2"))
		eventually(t, "the arrival", func() bool { return waitsIn(c.Conn) > 0 })
		close(a.release)
		recv(t, peer, answerTo("/hold")+answerTo("/2"))
	})
	for _, size := range []int{10, sock.BufSize + 10} { // in place and apart
		t.Run(fmt.Sprintf("with the rest of %d bytes", size), func(t *testing.T) {
			_, peer, c := startStill(t, newAnswerer())
			body := strings.Repeat("x", size)
			one := put("/1", body)
			send(t, peer, one[:len(one)-5])
			eventually(t, "the read", func() bool { return c.state.Load() == active && waitsIn(c.Conn) == 0 })
			send(t, peer, one[len(one)-5:]+get("/2"))
			recv(t, peer, answerTo("/1")+body+answerTo("/2"))
		})
	}
}

func TestWaitingHoldsNothing(t *testing.T) {
	r := start(t, newAnswerer(), plentiful)
	r.stopClock()
	peer := r.dial(t)
	send(t, peer, "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: "+strings.Repeat("y", 15000)+"\r\n\r\n")
	recv(t, peer, answerTo("/")+"abc")
	r.rest(t, 1)
	c := r.the(t)
	if c.buf != nil || c.big != nil || c.out != nil || c.body != nil || len(c.chunks.Trailer()) > 0 {
		t.Errorf("buffers are held: buf %t, big %t, out %t, body %t, trailer %d bytes",
			c.buf != nil, c.big != nil, c.out != nil, c.body != nil, len(c.chunks.Trailer()))
	}
	for _, f := range c.req.Fields[:cap(c.req.Fields)] {
		if f.Name != nil || f.Value != nil {
			t.Fatalf("field %q holds on to a buffer", f.Name)
		}
	}
	r.park(t, 1)
	if c.req.Fields != nil {
		t.Error("a parked connection has room for fields")
	}
	c.state.CompareAndSwap(parked, parked) // what was read above comes before whoever unparks it
}

func TestParkedWakes(t *testing.T) {
	r := start(t, newAnswerer(), plentiful)
	open := func() *net.TCPConn {
		c := r.dial(t)
		send(t, c, get("/1"))
		recv(t, c, answerTo("/1"))
		r.park(t, 1)
		return c
	}
	t.Run("by bytes", func(t *testing.T) {
		c := open()
		for range 3 {
			send(t, c, get("/2"))
			recv(t, c, answerTo("/2"))
			r.park(t, 1)
		}
		send(t, c, "G") // the rest comes to a connection that reads
		r.settle(t, active, 1)
		send(t, c, get("/3")[1:])
		recv(t, c, answerTo("/3"))
		c.Close()
		eventually(t, "the end", func() bool { return r.Open() == 0 })
	})
	t.Run("by FIN", func(t *testing.T) {
		open().CloseWrite()
		eventually(t, "the end", func() bool { return r.Open() == 0 })
	})
	t.Run("by RST", func(t *testing.T) {
		c := open()
		c.SetLinger(0)
		c.Close()
		eventually(t, "the end", func() bool { return r.Open() == 0 })
	})
	t.Run("by bytes and FIN", func(t *testing.T) {
		c := open()
		send(t, c, get("/2"))
		c.CloseWrite()
		ends(t, c, answerTo("/2"))
		eventually(t, "the end", func() bool { return r.Open() == 0 })
	})
	t.Run("by Shutdown", func(t *testing.T) {
		c := open()
		if err := r.Shutdown(soon(t)); err != nil {
			t.Error(err)
		}
		ends(t, c, "")
	})
}

func TestCutWhileParked(t *testing.T) {
	w := newWatch(t)
	r := startOn(t, newAnswerer(), plentiful, w)
	for range 20 {
		r.dial(t)
	}
	r.park(t, 20)
	w.CloseAll()
	eventually(t, "the end", func() bool { return r.Open() == 0 })
}

// Bytes, ends and kicks come at once. Each request is answered, once.
func TestKickRaces(t *testing.T) {
	const clients, rounds = 4, 250
	r := start(t, newAnswerer(), plentiful)
	stop := make(chan struct{})
	var sweeper, g sync.WaitGroup
	sweeper.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				r.later(2 * parkAfter)
				runtime.Gosched()
			}
		}
	})
	for n := range clients {
		c := r.dial(t)
		g.Go(func() {
			for i := range rounds {
				target := fmt.Sprintf("/%d-%d", n, i)
				pieces := cuts(get(target), uint64(i))
				for _, p := range pieces {
					c.Write(p)
				}
				c.SetReadDeadline(time.Now().Add(patience))
				buf := make([]byte, len(answerTo(target)))
				if m, err := readFull(c, buf); err != nil || string(buf) != answerTo(target) {
					t.Errorf("got %q, %v; want %q", buf[:m], err, answerTo(target))
					return
				}
			}
		})
	}
	for _, leave := range []func(*net.TCPConn){func(c *net.TCPConn) { c.Close() }, func(c *net.TCPConn) { c.SetLinger(0); c.Close() }} {
		g.Go(func() {
			for range rounds {
				c, err := net.Dial("tcp", r.addr)
				if err != nil {
					t.Error(err)
					return
				}
				leave(c.(*net.TCPConn))
			}
		})
	}
	g.Wait()
	close(stop)
	sweeper.Wait()
	eventually(t, "the end of those that left", func() bool { return r.Open() == clients })
}

func readFull(c net.Conn, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = c.Read(buf[n:])
		n += m
	}
	return n, err
}

func TestIdleLimit(t *testing.T) {
	a := newAnswerer()
	r := start(t, a, Limits{Head: 1 << 10, Body: 1 << 10, Idle: time.Minute})
	busy, idle, parkedOne := r.dial(t), r.dial(t), r.dial(t)
	send(t, parkedOne, get("/"))
	recv(t, parkedOne, answerTo("/"))
	eventually(t, "the accept", func() bool { return r.in(waiting)+r.in(parked) == 3 })
	r.park(t, 3)
	send(t, busy, get("/hold"))
	<-a.entered
	send(t, idle, get("/"))
	recv(t, idle, answerTo("/"))
	r.rest(t, 2)
	r.later(50 * time.Second)
	if n := r.Open(); n != 3 {
		t.Fatalf("%d connections; want 3, none has waited for a minute", n)
	}
	eventually(t, "the end of two", func() bool { r.later(2 * time.Minute); return r.Open() == 1 })
	ends(t, idle, "")
	ends(t, parkedOne, "")
	close(a.release)
	recv(t, busy, answerTo("/hold"))
	r.rest(t, 1)
}

// The first request must begin within the time for reading one; empty lines are none.
func TestFirstRequestLimit(t *testing.T) {
	r := start(t, newAnswerer(), Limits{Head: 1 << 10, Body: 1 << 10, Read: time.Minute, Idle: time.Hour})
	silent, blank, used := r.dial(t), r.dial(t), r.dial(t)
	send(t, used, get("/"))
	recv(t, used, answerTo("/"))
	send(t, blank, "\r\n\r\n")
	eventually(t, "the reading", func() bool { return r.allRead() && r.in(waiting)+r.in(parked) == 3 })
	eventually(t, "the end of two", func() bool { r.later(2 * time.Minute); return r.Open() == 1 })
	ends(t, silent, "")
	ends(t, blank, "")
	send(t, used, get("/2"))
	recv(t, used, answerTo("/2"))
}

// A connection that was found to have waited for too long has answered since.
func TestIdleLimitComesLate(t *testing.T) {
	r := start(t, newAnswerer(), plentiful)
	r.stopClock()
	peer := r.dial(t)
	c := r.the(t)
	r.rest(t, 1)
	over := r.overdue(r.at(time.Now().Add(2*time.Hour)), &plentiful)
	r.clock.Add(1)
	send(t, peer, get("/1"))
	recv(t, peer, answerTo("/1"))
	r.rest(t, 1)
	if len(over) != 1 || over[0].c != c {
		t.Fatalf("%d connections are overdue; want 1", len(over))
	}
	r.shut(c, over[0].since)
	send(t, peer, get("/2"))
	recv(t, peer, answerTo("/2"))
}

// Where connections cannot be parked they are kicked once, and the idle limit holds.
func TestWithoutWatch(t *testing.T) {
	r := startOn(t, newAnswerer(), plentiful, nil)
	peer := r.dial(t)
	c := r.the(t)
	send(t, peer, get("/1"))
	recv(t, peer, answerTo("/1"))
	eventually(t, "the kick", func() bool { r.later(2 * parkAfter); return c.stays.Load() })
	r.rest(t, 1)
	send(t, peer, get("/2"))
	recv(t, peer, answerTo("/2"))
	r.rest(t, 1)
	r.later(2 * parkAfter)
	if s := c.state.Load(); s != waiting {
		t.Errorf("state %d; want %d, it is not kicked again", s, waiting)
	}
	eventually(t, "the end", func() bool { r.later(2 * time.Hour); return r.Open() == 0 })
	ends(t, peer, "")
}

func TestReadLimit(t *testing.T) {
	r := start(t, newAnswerer(), plentiful)
	for name, in := range map[string]string{
		"head":        "GET / HT",
		"body":        put("/", "ab")[:len(put("/", "ab"))-1],
		"large body":  put("/", strings.Repeat("x", 100<<10))[:50<<10],
		"chunked":     "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na",
		"trailer":     "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
		"of a second": get("/") + "GET",
	} {
		t.Run(name, func(t *testing.T) {
			// The first request must begin within the limit, too: a client that is slow to
			// send it would be closed without a word.
			r.SetLimits(plentiful)
			c := r.dial(t)
			send(t, c, get("/first"))
			recv(t, c, answerTo("/first"))
			lim := plentiful
			lim.Read = 20 * time.Millisecond
			r.SetLimits(lim)
			send(t, c, in)
			want := "refused: late"
			if name == "of a second" {
				want = answerTo("/") + want
			}
			recv(t, c, want)
		})
	}
}

func TestShutdown(t *testing.T) {
	a := newAnswerer()
	r := start(t, a, plentiful)
	parkedOne := r.dial(t)
	r.park(t, 1)
	working, half, halfBody := r.dial(t), r.dial(t), r.dial(t)
	send(t, working, get("/hold"))
	<-a.entered
	one := put("/body", "abc")
	send(t, half, "GET /half HT")
	send(t, halfBody, one[:len(one)-1])
	r.settle(t, active, 3)
	idle, blank := r.dial(t), r.dial(t)
	for _, c := range []*net.TCPConn{idle, blank} {
		send(t, c, get("/"))
		recv(t, c, answerTo("/"))
	}
	send(t, blank, "\r\n")
	eventually(t, "the waiting", func() bool { return r.allRead() && r.in(active) == 3 && r.in(kicked) == 0 })
	down := make(chan error, 1)
	go func() { down <- r.Shutdown(soon(t)) }()
	ends(t, idle, "")
	ends(t, blank, "")
	ends(t, parkedOne, "")
	// A client sees the end just before the server has forgotten it.
	eventually(t, "only the three that are at work", func() bool { return r.Open() == 3 })
	if c, err := net.Dial("tcp", r.addr); err == nil {
		c.Close()
		t.Error("the server still listens")
	}
	send(t, half, "TP/1.1\r\nHost: a\r\n\r\n")
	ends(t, half, answerTo("/half"))
	send(t, halfBody, one[len(one)-1:])
	ends(t, halfBody, answerTo("/body")+"abc")
	close(a.release)
	ends(t, working, answerTo("/hold"))
	if err := <-down; err != nil {
		t.Error(err)
	}
	if err := r.Shutdown(soon(t)); err != nil {
		t.Errorf("second Shutdown: %v", err)
	}
}

func TestShutdownThatIsCut(t *testing.T) {
	a := newAnswerer()
	r := start(t, a, plentiful)
	send(t, r.dial(t), get("/hold"))
	<-a.entered
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Shutdown(ctx); !errors.Is(err, context.Canceled) || !strings.HasPrefix(err.Error(), "1 connections cut") {
		t.Errorf("%v; want one connection cut", err)
	}
	close(a.release)
}

// Shutdown comes while requests do. What is answered is answered whole, and nothing
// is left.
func TestShutdownRaces(t *testing.T) {
	for range 30 {
		r := start(t, newAnswerer(), plentiful)
		var g sync.WaitGroup
		for range 8 {
			g.Go(func() {
				c, err := net.Dial("tcp", r.addr)
				if err != nil {
					return
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(patience))
				for {
					if _, err := c.Write([]byte(get("/x"))); err != nil {
						return
					}
					buf := make([]byte, len(answerTo("/x")))
					n, err := readFull(c, buf)
					if err != nil {
						if n > 0 {
							t.Errorf("answer of %d bytes is cut: %v", n, err)
						}
						return
					}
				}
			})
		}
		runtime.Gosched()
		eventually(t, "the accept", func() bool { return r.Open() > 0 })
		if err := r.Shutdown(soon(t)); err != nil {
			t.Error(err)
		}
		g.Wait()
	}
}

// lateListener hands out a connection that was accepted just before the end.
type lateListener struct {
	c      *sock.Conn
	closed chan struct{}
	once   sync.Once
	given  bool
}

func (l *lateListener) AcceptConn() (*sock.Conn, error) {
	<-l.closed
	if l.given {
		return nil, net.ErrClosed
	}
	l.given = true
	return l.c, nil
}

func (l *lateListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func TestAcceptDuringShutdown(t *testing.T) {
	sc, peer := newPair(t, nil).next(t)
	defer peer.Close()
	s := NewServer(newAnswerer(), plentiful)
	served := make(chan error, 1)
	l := &lateListener{c: sc, closed: make(chan struct{})}
	go func() { served <- s.Serve(l) }()
	eventually(t, "the start", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.ln != nil })
	if err := s.Shutdown(soon(t)); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	ends(t, peer, "")
	if n := s.Open(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

func TestServeAfterShutdown(t *testing.T) {
	s := NewServer(newAnswerer(), plentiful)
	if err := s.Shutdown(soon(t)); err != nil {
		t.Error(err)
	}
	ln, err := sock.Listen(loopback.Address(), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(ln); err != nil {
		t.Error(err)
	}
}

func TestThousandConnections(t *testing.T) {
	const n = 1000
	r := start(t, newAnswerer(), plentiful)
	before := runtime.NumGoroutine()
	peers := make([]*net.TCPConn, n)
	for i := range peers {
		peers[i] = r.dial(t)
		send(t, peers[i], get("/1"))
		recv(t, peers[i], answerTo("/1"))
	}
	r.park(t, n)
	eventually(t, "the end of the goroutines", func() bool { return runtime.NumGoroutine() <= before })
	for _, c := range peers {
		send(t, c, get("/2"))
	}
	for _, c := range peers {
		recv(t, c, answerTo("/2"))
	}
	r.park(t, n)
	for i, c := range peers {
		switch i % 4 {
		case 0:
			c.SetLinger(0)
			c.Close()
		case 1:
			c.Close()
		}
	}
	eventually(t, "the end of half of them", func() bool { return r.Open() == n/2 })
	if err := r.Shutdown(soon(t)); err != nil {
		t.Error(err)
	}
	ends(t, peers[2], "")
	eventually(t, "the end of the goroutines", func() bool { return runtime.NumGoroutine() <= before })
}

func TestExpect(t *testing.T) {
	r := start(t, newAnswerer(), plentiful)
	const goOn = "HTTP/1.1 100 Continue\r\n\r\n"
	head := "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n"
	c := r.dial(t)
	send(t, c, head)
	recv(t, c, goOn)
	send(t, c, "abc")
	recv(t, c, answerTo("/")+"abc")
	send(t, c, head+"abc") // a client that has sent its body does not wait
	recv(t, c, answerTo("/")+"abc")
	send(t, c, get("/1")+head) // the answer before comes before
	recv(t, c, answerTo("/1")+goOn)
	send(t, c, "abc")
	recv(t, c, answerTo("/")+"abc")
	send(t, c, strings.Replace(head, "Content-Length: 3", "Transfer-Encoding: chunked", 1))
	recv(t, c, goOn)
	send(t, c, "3\r\nabc\r\n0\r\n\r\n")
	recv(t, c, answerTo("/")+"abc")
	send(t, c, strings.Replace(strings.Replace(head, "/1.1", "/1.0\r\nConnection: keep-alive", 1), "PUT /", "PUT /old", 1))
	send(t, c, "abc")
	recv(t, c, answerTo("/old")+"abc")
	send(t, c, strings.Replace(head, "PUT /", "PUT /no", 1)) // refused before the body is wanted
	c.CloseWrite()
	ends(t, c, "refused: not admitted")
}

func TestTooLarge(t *testing.T) {
	r := start(t, newAnswerer(), Limits{Head: 1 << 10, Body: 1 << 10})
	for in, want := range map[string]string{
		"GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 1<<10):                                         "head",
		put("/", strings.Repeat("x", 1<<10+1)):                                                                  "body",
		"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n401\r\n" + strings.Repeat("x", 1<<10+1): "body",
	} {
		c := r.dial(t)
		send(t, c, in)
		c.CloseWrite()
		ends(t, c, "refused: "+want)
	}
	c := r.dial(t)
	send(t, c, put("/", strings.Repeat("x", 1<<10)))
	recv(t, c, answerTo("/")+strings.Repeat("x", 1<<10))
	r.SetLimits(Limits{Head: 1 << 10, Body: 2 << 10}) // of the next request
	send(t, c, put("/", strings.Repeat("x", 2<<10)))
	recv(t, c, answerTo("/")+strings.Repeat("x", 2<<10))
}

// A body that was slow leaves no deadline behind.
func TestReadLimitIsOver(t *testing.T) {
	const limit = 2 * time.Second // what a slow machine has for half a request
	r := start(t, newAnswerer(), Limits{Head: 1 << 10, Body: 1 << 10, Read: limit, Idle: time.Hour})
	peer := r.dial(t)
	c := r.the(t)
	one := put("/1", "abc")
	send(t, peer, one[:len(one)-1])
	eventually(t, "the read", func() bool { return waitsIn(c.Conn) == 0 && c.state.Load() == active })
	send(t, peer, one[len(one)-1:])
	recv(t, peer, answerTo("/1")+"abc")
	time.Sleep(limit + limit/4)
	send(t, peer, get("/2"))
	recv(t, peer, answerTo("/2"))
}

// A client that has sent further requests behind one whose answer ends the connection gets
// that answer whole all the same.
func TestAnswerInFrontOfMoreRequests(t *testing.T) {
	r := start(t, newAnswerer(), plentiful)
	c := r.dial(t)
	c.SetReadBuffer(16 << 10) // the answer has to wait in the server's socket
	body := strings.Repeat("x", 600<<10)
	var sender sync.WaitGroup
	sender.Go(func() { // fails at some time, as nobody reads all of it
		c.Write([]byte(put("/close", body) + strings.Repeat(put("/", body), 20)))
	})
	c.SetReadDeadline(time.Now().Add(patience))
	var got strings.Builder
	_, err := io.Copy(&got, c)
	if want := answerTo("/close") + body; err != nil || got.String() != want {
		t.Errorf("%d bytes, %v; want %d", got.Len(), err, len(want))
	}
	c.Close()
	sender.Wait()
}
