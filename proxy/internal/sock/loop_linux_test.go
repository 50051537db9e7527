package sock

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ofOne returns a watch with one loop.
func ofOne(t testing.TB, alone bool) *Watch {
	t.Helper()
	l, err := newLoop(alone)
	if err != nil {
		t.Fatal(err)
	}
	w := &Watch{loops: []*loop{l}}
	closeLater(t, w)
	return w
}

// bothWays runs a test with a loop that is alone and with one that is not.
func bothWays(t *testing.T, f func(t *testing.T, w *Watch)) {
	for name, alone := range map[string]bool{"alone": true, "among others": false} {
		t.Run(name, func(t *testing.T) { f(t, ofOne(t, alone)) })
	}
}

// bound returns a connection to a replica that carries a client's request.
func bound(t testing.TB, stall time.Duration) (up *Conn, replica *net.TCPConn, client *Conn, browser *net.TCPConn) {
	t.Helper()
	return boundBy(t, newWatch(t), stall)
}

func boundBy(t testing.TB, w *Watch, stall time.Duration) (up *Conn, replica *net.TCPConn, client *Conn, browser *net.TCPConn) {
	t.Helper()
	up, replica = dialled(t, w)
	client, browser = accepted(t, w, stall)
	if !client.Bind(up) {
		t.Fatal("the client has left")
	}
	return up, replica, client, browser
}

// waitsForLoop waits until a pump has left its work to the loop.
func waitsForLoop(t testing.TB, c *Conn) {
	t.Helper()
	eventually(t, "the pump waits", func() bool { return polledOf(c).rd.state.Load() == gatePumped })
}

// All bytes pass in order, by loop and goroutine in turn: small reads and such as fill
// the buffer, a client that stops for a while and one that does not.
func TestLoopCarriesBytes(t *testing.T) { bothWays(t, testLoopCarriesBytes) }

