package sock

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lbd/internal/loopback"
)

func TestDialAddress(t *testing.T) {
	w := newWatch(t)
	for _, at := range []string{loopback.Address(), "[::1]:0"} {
		ln, err := net.Listen("tcp", at)
		if err != nil {
			t.Logf("%s: %v", at, err) // a machine without IPv6
			continue
		}
		c, err := Dial(context.Background(), ln.Addr().String(), patience, 0, w)
		if err != nil {
			t.Fatal(err)
		}
		peer, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if c.LocalAddr().String() != peer.RemoteAddr().String() || c.RemoteAddr().String() != peer.LocalAddr().String() {
			t.Errorf("%v to %v; the peer says %v to %v", c.LocalAddr(), c.RemoteAddr(), peer.RemoteAddr(), peer.LocalAddr())
		}
		if c.Gone() {
			t.Error("a connection just made counts as gone")
		}
		send(t, c, "there")
		recv(t, peer, "there")
		send(t, peer, "back")
		recv(t, c, "back")
		c.Close()
		peer.Close()
		ln.Close()
	}
}

func TestDialRefusedAddress(t *testing.T) {
	w := newWatch(t)
	addr := loopback.Free(t)
	_, err := Dial(context.Background(), addr, patience, 0, w)
	var op *net.OpError
	if !errors.Is(err, syscall.ECONNREFUSED) || !errors.As(err, &op) || !strings.Contains(err.Error(), addr) {
		t.Errorf("%v; want %v with the address", err, syscall.ECONNREFUSED)
	}
	unwatched(t, w)
}

// deaf returns an address that answers nobody: the queue of its listener is full.
func deaf(t *testing.T) string {
	t.Helper()
	ln := loopback.Listen(t)
	raw, err := ln.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { err = unix.Listen(int(fd), 0) }); err != nil {
		t.Fatal(err)
	}
	for range 64 {
		full := true
		for range 2 { // of which one may be late for other reasons
			if c, err := net.DialTimeout("tcp", ln.Addr().String(), 100*time.Millisecond); err == nil {
				t.Cleanup(func() { c.Close() })
				full = false
			}
		}
		if full {
			return ln.Addr().String()
		}
	}
	t.Fatalf("the listener's queue does not fill (%v)", err)
	return ""
}

// unwatched says that nothing is left of an attempt.
func unwatched(t *testing.T, w *Watch) {
	t.Helper()
	for _, l := range w.loops {
		if n := len(l.list()); n != 0 {
			t.Errorf("%d connections are still watched", n)
		}
	}
}

func TestDialTimeout(t *testing.T) {
	w := newWatch(t)
	_, err := Dial(context.Background(), deaf(t), 50*time.Millisecond, 0, w)
	timedOut(t, err)
	unwatched(t, w)
}

func timedOut(t *testing.T, err error) {
	t.Helper()
	var timeout net.Error
	if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("%v; want a timeout", err)
	}
}

// A context ends an attempt, and that is told as net tells it.
func TestDialUntil(t *testing.T) {
	addr := deaf(t)
	t.Run("while it connects", func(t *testing.T) {
		w := newWatch(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		dialled := make(chan error, 1)
		go func() {
			_, err := Dial(ctx, addr, time.Hour, 0, w)
			dialled <- err
		}()
		eventually(t, "the attempt", func() bool {
			return slices.ContainsFunc(w.loops, func(l *loop) bool { return len(l.list()) > 0 })
		})
		cancel()
		cancelled(t, <-dialled)
		unwatched(t, w)
	})
	t.Run("before", func(t *testing.T) {
		w := newWatch(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := Dial(ctx, addr, time.Hour, 0, w)
		cancelled(t, err)
		unwatched(t, w)
	})
	t.Run("at its deadline", func(t *testing.T) {
		w := newWatch(t)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := Dial(ctx, addr, time.Hour, 0, w)
		timedOut(t, err)
		unwatched(t, w)
	})
}

func cancelled(t *testing.T, err error) {
	t.Helper()
	var op *net.OpError
	if !errors.Is(err, context.Canceled) || !errors.As(err, &op) {
		t.Errorf("%v; want %v with the address", err, context.Canceled)
	}
}

// A server that takes the connection and says nothing does not hold a handshake beyond the
// end of its context either.
func TestDialTLSUntil(t *testing.T) {
	ln := loopback.Listen(t)
	_, client := selfSigned(t)
	w := newWatch(t)
	ctx, cancel := context.WithCancel(t.Context())
	var peer net.Conn
	var taking sync.WaitGroup
	taking.Go(func() {
		defer cancel()
		var err error
		if peer, err = ln.Accept(); err == nil {
			peer.Read(make([]byte, 1)) // the handshake has begun
		}
	})
	_, err := DialTLS(ctx, ln.Addr().String(), client, time.Hour, 0, w)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v; want %v", err, context.Canceled)
	}
	taking.Wait()
	if peer != nil {
		within(t, "the close at the server", ended(peer.(*net.TCPConn)))
		peer.Close()
	}
	unwatched(t, w)
}

func TestDialWithoutDescriptors(t *testing.T) {
	w := newWatch(t)
	ln := listen(t, nil, 0)
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	none := old
	none.Cur = 0
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Skipf("cannot lower the limit: %v", err)
	}
	_, err := Dial(context.Background(), ln.Addr().String(), patience, 0, w)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, syscall.EMFILE) {
		t.Errorf("%v; want %v", err, syscall.EMFILE)
	}
}
