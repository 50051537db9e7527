package upstream

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lbd/internal/loopback"
	"lbd/proxy/internal/sock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds how long a test waits for something that must happen, also on a machine
// that is busy with much else. Nothing is asserted about how soon it does.
const patience = 2 * time.Minute

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not happen", what)
		}
	}
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

// replica accepts connections and hands over their other ends in order.
type replica struct {
	addr  string
	conns chan *net.TCPConn
}

func newReplica(t testing.TB) *replica {
	t.Helper()
	ln := loopback.Listen(t)
	r := &replica{addr: ln.Addr().String(), conns: make(chan *net.TCPConn, 4096)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			r.conns <- c.(*net.TCPConn)
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return r
}

func newPool(t testing.TB, addr string, cfg Config) *Pool {
	cfg.ConnectTimeout = patience
	if cfg.IdleTimeout == 0 {
		cfg.IdleTimeout = time.Hour
	}
	p := NewPool(addr, cfg)
	t.Cleanup(p.Close)
	return p
}

func get(t testing.TB, p *Pool) *Conn {
	t.Helper()
	c, err := reuseOrDial(p)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func reuseOrDial(p *Pool) (*Conn, error) {
	if c := p.Reuse(time.Now(), sock.AnyLoop); c != nil {
		return c, nil
	}
	return p.Dial(context.Background(), sock.AnyLoop)
}

// linuxOnly skips what needs a watch that hears something.
func linuxOnly(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("on this system a leave is not noticed while nobody reads")
	}
}

func isClosed(c *Conn) bool {
	_, err := c.Write([]byte("x"))
	return errors.Is(err, net.ErrClosed)
}

// A client gets a connection that its own loop hears of, if one waits: the last of them,
// and another one before none.
func TestNearTheClient(t *testing.T) {
	linuxOnly(t)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2)) // a watch has as many loops
	p := newPool(t, newReplica(t).addr, Config{Watch: newWatch(t)})
	dial := func(near int) *Conn {
		c, err := p.Dial(t.Context(), near)
		if err != nil {
			t.Fatal(err)
		}
		if c.Loop() != near {
			t.Fatalf("dialled near %d; want %d", c.Loop(), near)
		}
		return c
	}
	now := time.Now()
	a, b, far := dial(0), dial(0), dial(1)
	for _, c := range []*Conn{a, b, far} {
		p.Put(c, now)
	}
	for i, want := range []*Conn{b, a, far, nil} {
		if got := p.Reuse(now, 0); got != want {
			t.Errorf("connection %d: %p; want %p", i, got, want)
		}
	}
	p.Put(a, now.Add(-2*time.Hour))
	p.Put(far, now)
	if got := p.Reuse(now, 0); got != far || !isClosed(a) {
		t.Errorf("%p, closed %t; want %p, and the one nearby closed that has waited for too long", got, isClosed(a), far)
	}
	b.Close()
	far.Close()
}

func TestLastInFirstOut(t *testing.T) {
	p := newPool(t, newReplica(t).addr, Config{Watch: newWatch(t)})
	a, b, c := get(t, p), get(t, p), get(t, p)
	if a.Reused || b.Reused || c.Reused {
		t.Error("a new connection says that it is reused")
	}
	for _, x := range []*Conn{b, a, c} {
		p.Put(x, time.Now())
	}
	if n := p.Idle(); n != 3 {
		t.Errorf("%d idle; want 3", n)
	}
	for i, want := range []*Conn{c, a, b} {
		if got := get(t, p); got != want || !got.Reused {
			t.Errorf("connection %d: %p, reused %t; want %p", i, got, got.Reused, want)
		}
	}
	d, err := p.Dial(context.Background(), sock.AnyLoop)
	if err != nil || d.Reused {
		t.Fatalf("Dial: %v, reused %t", err, d.Reused)
	}
	for _, x := range []*Conn{a, b, c, d} {
		x.Close()
	}
}

