package daemon_test

import (
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// corked sends an answer and the end of the connection in one packet, so that
// the next request can only come to a closed connection.
func (c *fakeConn) corked(answer string) {
	raw, err := c.nc.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_CORK, 1) })
	}
	if err != nil {
		c.t.Error(err)
	}
	c.send(answer)
	c.nc.Close()
}

// A replica that closes each connection behind its answer without having said so:
// every request meets a connection that has just gone, and none fails or runs
// twice.
func TestStaleConnection(t *testing.T) {
	f := fakeReplica(t, func(c *fakeConn) {
		c.body()
		c.corked("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
	})
	p := lbd(t, []string{f.url()}, quiet...)
	w := p.dial()
	const n = 1000
	for i := range n {
		w.sendPost("/v1/x", `{}`, "X-Request-Id: "+strconv.Itoa(i))
		if a := w.answer("POST"); a.StatusCode != 200 {
			t.Fatalf("request %d: %s %s", i, a.Status, a.body)
		}
	}
	once(t, runs(f), n)
}

func runs(fs ...*fake) map[string]int {
	n := map[string]int{}
	for _, f := range fs {
		for _, h := range f.requests() {
			n[headField(h, "X-Request-Id")]++
		}
	}
	return n
}

// A replica that closes a moment after its answer: what comes within that moment
// is acknowledged by its kernel, so nobody can tell it from a request that ran. It
// fails and is not sent again.
func TestAlmostStaleConnection(t *testing.T) {
	f := fakeReplica(t, func(c *fakeConn) {
		c.body()
		c.answer(200, "{}")
		c.keep = false
		time.Sleep(50 * time.Microsecond)
	})
	p := lbd(t, []string{f.url()}, quiet...)
	w := p.dial()
	const n = 300
	lost := 0
	for i := range n {
		w.sendPost("/v1/x", `{}`, "X-Request-Id: "+strconv.Itoa(i))
		if a := w.answer("POST"); a.StatusCode != 200 {
			lost++
			if !strings.Contains(a.body, "closed the connection without an answer") {
				t.Errorf("request %d: %s %s", i, a.Status, a.body)
			}
		}
	}
	once(t, runs(f), n-lost)
}
