package sock

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// pumped runs a pump to its end and returns what it took.
func pumped(c *Conn) (string, error) {
	var b bytes.Buffer
	err := c.Pump(func(p []byte) bool { b.Write(p); return true })
	return b.String(), err
}

// The end comes with the last bytes, behind them, or before anybody looks. Many
// times over, since the watch tells of it at its own time.
func TestPumpEnds(t *testing.T) {
	w := newWatch(t)
	for name, do := range map[string]func(c *Conn, peer *net.TCPConn, took <-chan struct{}){
		"FIN with the data": func(_ *Conn, peer *net.TCPConn, _ <-chan struct{}) {
			peer.Write([]byte("data"))
			peer.CloseWrite()
		},
		"FIN behind the data": func(_ *Conn, peer *net.TCPConn, took <-chan struct{}) {
			peer.Write([]byte("data"))
			<-took
			peer.CloseWrite()
		},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range 200 {
				c, peer := dialled(t, w)
				took := make(chan struct{}, 1)
				if i%2 == 0 {
					c.WaitUntil(time.Now().Add(patience))
				}
				go do(c, peer, took)
				var got bytes.Buffer
				err := c.Pump(func(p []byte) bool { got.Write(p); took <- struct{}{}; return true })
				if got.String() != "data" || !errors.Is(err, io.EOF) {
					t.Fatalf("got %q, %v; want the data and EOF", got.String(), err)
				}
				reset(peer)
				c.Close()
			}
		})
	}
	t.Run("gone before", func(t *testing.T) {
		c, peer := dialled(t, w)
		send(t, peer, "data")
		peer.CloseWrite()
		eventually(t, "the end is told", c.Gone)
		if got, err := pumped(c); got != "data" || !errors.Is(err, io.EOF) {
			t.Errorf("got %q, %v; want the data and EOF", got, err)
		}
	})
	t.Run("RST", func(t *testing.T) {
		c, peer := dialled(t, w)
		took := make(chan struct{})
		go func() {
			peer.Write([]byte("data"))
			<-took
			reset(peer)
		}()
		err := c.Pump(func([]byte) bool { close(took); return true })
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%v; want %v", err, syscall.ECONNRESET)
		}
	})
	t.Run("Close", func(t *testing.T) {
		c, peer := dialled(t, w)
		send(t, peer, "data")
		if err := c.Pump(func([]byte) bool { go c.Close(); return true }); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v; want %v", err, net.ErrClosed)
		}
	})
	t.Run("silence", func(t *testing.T) {
		c, peer := dialled(t, w)
		send(t, peer, "data")
		c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		got, err := pumped(c)
		if got != "data" && got != "" || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %q, %v; want %v", got, err, os.ErrDeadlineExceeded)
		}
		c.SetReadDeadline(time.Time{}) // and it can go on
		peer.CloseWrite()
		if _, err := pumped(c); !errors.Is(err, io.EOF) {
			t.Errorf("%v; want EOF", err)
		}
	})
}

// A read that fills the buffer may have left something.
func TestPumpFullReads(t *testing.T) {
	c, peer := dialled(t, newWatch(t))
	want := bytes.Repeat([]byte("0123456789abcdef"), 4*BufSize/16)
	send(t, peer, string(want))
	eventually(t, "the arrival", func() bool { return !c.Quiet() })
	var got bytes.Buffer
	err := c.Pump(func(p []byte) bool { got.Write(p); return got.Len() < len(want) })
	if err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%d bytes, %v; want %d", got.Len(), err, len(want))
	}
	send(t, peer, "rest") // it has left the connection as it was
	recv(t, c, "rest")
}