func TestIdleTimeout(t *testing.T) {
	p := newPool(t, newReplica(t).addr, Config{Watch: newWatch(t), IdleTimeout: time.Minute})
	old, fresh := get(t, p), get(t, p)
	p.Put(old, time.Now())
	p.Put(fresh, time.Now())
	old.since = time.Now().Add(-time.Minute)
	p.Expire(time.Now())
	if !isClosed(old) || p.Idle() != 1 {
		t.Errorf("old connection closed: %t, %d idle; want it closed and 1", isClosed(old), p.Idle())
	}
	fresh.since = time.Now().Add(-time.Minute)
	if c := get(t, p); c == fresh || c.Reused || !isClosed(fresh) {
		t.Error("an expired connection was handed out or left open")
	} else {
		c.Close()
	}
}

// A connection that the replica closed, reset, or wrote to while it was idle is not
// used, at whatever moment Get comes, with a watch and without: Get passes over it,
// or the request is not written.
func TestDeadIdle(t *testing.T) {
	ways := map[string]func(*net.TCPConn){
		"FIN":        func(c *net.TCPConn) { c.Close() },
		"half-close": func(c *net.TCPConn) { c.CloseWrite() },
		"RST":        func(c *net.TCPConn) { c.SetLinger(0); c.Close() },
		"stray":      func(c *net.TCPConn) { c.Write([]byte("HTTP/1.1 408 Request Timeout\r\n\r\n")) },
	}
	for name, leave := range ways {
		for _, w := range []*sock.Watch{nil, newWatch(t)} {
			r := newReplica(t)
			p := newPool(t, r.addr, Config{Watch: w})
			c := get(t, p)
			peer := <-r.conns
			p.Put(c, time.Now())
			leave(peer) // on loopback it has arrived when the call returns
			got := get(t, p)
			if got != c {
				got.Close()
				if !isClosed(c) {
					t.Errorf("%s, watch %t: the dead connection was not closed", name, w != nil)
				}
				continue
			}
			got.Begin()
			sendErr, b, _, err := got.Ask([]byte("request"))
			if !errors.Is(err, sock.ErrNotQuiet) || sendErr != err || b != nil || got.Written() != got.mark {
				t.Errorf("%s, watch %t: %v, %v, %d bytes written on a dead connection", name, w != nil, sendErr, err, got.Written()-got.mark)
			}
			got.Close()
		}
	}
}

func TestExpireClosesWhatReplicaClosed(t *testing.T) {
	linuxOnly(t)
	r := newReplica(t)
	p := newPool(t, r.addr, Config{Watch: newWatch(t)})
	c := get(t, p)
	p.Put(c, time.Now())
	(<-r.conns).Close()
	eventually(t, "notice of the close", c.Gone)
	p.Expire(time.Now())
	if p.Idle() != 0 || !isClosed(c) {
		t.Errorf("%d idle, closed %t", p.Idle(), isClosed(c))
	}
}

func TestPutOfDeadConnection(t *testing.T) {
	linuxOnly(t)
	r := newReplica(t)
	p := newPool(t, r.addr, Config{Watch: newWatch(t)})
	c := get(t, p)
	(<-r.conns).Close()
	eventually(t, "notice of the close", c.Gone)
	p.Put(c, time.Now())
	if p.Idle() != 0 || !isClosed(c) {
		t.Errorf("%d idle, closed %t", p.Idle(), isClosed(c))
	}
}

func TestMaxIdle(t *testing.T) {
	p := newPool(t, newReplica(t).addr, Config{})
	c := get(t, p)
	p.idle = make([]*Conn, maxIdle)
	p.Put(c, time.Now())
	if !isClosed(c) || len(p.idle) != maxIdle {
		t.Errorf("closed %t, %d idle", isClosed(c), len(p.idle))
	}
	p.idle = nil
}

