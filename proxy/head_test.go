package proxy

import (
	"testing"

	"lbd/access/forwarded"
	"lbd/proxy/internal/inbound"
	"lbd/proxy/internal/relay"
)

// A pooled exchange holds on to no byte of a request, not even of fields that were not
// passed on.
func TestHeadLetsGo(t *testing.T) {
	var h requestHead
	req := &inbound.Request{Method: []byte("POST"), Target: []byte("/v1/completions")}
	for _, name := range []string{"Host", "Connection", "X-A", "X-Forwarded-For", "Keep-Alive", "X-B", "Content-Length"} {
		req.Fields = append(req.Fields, relay.Field{Name: []byte(name), Value: []byte("X-B")})
	}
	if err := h.read(req); err != nil {
		t.Fatal(err)
	}
	var said forwarded.Fields
	h.noteForwarded(&forwarded.Peer{}, &said)
	all := h.fields[:cap(h.fields)]
	if n := len(h.fields); n == 0 || n >= len(req.Fields) {
		t.Fatalf("%d fields of %d are passed on; want some dropped", n, len(req.Fields))
	}
	h.clear()
	for i, f := range all {
		if f.Name != nil || f.Value != nil {
			t.Errorf("field %d is still %q", i, f.Name)
		}
	}
	if h.method != nil || h.target != nil || h.host != nil || h.id != nil || len(h.fields) != 0 {
		t.Errorf("still %+v", h)
	}
}
