package daemon_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lbd/bench/sim"
)

// An answer of a replica, recorded off the wire, comes through lbd as it was,
// however it is cut into packets.
func TestAnswerBytes(t *testing.T) {
	for _, profile := range sim.Profiles() {
		r := replica(t, sim.Config{Profile: profile, Speed: 200})
		for name, body := range map[string]string{
			"stream":      chat(llama, true, 40, `"stream_options":{"include_usage":true}`),
			"whole":       chat(llama, false, 40),
			"bad request": `{"model":"` + llama + `","messages":7}`,
			"no model":    chat("nobody", false, 1),
		} {
			t.Run(string(profile)+"/"+name, func(t *testing.T) { replay(t, record(t, r, body)) })
		}
	}
	large := strings.Repeat("0123456789abcdef", 1<<16)
	t.Run("1 MiB", func(t *testing.T) {
		replay(t, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(large), large))
	})
	t.Run("1 MiB chunked", func(t *testing.T) { replay(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+chunked(large)) })
}

// record returns the very bytes of a replica's answer.
func record(t *testing.T, r *sim.Server, body string) string {
	t.Helper()
	w := dialWire(t, r.Addr())
	w.sendPost("/v1/chat/completions", body, "Connection: close")
	b, err := io.ReadAll(w.br)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Replace(string(b), "connection: close\r\n", "", 1)
}

// replay sends a recorded answer through lbd in pieces of odd sizes and compares
// head and body.
func replay(t *testing.T, recorded string) {
	t.Helper()
	f := fakeReplica(t, func(c *fakeConn) {
		c.body()
		for rest, size := recorded, 1; len(rest) > 0; size = size*2 + 1 {
			n := min(size, len(rest))
			c.send(rest[:n])
			rest = rest[n:]
		}
		c.keep = true
	})
	want, err := http.ReadResponse(bufio.NewReader(strings.NewReader(recorded)), nil)
	if err != nil {
		t.Fatal(err)
	}
	wantBody, err := io.ReadAll(want.Body)
	if err != nil {
		t.Fatal(err)
	}
	p := lbd(t, []string{f.url()})
	w := p.dial()
	w.sendPost("/v1/chat/completions", chat(llama, false, 1), "X-Request-Id: same-id")
	got := w.answer("POST")
	if got.err != nil || got.Status != want.Status || got.body != string(wantBody) {
		t.Fatalf("%s %v: %s", got.Status, got.err, firstDiff(got.body, string(wantBody)))
	}
	if got.ContentLength != want.ContentLength || len(got.TransferEncoding) != len(want.TransferEncoding) {
		t.Errorf("length %d, %v; want %d, %v", got.ContentLength, got.TransferEncoding, want.ContentLength, want.TransferEncoding)
	}
	if want.Header.Get("X-Request-Id") == "" { // v0.6.4 always sends one
		want.Header.Set("X-Request-Id", "same-id")
	}
	want.Header.Set("X-Lbd-Replica", f.ln.Addr().String())
	want.Header.Set("X-Lbd-Strategy", "least-waiting")
	want.Header.Set("Date", got.Header.Get("Date")) // fasthttp writes its own
	if diff := cmp.Diff(want.Header, got.Header); diff != "" {
		t.Error(diff)
	}
}

