package sock

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ways are how a client can leave.
var ways = map[string]func(*net.TCPConn){
	"FIN":        func(c *net.TCPConn) { c.Close() },
	"half-close": func(c *net.TCPConn) { c.CloseWrite() },
	"RST":        reset,
}

// ended waits for the end of the connection as its peer sees it.
func ended(peer net.Conn) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		io.Copy(io.Discard, peer)
		close(done)
	}()
	return done
}

// eachWay runs a test for each way to leave.
func eachWay(t *testing.T, test func(t *testing.T, leave func(*net.TCPConn))) {
	for name, leave := range ways {
		t.Run(name, func(t *testing.T) { test(t, leave) })
	}
}

// boundPair returns both ends of a client's connection and of one to a replica that is bound
// to it.
func boundPair(t *testing.T) (client *Conn, browser *net.TCPConn, up *Conn, replica *net.TCPConn) {
	t.Helper()
	w := newWatch(t)
	client, browser = accepted(t, w, 0)
	up, replica = dialled(t, w)
	if !client.Bind(up) {
		t.Fatal("client is there, yet Bind says it left")
	}
	return client, browser, up, replica
}

func TestClientLeavesWhileNobodyReads(t *testing.T) {
	eachWay(t, func(t *testing.T, leave func(*net.TCPConn)) {
		client, browser, _, replica := boundPair(t)
		leave(browser)
		within(t, "the close at the replica", ended(replica))
		if !client.Gone() || client.Unbind() {
			t.Errorf("gone %t; Unbind must say that the client left", client.Gone())
		}
	})
}

func TestClientLeavesWithUnreadBytes(t *testing.T) {
	eachWay(t, func(t *testing.T, leave func(*net.TCPConn)) {
		_, browser, _, replica := boundPair(t)
		send(t, browser, "pipelined")
		leave(browser)
		within(t, "the close at the replica", ended(replica))
	})
}

// What waits for the replica ends with the client.
func TestClientLeavesABlockedRead(t *testing.T) {
	eachWay(t, func(t *testing.T, leave func(*net.TCPConn)) {
		_, browser, up, _ := boundPair(t)
		read := make(chan error, 1)
		go func() {
			_, _, err := up.ReadBuf()
			read <- err
		}()
		time.Sleep(5 * time.Millisecond)
		leave(browser)
		if err := <-read; !errors.Is(err, io.EOF) {
			t.Errorf("read error %v; want EOF", err)
		}
	})
}

func TestClientLeavesABlockedWrite(t *testing.T) {
	eachWay(t, func(t *testing.T, leave func(*net.TCPConn)) {
		_, browser, up, _ := boundPair(t)
		written := make(chan error, 1)
		go func() {
			_, err := up.Write(make([]byte, 64<<20))
			written <- err
		}()
		time.Sleep(5 * time.Millisecond)
		leave(browser)
		if err := <-written; !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write error %v; want EPIPE", err)
		}
	})
}

// A connection that is not bound, not yet or no more, stays open.
func TestClientLeavesBeforeBind(t *testing.T) {
	eachWay(t, func(t *testing.T, leave func(*net.TCPConn)) {
		w := newWatch(t)
		client, browser := accepted(t, w, 0)
		up, replica := dialled(t, w)
		leave(browser)
		eventually(t, "the leave is noticed", client.Gone)
		if client.Bind(up) {
			t.Error("Bind to a client that has left")
		}
		send(t, up, "still open")
		recv(t, replica, "still open")
	})
}

func TestClientLeavesAfterUnbind(t *testing.T) {
	eachWay(t, func(t *testing.T, leave func(*net.TCPConn)) {
		client, browser, up, replica := boundPair(t)
		if !client.Unbind() {
			t.Fatal("client is there, yet Unbind says it left")
		}
		leave(browser)
		eventually(t, "the leave is noticed", client.Gone)
		send(t, up, "still open")
		recv(t, replica, "still open")
	})
}

