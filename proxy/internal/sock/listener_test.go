package sock

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// What has connected and was not accepted yet is found, in order, and without it
// nobody waits.
func TestQueued(t *testing.T) {
	ln := listen(t, newWatch(t), 0)
	if _, ok := ln.Queued(); ok {
		t.Fatal("a connection that nobody has made")
	}
	var peers []net.Conn
	for i := range 3 {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.Write([]byte{byte('a' + i)})
		peers = append(peers, c)
	}
	for i := range peers {
		c, ok := ln.Queued()
		if !ok {
			t.Fatalf("only %d of %d", i, len(peers))
		}
		b := make([]byte, 1)
		if _, err := io.ReadFull(c, b); err != nil || b[0] != byte('a'+i) {
			t.Errorf("got %q, %v; want the one that came as number %d", b, err, i)
		}
		if _, err := c.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(peers[i], b); err != nil || b[0] != 'x' {
			t.Errorf("the client got %q, %v", b, err)
		}
		c.Close()
	}
	if _, ok := ln.Queued(); ok {
		t.Error("more than were made")
	}
	ln.Close()
	if _, ok := ln.Queued(); ok {
		t.Error("a connection from a closed listener")
	}
}

func TestUnread(t *testing.T) {
	c, peer := accepted(t, nil, 0)
	if c.Unread() {
		t.Error("nothing was sent")
	}
	read := make(chan error, 1)
	send(t, peer, "x")
	eventually(t, "the arrival", c.Unread)
	recv(t, c, "x")
	go func() { _, err := c.Read(make([]byte, 1)); read <- err }()
	if c.Unread() {
		t.Error("all was read")
	}
	peer.Close()
	if err := <-read; err != io.EOF {
		t.Error(err)
	}
	if c.Unread() {
		t.Error("an end is not something to read")
	}
	c.Close()
	if c.Unread() {
		t.Error("a closed connection has something to read")
	}
}

// Closing does not wait for the pause after a failed accept, and each failure is told.
func TestCloseEndsThePause(t *testing.T) {
	ln := listen(t, nil, 0)
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	faults := make(chan error, 100)
	ln.Fault = func(err error) { faults <- err }
	browser, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer browser.Close()
	none := old
	none.Cur = 0
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Skipf("cannot lower the limit: %v", err)
	}
	t.Cleanup(func() { syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old) })
	ended := make(chan error, 1)
	go func() { _, err := ln.AcceptConn(); ended <- err }()
	for range 3 {
		select {
		case err := <-faults:
			if !errors.Is(err, syscall.EMFILE) {
				t.Errorf("%v; want EMFILE", err)
			}
		case <-time.After(patience):
			t.Fatal("nobody is told")
		}
	}
	ln.Close()
	select {
	case err := <-ended:
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v; want ErrClosed", err)
		}
	case <-time.After(patience):
		t.Fatal("Accept goes on")
	}
}
