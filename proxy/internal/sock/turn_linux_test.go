package sock

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// resting is a Reader that notes what it is told.
type resting struct {
	refuses bool
	took    chan took
	ended   chan struct{}
	then    func(*Turn) // of Took; nil for nothing
}

type took struct {
	got string
	err error
}

func newResting() *resting {
	return &resting{took: make(chan took, 16), ended: make(chan struct{}, 16)}
}

func (r *resting) Claim() bool { return !r.refuses }
func (r *resting) Ended()      { r.ended <- struct{}{} }
func (r *resting) Took(t *Turn, b *Buf, n int, err error) {
	k := took{err: err}
	if b != nil {
		k.got = string(b.B[:n])
		PutBuf(b)
	}
	r.took <- k
	if r.then != nil {
		r.then(t)
	}
}

// rests rests a connection that has nothing to read yet.
func rests(t testing.TB, c *Conn, r Reader) {
	t.Helper()
	if !c.Rest(r) {
		t.Fatal("does not rest")
	}
}

func TestRest(t *testing.T) {
	c, peer := dialled(t, newWatch(t))
	r := newResting()
	for _, s := range []string{"one", "two"} {
		rests(t, c, r)
		send(t, peer, s)
		if got := <-r.took; got.got != s || got.err != nil {
			t.Errorf("took %+v; want %q", got, s)
		}
	}
	if len(r.ended) > 0 {
		t.Error("ended")
	}
}

// Who has given up a connection gets nothing of what comes to it.
func TestRestNotClaimed(t *testing.T) {
	c, peer := dialled(t, newWatch(t))
	r := newResting()
	r.refuses = true
	rests(t, c, r)
	send(t, peer, "x")
	eventually(t, "the look", func() bool { return polledOf(c).rd.state.Load() == gateIdle })
	recv(t, c, "x")
	if len(r.took)+len(r.ended) > 0 {
		t.Error("told of what was not claimed")
	}
}

// closableWatch is one that the test may close.
func closableWatch(t testing.TB) *Watch {
	t.Helper()
	w, err := NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func TestRestRefused(t *testing.T) {
	for name, before := range map[string]func(c *Conn, peer *net.TCPConn){
		"bytes": func(c *Conn, peer *net.TCPConn) {
			send(t, peer, "x")
			eventually(t, "the bytes", c.Unread)
		},
		"FIN": func(c *Conn, peer *net.TCPConn) {
			peer.Close()
			eventually(t, "the end", c.Gone)
		},
		"closed":   func(c *Conn, _ *net.TCPConn) { c.Close() },
		"deadline": func(c *Conn, _ *net.TCPConn) { c.SetReadDeadline(longAgo) },
		"no loop":  func(c *Conn, _ *net.TCPConn) { c.watch.Close() },
		"late":     func(c *Conn, _ *net.TCPConn) { c.late = syscall.ECONNRESET },
	} {
		t.Run(name, func(t *testing.T) {
			c, peer := dialled(t, closableWatch(t))
			before(c, peer)
			r := newResting()
			if c.Rest(r) || len(r.took)+len(r.ended) > 0 {
				t.Error("it rests, or was told of")
			}
		})
	}
}

// Whatever ends a rest is told once, and what reads then finds out what it was.
func TestRestEnds(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(c *Conn, peer *net.TCPConn)
		want error
	}{
		"FIN":           {func(_ *Conn, peer *net.TCPConn) { peer.CloseWrite() }, io.EOF},
		"FIN with data": {func(_ *Conn, peer *net.TCPConn) { peer.Write([]byte("x")); peer.Close() }, nil},
		"RST":           {func(_ *Conn, peer *net.TCPConn) { reset(peer) }, syscall.ECONNRESET},
		"Close":         {func(c *Conn, _ *net.TCPConn) { c.Close() }, net.ErrClosed},
		"CloseAll":      {func(c *Conn, _ *net.TCPConn) { c.watch.CloseAll() }, net.ErrClosed},
		"no loop":       {func(c *Conn, _ *net.TCPConn) { c.watch.Close() }, net.ErrClosed},
		"deadline":      {func(c *Conn, _ *net.TCPConn) { c.SetReadDeadline(time.Now().Add(time.Millisecond)) }, os.ErrDeadlineExceeded},
		"past":          {func(c *Conn, _ *net.TCPConn) { c.SetReadDeadline(longAgo) }, os.ErrDeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			for range 20 {
				conn, peer := dialled(t, closableWatch(t))
				r := newResting()
				rests(t, conn, r)
				c.end(conn, peer)
				var err error
				select {
				case <-r.ended:
					_, err = conn.Read(make([]byte, 1))
				case k := <-r.took: // what came before the loop knew of the end
					err = k.err
				}
				if !errors.Is(err, c.want) {
					t.Fatalf("%v; want %v", err, c.want)
				}
				if len(r.ended)+len(r.took) > 0 {
					t.Fatal("told twice")
				}
			}
		})
	}
}