// answerCases are answers in every framing, and what of them a client must see.
var answerCases = []struct {
	name, method, answer string
	status               string // the client's
	length               int64
	body                 string
	header               http.Header // that must be there, nil value = must not
}{
	{
		name: "unknown reason", answer: "HTTP/1.1 200 All Is Well\r\ncontent-length: 2\r\n\r\nok",
		status: "200 All Is Well", length: 2, body: "ok",
	},
	{name: "no reason", answer: "HTTP/1.1 200 \r\ncontent-length: 2\r\n\r\nok", status: "200 OK", length: 2, body: "ok"},
	{name: "unknown status", answer: "HTTP/1.1 299 Odd\r\ncontent-length: 0\r\n\r\n", status: "299 Odd"},
	{name: "204", answer: "HTTP/1.1 204 No Content\r\nx-a: 1\r\n\r\n", status: "204 No Content", header: http.Header{"X-A": {"1"}}},
	{name: "304", answer: "HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\n\r\n", status: "304 Not Modified", header: http.Header{"Etag": {`"x"`}}},
	{name: "HEAD with length", method: "HEAD", answer: "HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n", status: "200 OK", length: 1234},
	{
		name: "HEAD without length", method: "HEAD", answer: "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
		status: "200 OK", length: -1,
	},
	{
		name:   "repeated fields",
		answer: "HTTP/1.1 200 OK\r\nset-cookie: a=1; Path=/\r\nset-cookie: a=2\r\nx-twice: 1\r\nX-Twice: 2\r\nVary: a\r\nvary: b\r\ncontent-length: 0\r\n\r\n",
		status: "200 OK",
		header: http.Header{"Set-Cookie": {"a=1; Path=/", "a=2"}, "X-Twice": {"1", "2"}, "Vary": {"a", "b"}},
	},
	{
		name: "hop-by-hop fields",
		answer: "HTTP/1.1 200 OK\r\nconnection: keep-alive, x-named\r\nx-named: 1\r\nkeep-alive: timeout=5\r\nproxy-connection: close\r\nupgrade: h2c\r\n" +
			"x-end: 1\r\ncontent-length: 2\r\n\r\nok",
		status: "200 OK", length: 2, body: "ok",
		header: http.Header{"X-Named": nil, "Keep-Alive": nil, "Proxy-Connection": nil, "Upgrade": nil, "Connection": nil, "X-End": {"1"}},
	},
	{
		name: "encoded", answer: "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-type: application/json\r\ncontent-length: 3\r\n\r\n\x1f\x8b\x00",
		status: "200 OK", length: 3, body: "\x1f\x8b\x00", header: http.Header{"Content-Encoding": {"gzip"}},
	},
	{name: "no content type", answer: "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", status: "200 OK", length: 2, body: "ok", header: http.Header{"Content-Type": nil}},
	{name: "empty, until close", answer: "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", status: "200 OK", length: -1},
	{name: "until close", answer: "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nto the end", status: "200 OK", length: -1, body: "to the end"},
	{name: "HTTP/1.0", answer: "HTTP/1.0 200 OK\r\n\r\nto the end", status: "200 OK", length: -1, body: "to the end"},
	{
		name: "chunk extensions", answer: "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n3;c=\"d\"\r\ndef\r\n0;x\r\n\r\n",
		status: "200 OK", length: -1, body: "abcdef",
	},
	{name: "empty chunked", answer: "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", status: "200 OK", length: -1},
}

func TestAnswerFraming(t *testing.T) {
	for _, test := range answerCases {
		t.Run(test.name, func(t *testing.T) {
			closes := strings.Contains(test.answer, "\nconnection: close") || strings.HasPrefix(test.answer, "HTTP/1.0")
			f := fakeReplica(t, say(test.answer, !closes))
			p := lbd(t, []string{f.url()})
			w := p.dial()
			for range 2 { // the second on the same connection, which framing must not have spoiled
				method := test.method
				if method == "" {
					method = "GET"
				}
				w.send(method + " /v1/x HTTP/1.1\r\nHost: lbd\r\n\r\n")
				a := w.answer(method)
				if a.Status != test.status || a.err != nil || a.body != test.body || a.ContentLength != test.length {
					t.Errorf("%q %v, length %d: %q; want %q, length %d: %q",
						a.Status, a.err, a.ContentLength, a.body, test.status, test.length, test.body)
				}
				for name, want := range test.header {
					if got := a.Header.Values(name); !slices.Equal(got, want) {
						t.Errorf("%s is %q; want %q", name, got, want)
					}
				}
			}
		})
	}
}

// Interim answers are passed on when they come, without what belongs to one connection;
// not 100, which lbd says itself, and none to HTTP/1.0.
func TestInterimAnswers(t *testing.T) {
	seen := make(chan struct{}, 1)
	f := fakeReplica(t, func(c *fakeConn) {
		c.body()
		c.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\nConnection: x-named\r\nX-Named: 1\r\nKeep-Alive: timeout=5\r\n\r\nHTTP/1.1 102 \r\n\r\n")
		<-seen
		c.send("HTTP/1.1 103 Early Hints\r\nLink: </y>\r\n\r\nHTTP/1.1 200 OK\r\nx-end: 1\r\ncontent-length: 2\r\n\r\nok")
		c.keep = true
	})
	p := lbd(t, []string{f.url()})
	w := p.dial()
	expect := func(want string) {
		t.Helper()
		w.patient()
		got := make([]byte, len(want))
		if n, err := io.ReadFull(w.br, got); err != nil || string(got) != want {
			t.Fatalf("%q, %v; want %q", got[:n], err, want)
		}
	}
	body := strings.Repeat(" ", 128<<10) + "{}"
	for _, request := range []string{"GET /v1/x HTTP/1.1\r\nHost: lbd\r\n\r\n", postText("/v1/x", `{}`), postText("/v1/x", body)} {
		w.send(request)
		expect("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n")
		seen <- struct{}{}
		expect("HTTP/1.1 103 Early Hints\r\nLink: </y>\r\n\r\n")
		if a := w.answer("GET"); a.Status != "200 OK" || a.body != "ok" || a.err != nil || a.Header.Get("X-End") != "1" || a.Header.Get("Link") != "" {
			t.Errorf("%s %v %q, %v", a.Status, a.Header, a.body, a.err)
		}
	}
	seen <- struct{}{}
	w.send("GET /v1/x HTTP/1.0\r\n\r\n")
	if got := w.closed(); !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !strings.HasSuffix(got, "\r\n\r\nok") {
		t.Errorf("HTTP/1.0: %q; want the answer alone", got)
	}
}