func TestCloseWithConnectionsInUse(t *testing.T) {
	p := newPool(t, newReplica(t).addr, Config{Watch: newWatch(t)})
	idle, used := get(t, p), get(t, p)
	p.Put(idle, time.Now())
	p.Close()
	if !isClosed(idle) {
		t.Error("an idle connection stays open")
	}
	if isClosed(used) {
		t.Error("a connection in use was closed")
	}
	p.Put(used, time.Now())
	if !isClosed(used) || p.Idle() != 0 {
		t.Errorf("given back to a closed pool: closed %t, %d idle", isClosed(used), p.Idle())
	}
	late := get(t, p) // a request under way may still need one
	p.Put(late, time.Now())
	if !isClosed(late) {
		t.Error("a connection of a closed pool stays open")
	}
}

func TestDialErrors(t *testing.T) {
	if _, err := newPool(t, loopback.Free(t), Config{}).Dial(context.Background(), sock.AnyLoop); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("Dial: %v; want ECONNREFUSED", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := newPool(t, newReplica(t).addr, Config{}).Dial(ctx, sock.AnyLoop); !errors.Is(err, context.Canceled) {
		t.Errorf("Dial: %v; want %v", err, context.Canceled)
	}
}

func TestArrived(t *testing.T) {
	linuxOnly(t)
	r := newReplica(t)
	p := newPool(t, r.addr, Config{Watch: newWatch(t)})
	ask := func(c *Conn, end *net.TCPConn, text string) {
		t.Helper()
		c.Begin()
		if err := c.Send([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(end, make([]byte, len(text))); err != nil {
			t.Fatal(err)
		}
		end.Write([]byte("a"))
		c.Read(make([]byte, 1))
	}
	t.Run("replica closed while idle", func(t *testing.T) {
		c := get(t, p)
		end := <-r.conns
		ask(c, end, "first")
		ask(c, end, "second, longer")
		end.Close()
		c.Begin()
		c.Send([]byte("third"))
		if _, _, err := c.ReadBuf(); err != io.EOF {
			t.Fatalf("read: %v; want EOF", err)
		}
		if c.Arrived() {
			t.Error("a request to a replica that had closed counts as arrived")
		}
		c.Close()
	})
	t.Run("reset while idle: not a byte was sent", func(t *testing.T) {
		c := get(t, p)
		end := <-r.conns
		ask(c, end, "first")
		end.SetLinger(0)
		end.Close()
		c.Begin()
		if err := c.Send([]byte("second")); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("send: %v; want ECONNRESET", err)
		}
		if c.Arrived() {
			t.Error("a request of which the kernel took nothing counts as arrived")
		}
		c.Close()
	})
	t.Run("reset after reading", func(t *testing.T) {
		c := get(t, p)
		end := <-r.conns
		ask(c, end, "first")
		c.Begin()
		c.Send([]byte("second"))
		io.ReadFull(end, make([]byte, len("second")))
		end.SetLinger(0)
		end.Close()
		c.ReadBuf()
		if !c.Arrived() {
			t.Error("a request that was read counts as lost")
		}
		c.Close()
	})
}

func TestPools(t *testing.T) {
	r := newReplica(t)
	cfg := Config{ConnectTimeout: patience, IdleTimeout: time.Hour, Watch: newWatch(t)}
	ps := NewPools(cfg)
	defer ps.Close()
	a, b := ps.Get("a", r.addr), ps.Get("b", r.addr)
	if a == b || ps.Get("a", "elsewhere:1") != a {
		t.Error("not one pool per ID")
	}
	ca, cb := get(t, a), get(t, b)
	a.Put(ca, time.Now())
	b.Put(cb, time.Now())

	ps.Retain(func(id string) bool { return id == "b" })
	if !isClosed(ca) || isClosed(cb) || ps.Get("b", r.addr) != b || ps.Get("a", r.addr) == a {
		t.Error("Retain closed or kept the wrong pool")
	}
	ps.SetConfig(cfg) // no change
	if isClosed(cb) || ps.Get("b", r.addr) != b {
		t.Error("SetConfig without a change closed a pool")
	}
	cfg.IdleTimeout = time.Minute
	ps.SetConfig(cfg)
	if b2 := ps.Get("b", r.addr); !isClosed(cb) || b2 == b || b2.cfg != cfg {
		t.Error("SetConfig left a pool as it was")
	}
	used := get(t, ps.Get("b", r.addr))
	pool := ps.Get("b", r.addr)
	ps.Close()
	ps.Close()
	pool.Put(used, time.Now())
	late := ps.Get("c", r.addr)
	c := get(t, late)
	late.Put(c, time.Now())
	if !isClosed(used) || !isClosed(c) {
		t.Error("after Close a connection was kept")
	}
}

func TestPoolsExpire(t *testing.T) {
	r := newReplica(t)
	ps := NewPools(Config{ConnectTimeout: patience, IdleTimeout: time.Millisecond})
	defer ps.Close()
	p := ps.Get("a", r.addr)
	c := get(t, p)
	p.Put(c, time.Now())
	eventually(t, "expiry", func() bool { return p.Idle() == 0 })
	eventually(t, "the close", func() bool { return isClosed(c) })
}

// Everything at once: no connection is held by two, and in the end none is left.
func TestConcurrentChurn(t *testing.T) {
	w := newWatch(t)
	var addrs []string
	for range 3 {
		addrs = append(addrs, newEcho(t))
	}
	cfg := Config{ConnectTimeout: patience, IdleTimeout: time.Hour, Watch: w}
	ps := NewPools(cfg)
	var held sync.Map
	var users, changers sync.WaitGroup
	stop := make(chan struct{})
	for u := range 8 {
		users.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(u), 1))
			for range 300 {
				i := rng.IntN(len(addrs))
				use(t, ps.Get(strconv.Itoa(i), addrs[i]), &held, rng)
			}
		})
	}
	changers.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			cfg.IdleTimeout = time.Hour + time.Duration(i%7/6) // changes now and then
			ps.SetConfig(cfg)
			ps.Retain(func(id string) bool { return i%5 > 0 || id != strconv.Itoa(i%3) })
			ps.pools.Range(func(_, v any) bool { v.(*Pool).Expire(time.Now()); return true })
		}
	})
	users.Wait()
	close(stop)
	changers.Wait()
	ps.Close()
}

