package daemon_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"lbd/bench/sim"
)

// mixed are requests of every kind and what their answers are known by.
var mixed = []struct{ method, text, want string }{
	{"GET", "GET /health HTTP/1.1\r\nHost: lbd\r\n\r\n", `"healthy"`},
	{"POST", postText("/v1/chat/completions", chat(llama, true, 3)), "data: [DONE]\n\n"},
	{"POST", postText("/v1/chat/completions", chat(llama, false, 3)), `"usage"`},
	{"POST", postText("/v1/chat/completions", `{"model":"nobody"}`), "model_not_found"},
	{"HEAD", "HEAD /health HTTP/1.1\r\nHost: lbd\r\n\r\n", ""},
	{"POST", postText("/sleep", `{}`), "forbidden"},
	{"POST", postText("/v1/chat/completions", chat(llama, true, 30)), "data: [DONE]\n\n"},
	{"GET", "GET /v1/models HTTP/1.1\r\nHost: lbd\r\n\r\n", llama},
	{"POST", postText("/v1/nothing", `{}`), "Not Found"},
	{"POST", postText("/v1/chat/completions", `{`), "invalid_body"},
	{"POST", postText("/v1/embeddings", `{"model":"`+llama+`","input":"x"}`), `"embedding"`},
}

// One connection carries everything in turn.
func TestKeepAlive(t *testing.T) {
	r := replica(t, sim.Config{})
	p := lbd(t, []string{r.URL()})
	w := p.dial()
	for range 3 {
		for _, m := range mixed {
			w.send(m.text)
			if a := w.answer(m.method); a.err != nil || a.Close || !strings.Contains(a.body, m.want) {
				t.Fatalf("%.60q: %s %v %q; want %q", m.text, a.Status, a.err, a.body, m.want)
			}
		}
	}
	if got := r.Stats().InFlight; got != 0 {
		t.Errorf("%d requests run on", got)
	}
}

// Pipelined requests are answered in order.
func TestPipelining(t *testing.T) {
	p := lbd(t, []string{replica(t, sim.Config{}).URL()})
	w := p.dial()
	var all strings.Builder
	for range 3 {
		for _, m := range mixed {
			all.WriteString(m.text)
		}
	}
	w.send(all.String())
	for range 3 {
		for _, m := range mixed {
			if a := w.answer(m.method); a.err != nil || !strings.Contains(a.body, m.want) {
				t.Fatalf("%.60q: %s %v %q; want %q", m.text, a.Status, a.err, a.body, m.want)
			}
		}
	}
}

// An answer does not wait for the next one although the client has asked already.
func TestPipeliningDoesNotHoldBack(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	f := fakeReplica(t, func(c *fakeConn) {
		switch {
		case strings.Contains(c.head, "/v1/stream"):
			c.body()
			c.send(sseHead + event("a") + lastEvents)
			c.keep = true
		case strings.Contains(c.head, "/v1/hang"):
			<-release
		default:
			echo(c)
		}
	})
	p := lbd(t, []string{f.url()})
	for _, path := range []string{"/v1/whole", "/v1/stream", "/health"} {
		t.Run(path, func(t *testing.T) {
			w := dialWire(t, p.Addr().String())
			w.send("GET " + path + " HTTP/1.1\r\nHost: lbd\r\n\r\nGET /v1/hang HTTP/1.1\r\nHost: lbd\r\n\r\n")
			if a := w.answer("GET"); a.StatusCode != 200 || a.err != nil {
				t.Errorf("%s %v", a.Status, a.err)
			}
		})
	}
}

// A client that asks to close is closed behind its answer, and the replica's
// connection lives on.
func TestConnectionClose(t *testing.T) {
	r := replica(t, sim.Config{})
	p := lbd(t, []string{r.URL()}, quiet...)
	p.until("the first polls over", func() bool { return p.state(r).Polled() != nil })
	before := r.Stats().Accepted
	for _, stream := range []bool{true, false} {
		for range 3 {
			w := p.dial()
			w.sendPost("/v1/chat/completions", chat(llama, stream, 3), "Connection: close")
			if a := w.answer("POST"); a.StatusCode != 200 || a.err != nil || !a.Close {
				t.Errorf("%s %v, close %t", a.Status, a.err, a.Close)
			}
			if rest := w.closed(); rest != "" {
				t.Errorf("behind the answer came %q", rest)
			}
			// A client has its answer before the replica's connection is given back.
			p.until("the request over", func() bool { return p.state(r).InFlight() == 0 })
		}
	}
	if n := r.Stats().Accepted - before; n > 1 {
		t.Errorf("the replica saw %d connections for 6 requests in a row; want 1", n)
	}
}