func TestWhenGone(t *testing.T) {
	eachWay(t, func(t *testing.T, leave func(*net.TCPConn)) {
		client, browser := accepted(t, newWatch(t), 0)
		told, toldInVain := make(chan struct{}), func() { t.Error("called although that was called off") }
		if !client.WhenGone(toldInVain) || !client.WhenGone(nil) || !client.WhenGone(func() { close(told) }) {
			t.Fatal("client is there, yet WhenGone says it left")
		}
		leave(browser)
		within(t, "the call", told)
		if client.WhenGone(toldInVain) {
			t.Error("WhenGone of a client that has left")
		}
	})
}

// The client is gone before the connection is even accepted: the watch still
// hears of it, though no edge follows.
func TestLeftBeforeAccept(t *testing.T) {
	w := newWatch(t)
	ln := listen(t, w, 0)
	for name, leave := range ways {
		browser, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer browser.Close()
		leave(browser.(*net.TCPConn))
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "notice of "+name, c.(*Conn).Gone)
		c.Close()
	}
}

func TestStayingClientIsNotGone(t *testing.T) {
	w := newWatch(t)
	client, browser := accepted(t, w, 0)
	other, gone := accepted(t, w, 0)
	send(t, browser, "data is no leave")
	gone.Close()
	eventually(t, "notice of the other one", other.Gone)
	if client.Gone() || !client.Unbind() {
		t.Error("a client that stays counts as gone")
	}
}

func TestWriteToGonePeer(t *testing.T) {
	c, peer := accepted(t, newWatch(t), time.Second)
	reset(peer)
	eventually(t, "the reset", c.Gone)
	if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write error %v; want ECONNRESET or EPIPE", err)
	}
}

// Descriptors are reused at once by new connections: none of these may be told
// what happened to an earlier one.
func TestReusedDescriptors(t *testing.T) {
	w := newWatch(t)
	const workers, turns = 4, 300
	var told, reused atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		ln := listen(t, w, 0)
		wg.Go(func() {
			for turn := range turns {
				old, browser := pair(t, ln)
				fd := polledOf(old).fd
				end(old, browser, turn)
				c, browser := pair(t, ln)
				if polledOf(c).fd == fd {
					reused.Add(1)
				}
				// A round trip leaves a late event time to come.
				send(t, browser, "ping")
				recv(t, c, "ping")
				if c.Gone() || !c.Bind(nil) {
					told.Add(1)
				}
				browser.Close()
				eventually(t, "the leave is noticed", c.Gone)
				c.Close()
			}
		})
	}
	wg.Wait()
	if n := told.Load(); n > 0 {
		t.Errorf("%d connections were told of another's end", n)
	}
	if reused.Load() == 0 {
		t.Error("no descriptor was reused: the test shows nothing")
	}
}

// pair returns the next connection of a listener that nobody else uses.
func pair(t *testing.T, ln *Listener) (*Conn, *net.TCPConn) {
	browser, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Error(err)
		runtime.Goexit()
	}
	c, err := ln.Accept()
	if err != nil {
		t.Error(err)
		runtime.Goexit()
	}
	return c.(*Conn), browser.(*net.TCPConn)
}

// end closes both sides in one of several orders.
func end(c *Conn, browser *net.TCPConn, how int) {
	switch how % 4 {
	case 0: // at the same time
		done := make(chan struct{})
		go func() { browser.Close(); close(done) }()
		c.Close()
		<-done
	case 1:
		browser.Close() // the event is on its way
		c.Close()
	case 2:
		reset(browser)
		c.Close()
	default:
		c.Close()
		reset(browser)
	}
}

