package sock

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
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
	for _, l := range w.loops {
		if n := len(l.list()); n != 0 {
			t.Errorf("%d connections are still watched", n)
		}
	}
}

// A listener whose queue is full answers nobody.
func TestDialTimeout(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	own, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(own.(*unix.SockaddrInet4).Port))
	w := newWatch(t)
	for range 8 {
		c, err := Dial(context.Background(), to.String(), 50*time.Millisecond, 0, w)
		if err == nil {
			defer c.Close() // it stands in the queue
			continue
		}
		var timeout net.Error
		if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("%v; want a timeout", err)
		}
		return
	}
	t.Skip("the queue does not fill")
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