func testLoopCarriesBytes(t *testing.T, w *Watch) {
	up, replica, client, browser := boundBy(t, w, patience)
	client.SetWriteBuffer(8 << 10)
	browser.SetReadBuffer(8 << 10)
	var want bytes.Buffer
	rng := rand.New(rand.NewPCG(3, 4))
	const total = 512 << 10
	got := make(chan []byte, 1)
	go func() {
		b := make([]byte, total)
		for n := 0; n < total; {
			m, err := browser.Read(b[n:min(n+32<<10, total)])
			if n += m; err != nil {
				break
			}
			if n%7 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		got <- b
	}()
	pass := func(p []byte) {
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
		want.Write(p)
		replica.Write(p)
	}
	pass(make([]byte, 100)) // for the goroutine, which looks first
	eventually(t, "the arrival", up.Unread)
	var looped, own, n int
	done := make(chan error, 1)
	go func() {
		done <- up.Pump(func(p []byte) bool {
			if client.turn != nil {
				looped++
			} else {
				own++
			}
			n += len(p)
			// In pieces, as framing makes them: none may overtake one that is held.
			half := len(p) / 2
			for _, p := range [][]byte{p[:half], p[half:]} {
				if m, err := client.Write(p); m != len(p) || err != nil {
					t.Errorf("Write = %d, %v; want %d", m, err, len(p))
				}
			}
			return n < total
		})
	}()
	waitsForLoop(t, up)
	go func() {
		for want.Len() < total {
			size := 1 + rng.IntN(400)
			if rng.IntN(200) == 0 {
				size = 3 * BufSize
			}
			pass(make([]byte, min(size, total-want.Len())))
			if rng.IntN(50) == 0 {
				time.Sleep(100 * time.Microsecond)
			}
		}
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(<-got, want.Bytes()) {
		t.Error("other bytes than those sent")
	}
	if looped == 0 || own == 0 {
		t.Errorf("%d reads by the loop, %d by the goroutine: one way was not tried", looped, own)
	}
	if w := client.Written(); w != total {
		t.Errorf("written %d; want %d", w, total)
	}
}

func TestLoopClientTakesNothing(t *testing.T) {
	up, replica, client, _ := bound(t, 30*time.Millisecond)
	client.SetWriteBuffer(4 << 10)
	go func() {
		for {
			if _, err := replica.Write(make([]byte, 1000)); err != nil {
				return
			}
			time.Sleep(10 * time.Microsecond)
		}
	}()
	err := up.Pump(func(p []byte) bool { _, err := client.Write(p); return err == nil })
	// The goroutine's own part writes as ever: then the error is the client's Write's.
	if err != nil && !(errors.Is(err, ErrBound) && errors.Is(err, ErrStalled)) {
		t.Errorf("%v; want %v", err, ErrStalled)
	}
	replica.Close()
}

func TestLoopHeldBytesFail(t *testing.T) {
	up, replica, client, browser := bound(t, patience)
	done := make(chan error, 1)
	go func() {
		done <- up.Pump(func([]byte) bool {
			client.held = []byte("what the client did not take")
			reset(browser)
			// Not client.Gone, which the loop would have to hear of that stands here.
			eventually(t, "the reset", func() bool { return isClosed(t, client) })
			return true
		})
	}()
	waitsForLoop(t, up)
	send(t, replica, "x")
	if err := <-done; !errors.Is(err, ErrBound) {
		t.Errorf("%v; want %v", err, ErrBound)
	}
}

// isClosed says that the kernel has done with a connection.
func isClosed(t *testing.T, c *Conn) bool {
	t.Helper()
	info, err := unix.GetsockoptTCPInfo(polledOf(c).fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		t.Error(err)
		return true
	}
	const closed = 7 // TCP_CLOSE of net/tcp_states.h
	return info.State == closed
}

func TestLoopEnds(t *testing.T) { bothWays(t, testLoopEnds) }

func testLoopEnds(t *testing.T, w *Watch) {
	for name, c := range map[string]struct {
		end  func(up *Conn, replica, browser *net.TCPConn)
		want error
	}{
		"FIN with data": {func(_ *Conn, replica, _ *net.TCPConn) { replica.Write([]byte("data")); replica.Close() }, io.EOF},
		"FIN behind":    {func(_ *Conn, replica, _ *net.TCPConn) { replica.CloseWrite() }, io.EOF},
		"RST":           {func(_ *Conn, replica, _ *net.TCPConn) { reset(replica) }, syscall.ECONNRESET},
		"Close":         {func(up *Conn, _, _ *net.TCPConn) { up.Close() }, net.ErrClosed},
		"deadline":      {func(up *Conn, _, _ *net.TCPConn) { up.SetReadDeadline(time.Now().Add(time.Millisecond)) }, os.ErrDeadlineExceeded},
		"past":          {func(up *Conn, _, _ *net.TCPConn) { up.SetReadDeadline(longAgo) }, os.ErrDeadlineExceeded},
		"client leaves": {func(_ *Conn, _, browser *net.TCPConn) { reset(browser) }, io.EOF},
		"client closes": {func(_ *Conn, _, browser *net.TCPConn) { browser.CloseWrite() }, io.EOF},
	} {
		t.Run(name, func(t *testing.T) {
			for range 20 {
				up, replica, client, browser := boundBy(t, w, patience)
				done := make(chan error, 1)
				go func() {
					done <- up.Pump(func(p []byte) bool { client.Write(p); return true })
				}()
				waitsForLoop(t, up)
				c.end(up, replica, browser)
				if err := <-done; !errors.Is(err, c.want) {
					t.Fatalf("%v; want %v", err, c.want)
				}
				up.Close()
				client.Close()
			}
		})
	}
}

// More streams are told of at once than are carried at once: each gets what is its own, and
// what is behind them in the same turn is not forgotten.
func TestLoopCarriesByFours(t *testing.T) { bothWays(t, testLoopCarriesByFours) }

func testLoopCarriesByFours(t *testing.T, w *Watch) {
	first, peer := dialled(t, w)
	held := make(chan struct{})
	if !first.AwaitReadable(func() { <-held }) { // the loop stands still
		t.Fatal("AwaitReadable = false")
	}
	const streams = 5*pumpsAtOnce + 1
	ups, replicas, browsers := make([]*Conn, streams), make([]*net.TCPConn, streams), make([]*net.TCPConn, streams)
	done := make(chan error, streams)
	for i := range streams {
		var client *Conn
		ups[i], replicas[i], client, browsers[i] = boundBy(t, w, patience)
		go func() {
			done <- ups[i].Pump(func(p []byte) bool { client.Write(p); return false })
		}()
	}
	for _, up := range ups {
		waitsForLoop(t, up)
	}
	last, other := dialled(t, w)
	called := make(chan struct{})
	if !last.AwaitReadable(func() { close(called) }) {
		t.Fatal("AwaitReadable = false")
	}
	send(t, peer, "x") // now it does
	for i, r := range replicas {
		send(t, r, fmt.Sprintf("for %2d", i))
	}
	send(t, other, "x")
	close(held)
	for i, b := range browsers {
		recv(t, b, fmt.Sprintf("for %2d", i))
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	within(t, "the one behind them is told", called)
}

// unserved returns a loop that does not run and its set.
func unserved(t *testing.T) (*loop, uintptr) {
	t.Helper()
	set, bell, err := newSet()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(set); unix.Close(bell) })
	return &loop{bell: bell}, uintptr(set)
}

// How a loop that is alone takes its waits: in its own set as long as they are short.
func TestAwait(t *testing.T) {
	l, fd := unserved(t)
	for _, c := range []struct {
		name string
		last time.Duration
		rung bool
		late bool
		want bool
	}{
		{"soon again", 0, true, false, true},
		{"after a wait that was too long to spin", spinFor, true, false, true},
		{"after a long wait", shortWait + 1, true, false, false},
		{"held for long enough", 0, true, true, false},
		{"nothing comes", 0, false, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := work{epoch: time.Now(), wait: c.last}
			k.look(fd) // what is left of the one before
			k.n = 0
			if c.rung {
				l.ring()
			}
			until := time.Hour
			if c.late {
				until = -1
			}
			if got := k.await(fd, until); got != c.want || got != (k.n == 1) {
				t.Errorf("await = %v with %d events; want %v", got, k.n, c.want)
			}
			if c.rung {
				return
			}
			// The runtime may interrupt a wait: then the next may be one as well.
			eventually(t, "the last wait for nothing", func() bool { k.await(fd, until); return k.wait > shortWait })
			if last := k.wait; k.await(fd, until) || k.wait != last {
				t.Errorf("waits for %v, behind a wait of %v", k.wait, last)
			}
		})
	}
}