// A reset that a loop has read is read again: an end in its place would look as if
// the peer had not got what was sent.
func TestLateErrorIsToldAgain(t *testing.T) {
	for name, read := range map[string]func(c *Conn) error{
		"Read":    func(c *Conn) error { _, err := c.Read(make([]byte, 1)); return err },
		"ReadBuf": func(c *Conn) error { _, _, err := c.ReadBuf(); return err },
	} {
		c, peer := dialled(t, newWatch(t))
		peer.Close()
		c.late = syscall.ECONNRESET
		if err := read(c); !errors.Is(err, syscall.ECONNRESET) || !c.rdFault {
			t.Errorf("%s: %v, fault %t; want the reset", name, err, c.rdFault)
		}
		if err := read(c); !errors.Is(err, io.EOF) {
			t.Errorf("%s, again: %v; want the end", name, err)
		}
	}
}

// echo answers all that comes, from within turns.
type echo struct {
	c     *Conn
	ask   bool
	sent  int
	fault chan error
	over  chan struct{}
}

func (e *echo) Claim() bool { return true }
func (e *echo) Ended()      { close(e.over) }
func (e *echo) Took(t *Turn, b *Buf, n int, err error) {
	switch {
	case err != nil:
		close(e.over)
	case n == 0:
		t.Await(e.c, e)
	default:
		p := bytes.Clone(b.B[:n])
		PutBuf(b)
		e.sent = n
		if e.ask {
			t.Ask(e.c, p, e)
		} else {
			t.Send(e.c, p, e)
		}
	}
}

func (e *echo) Sent(t *Turn, n int, err error) {
	if n != e.sent || err != nil {
		e.fault <- err
	}
	t.Await(e.c, e)
}

// No answer is missed, however soon it comes, in one piece or in several.
func TestTurnsMissNothing(t *testing.T) {
	w := newWatch(t)
	const conns, rounds = 8, 500
	done := make(chan error, conns)
	for i := range conns {
		c, peer := accepted(t, w, patience)
		e := &echo{c: c, fault: make(chan error, 1), over: make(chan struct{})}
		rests(t, c, e)
		go func() {
			rng := rand.New(rand.NewPCG(7, uint64(i)))
			done <- func() error {
				for range rounds {
					p := make([]byte, 2+rng.IntN(300))
					for j := range p {
						p[j] = byte(rng.Uint32())
					}
					cut := 1 + rng.IntN(len(p)-1)
					peer.Write(p[:cut])
					if rng.IntN(2) == 0 {
						time.Sleep(time.Duration(rng.IntN(50)) * time.Microsecond)
					}
					peer.Write(p[cut:])
					got := make([]byte, len(p))
					if _, err := io.ReadFull(peer, got); err != nil {
						return err
					}
					if !bytes.Equal(got, p) {
						return errors.New("other bytes than those sent")
					}
				}
				peer.Close()
				<-e.over
				select {
				case err := <-e.fault:
					return err
				default:
					return nil
				}
			}()
		}()
	}
	for range conns {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// sentTo is a Sender that notes what it is told.
type sentTo chan took

func (s sentTo) Sent(_ *Turn, n int, err error) {
	s <- took{got: string(rune('0' + min(n, 9))), err: err}
}

// inTurn calls fn in a turn of a loop of w.
func inTurn(t testing.TB, w *Watch, fn func(*Turn)) {
	t.Helper()
	c, peer := dialled(t, w)
	r := newResting()
	r.then = fn
	rests(t, c, r)
	send(t, peer, "now")
	<-r.took
}

func TestTurnAsk(t *testing.T) {
	for name, k := range map[string]struct {
		before func(c *Conn, peer *net.TCPConn)
		want   error
	}{
		"quiet": {func(*Conn, *net.TCPConn) {}, nil},
		"bytes": {func(c *Conn, peer *net.TCPConn) {
			send(t, peer, "x")
			eventually(t, "the bytes", c.Unread)
		}, ErrNotQuiet},
		"FIN": {func(c *Conn, peer *net.TCPConn) {
			peer.CloseWrite()
			eventually(t, "the end", c.Gone)
		}, ErrNotQuiet},
		"closed":  {func(c *Conn, _ *net.TCPConn) { c.Close() }, net.ErrClosed},
		"expired": {func(c *Conn, _ *net.TCPConn) { c.SetReadDeadline(longAgo) }, os.ErrDeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWatch(t)
			c, peer := dialled(t, w)
			k.before(c, peer)
			s := make(sentTo, 1)
			inTurn(t, w, func(turn *Turn) { turn.Ask(c, []byte("abc"), s) })
			got := <-s
			if !errors.Is(got.err, k.want) || (got.got == "3") != (k.want == nil) {
				t.Errorf("%+v; want %v", got, k.want)
			}
			if k.want == nil && c.Written() != 3 {
				t.Errorf("written %d; want 3", c.Written())
			}
		})
	}
}

// What there is no room for is told, and AskOn ends it.
func TestTurnAskInParts(t *testing.T) {
	w := newWatch(t)
	c, peer := dialled(t, w)
	c.SetWriteBuffer(4 << 10)
	peer.SetReadBuffer(4 << 10)
	p := bytes.Repeat([]byte("question"), 1<<13)
	n := make(chan int, 1)
	s := senderFunc(func(_ *Turn, m int, err error) {
		if err != nil {
			t.Error(err)
		}
		n <- m
	})
	inTurn(t, w, func(turn *Turn) { turn.Ask(c, p, s) })
	sent := <-n
	if sent == 0 || sent == len(p) {
		t.Fatalf("%d of %d sent; want a part", sent, len(p))
	}
	go func() {
		got := make([]byte, len(p))
		if _, err := io.ReadFull(peer, got); err != nil || !bytes.Equal(got, p) {
			t.Errorf("other bytes than those sent, %v", err)
		}
		peer.Write([]byte("answer"))
	}()
	sendErr, b, m, err := c.AskOn(p, sent, nil)
	if sendErr != nil || err != nil || string(b.B[:m]) != "answer" {
		t.Errorf("%v, %v, %d bytes; want the answer", sendErr, err, m)
	}
	PutBuf(b)
	if c.Written() != int64(len(p)) {
		t.Errorf("written %d; want %d", c.Written(), len(p))
	}
}

type senderFunc func(*Turn, int, error)

func (f senderFunc) Sent(t *Turn, n int, err error) { f(t, n, err) }

func TestTurnSendFails(t *testing.T) {
	w := newWatch(t)
	c, peer := dialled(t, w)
	reset(peer)
	eventually(t, "the reset", c.Gone)
	s := make(sentTo, 1)
	inTurn(t, w, func(turn *Turn) { turn.Send(c, []byte("abc"), s) })
	if got := <-s; got.err == nil {
		t.Error("no error")
	}
}

// A pump may write what does not lie in what it was handed, and use that again.
func TestLoopCarriesOwnBytes(t *testing.T) {
	up, replica, client, browser := bound(t, patience)
	const total = 200 << 10
	got := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(browser)
		got <- b
	}()
	var want bytes.Buffer
	var own [4]byte
	n := byte(0)
	looped := false
	done := make(chan error, 1)
	go func() {
		done <- up.Pump(func(p []byte) bool {
			looped = looped || client.turn != nil
			half := len(p) / 2
			for _, p := range [][]byte{p[:half], nil, p[half:], nil} {
				if p == nil {
					n++
					own = [4]byte{n, n, n, n}
					p = own[:]
				}
				want.Write(p)
				client.Write(p)
			}
			return true
		})
	}()
	waitsForLoop(t, up) // else all of it may have come before anybody looks
	go func() {
		for i := range total / 100 {
			replica.Write(bytes.Repeat([]byte{byte(i)}, 100))
			if i%10 == 0 {
				time.Sleep(20 * time.Microsecond)
			}
		}
		replica.CloseWrite()
	}()
	if err := <-done; !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	client.CloseWrite()
	if !bytes.Equal(<-got, want.Bytes()) {
		t.Error("other bytes than those written")
	}
	if !looped {
		t.Error("no loop carried anything: the test shows nothing")
	}
}

