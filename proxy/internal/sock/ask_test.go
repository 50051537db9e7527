package sock

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// asked is what an Ask returned.
type asked struct {
	sent    int
	sendErr error
	got     string
	err     error
}

func ask(c *Conn, p string, quiet bool, written func() error) (a asked) {
	var b *Buf
	var n int
	a.sent, a.sendErr, b, n, a.err = c.Ask([]byte(p), quiet, written)
	if b != nil {
		a.got = string(b.B[:n])
	}
	PutBuf(b)
	return a
}

// arrived waits until the connection has something to read, or an end.
func arrived(t *testing.T, c *Conn) {
	t.Helper()
	eventually(t, "the arrival", func() bool { return !c.Quiet() })
}

func TestAsk(t *testing.T) {
	c, peer := dialled(t, newWatch(t))
	for _, quiet := range []bool{false, true} {
		var calls int
		go func() {
			buf := make([]byte, 4)
			io.ReadFull(peer, buf)
			peer.Write(bytes.ToUpper(buf))
		}()
		got := ask(c, "ping", quiet, func() error { calls++; return nil })
		if want := (asked{sent: 4, got: "PING"}); got != want || calls != 1 {
			t.Errorf("quiet %t: %+v, %d calls; want %+v, 1 call", quiet, got, calls, want)
		}
	}
	if n := c.Written(); n != 8 {
		t.Errorf("written %d; want 8", n)
	}
}

// What came in front of the write has been told to the poller already, which will
// not tell it again: the second half of a read, a pipelined request.
func TestAskFindsWhatCameBefore(t *testing.T) {
	ends := map[string]func(*net.TCPConn){
		"bytes": func(*net.TCPConn) {},
		"FIN":   func(c *net.TCPConn) { c.CloseWrite() },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			c, peer := accepted(t, newWatch(t), 0)
			send(t, peer, "12")
			end(peer)
			if name == "FIN" {
				eventually(t, "the end is told", c.Gone)
			}
			recv(t, c, "1")
			if name == "FIN" {
				recv(t, c, "2")
			}
			done := make(chan asked, 1)
			go func() { done <- ask(c, "answer", false, nil) }()
			want := asked{sent: 6, got: "2"}
			if name == "FIN" {
				want = asked{sent: 6, err: io.EOF}
			}
			select {
			case got := <-done:
				if got != want {
					t.Errorf("%+v; want %+v", got, want)
				}
			case <-time.After(patience):
				t.Error("what had come before was not found")
				c.Close()
				<-done
			}
			recv(t, peer, "answer")
		})
	}
}

func TestAskWhatDoesNotFit(t *testing.T) {
	c, peer := accepted(t, newWatch(t), patience)
	c.SetWriteBuffer(4 << 10)
	p := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	read := make(chan []byte, 1)
	written := make(chan struct{})
	go func() {
		buf := make([]byte, len(p))
		io.ReadFull(peer, buf)
		read <- buf
		<-written // and not before, though all of it has been read
		peer.Write([]byte("ok"))
	}()
	got := ask(c, string(p), true, func() error { close(written); return nil })
	if want := (asked{sent: len(p), got: "ok"}); got != want {
		t.Errorf("%+v; want %+v", got, want)
	}
	if !bytes.Equal(<-read, p) {
		t.Error("other bytes than those sent")
	}
	if n := c.Written(); n != int64(len(p)) {
		t.Errorf("written %d; want %d", n, len(p))
	}
}

func TestAskPeerTakesNothing(t *testing.T) {
	c, _ := accepted(t, newWatch(t), 5*time.Millisecond)
	c.SetWriteBuffer(4 << 10)
	got := ask(c, string(make([]byte, 16<<20)), false, func() error { t.Error("called"); return nil })
	if !errors.Is(got.sendErr, ErrStalled) || got.err != got.sendErr || got.sent == 16<<20 {
		t.Errorf("%+v; want %v", got, ErrStalled)
	}
}