// An event that was read from the kernel before its connection was closed is
// looked up when the descriptor already belongs to another one.
func TestLateEvent(t *testing.T) {
	w := newWatch(t)
	old, _ := accepted(t, w, 0)
	s := polledOf(old)
	late := []unix.EpollEvent{{Fd: int32(s.fd), Pad: int32(s.gen)}}
	find := func() *polled {
		var found [batch]*polled
		s.loop.find(late, &found)
		return found[0]
	}
	if find() != s {
		t.Fatal("an event in time does not find its connection")
	}
	old.Close()
	if find() != nil {
		t.Error("an event finds a closed connection")
	}
	for { // the loops take turns
		c, _ := accepted(t, w, 0)
		if polledOf(c).loop != s.loop {
			continue
		}
		late[0].Fd = int32(polledOf(c).fd)
		if find() != nil {
			t.Error("an event of an earlier connection finds a later one")
		}
		return
	}
}

func polledOf(c *Conn) *polled { return c.TCPConn.(*polled) }

func TestCloseAll(t *testing.T) {
	setLingerTime(t, time.Hour)
	w := newWatch(t)
	var up []*Conn
	var ends []<-chan struct{}
	for range 5 {
		client, browser := accepted(t, w, 0)
		u, replica := dialled(t, w)
		client.Bind(u)
		client.LingerOnClose() // must not delay
		up = append(up, client, u)
		ends = append(ends, ended(browser), ended(replica))
	}
	w.CloseAll()
	for _, e := range ends {
		within(t, "the close", e)
	}
	for _, c := range up {
		if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write error %v; want ErrClosed", err)
		}
	}
	for _, l := range w.loops {
		if n := len(l.list()); n != 0 {
			t.Errorf("%d connections are still watched", n)
		}
	}
}

// CloseAll also ends a connection that is lingering just now.
func TestCloseAllWhileLingering(t *testing.T) {
	setLingerTime(t, time.Hour)
	w := newWatch(t)
	c, browser := accepted(t, w, 0)
	c.LingerOnClose()
	closed := make(chan struct{})
	go func() { c.Close(); close(closed) }()
	recvEOF(t, browser) // the FIN: it lingers
	w.CloseAll()
	within(t, "the close", closed)
}

func recvEOF(t *testing.T, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("read = %d, %v; want EOF", n, err)
	}
}

// Close joins the goroutine; connections stay usable, and later ones are refused
// an error, not a crash.
func TestWatchClose(t *testing.T) {
	w, err := NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	c, peer := accepted(t, w, 0)
	ln := listen(t, nil, 0)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, l := range w.loops {
		select {
		case <-l.done:
		default:
			t.Error("Close did not wait for the goroutine")
		}
	}
	send(t, peer, "x")
	recv(t, c, "x")
	if _, err := Dial(context.Background(), ln.Addr().String(), patience, 0, w); err == nil {
		t.Error("a connection was made that nobody watches")
	}
	c.Close()
}

// A second Close closes nothing: the number of a descriptor is another one's by then.
func TestWatchClosedTwice(t *testing.T) {
	l, err := newLoop(false)
	if err != nil {
		t.Fatal(err)
	}
	bell := l.bell
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Dup3(0, bell, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if err := l.close(); err == nil {
		t.Error("closed twice without an error")
	}
	if err := unix.Close(bell); err != nil {
		t.Errorf("who has got the bell's number: %v", err)
	}
}

// Lack of descriptors is waited out.
func TestAcceptOutlivesLackOfDescriptors(t *testing.T) {
	w := newWatch(t)
	ln := listen(t, w, 0)
	browser, err := net.Dial("tcp", ln.Addr().String()) // in the backlog
	if err != nil {
		t.Fatal(err)
	}
	defer browser.Close()
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	none := old
	none.Cur = 0
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Skipf("cannot lower the limit: %v", err)
	}
	_, direct := ln.AcceptTCP()
	accepted := make(chan error, 1)
	go func() {
		c, err := ln.Accept()
		if err == nil {
			c.Close()
		}
		accepted <- err
	}()
	time.Sleep(3 * acceptPause)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(direct, syscall.EMFILE) {
		t.Errorf("accept without descriptors: %v; want EMFILE", direct)
	}
	if err := <-accepted; err != nil {
		t.Errorf("Accept = %v; want the connection that waited", err)
	}
	ln.Close()
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept on a closed listener: %v; want ErrClosed", err)
	}
}