// HTTP/1.0 has no chunks: a stream ends with the connection, an answer of known
// length keeps it if asked for.
func TestHTTP10(t *testing.T) {
	p := lbd(t, []string{replica(t, sim.Config{}).URL()})
	post := func(stream bool, lines string) string {
		body := chat(llama, stream, 3)
		return fmt.Sprintf("POST /v1/chat/completions HTTP/1.0\r\nContent-Length: %d\r\n%sContent-Type: application/json\r\n\r\n%s", len(body), lines, body)
	}
	t.Run("whole", func(t *testing.T) {
		w := dialWire(t, p.Addr().String())
		for range 3 {
			w.send(post(false, "Connection: keep-alive\r\n"))
			if a := w.answer("POST"); a.StatusCode != 200 || a.err != nil || a.Header.Get("Connection") != "keep-alive" {
				t.Fatalf("%s %v %v", a.Status, a.err, a.Header)
			}
		}
		w.send(post(false, ""))
		if a := w.answer("POST"); a.StatusCode != 200 || a.err != nil {
			t.Errorf("%s %v", a.Status, a.err)
		}
		if rest := w.closed(); rest != "" {
			t.Errorf("behind the answer came %q", rest)
		}
	})
	t.Run("stream", func(t *testing.T) {
		for _, lines := range []string{"", "Connection: keep-alive\r\n"} {
			w := dialWire(t, p.Addr().String())
			w.send("GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
			w.answer("GET")
			w.send(post(true, lines))
			text := w.closed()
			head, body, _ := strings.Cut(text, "\r\n\r\n")
			if containsFold(head, "transfer-encoding") || containsFold(head, "keep-alive") || !strings.HasPrefix(body, "data: {") || !strings.HasSuffix(body, "}\n\ndata: [DONE]\n\n") {
				t.Errorf("%s\n\n%q", head, body)
			}
		}
	})
	t.Run("own page, then stream, pipelined", func(t *testing.T) {
		w := dialWire(t, p.Addr().String())
		w.send("GET /health HTTP/1.1\r\nHost: lbd\r\n\r\n" + post(true, ""))
		text := w.closed()
		if page, stream := strings.Index(text, `"healthy"`), strings.Index(text, "data: "); page < 0 || stream < page {
			t.Errorf("the page at %d, the stream at %d of %q", page, stream, text)
		}
	})
}

// The end of the connection is all that ends a stream in HTTP/1.0, so a cut has to
// be another end.
func TestHTTP10Truncated(t *testing.T) {
	seen := make(chan struct{})
	f := fakeReplica(t, func(c *fakeConn) {
		c.body()
		c.send(sseHead + event("a"))
		<-seen
	})
	p := lbd(t, []string{f.url()})
	w := p.dial()
	w.send("POST /v1/x HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}")
	w.head("POST")
	line, err := w.br.ReadString('\n')
	close(seen)
	rest, end := io.ReadAll(w.br)
	if err != nil || !strings.Contains(line, `"a"`) || !isReset(end) {
		t.Errorf("%q, %v, then %q, %v; want the event and a reset", line, err, rest, end)
	}
}

// flood answers with an endless stream until lbd goes away.
func flood(gone chan<- int) func(*fakeConn) {
	return func(c *fakeConn) {
		c.body()
		c.send(sseHead)
		n, block := 0, event(strings.Repeat("x", 16<<10))
		for c.send(block) == nil {
			n += len(block)
		}
		gone <- n
	}
}

// A client that takes nothing is dropped and its replica freed. Meanwhile lbd
// holds no more of the stream than the sockets do.
func TestClientThatTakesNothing(t *testing.T) {
	gone := make(chan int, 1)
	f := fakeReplica(t, flood(gone))
	p := lbd(t, []string{f.url()}, append([]string{"client-write-timeout", "300ms"}, quiet...)...)
	w := p.dial()
	w.nc.SetReadBuffer(4 << 10)
	w.sendPost("/v1/x", `{}`)
	w.head("POST")
	select {
	case n := <-gone:
		if n > 32<<20 {
			t.Errorf("%d bytes of the stream were taken in for a client that reads nothing", n)
		}
	case <-time.After(patience):
		t.Fatal("the replica still sends")
	}
	p.until("own load 0", func() bool { return p.Snapshot().Replicas[0].InFlight() == 0 })
	p.counted(`lbd_client_disconnects_total{model="`+llama+`"}`, "1")
	if got := p.metric(`lbd_upstream_errors_total{reason="reset",replica="` + f.ln.Addr().String() + `"}`); got != "" && got != "0" {
		t.Errorf("the replica is blamed: %s", got)
	}
}

// A slow client gets all of a large stream, as slowly as it takes it.
func TestSlowReader(t *testing.T) {
	const events = 300
	f := fakeReplica(t, func(c *fakeConn) {
		c.body()
		c.send(sseHead)
		for i := range events {
			c.send(event(fmt.Sprint(i, strings.Repeat("x", 32<<10))))
		}
		c.send(lastEvents)
		c.keep = true
	})
	p := lbd(t, []string{f.url()}, append([]string{"client-write-timeout", "5s"}, quiet...)...)
	w := p.dial()
	w.sendPost("/v1/x", `{}`)
	resp := w.head("POST")
	in := bufio.NewReaderSize(resp.Body, 64<<10)
	for i := range events {
		line, err := in.ReadString('\n')
		if err != nil || !strings.Contains(line, fmt.Sprintf(`"%dx`, i)) {
			t.Fatalf("event %d: %.80q %v", i, line, err)
		}
		in.ReadString('\n')
		if i%20 == 0 {
			time.Sleep(10 * time.Millisecond)
		}
	}
	if rest, err := io.ReadAll(in); string(rest) != "data: [DONE]\n\n" || err != nil {
		t.Errorf("at the end: %q %v", rest, err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Error(resp.Status)
	}
}