func TestAskNotQuiet(t *testing.T) {
	stray := map[string]func(*net.TCPConn){
		"byte": func(c *net.TCPConn) { c.Write([]byte("x")) },
		"FIN":  func(c *net.TCPConn) { c.CloseWrite() },
		"RST":  reset,
	}
	// A limit that has passed and is not meant any more takes another way.
	states := map[string]func(*Conn){
		"no deadline": func(*Conn) {},
		"stale deadline": func(c *Conn) {
			c.WaitUntil(time.Now().Add(-time.Second))
			c.WaitUntil(time.Now().Add(patience))
		},
	}
	for name, do := range stray {
		for state, set := range states {
			t.Run(name+", "+state, func(t *testing.T) {
				c, peer := dialled(t, newWatch(t))
				do(peer)
				arrived(t, c)
				set(c)
				before := c.Written()
				got := ask(c, "request", true, func() error { t.Error("called"); return nil })
				if !errors.Is(got.err, ErrNotQuiet) || got.sendErr != got.err || got.sent != 0 || c.Written() != before {
					t.Errorf("%+v, %d bytes written; want nothing sent and %v", got, c.Written()-before, ErrNotQuiet)
				}
			})
		}
	}
}

func TestAskWrittenFails(t *testing.T) {
	c, peer := dialled(t, newWatch(t))
	stop := errors.New("stop")
	if got, want := ask(c, "last", false, func() error { return stop }), (asked{sent: 4, err: stop}); got != want {
		t.Errorf("%+v; want %+v", got, want)
	}
	recv(t, peer, "last")
	send(t, peer, "more") // the connection still works
	recv(t, c, "more")
}

func TestAskToPeerThatReset(t *testing.T) {
	c, peer := dialled(t, newWatch(t))
	reset(peer)
	eventually(t, "the reset", c.Gone)
	got := ask(c, "request", false, nil)
	if got.sendErr == nil || got.err != got.sendErr || got.sent != 0 {
		t.Errorf("%+v; want an error of writing", got)
	}
}

func TestAskClosed(t *testing.T) {
	c, _ := dialled(t, newWatch(t))
	c.Close()
	if got := ask(c, "request", true, nil); !errors.Is(got.err, net.ErrClosed) || got.sendErr == nil {
		t.Errorf("%+v; want %v", got, net.ErrClosed)
	}
}

// A limit may be over before the write, during it or behind it. The request is sent
// in any case: what the limit bounds is the wait.
func TestAskDeadline(t *testing.T) {
	t.Run("over before", func(t *testing.T) {
		c, peer := dialled(t, newWatch(t))
		c.SetReadDeadline(time.Now().Add(-time.Second))
		if got := ask(c, "ping", true, nil); got.sent != 4 || got.sendErr != nil || !errors.Is(got.err, os.ErrDeadlineExceeded) {
			t.Errorf("%+v; want it sent and %v", got, os.ErrDeadlineExceeded)
		}
		recv(t, peer, "ping")
	})
	t.Run("over while writing", func(t *testing.T) {
		c, peer := dialled(t, newWatch(t))
		c.SetWriteBuffer(4 << 10)
		p := string(make([]byte, 2<<20))
		c.SetReadDeadline(time.Now().Add(time.Millisecond))
		go func() {
			<-time.After(5 * time.Millisecond)
			io.CopyN(io.Discard, peer, int64(len(p)))
		}()
		if got := ask(c, p, true, nil); got.sent != len(p) || got.sendErr != nil || !errors.Is(got.err, os.ErrDeadlineExceeded) {
			t.Errorf("sent %d, %v; %v; want all and %v", got.sent, got.sendErr, got.err, os.ErrDeadlineExceeded)
		}
	})
	t.Run("over while waiting", func(t *testing.T) {
		c, peer := dialled(t, newWatch(t))
		c.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
		if got := ask(c, "ping", true, nil); got.sent != 4 || got.sendErr != nil || !errors.Is(got.err, os.ErrDeadlineExceeded) {
			t.Errorf("%+v; want it sent and %v", got, os.ErrDeadlineExceeded)
		}
		recv(t, peer, "ping")
	})
	t.Run("early, before", func(t *testing.T) {
		c, peer := dialled(t, newWatch(t))
		c.WaitUntil(time.Now().Add(-time.Second))
		c.WaitUntil(time.Now().Add(patience))
		go answer(peer, "pong")
		if got, want := ask(c, "ping", true, nil), (asked{sent: 4, got: "pong"}); got != want {
			t.Errorf("%+v; want %+v", got, want)
		}
	})
	t.Run("early, while waiting", func(t *testing.T) {
		w := newWatch(t)
		longEnough(t, func(pause time.Duration) bool {
			c, peer := dialled(t, w)
			c.WaitUntil(time.Now().Add(pause / 4))
			c.WaitUntil(time.Now().Add(2 * patience))
			armed := c.armed
			done := make(chan asked, 1)
			go func() { done <- ask(c, "ping", true, nil) }()
			time.Sleep(pause)
			answer(peer, "pong")
			if got, want := <-done, (asked{sent: 4, got: "pong"}); got != want {
				t.Errorf("%+v; want %+v", got, want)
			}
			return c.armed != armed
		})
	})
}

