package proxy

import (
	"bytes"
	"testing"

	"lbd/proxy/internal/inbound"
	"lbd/proxy/internal/sock"
)

// A live stream holds no copy of its request but a small one.
func TestStreamHoldsNoLargeRequest(t *testing.T) {
	x := &exchange{client: &inbound.Conn{Conn: &sock.Conn{}}, out: make([]byte, 0, streamKeeps+1), body: make([]byte, streamKeeps+1), preamble: make([]byte, streamKeeps+1)}
	x.head.method, x.head.target, x.head.id = []byte("POST"), []byte("/v1/x?secret"), []byte("id")
	x.drop()
	if x.out != nil || x.body != nil || x.preamble != nil {
		t.Errorf("held: %d bytes to send, %d of the body, %d of tools and system prompt", cap(x.out), len(x.body), cap(x.preamble))
	}
	if m, p, id := string(x.head.method), string(x.head.target), string(x.head.id); m != "POST" || p != "/v1/x" || id != "id" {
		t.Errorf("kept for the log: %q %q %q", m, p, id)
	}
}

// Nor one that is all path or id: a head may have 32 KiB, and there may be 10,000 streams.
func TestStreamHoldsNoLongNames(t *testing.T) {
	long := bytes.Repeat([]byte("x"), 32<<10)
	x := &exchange{client: &inbound.Conn{Conn: &sock.Conn{}}}
	x.head.method, x.head.target, x.head.id = long, long, long
	x.drop()
	if n := cap(x.kept); n > 4*maxKept {
		t.Errorf("%d bytes are held for the log", n)
	}
	if len(x.head.id) == 0 {
		t.Error("nothing is left of the id")
	}
}
