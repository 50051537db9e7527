package proxy

import (
	"bufio"
	"fmt"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"
)

// What a replica nominates stays with its connection, in however many Connection
// fields it does so.
func TestNominatedInSeveralFields(t *testing.T) {
	x := &exchange{ctx: &fasthttp.RequestCtx{}, cfg: &Config{}}
	if _, err := x.answer.Parse([]byte("HTTP/1.1 200 OK\r\nX-B: 1\r\nConnection: x-a\r\nConnection: keep-alive, x-b\r\nX-A: 1\r\nX-C: 1\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	x.stageHead()
	for name, want := range map[string]string{"X-A": "", "X-B": "", "X-C": "1"} {
		if got := string(x.ctx.Response.Header.Peek(name)); got != want {
			t.Errorf("%s is %q; want %q", name, got, want)
		}
	}
}

// A head full of nominations costs no more than a bounded number of comparisons
// per field and no memory.
func TestNominationsAreBounded(t *testing.T) {
	var raw strings.Builder
	raw.WriteString("POST /v1/x HTTP/1.1\r\nHost: h\r\nConnection: " + strings.Repeat("a,", 1000) + "b\r\n")
	for i := range 100 {
		fmt.Fprintf(&raw, "x%d: 1\r\n", i)
	}
	req := header(t, raw.String()+"\r\n")
	var h requestHead
	if n := testing.AllocsPerRun(5, func() { h.read(req) }); n > 5 {
		t.Errorf("%v allocations", n)
	}
	if err := h.read(req); err == nil || err.status != 400 {
		t.Errorf("%v; want a refusal", err)
	}
}

func header(t *testing.T, raw string) *fasthttp.RequestHeader {
	t.Helper()
	h := &fasthttp.RequestHeader{}
	h.DisableNormalizing()
	if err := h.Read(bufio.NewReader(strings.NewReader(raw))); err != nil {
		t.Fatal(err)
	}
	return h
}
