package daemon_test

import (
	"io"
	"strconv"
	"strings"
	"testing"
)

// hostile is one line of the corpus of proxy/internal/relay.
type hostile struct {
	name, outcome string // bad, cut, keep or close
	body, in      string
}

func answers(t *testing.T) (all []hostile) {
	t.Helper()
	for _, e := range examples(t, "relay/testdata/answers.txt", 150) {
		h := hostile{name: e.name, in: e.bytes}
		for _, w := range e.outcome {
			if w.quoted {
				h.body = w.text
			} else {
				h.outcome = w.text
			}
		}
		all = append(all, h)
	}
	return all
}

// script sends the answer to /v1/bad and a good one to everything else.
func (h *hostile) script(reused chan<- bool) func(*fakeConn) {
	return func(c *fakeConn) {
		c.body()
		if !strings.Contains(c.head, " /v1/bad ") {
			reused <- c.nth > 1
			c.answer(200, `"fine"`)
			return
		}
		c.send(h.in)
		switch {
		case h.outcome == "bad":
			c.gone() // lbd must not wait for more
		case h.outcome == "cut", strings.HasPrefix(h.name, "until close"):
			c.nc.CloseWrite()
			c.gone()
		default:
			c.keep = true // would read on, if lbd sent anything
		}
	}
}

// Whatever a replica answers, its client gets the answer or can see that it has not,
// and the next client gets the answer to its own request.
func TestHostileAnswers(t *testing.T) {
	for _, h := range answers(t) {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			reused := make(chan bool, 1)
			f := fakeReplica(t, h.script(reused))
			p := lbd(t, []string{f.url()}, quiet...)
			w := p.dial()
			w.sendPost("/v1/bad", `{}`)
			h.check(t, replyOf(w.final("POST")))
			// A client has the end of a stream before its connection is given back.
			p.until("the request over", func() bool { return p.Snapshot().Replicas[0].InFlight() == 0 })
			w = p.dial()
			w.sendPost("/v1/good", `{}`)
			if a := w.answer("POST"); a.StatusCode != 200 || a.body != `"fine"` {
				t.Fatalf("the next client got %s %q", a.Status, a.body)
			}
			if got := <-reused; got != (h.outcome == "keep") {
				t.Errorf("the connection was used again: %v", got)
			}
		})
	}
}

func (h *hostile) check(t *testing.T, a reply) {
	t.Helper()
	if strings.Contains(a.body, "evil") {
		t.Errorf("the client got %q", a.body)
	}
	switch h.outcome {
	case "keep", "close":
		if a.err != nil || a.body != h.body || a.StatusCode >= 500 {
			t.Errorf("%s %q, %v; want %q", a.Status, a.body, a.err, h.body)
		}
	default:
		if a.StatusCode < 500 && a.err == nil {
			t.Errorf("%s %.80q looks whole", a.Status, a.body)
		}
		if _, ours := a.Header["X-Lbd-Replica"]; a.StatusCode < 500 && !ours {
			t.Errorf("%v: not an answer by way of lbd", a.Header)
		}
	}
}

// An answer to nothing, on a connection that waits for a request, is nobody's.
func TestUnsolicitedAnswer(t *testing.T) {
	for name, unasked := range map[string]string{
		"answer": "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil", "408": "HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n", "a byte": "\n",
	} {
		t.Run(name, func(t *testing.T) {
			sent := make(chan struct{})
			f := fakeReplica(t, func(c *fakeConn) {
				c.body()
				c.answer(200, strconv.Itoa(c.nth))
				if strings.Contains(c.head, " /v1/bad ") {
					<-sent // the answer is with the client
					c.send(unasked)
					sent <- struct{}{}
				}
			})
			p := lbd(t, []string{f.url()}, quiet...)
			w := p.dial()
			w.sendPost("/v1/bad", `{}`)
			if a := w.answer("POST"); a.body != "1" {
				t.Fatalf("%s %q", a.Status, a.body)
			}
			sent <- struct{}{}
			<-sent
			for range 3 {
				w.sendPost("/v1/good", `{}`)
				if a := w.answer("POST"); a.StatusCode != 200 || a.body == "evil" {
					t.Fatalf("%s %q", a.Status, a.body)
				}
			}
			if n := len(f.requests()); n != 4 {
				t.Errorf("the replica got %d requests; want 4", n)
			}
		})
	}
}

// A body that answers HEAD is not the answer to what comes next.
func TestBodyOfHEAD(t *testing.T) {
	for name, answer := range map[string]string{
		"length": okLength + "4\r\n\r\nevil", "chunks": sseHead + "4\r\nevil\r\n0\r\n\r\n", "neither": "HTTP/1.1 200 OK\r\n\r\nevil",
	} {
		t.Run(name, func(t *testing.T) {
			f := fakeReplica(t, func(c *fakeConn) {
				c.body()
				if strings.HasPrefix(c.head, "HEAD ") {
					c.send(answer)
					c.keep = true
					return
				}
				c.answer(200, strconv.Itoa(c.nth))
			})
			p := lbd(t, []string{f.url()}, quiet...)
			w := p.dial()
			w.send("HEAD /v1/x HTTP/1.1\r\nHost: lbd\r\n\r\n")
			if a := w.answer("HEAD"); a.StatusCode != 200 {
				t.Fatal(a.Status)
			}
			w.sendPost("/v1/x", `{}`)
			if a := w.answer("POST"); a.StatusCode != 200 || a.body != "1" {
				t.Errorf("%s %q; want the answer to the second request, on a connection of its own", a.Status, a.body)
			}
		})
	}
}

// Replicas may redirect clients, not lbd.
func TestRedirectIsPassedOn(t *testing.T) {
	elsewhere := fakeReplica(t, func(c *fakeConn) { c.answer(200, "evil") })
	f := fakeReplica(t, func(c *fakeConn) {
		c.body()
		c.send("HTTP/1.1 307 Temporary Redirect\r\nlocation: " + elsewhere.url() + "/v1/x\r\ncontent-length: 0\r\n\r\n")
		c.keep = true
	})
	p := lbd(t, []string{f.url()}, quiet...)
	w := p.dial()
	w.sendPost("/v1/x", `{}`)
	if a := w.answer("POST"); a.StatusCode != 307 || a.Header.Get("Location") != elsewhere.url()+"/v1/x" {
		t.Errorf("%s %q", a.Status, a.Header)
	}
	if n := len(elsewhere.requests()); n != 0 {
		t.Errorf("lbd followed it with %d requests", n)
	}
}

// Events without end are passed on, and no more of them is held than a line may be
// long (relay.TestEndlessEvent says how much): here only that they pass, and that what
// comes behind is read again.
func TestEndlessEvent(t *testing.T) {
	const size = 4 << 20
	f := fakeReplica(t, func(c *fakeConn) {
		c.body()
		c.send(sseHead + chunk("data: "+strings.Repeat("x", size)) + chunk("\n\n") + event("a") + lastEvents)
		c.keep = true
	})
	p := lbd(t, []string{f.url()}, quiet...)
	w := p.dial()
	w.sendPost("/v1/x", `{"stream":true}`)
	resp := w.head("POST")
	b, err := io.ReadAll(resp.Body)
	if err != nil || len(b) < size || !strings.HasSuffix(string(b), "data: [DONE]\n\n") {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}