// A loop that has held its processor for nothing does so less often.
func TestAwaitLearns(t *testing.T) {
	l, fd := unserved(t)
	k := work{epoch: time.Now()}
	k.look(fd)
	for range 20 {
		k.wait, k.n, k.spare = 0, 0, 0
		k.await(fd, time.Hour)
	}
	// Each wait for something follows the short ones that are left to the poller.
	for i, want := range []int{mostSpared, 0, 0} {
		if got := leftToPoller(&k, fd, l); got != want {
			t.Errorf("wait %d: %d left to the poller; want %d", i, got, want)
		}
	}
	k.wait, k.n = 0, 0
	k.await(fd, time.Hour)
	if got, want := leftToPoller(&k, fd, l), 2*(mostSpared/8)+1; got != want {
		t.Errorf("for nothing again: %d left to the poller; want %d", got, want)
	}
}

// leftToPoller counts the short waits that are not taken until one is.
func leftToPoller(k *work, fd uintptr, l *loop) (n int) {
	for ; ; n++ {
		l.ring()
		if k.wait, k.n = 0, 0; k.await(fd, time.Hour) {
			return n
		}
	}
}

// A panic is the goroutine's, whose handler knows what to do about it.
func TestLoopPanics(t *testing.T) {
	up, replica, _, _ := bound(t, patience)
	done := make(chan any, 1)
	go func() {
		defer func() { done <- recover() }()
		up.Pump(func([]byte) bool { panic("taken ill") })
	}()
	waitsForLoop(t, up)
	send(t, replica, "x")
	got, ok := (<-done).(*Panicked)
	if !ok || got.Value != "taken ill" || !strings.Contains(string(got.Stack), "TestLoopPanics") {
		t.Errorf("recovered %v; want the panic and where it was", got)
	}
	// The loop lives on.
	c, peer := dialled(t, up.watch)
	go func() { time.Sleep(time.Millisecond); peer.Write([]byte("y")) }()
	recv(t, c, "y")
}