// An event, a kick back to sleep and the next wait come at once.
func TestAwaitReadableRaces(t *testing.T) {
	c, peer := accepted(t, newWatch(t), 0)
	var woken atomic.Int64
	for i := range int64(2000) {
		go peer.Write([]byte("x"))
		if i%3 == 0 {
			runtime.Gosched()
		}
		if !c.AwaitReadable(func() { woken.Add(1) }) {
			t.Fatal("not waited for")
		}
		eventually(t, "the wake", func() bool { return woken.Load() == i+1 })
		recv(t, c, "x")
	}
	for name, end := range map[string]func(*net.TCPConn){"FIN": func(c *net.TCPConn) { c.CloseWrite() }, "RST": reset} {
		for range 100 {
			c, peer := accepted(t, c.watch, 0)
			var woken atomic.Int64
			go end(peer)
			if !c.AwaitReadable(func() { woken.Add(1) }) {
				t.Fatalf("%s: not waited for", name)
			}
			eventually(t, "the wake by "+name, func() bool { return woken.Load() == 1 && c.Gone() })
			reset(peer)
			c.Close()
		}
	}
	c.Close()
	if c.AwaitReadable(func() { t.Error("called") }) {
		t.Error("a closed connection is waited for")
	}
}

// Without the descriptors that splicing takes nothing is moved, and nothing is lost.
func TestSpliceWithoutDescriptors(t *testing.T) {
	w := newWatch(t)
	client, browser := accepted(t, w, patience)
	up, replica := dialled(t, w)
	send(t, replica, "all of it")
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	none := old
	none.Cur = 0
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err) // anybody may lower it
	}
	moved, err := client.Splice(up, 9, patience)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if moved != 0 || err != nil {
		t.Errorf("%d, %v; want that nothing is moved, and no error", moved, err)
	}
	recv(t, up, "all of it")
	send(t, client, "on")
	recv(t, browser, "on")
}

func TestSplice(t *testing.T) {
	const n = 3*splicePiece + 17
	setup := func(t *testing.T, stall time.Duration) (client *Conn, browser *net.TCPConn, up *Conn, replica *net.TCPConn) {
		w := newWatch(t)
		client, browser = accepted(t, w, stall)
		up, replica = dialled(t, w)
		return client, browser, up, replica
	}
	t.Run("whole", func(t *testing.T) {
		client, browser, up, replica := setup(t, patience)
		want := bytes.Repeat([]byte("0123456789abcdefg"), n/17+1)[:n]
		go replica.Write(append(want, "tail"...))
		read := make(chan []byte, 1)
		go func() {
			b := make([]byte, n)
			io.ReadFull(browser, b)
			read <- b
		}()
		if moved, err := client.Splice(up, n, patience); moved != n || err != nil {
			t.Fatalf("%d, %v; want %d", moved, err, n)
		}
		if !bytes.Equal(<-read, want) {
			t.Error("other bytes than those sent")
		}
		up.WaitUntil(time.Now().Add(patience))
		recv(t, up, "tail") // not a byte more was taken
		send(t, client, "on")
		recv(t, browser, "on")
	})
	t.Run("replica ends", func(t *testing.T) {
		client, browser, up, replica := setup(t, patience)
		go io.Copy(io.Discard, browser)
		send(t, replica, "half")
		replica.CloseWrite()
		if moved, err := client.Splice(up, n, patience); moved != 4 || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d, %v; want 4, %v", moved, err, io.ErrUnexpectedEOF)
		}
	})
	t.Run("replica is silent", func(t *testing.T) {
		client, browser, up, replica := setup(t, patience)
		go io.Copy(io.Discard, browser)
		send(t, replica, "half")
		if moved, err := client.Splice(up, n, 20*time.Millisecond); moved > 4 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d, %v; want %v", moved, err, os.ErrDeadlineExceeded)
		}
	})
	t.Run("client takes nothing", func(t *testing.T) {
		client, _, up, replica := setup(t, 20*time.Millisecond)
		go replica.Write(make([]byte, 64<<20))
		if _, err := client.Splice(up, 64<<20, patience); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v; want %v", err, os.ErrDeadlineExceeded)
		}
		replica.Close()
	})
	t.Run("client leaves", func(t *testing.T) {
		client, browser, up, replica := setup(t, patience)
		go replica.Write(make([]byte, 64<<20))
		client.Bind(up)
		go func() {
			io.CopyN(io.Discard, browser, 100<<10)
			reset(browser)
		}()
		if _, err := client.Splice(up, 64<<20, patience); err == nil {
			t.Error("no error")
		}
		eventually(t, "the leave", client.Gone)
	})
}
