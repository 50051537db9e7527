package proxy

import (
	"strings"
	"testing"

	"lbd/access/forwarded"
	"lbd/balancer"
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

// An id that is empty is none: the one that is made stands alone, or a replica would go by
// the empty one (vLLM takes the first field of the name), as for every such request.
func TestEmptyRequestID(t *testing.T) {
	var h requestHead
	req := &inbound.Request{Method: []byte("POST"), Target: []byte("/v1/completions")}
	for _, value := range []string{"", "", "mine", ""} {
		req.Fields = append(req.Fields, relay.Field{Name: []byte("X-Request-ID"), Value: []byte(value)})
	}
	for _, want := range []string{"mine", ""} {
		if err := h.read(req); err != nil {
			t.Fatal(err)
		}
		sent := string(h.appendTo(nil, &balancer.Endpoint{Host: "r"}, 0, shown{peer: &forwarded.Peer{}, said: &forwarded.Fields{}}))
		if want == "" {
			want = string(h.id)
		}
		if n := strings.Count(strings.ToLower(sent), "x-request-id:"); n != 1 || !strings.Contains(sent, ": "+want+"\r\n") || string(h.id) != want {
			t.Errorf("%q; want the id %q and no other", sent, want)
		}
		req.Fields = req.Fields[:2]
	}
}