// What stands behind a buffer that was filled is read as well, although nobody tells of it.
func TestTurnReadsOnBehindAFullBuffer(t *testing.T) {
	w := newWatch(t)
	c, peer := dialled(t, w)
	all := strings.Repeat("x", BufSize) + "rest"
	send(t, peer, all)
	eventually(t, "the bytes", func() bool {
		n, err := unix.IoctlGetInt(polledOf(c).fd, unix.TIOCINQ)
		return err == nil && n == len(all)
	})
	polledOf(c).rd.tell() // what the loop may not have told yet
	r := newResting()
	r.then = func(turn *Turn) { turn.Await(c, r) }
	inTurn(t, w, func(turn *Turn) { turn.Await(c, r) })
	for _, want := range []string{all[:BufSize], "rest"} {
		for got := ""; got == ""; {
			k := <-r.took
			if got = k.got; got != "" && got != want || k.err != nil {
				t.Fatalf("took %d bytes, %v; want %d", len(got), k.err, len(want))
			}
		}
	}
}

func TestStir(t *testing.T) {
	c, peer := dialled(t, newWatch(t))
	c.Stir() // does not rest
	r := newResting()
	rests(t, c, r)
	c.Stir()
	c.Stir()
	<-r.ended
	send(t, peer, "x")
	recv(t, c, "x")
	if len(r.ended)+len(r.took) > 0 {
		t.Error("told twice")
	}
}

func TestNoTurnInTLS(t *testing.T) {
	c, _ := dialled(t, newWatch(t))
	c.tls = tls.Client(c, &tls.Config{})
	for name, do := range map[string]func(*Turn){
		"Send":  func(turn *Turn) { turn.Send(c, []byte("secret"), nil) },
		"Ask":   func(turn *Turn) { turn.Ask(c, []byte("secret"), nil) },
		"Await": func(turn *Turn) { turn.Await(c, newResting()) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s on a connection in TLS", name)
				}
			}()
			do(new(Turn))
		}()
	}
	if c.Rest(newResting()) {
		t.Error("a connection in TLS rests")
	}
}