// Trailers arrive as trailers, and announced as the replica did.
func TestAnswerTrailer(t *testing.T) {
	f := fakeReplica(t, say("HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 1\r\nX-Other: 2\r\n\r\n", true))
	p := lbd(t, []string{f.url()})
	w := p.dial()
	w.send("GET /v1/x HTTP/1.1\r\nHost: lbd\r\n\r\nGET /v1/x HTTP/1.1\r\nHost: lbd\r\n\r\n")
	for range 2 {
		h := w.head("GET")
		if _, ok := h.Trailer["X-Sum"]; !ok { // net/http puts there what the field of the head announces
			t.Errorf("announced: %v; want x-sum", h.Trailer)
		}
		b, err := io.ReadAll(h.Body)
		a := reply{h, string(b), err}
		if a.body != "abc" || a.err != nil || a.Trailer.Get("x-sum") != "1" || a.Trailer.Get("x-other") != "2" {
			t.Errorf("%q %v, trailer %v; want x-sum and x-other", a.body, a.err, a.Trailer)
		}
	}
}

// Every way to cut a stream into packets gives the client the same bytes, each
// event before the next one is sent.
func TestEventsArriveOneByOne(t *testing.T) {
	next := make(chan struct{})
	f := fakeReplica(t, func(c *fakeConn) {
		c.body()
		c.send(sseHead)
		for i := range 3 {
			for j := range len(event("x")) { // byte by byte, each its own packet
				c.send(event("x")[j : j+1])
			}
			c.send(event(fmt.Sprint(i)))
			<-next
		}
		c.send(lastEvents)
		c.keep = true
	})
	p := lbd(t, []string{f.url()})
	w := p.dial()
	w.sendPost("/v1/chat/completions", chat(llama, true, 1))
	resp := w.head("POST")
	payload := func(text string) string { return strings.SplitN(event(text), "\r\n", 3)[1] }
	for i := range 3 {
		want := payload("x") + payload(fmt.Sprint(i))
		got := make([]byte, len(want))
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != want {
			t.Fatalf("event %d: %q, %v; want %q", i, got, err, want)
		}
		next <- struct{}{}
	}
	if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "data: [DONE]\n\n" {
		t.Errorf("at the end came %q, %v", rest, err)
	}
}

// What a replica sends behind its answer is nobody's answer.
func TestBytesBehindAnswer(t *testing.T) {
	const evil = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"
	for _, test := range []struct{ name, method, answer string }{
		{"length", "GET", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood"},
		{"chunked", "GET", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n"},
		{"204", "GET", "HTTP/1.1 204 No Content\r\n\r\n"},
		{"HEAD", "HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"},
	} {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s late=%t", test.name, late), func(t *testing.T) {
				sent := make(chan struct{})
				f := fakeReplica(t, func(c *fakeConn) {
					c.keep = true
					if c.nth > 1 && strings.Contains(c.head, "/v1/second") {
						t.Error("the connection was used again")
					}
					if strings.Contains(c.head, "/v1/second") {
						c.answer(200, "fine")
						return
					}
					if !late {
						c.send(test.answer + evil)
						return
					}
					c.send(test.answer)
					<-sent
					c.send(evil)
					sent <- struct{}{}
				})
				p := lbd(t, []string{f.url()})
				w := p.dial()
				w.send(test.method + " /v1/x HTTP/1.1\r\nHost: lbd\r\n\r\n")
				if a := w.answer(test.method); strings.Contains(a.body, "evil") || a.err != nil {
					t.Errorf("%q, %v", a.body, a.err)
				}
				if late {
					sent <- struct{}{}
					<-sent
				}
				w.send("GET /v1/second HTTP/1.1\r\nHost: lbd\r\n\r\n")
				if a := w.answer("GET"); a.body != "fine" {
					t.Errorf("the next answer is %s %q; want fine", a.Status, a.body)
				}
			})
		}
	}
}

// drip writes one byte per packet.
func drip(nc net.Conn, s string) {
	for i := range len(s) {
		io.WriteString(nc, s[i:i+1])
		if i%16 == 0 {
			time.Sleep(time.Microsecond)
		}
	}
}

// A request that comes byte by byte is a request like any other.
func TestSlowRequest(t *testing.T) {
	f := fakeReplica(t, echo)
	p := lbd(t, []string{f.url()})
	w := p.dial()
	body := chat(llama, false, 3)
	drip(w.nc, postText("/v1/chat/completions", body))
	if a := w.answer("POST"); a.StatusCode != 200 || f.received()[0] != body {
		t.Errorf("%s, the replica got %q; want %q", a.Status, f.received()[0], body)
	}
}