func use(t *testing.T, p *Pool, held *sync.Map, rng *rand.Rand) {
	c, err := reuseOrDial(p)
	if err != nil {
		t.Error(err)
		return
	}
	if _, twice := held.LoadOrStore(c, true); twice {
		t.Error("a connection was handed out twice")
	}
	text := strconv.Itoa(rng.Int())
	c.Begin()
	buf := make([]byte, len(text))
	err = c.Send([]byte(text))
	if err == nil {
		_, err = io.ReadFull(c, buf)
	}
	if err != nil || string(buf) != text {
		t.Errorf("sent %q, got %q, %v", text, buf, err)
	}
	held.Delete(c)
	if rng.IntN(4) == 0 {
		c.Close()
	} else {
		p.Put(c, time.Now())
	}
}

// newEcho starts a replica that sends back what it gets.
func newEcho(t *testing.T) string {
	r := newReplica(t)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case c := <-r.conns:
				wg.Go(func() { io.Copy(c, c); c.Close() })
			}
		}
	})
	t.Cleanup(func() { close(stop); wg.Wait() })
	return r.addr
}

func BenchmarkGetPut(b *testing.B) {
	p := newPool(b, newReplica(b).addr, Config{Watch: newWatch(b)})
	p.Put(get(b, p), time.Now())
	b.ReportAllocs()
	for b.Loop() {
		c, err := reuseOrDial(p)
		if err != nil {
			b.Fatal(err)
		}
		p.Put(c, time.Now())
	}
}
