package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"runtime"
	"testing"

	"lbd/proxy/internal/inbound"
)

// A body in which an alias is replaced is not copied: what all bodies take is bounded, and a
// copy would not be counted.
func TestAliasTakesNoSecondBody(t *testing.T) {
	l := withAccessLog(t, Config{})
	x, _, _ := between(t)
	x.s, x.cfg, x.owner, x.model = l.Server, l.cfg.Load(), &owner{}, l.opt.Metrics.Model("m")
	body := append(append([]byte(`{"prompt":"`), bytes.Repeat([]byte("x"), 16<<20)...), `","model":"short"}`...)
	req := &inbound.Request{Method: []byte("POST"), Target: []byte("/v1/completions"), Minor: 1, Body: body}
	x.body = body
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := x.prepare(req); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > uint64(len(body)/2) {
		t.Errorf("%d bytes for a body of %d", took, len(body))
	}
}

// Replicas get bodies of all sizes with their own name of the model, wherever that stands.
func TestAliasInBodiesOfAllSizes(t *testing.T) {
	got := make(chan []byte, 1)
	l, _ := inFrontOfHeads(t, Config{}, func(c net.Conn, body io.Reader) bool {
		b, err := io.ReadAll(body)
		got <- b
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		return err == nil
	})
	c := l.dial()
	for _, size := range []int{0, smallBody - 32, smallBody, 4 * smallBody} {
		text := bytes.Repeat([]byte("x"), size)
		for _, form := range []string{`{"model":%q,"prompt":"%s"}`, `{"prompt":"%[2]s","model":%[1]q}`, `{"prompt":"%[2]s","model":%[1]q,"user":"%[2]s"}`} {
			body := fmt.Sprintf(form, "short", text)
			fmt.Fprintf(c, "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			c.answer(200)
			if b, want := <-got, fmt.Sprintf(form, "m", text); string(b) != want {
				t.Errorf("%d bytes, %.40q ... %.40q; want %d", len(b), b, b[max(0, len(b)-40):], len(want))
			}
		}
	}
}