// longEnough tries with longer and longer pauses, until one was long enough for who waits
// to be there before it was over and to set the timer to the limit that holds.
func longEnough(t *testing.T, set func(pause time.Duration) bool) {
	t.Helper()
	for pause := 10 * time.Millisecond; pause < patience; pause *= 4 {
		if set(pause) {
			return
		}
	}
	t.Error("the timer was not set to the limit that holds")
}

// answer reads a ping.
func answer(peer net.Conn, s string) {
	io.ReadFull(peer, make([]byte, 4))
	io.WriteString(peer, s)
}

func TestWaitUntil(t *testing.T) {
	reads := map[string]func(*Conn) error{
		"Read":    func(c *Conn) error { _, err := c.Read(make([]byte, 1)); return err },
		"ReadBuf": func(c *Conn) error { b, _, err := c.ReadBuf(); PutBuf(b); return err },
		"Pump":    func(c *Conn) error { return c.Pump(func([]byte) bool { return false }) },
	}
	for name, read := range reads {
		t.Run(name+" goes on behind a limit that was put off", func(t *testing.T) {
			w := newWatch(t)
			longEnough(t, func(pause time.Duration) bool {
				c, peer := dialled(t, w)
				c.WaitUntil(time.Now().Add(pause / 4))
				c.WaitUntil(time.Now().Add(2 * patience))
				armed := c.armed
				go func() {
					time.Sleep(pause)
					peer.Write([]byte("x"))
				}()
				if err := read(c); err != nil {
					t.Errorf("%v; want a byte", err)
				}
				return c.armed != armed
			})
		})
		t.Run(name+" fails at a limit that was put off", func(t *testing.T) {
			c, _ := dialled(t, newWatch(t))
			c.WaitUntil(time.Now().Add(time.Millisecond))
			c.WaitUntil(time.Now().Add(3 * time.Millisecond))
			if err := read(c); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%v; want %v", err, os.ErrDeadlineExceeded)
			}
		})
		t.Run(name+" fails at a limit that was moved up", func(t *testing.T) {
			c, _ := dialled(t, newWatch(t))
			c.WaitUntil(time.Now().Add(time.Hour))
			c.WaitUntil(time.Now().Add(time.Millisecond))
			if err := read(c); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%v; want %v", err, os.ErrDeadlineExceeded)
			}
		})
	}
	t.Run("zero", func(t *testing.T) {
		c, peer := dialled(t, newWatch(t))
		c.WaitUntil(time.Now().Add(time.Millisecond))
		c.WaitUntil(time.Time{})
		time.Sleep(5 * time.Millisecond)
		send(t, peer, "x")
		recv(t, c, "x")
	})
}
