package proxy

import (
	"fmt"
	"strings"
	"testing"

	"lbd/proxy/internal/inbound"
	"lbd/proxy/internal/relay"
)

// What a replica nominates stays with its connection, in however many Connection
// fields it does so.
func TestNominatedInSeveralFields(t *testing.T) {
	x := &exchange{cfg: &Config{}}
	if _, err := x.answer.Parse([]byte("HTTP/1.1 200 OK\r\nX-B: 1\r\nConnection: x-a\r\nConnection: keep-alive, x-b\r\nX-A: 1\r\nX-C: 1\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	head := string(x.appendHead(nil, 0, false))
	for name, want := range map[string]bool{"X-A": false, "X-B": false, "X-C": true} {
		if got := strings.Contains(head, "\r\n"+name+": 1\r\n"); got != want {
			t.Errorf("%s passed on: %t; want %t in %q", name, got, want, head)
		}
	}
}

// A head full of nominations costs no more than a bounded number of comparisons
// per field and no memory.
func TestNominationsAreBounded(t *testing.T) {
	req := &inbound.Request{Fields: []relay.Field{{Name: []byte("Connection"), Value: []byte(strings.Repeat("a,", 1000) + "b")}}}
	for i := range 100 {
		req.Fields = append(req.Fields, relay.Field{Name: fmt.Appendf(nil, "x%d", i), Value: []byte("1")})
	}
	var h requestHead
	if n := testing.AllocsPerRun(5, func() { h.read(req) }); n > 5 {
		t.Errorf("%v allocations", n)
	}
	if err := h.read(req); err == nil || err.status != 400 {
		t.Errorf("%v; want a refusal", err)
	}
}
