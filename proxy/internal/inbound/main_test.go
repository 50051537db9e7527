package inbound

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"lbd/internal/loopback"
	"lbd/proxy/internal/sock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds how long a test waits for something that must happen. Nothing is
// asserted about how soon it does.
const patience = 2 * time.Minute

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not happen", what)
		}
	}
}

// plentiful are limits that no test reaches by accident.
var plentiful = Limits{Head: 64 << 10, Body: 1 << 20, Read: time.Hour, Idle: time.Hour}

// pair is a listener whose connections come one by one, with their peers.
type pair struct {
	ln *sock.Listener
}

func newPair(t testing.TB, w *sock.Watch) *pair {
	t.Helper()
	ln, err := sock.Listen(loopback.Address(), w, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return &pair{ln: ln}
}

func (p *pair) next(t testing.TB) (*sock.Conn, *net.TCPConn) {
	t.Helper()
	peer, err := net.Dial("tcp", p.ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := p.ln.AcceptConn()
	if err != nil {
		t.Fatal(err)
	}
	return c, peer.(*net.TCPConn)
}

// got is a request as the handler saw it.
type got struct {
	Method, Target, Version, Fields, ContentType, Body string
	Close                                              bool
}

func seen(r *Request) got {
	var f strings.Builder
	for _, x := range r.Fields {
		f.WriteString(string(x.Name) + "=" + string(x.Value) + "\n")
	}
	return got{
		Method: string(r.Method), Target: string(r.Target), Version: string(r.Version), Fields: f.String(),
		ContentType: string(r.ContentType), Body: string(r.Body), Close: r.Close,
	}
}

// recorder keeps every request and the error of the one that was refused. It
// answers nothing.
type recorder struct{}

type record struct {
	reqs []got
	err  error
}

func (recorder) Admit(*Conn) error { return nil }
func (recorder) Serve(c *Conn) bool {
	r := c.Owner.(*record)
	r.reqs = append(r.reqs, seen(c.Request()))
	return true // Close is the handler's business, and a parser test wants to see what stands behind
}
func (recorder) Refuse(c *Conn, err error) { c.Owner.(*record).err = err }

// still is a server without a clock: nobody is kicked, and nothing is too late.
func still(h Handler, lim Limits) *Server {
	h = turning(h)
	s := &Server{handler: h, conns: map[*Conn]struct{}{}, idle: make(chan struct{}), stop: make(chan struct{}), done: make(chan struct{})}
	s.beginner, _ = h.(Beginner)
	s.limits.Store(&lim)
	close(s.done)
	return s
}

// waitsIn returns how many bytes wait in a connection to be read.
func waitsIn(c *sock.Conn) int {
	n := 0
	raw, err := c.TCPConn.SyscallConn()
	if err != nil {
		return 0
	}
	raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), bytesWaiting) })
	return n
}

// read sends pieces to a connection, each only after the one before was read, and
// returns what the handler saw of them.
func (p *pair) read(t testing.TB, s *Server, pieces ...[]byte) *record {
	sc, peer := p.next(t)
	peer.SetLinger(0) // leaves no TIME_WAIT behind
	defer peer.Close()
	rec := &record{}
	c := &Conn{Conn: sc, srv: s, Owner: rec}
	c.waitFn = c.wait
	if !s.enlist(c) {
		t.Fatal("the server is shutting down")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.serve()
	}()
	for _, piece := range pieces {
		if len(piece) == 0 {
			continue
		}
		peer.Write(piece) // fails once it was refused
		for waitsIn(sc) > 0 {
			select {
			case <-done:
				return rec
			default:
				time.Sleep(10 * time.Microsecond)
			}
		}
	}
	peer.CloseWrite()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("the reader did not end")
	}
	return rec
}

func newWatch(t testing.TB) *sock.Watch {
	t.Helper()
	w, err := sock.NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// running is a server with a listener, a clock and a watch.
type running struct {
	*Server
	addr   string
	served chan error
	mu     sync.Mutex
	peers  []net.Conn
}

// start runs a server until the test ends, when nothing may be left of it.
func start(t testing.TB, h Handler, lim Limits) *running {
	t.Helper()
	return startOn(t, h, lim, newWatch(t))
}

func startOn(t testing.TB, h Handler, lim Limits, w *sock.Watch) *running {
	t.Helper()
	ln, err := sock.Listen(loopback.Address(), w, patience)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{Server: NewServer(turning(h), lim), addr: ln.Addr().String(), served: make(chan error, 1)}
	go func() { r.served <- r.Serve(ln) }()
	t.Cleanup(func() {
		for _, p := range r.peers {
			p.Close()
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := r.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-r.served; err != nil {
			t.Error(err)
		}
		if n := r.Open(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
	return r
}

// dial connects a client.
func (r *running) dial(t testing.TB) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	r.peers = append(r.peers, c)
	r.mu.Unlock()
	return c.(*net.TCPConn)
}

// in returns how many connections are in a state.
func (r *running) in(state int32) (n int) {
	for _, c := range r.list() {
		if c.state.Load() == state {
			n++
		}
	}
	return n
}

// settle waits until n connections are in a state.
func (r *running) settle(t testing.TB, state int32, n int) {
	t.Helper()
	eventually(t, "the state", func() bool { return r.in(state) == n })
}

// rest waits until n connections wait for a request, with a goroutine or without: on
// a slow machine they are parked before anybody looks.
func (r *running) rest(t testing.TB, n int) {
	t.Helper()
	eventually(t, "the waiting", func() bool { return r.in(waiting)+r.in(parked) == n })
}

// stopClock lets the server look at its connections only when the test asks for it: on a
// slow machine one that waits is else kicked before anybody has seen it wait.
func (r *running) stopClock() {
	r.halt.Do(func() { close(r.stop) })
	<-r.done
}

// later has the server look at its connections as if a time had passed.
func (r *running) later(d time.Duration) { r.sweep(time.Now().Add(d)) }

// park makes every connection that waits a parked one.
func (r *running) park(t testing.TB, n int) {
	t.Helper()
	eventually(t, "the parking", func() bool {
		r.later(2 * parkAfter)
		return r.in(parked) == n
	})
}

func send(t testing.TB, c io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

func recv(t testing.TB, c net.Conn, want string) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, len(want))
	if n, err := io.ReadFull(c, buf); err != nil || string(buf) != want {
		t.Fatalf("got %q, %v; want %q", buf[:n], err, want)
	}
}

// ends waits for the server to close the connection, after want.
func ends(t testing.TB, c net.Conn, want string) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	b, err := io.ReadAll(c)
	if err != nil || string(b) != want {
		t.Fatalf("got %q, %v; want %q and the end", b, err, want)
	}
}
