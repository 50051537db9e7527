package daemon_test

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// echo answers every request and keeps what it got.
func echo(c *fakeConn) {
	c.body()
	c.answer(200, `{"ok":true}`)
}

// requestBodies are valid for Peek.ReadJSON or for a replica that decides itself, and
// fragile in the hands of anything that decodes and encodes again.
func requestBodies() map[string]string {
	return map[string]string{
		"spacing":        "{ \"model\" :\t\"" + llama + "\" ,\r\n\n  \"messages\": [ ] }\n\n ",
		"unicode":        `{"model":"` + llama + `","messages":[{"role":"user","content":"žluťoučký \u00e9 \ud83d\ude00 😀 \/ \u0000"}]}`,
		"duplicate keys": `{"model":"nobody","stream":true,"model":"` + llama + `","stream":false,"a":1,"a":2}`,
		"NaN":            `{"model":"` + llama + `","temperature":NaN,"top_p":Infinity,"x":-Infinity}`,
		"numbers":        `{"model":"` + llama + `","temperature":1.00,"seed":123456789012345678901234567890,"e":1E+2}`,
		"5 MiB":          `{"model":"` + llama + `","prompt":"` + strings.Repeat("0123456789abcdef", 5<<16) + `"}`,
		"at 64 KiB":      padded(64 << 10),
		"above 64 KiB":   padded(64<<10 + 1),
	}
}

// padded is a request body of exactly n bytes.
func padded(n int) string {
	head, tail := `{"model":"`+llama+`","prompt":"`, `"}`
	return head + strings.Repeat("x", n-len(head)-len(tail)) + tail
}

// chunked cuts a body into chunks of odd sizes.
func chunked(body string) string {
	var b strings.Builder
	for size := 1; len(body) > 0; size = size*3 + 1 {
		n := min(size, len(body))
		b.WriteString(chunk(body[:n]))
		body = body[n:]
	}
	return b.String() + "0\r\n\r\n"
}

// Whatever its framing, a body reaches the replica byte for byte and with its
// length.
func TestRequestBodyBytes(t *testing.T) {
	f := fakeReplica(t, echo)
	p := lbd(t, []string{f.url()})
	w := p.dial()
	for name, body := range requestBodies() {
		for _, framing := range []string{"length", "chunked", "Expect", "expect"} {
			t.Run(name+"/"+framing, func(t *testing.T) {
				w.t = t
				n := len(f.received())
				sendFramed(w, framing, body)
				if a := w.answer("POST"); a.StatusCode != 200 || a.body != `{"ok":true}` {
					t.Fatalf("%s %q", a.Status, a.body)
				}
				got := f.received()
				if len(got) != n+1 {
					t.Fatalf("the replica got %d requests; want 1", len(got)-n)
				}
				if got[n] != body {
					t.Error(firstDiff(got[n], body))
				}
				head := f.requests()[n]
				for _, name := range []string{"transfer-encoding", "expect", "trailer"} {
					if v := headField(head, name); v != "" {
						t.Errorf("the replica got %s: %s", name, v)
					}
				}
			})
		}
	}
}