// A loop that has ended lets nobody wait for it.
func TestWatchCloseEndsWaiting(t *testing.T) {
	w, err := NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	c, _ := accepted(t, w, 0)
	read := make(chan error, 1)
	for i := range 2 {
		go func() { _, err := c.Read(make([]byte, 1)); read <- err }()
		if i == 0 {
			eventually(t, "the wait", func() bool { return polledOf(c).rd.state.Load() == gateWaiting })
			w.Close()
		}
		if err := <-read; !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v; want %v", err, net.ErrClosed)
		}
	}
	c.Close()
}

// What is told, ended and waited for at once wakes each wait once and loses none.
func TestGateRaces(t *testing.T) {
	var g gate
	var turns atomic.Int64
	stop := make(chan struct{})
	done := make(chan struct{}, 2)
	go func() { // the loop
		for {
			select {
			case <-stop:
				done <- struct{}{}
				return
			default:
			}
			if g.tell() == carry {
				g.carried(turns.Load()%2 == 0)
			}
			turns.Add(1)
		}
	}()
	go func() { // deadlines
		for {
			select {
			case <-stop:
				done <- struct{}{}
				return
			default:
			}
			g.setDeadline(longAgo)
			g.setDeadline(time.Time{})
			g.setDeadline(time.Now().Add(50 * time.Microsecond))
		}
	}()
	for i := range 5000 {
		if err := g.begin(); err != nil {
			continue
		}
		as := gateWaiting
		if i%2 == 0 {
			as = gatePumped
		}
		if err := g.wait(as); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		if s := g.state.Load(); s != gateIdle && s != gateReady {
			t.Fatalf("state %d behind a wait", s)
		}
	}
	close(stop)
	<-done
	<-done
	g.end(gateClosed)
	if len(g.wake) != 0 {
		t.Error("somebody was woken who did not wait")
	}
	if err := g.wait(gateWaiting); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v; want %v", err, net.ErrClosed)
	}
	if err := g.setDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v; want %v", err, net.ErrClosed)
	}
}

// A timer that fires for a deadline which was moved meanwhile ends nothing.
func TestGateStaleTimer(t *testing.T) {
	var g gate
	g.setDeadline(time.Now().Add(time.Hour))
	g.expire()
	if err := g.err(); err != nil {
		t.Error(err)
	}
	g.setDeadline(time.Time{})
	g.expire()
	if err := g.err(); err != nil {
		t.Error(err)
	}
}

// The last descriptor is enough for a connection to be let in.
func TestAdoptWithoutDescriptors(t *testing.T) {
	w := newWatch(t)
	ln := listen(t, nil, 0)
	peer, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	tc, err := ln.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	none := old
	none.Cur = 0
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Skipf("cannot lower the limit: %v", err)
	}
	c, err := newConn(tc, w, 0)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if polledOf(c).lent == nil {
		t.Fatal("there was a descriptor: the test shows nothing")
	}
	send(t, c, "there")
	recv(t, peer, "there")
	send(t, peer, "back")
	recv(t, c, "back")
	c.Close()
	recvEOF(t, peer)
}
