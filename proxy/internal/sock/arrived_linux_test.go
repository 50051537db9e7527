package sock

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

const (
	request  = "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"
	response = "HTTP/1.1 204 No Content\r\n\r\n"
)

// rounds carries whole requests and answers, after which Linux treats the
// connection as interactive and delays acknowledgements.
func rounds(t *testing.T, c *Conn, peer net.Conn, n int) (sent int64) {
	t.Helper()
	buf := make([]byte, 256)
	for range n {
		send(t, c, request)
		recv(t, peer, request)
		send(t, peer, response)
		if _, err := io.ReadFull(c, buf[:len(response)]); err != nil {
			t.Fatal(err)
		}
		sent += int64(len(request))
	}
	return sent
}

// lost reads until the connection has failed.
func lost(t *testing.T, c *Conn) error {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	b, n, err := c.ReadBuf()
	PutBuf(b)
	if err == nil {
		t.Fatalf("read %d bytes; want an error", n)
	}
	return err
}

func TestArrivedNotWhenPeerClosedBefore(t *testing.T) {
	for _, n := range []int{0, 1, 30} {
		c, peer := dialled(t, newWatch(t))
		sent := rounds(t, c, peer, n)
		peer.Close()
		eventually(t, "the close is noticed", c.Gone)
		c.Write([]byte(request)) // goes out and is answered with RST
		lost(t, c)
		if c.Arrived(sent) {
			t.Errorf("after %d answers: a request written to a closed peer counts as arrived", n)
		}
	}
}

func TestArrivedWhenReadThenClosed(t *testing.T) {
	for _, n := range []int{0, 1, 30} {
		for _, delay := range []time.Duration{0, 10 * time.Millisecond, 60 * time.Millisecond} {
			c, peer := dialled(t, newWatch(t))
			sent := rounds(t, c, peer, n)
			send(t, c, request)
			recv(t, peer, request)
			time.Sleep(delay)
			peer.Close()
			if err := lost(t, c); !errors.Is(err, io.EOF) {
				t.Errorf("after %d answers: read error %v; want EOF", n, err)
			}
			if !c.Arrived(sent) {
				t.Errorf("after %d answers, closed after %v: a request that was read counts as lost", n, delay)
			}
		}
	}
}

// The case that bytes_acked alone gets wrong: the replica reads the request (and
// may run it) and resets before its kernel has acknowledged.
func TestArrivedResetWithinDelayedAck(t *testing.T) {
	unacknowledged := false
	for _, n := range []int{0, 1, 30} {
		for _, delay := range []time.Duration{0, 10 * time.Millisecond, 30 * time.Millisecond, 60 * time.Millisecond} {
			c, peer := dialled(t, newWatch(t))
			sent := rounds(t, c, peer, n)
			send(t, c, request)
			recv(t, peer, request)
			time.Sleep(delay)
			reset(peer)
			if err := lost(t, c); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read error %v; want ECONNRESET", err)
			}
			unacknowledged = unacknowledged || c.acked() <= sent
			if !c.Arrived(sent) {
				t.Errorf("after %d answers, reset after %v: a request that was read counts as lost", n, delay)
			}
		}
	}
	if !unacknowledged {
		t.Log("this kernel acknowledged every time: the case was not reached")
	}
}

// The error of a reset is told once. Whoever gets it, a later EOF is no FIN.
func TestArrivedResetSeenByWrite(t *testing.T) {
	c, peer := dialled(t, newWatch(t))
	sent := rounds(t, c, peer, 2)
	send(t, c, request)
	recv(t, peer, request)
	reset(peer)
	eventually(t, "the reset", c.Gone)
	if _, err := c.Write([]byte(request)); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("write error %v; want ECONNRESET", err)
	}
	if err := lost(t, c); !errors.Is(err, io.EOF) {
		t.Fatalf("read error %v; want EOF", err)
	}
	if !c.Arrived(sent) {
		t.Error("a request that was read counts as lost")
	}
}

func TestArrivedWhenUnreadAtClose(t *testing.T) {
	c, peer := dialled(t, newWatch(t))
	sent := rounds(t, c, peer, 2)
	send(t, c, request)
	recv(t, peer, request[:4])
	peer.Close() // unread bytes: RST
	lost(t, c)
	if !c.Arrived(sent) {
		t.Error("a request that was read in part counts as lost")
	}
}

func TestArrivedUnknown(t *testing.T) {
	c, _ := dialled(t, newWatch(t))
	if !c.Arrived(0) {
		t.Error("a connection that has not failed must count as arrived")
	}
	c.Close()
	if !c.Arrived(0) {
		t.Error("a closed connection must count as arrived")
	}
}

// A multi-segment request to a peer that had closed: none of it is acknowledged.
func TestArrivedNotLargeRequest(t *testing.T) {
	c, peer := dialled(t, newWatch(t))
	sent := rounds(t, c, peer, 2)
	peer.Close()
	eventually(t, "the close is noticed", c.Gone)
	big := make([]byte, 8<<20)
	for range 3 { // EPIPE comes once the RST has
		c.Write(big)
	}
	if err := lost(t, c); !errors.Is(err, io.EOF) {
		t.Fatalf("read error %v; want EOF", err)
	}
	if c.Arrived(sent) {
		t.Error("a request written to a closed peer counts as arrived")
	}
}

func TestQuiet(t *testing.T) {
	tests := []struct {
		name string
		do   func(peer *net.TCPConn)
		want bool
	}{
		{"untouched", func(*net.TCPConn) {}, true},
		{"stray byte", func(p *net.TCPConn) { p.Write([]byte("x")) }, false},
		{"FIN", func(p *net.TCPConn) { p.Close() }, false},
		{"half-close", func(p *net.TCPConn) { p.CloseWrite() }, false},
		{"RST", reset, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, peer := dialled(t, nil) // no watch: the socket itself says so
			rounds(t, c, peer, 1)
			tt.do(peer)
			if tt.want {
				if !c.Quiet() {
					t.Error("an untouched connection is not quiet")
				}
				rounds(t, c, peer, 1) // looking took nothing away
				return
			}
			eventually(t, "unrest", func() bool { return !c.Quiet() })
		})
	}
	c, _ := dialled(t, nil)
	c.Close()
	if c.Quiet() {
		t.Error("a closed connection is quiet")
	}
}

func TestDialRefused(t *testing.T) {
	ln := listen(t, nil, 0)
	addr := ln.Addr().String()
	ln.Close()
	if _, err := Dial(context.Background(), addr, patience, 0, nil); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial error %v; want ECONNREFUSED", err)
	}
}