func sendFramed(w *wire, framing, body string) {
	w.t.Helper()
	const start = "POST /v1/completions HTTP/1.1\r\nHost: lbd\r\nContent-Type: application/json\r\n"
	switch framing {
	case "length":
		w.send(fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", start, len(body), body))
	case "chunked":
		w.send(start + "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n" + strings.TrimSuffix(chunked(body), "\r\n") + "X-Sum: 1\r\n\r\n")
	default:
		w.send(fmt.Sprintf("%s%s: 100-continue\r\nContent-Length: %d\r\n\r\n", start, framing, len(body)))
		const want = "HTTP/1.1 100 Continue\r\n\r\n"
		got := make([]byte, len(want))
		if _, err := io.ReadFull(w.br, got); err != nil || string(got) != want {
			w.t.Fatalf("before the body came %q, %v; want %q", got, err, want)
		}
		w.send(body)
	}
}

// Header fields keep names, order and repetitions; those of one connection stay
// behind.
func TestRequestHeader(t *testing.T) {
	f := fakeReplica(t, echo)
	p := lbd(t, []string{f.url()})
	w := p.dial()
	w.sendPost("/v1/completions?a=1&a=%20b&c", chat(llama, false, 1),
		"x-lower: 1", "X_Under: 2", "X-Twice: a", "Accept: */*", "X-TWICE: b", "x-twice:", "X-Spaced:   c d\t ",
		"X-Latin: caf\xe9", "Connection: keep-alive, X-Named , x-also-named", "X-Named: 1", "x-Also-Named: 2", "Keep-Alive: timeout=5",
		"Proxy-Connection: keep-alive", "Proxy-Authorization: Basic eA==", "TE: trailers", "Upgrade: h2c", "Trailer: X-Sum",
		"Authorization: Bearer secret", "Cookie: a=1; b=2", "X-Request-Id: my id", "User-Agent: test/1", "Accept-Encoding: gzip")
	if a := w.answer("POST"); a.StatusCode != 200 || a.Header.Get("X-Request-Id") != "my id" {
		t.Fatalf("%s, X-Request-Id %q\n%s", a.Status, a.Header.Get("X-Request-Id"), a.body)
	}
	want := []string{
		"POST /v1/completions?a=1&a=%20b&c HTTP/1.1", "Host: " + f.ln.Addr().String(),
		"x-lower: 1", "X_Under: 2", "X-Twice: a", "Accept: */*", "X-TWICE: b", "x-twice: ", "X-Spaced: c d", "X-Latin: caf\xe9",
		"Authorization: Bearer secret", "Cookie: a=1; b=2", "X-Request-Id: my id", "User-Agent: test/1", "Accept-Encoding: gzip",
		"Content-Type: application/json", "X-Forwarded-For: 127.0.0.1", "X-Forwarded-Proto: http", "X-Forwarded-Host: lbd",
		fmt.Sprintf("Content-Length: %d", len(chat(llama, false, 1))), "", "",
	}
	if diff := cmp.Diff(want, strings.Split(f.requests()[0], "\r\n")); diff != "" {
		t.Error(diff)
	}
}

// A request without an ID gets one, the same for replica and client, another
// one each time. An empty one counts as none.
func TestRequestID(t *testing.T) {
	f := fakeReplica(t, echo)
	p := lbd(t, []string{f.url()})
	w := p.dial()
	var ids []string
	for _, line := range []string{"X-A: 1", "X-A: 1", "X-Request-Id:"} {
		w.sendPost("/v1/completions", chat(llama, false, 1), line)
		a := w.answer("POST")
		id := a.Header.Get("X-Request-Id")
		heads := f.requests()
		if !strings.Contains(heads[len(heads)-1], "\r\nX-Request-Id: "+id+"\r\n") || len(id) != 32 || slices.Contains(ids, id) {
			t.Errorf("answer has ID %q after %q; the replica got\n%s", id, ids, heads[len(heads)-1])
		}
		ids = append(ids, id)
	}
}

// Methods without a body send no length, unless they have one.
func TestMethods(t *testing.T) {
	f := fakeReplica(t, echo)
	p := lbd(t, []string{f.url()})
	for _, test := range []struct{ method, body, length string }{
		{"GET", "", ""}, {"DELETE", "", ""}, {"OPTIONS", "", ""}, {"POST", "", "0"}, {"PUT", "", "0"}, {"PATCH", "", "0"},
		{"GET", `{"model":"` + llama + `"}`, "44"}, {"DELETE", `{}`, "2"}, {"PATCH", "{} ", "3"},
	} {
		t.Run(test.method+" "+test.body, func(t *testing.T) {
			w := p.dial()
			head := test.method + " /v1/responses/resp_1 HTTP/1.1\r\nHost: lbd\r\n"
			if test.body != "" {
				head += fmt.Sprintf("Content-Length: %d\r\n", len(test.body))
			}
			n := len(f.requests())
			w.send(head + "\r\n" + test.body)
			if a := w.answer(test.method); a.StatusCode != 200 {
				t.Fatalf("%s %s", a.Status, a.body)
			}
			got := f.requests()[n]
			if l := headField(got, "Content-Length"); l != test.length || !strings.HasPrefix(got, test.method+" /v1/responses/resp_1 HTTP/1.1\r\n") {
				t.Errorf("content length is %q; want %q in\n%s", l, test.length, got)
			}
			if body := f.received()[n]; body != test.body {
				t.Errorf("the body is %q; want %q", body, test.body)
			}
		})
	}
}
