package daemon_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"lbd/bench/sim"
)

const okLength = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: "

// misbehaviour is an answer that is wrong. status is lbd's answer where the client
// has seen nothing yet; 0 means that it has and must see the cut, 200 that the
// answer is good all the same.
type misbehaviour struct {
	name, sends string
	hang        bool // instead of closing
	reset       bool
	status      int
	code        string
	outcome     string // of lbd_upstream_errors_total, "" = none
	seen        string // part of the body that must have arrived
}

// seenFirst stands for a wait until the client has the head: what comes behind it
// comes too late for an error of lbd's own.
const seenFirst = "\x01seen\x01"

var misbehaviours = []misbehaviour{
	{"closes at once", "", false, false, 502, "replica_error", "reset", ""},
	{"resets at once", "", false, true, 502, "replica_error", "reset", ""},
	{"hangs", "", true, false, 504, "timeout", "timeout", ""},
	{"half a head", "HTTP/1.1 200 OK\r\ncont", false, false, 502, "replica_error", "reset", ""},
	{"half a head, hangs", "HTTP/1.1 200 OK\r\ncont", true, false, 504, "timeout", "timeout", ""},
	{"not HTTP", "SSH-2.0-OpenSSH_9.6\r\n", true, false, 502, "replica_error", "bad_response", ""},
	{"HTTP/2", "HTTP/2.0 200 OK\r\n\r\n", true, false, 502, "replica_error", "bad_response", ""},
	{"bad status", "HTTP/1.1 2x0 OK\r\n\r\n", true, false, 502, "replica_error", "bad_response", ""},
	{"status 999", "HTTP/1.1 999 OK\r\n\r\n", true, false, 502, "replica_error", "bad_response", ""},
	{"bad header", "HTTP/1.1 200 OK\r\nno colon\r\n\r\n", true, false, 502, "replica_error", "bad_response", ""},
	{"folded header", "HTTP/1.1 200 OK\r\nx: 1\r\n 2\r\ncontent-length: 0\r\n\r\n", true, false, 502, "replica_error", "bad_response", ""},
	{"NUL in a header", "HTTP/1.1 200 OK\r\nx: \x00\r\ncontent-length: 0\r\n\r\n", true, false, 502, "replica_error", "bad_response", ""},
	{"bare line feeds", "HTTP/1.1 200 OK\ncontent-length: 0\n\n", false, false, 502, "replica_error", "", ""},
	{"endless head", "HTTP/1.1 200 OK\r\n" + strings.Repeat("x-a: 1\r\n", 8<<10), true, false, 502, "replica_error", "bad_response", ""},
	{"endless early hints", strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 8<<10), true, false, 502, "replica_error", "bad_response", ""},
	{"early hints and no answer", "HTTP/1.1 103 Early Hints\r\n\r\n", false, false, 502, "replica_error", "reset", ""},
	{"early hints, hangs", "HTTP/1.1 103 Early Hints\r\n\r\n", true, false, 504, "timeout", "timeout", ""},
	{"101 unasked", "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n", true, false, 502, "replica_error", "bad_response", ""},
	{"length and chunked", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", true, false, 502, "replica_error", "bad_response", ""},
	{"two lengths", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd", true, false, 502, "replica_error", "bad_response", ""},
	{"bad length", "HTTP/1.1 200 OK\r\ncontent-length: 3x\r\n\r\nabcd", true, false, 502, "replica_error", "bad_response", ""},
	{"gzip, chunked", "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", true, false, 502, "replica_error", "bad_response", ""},
	{"small body cut", okLength + "10\r\n\r\nabc", false, false, 502, "replica_error", "reset", ""},
	{"small body, reset", okLength + "10\r\n\r\nabc", false, true, 502, "replica_error", "reset", ""},
	{"small body stalls", okLength + "10\r\n\r\nabc", true, false, 504, "timeout", "timeout", ""},
	{"small body never comes", okLength + "10\r\n\r\n", true, false, 504, "timeout", "timeout", ""},
	{"large body cut", okLength + "100000\r\n\r\nabc", false, false, 0, "", "reset", "abc"},
	{"large body, reset", okLength + "100000\r\n\r\nabc", false, true, 0, "", "reset", "abc"},
	{"large body stalls", okLength + "100000\r\n\r\nabc", true, false, 0, "", "timeout", "abc"},
	{"large body never comes", okLength + "100000\r\n\r\n", false, false, 502, "replica_error", "reset", ""},
	{"until close, reset", "HTTP/1.1 200 OK\r\n\r\nabc", false, true, 0, "", "reset", "abc"},
	{"stream without a byte", sseHead, false, false, 502, "replica_error", "reset", ""},
	{"stream without a byte, hangs", sseHead, true, false, 504, "timeout", "timeout", ""},
	{"stream cut behind an event", sseHead + event("a"), false, false, 0, "", "reset", `"a"`},
	{"stream, reset", sseHead + event("a"), false, true, 0, "", "reset", `"a"`},
	{"stream stalls", sseHead + event("a"), true, false, 0, "", "timeout", `"a"`},
	{"cut within a chunk", sseHead + event("a") + "20\r\ndata: ", false, false, 0, "", "reset", "data: "},
	{"cut within a chunk size", sseHead + event("a") + "2", false, false, 0, "", "reset", `"a"`},
	{"cut behind [DONE]", sseHead + event("a") + "e\r\ndata: [DONE]\n\n\r\n", false, false, 0, "", "reset", "[DONE]"},
	{"cut within the last chunk", sseHead + event("a") + "0\r\n", false, false, 0, "", "reset", `"a"`},
	{"cut within the trailer", sseHead + event("a") + "0\r\nx-a: 1\r\n", false, false, 0, "", "reset", `"a"`},
	{"first chunk bad", sseHead + "zz\r\n", true, false, 502, "replica_error", "bad_response", ""},
	{"later chunk bad", sseHead + event("a") + seenFirst + "zz\r\nevil\r\n", true, false, 0, "", "bad_response", `"a"`},
	{"chunk too long", sseHead + event("a") + seenFirst + "3\r\nabcdef\r\n", true, false, 0, "", "bad_response", `"a"`},
	{"chunk size too large", sseHead + event("a") + seenFirst + "ffffffffffffffff\r\n", true, false, 0, "", "bad_response", `"a"`},
	{"endless chunk size", sseHead + event("a") + seenFirst + "1;" + strings.Repeat("x", 70<<10), true, false, 0, "", "bad_response", `"a"`},
	{"endless trailer", sseHead + event("a") + seenFirst + "0\r\n" + strings.Repeat("x-a: 1\r\n", 8<<10), true, false, 0, "", "bad_response", `"a"`},
	{"lost [DONE]", sseHead + event("a") + "0\r\n\r\n", false, false, 200, "", "", `"a"`},
	{"bytes behind the end", okLength + "2\r\n\r\n{}HTTP/1.1 200 OK\r\n\r\n", true, false, 200, "", "", "{}"},
}

// Whatever a replica does, its client gets an error or sees the cut, its other
// requests do not notice, and the connection it happened on carries no other
// request.
func TestReplicaMisbehaves(t *testing.T) {
	for _, m := range misbehaviours {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			release, steady, seen := make(chan struct{}), make(chan struct{}), make(chan struct{})
			f := fakeReplica(t, func(c *fakeConn) {
				switch body := c.body(); {
				case strings.Contains(body, "steady"):
					c.send(sseHead + event("1"))
					close(steady)
					<-release
					c.send(event("2") + lastEvents)
					c.keep = true
				case strings.Contains(body, "bad"):
					first, rest, wait := strings.Cut(m.sends, seenFirst)
					if c.send(first); wait {
						<-seen
						c.send(rest)
					}
					switch {
					case m.hang:
						c.gone()
					case m.reset:
						if m.status == 0 {
							<-seen // a reset takes away what is not read yet
						}
						c.reset()
					}
				default:
					c.answer(200, "fine")
				}
			})
			settings := quiet
			if m.outcome == "timeout" {
				settings = append([]string{"first-byte-timeout", "400ms", "stream-idle-timeout", "400ms"}, quiet...)
			}
			p := lbd(t, []string{f.url()}, settings...)
			other := p.dial()
			other.sendPost("/v1/x", `{"x":"steady"}`)
			resp := other.head("POST")
			<-steady
			w := p.dial()
			w.sendPost("/v1/x", `{"x":"bad"}`)
			bad := w.final("POST")
			close(seen)
			body, err := io.ReadAll(bad.Body)
			a := reply{bad, string(body), err}
			close(release)
			if b, err := io.ReadAll(resp.Body); m.outcome != "timeout" && (err != nil || !strings.HasSuffix(string(b), "[DONE]\n\n")) {
				t.Errorf("the other stream: %q, %v", b, err)
			}
			m.check(t, w, a)
			if m.outcome != "" {
				series := `lbd_upstream_errors_total{reason="` + m.outcome + `",replica="` + f.ln.Addr().String() + `"}`
				p.until(series, func() bool { return p.metric(series) != "" && p.metric(series) != "0" })
			}
			w = p.dial()
			w.sendPost("/v1/x", `{}`)
			if a := w.answer("POST"); a.StatusCode != 200 || a.body != "fine" {
				t.Errorf("the next request: %s %q", a.Status, a.body)
			}
		})
	}
}

func (m *misbehaviour) check(t *testing.T, w *wire, a reply) {
	t.Helper()
	switch m.status {
	case 0:
		if a.StatusCode != 200 || !errors.Is(a.err, io.ErrUnexpectedEOF) || !strings.Contains(a.body, m.seen) {
			t.Errorf("%s %v %q; want a visible cut behind %q", a.Status, a.err, a.body, m.seen)
		}
		if strings.Contains(a.body, "evil") {
			t.Errorf("what is not framed reached the client: %q", a.body)
		}
	case 200:
		if a.StatusCode != 200 || a.err != nil || !strings.Contains(a.body, m.seen) {
			t.Errorf("%s %v %q; want %q", a.Status, a.err, a.body, m.seen)
		}
	default:
		if _, code, message := openAIError(t, a); a.StatusCode != m.status || code != m.code || !strings.Contains(message, "replica 127.0.0.1:") {
			t.Errorf("%s %s; want %d %s", a.Status, a.body, m.status, m.code)
		}
		w.sendPost("/v1/x", `{}`)
		if next := w.answer("POST"); next.StatusCode != 200 {
			t.Errorf("the connection after an error of lbd's own: %s", next.Status)
		}
	}
}

// The client and the access log are told what is wrong with a head, in words of lbd's own:
// what stands in its place may be left over from another client's answer.
func TestMalformedHeadIsTold(t *testing.T) {
	const ok, private = "HTTP/1.1 200 OK\r\n", "private"
	for name, c := range map[string]struct{ sends, want string }{
		"not HTTP":       {private + "\r\n\r\n", "a first line of HTTP/1.1 and a three-digit status"},
		"long":           {ok + "x: " + strings.Repeat(private, 8<<10) + "\r\n", "at most 32768 bytes"},
		"many fields":    {ok + strings.Repeat("x: "+private+"\r\n", 300), "at most 256 header fields"},
		"no field":       {ok + private + "\r\n\r\n", "header lines that are NAME: VALUE"},
		"length":         {ok + "content-length: " + private + "\r\n\r\n", "a Content-Length of up to 18 digits"},
		"early answers":  {strings.Repeat("HTTP/1.1 103 "+private+"\r\n\r\n", 20), "at most 16 interim answers"},
		"both framings":  {ok + "content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", "either Content-Length or Transfer-Encoding, got both"},
		"other protocol": {"HTTP/1.1 101 " + private + "\r\n\r\n", "no 101 that was not asked for"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := fakeReplica(t, func(c2 *fakeConn) { c2.body(); c2.send(c.sends); c2.gone() })
			p := lbd(t, []string{f.url()}, append([]string{"access-log", "true"}, quiet...)...)
			w := p.dial()
			w.sendPost("/v1/x", `{}`)
			a := replyOf(w.final("POST"))
			_, code, message := openAIError(t, a)
			want := "replica " + f.ln.Addr().String() + " answered with a malformed head; want " + c.want
			if a.StatusCode != 502 || code != "replica_error" || message != want {
				t.Errorf("%d %s %q; want 502 replica_error %q", a.StatusCode, code, message, want)
			}
			p.logged(`"error":"replica_error","reason":"` + want + `"`)
			if strings.Contains(p.log.String(), private) {
				t.Errorf("what the replica has sent is in the log: %s", p.log)
			}
		})
	}
}

// In the access log an error of the replica's own can be told from one of lbd's.
func TestErrorsOfReplicasAreNotLbds(t *testing.T) {
	f := fakeReplica(t, func(c *fakeConn) { c.body(); c.answer(502, "private") })
	p := lbd(t, []string{f.url()}, append([]string{"access-log", "true"}, quiet...)...)
	for _, c := range []struct {
		body, line string
		own        bool
	}{
		{`{"x":1}`, `"status":502`, false},
		{`{"model":"private"}`, `"status":404`, true},
	} {
		p.post("/v1/x", c.body)
		line := p.logged(c.line)
		if got := strings.Contains(line, `"error":"model_not_found"`); got != c.own || strings.Contains(line, `"reason"`) {
			t.Errorf("%s: want error: %t and no reason", line, c.own)
		}
	}
}

// logged waits for a line with that text, and returns it: who is answered by a goroutine has
// the answer before its line is written.
func (p *proxied) logged(text string) (line string) {
	p.t.Helper()
	p.until("line with "+text, func() bool {
		for l := range strings.Lines(p.log.String()) {
			if strings.Contains(l, text) {
				line = l
				return true
			}
		}
		return false
	})
	return line
}

// A replica that refuses a large upload before it has read it: the client gets
// that answer, whether the replica then closes or waits.
func TestAnswerDuringUpload(t *testing.T) {
	const early = "HTTP/1.1 413 Too Large\r\ncontent-type: application/json\r\ncontent-length: 15\r\nconnection: close\r\n\r\n{\"error\":\"big\"}"
	for _, waits := range []bool{false, true} {
		t.Run(fmt.Sprintf("waits=%t", waits), func(t *testing.T) {
			f := fakeReplica(t, func(c *fakeConn) {
				if c.field("content-length") == "2" {
					c.body()
					c.answer(200, "fine")
					return
				}
				c.send(early)
				if waits { // reads nothing; knows that it is done when lbd closes
					time.Sleep(100 * time.Millisecond)
					c.gone()
					return
				}
				c.nc.CloseWrite()
				c.gone()
			})
			p := lbd(t, []string{f.url()}, quiet...)
			w := p.dial()
			w.sendPost("/v1/x", padded(32<<20))
			a := w.answer("POST")
			if a.StatusCode != 413 || a.body != `{"error":"big"}` {
				t.Errorf("%s %q", a.Status, a.body)
			}
			w.sendPost("/v1/x", `{}`)
			if a := w.answer("POST"); a.StatusCode != 200 || a.body != "fine" {
				t.Errorf("the next request: %s %q", a.Status, a.body)
			}
		})
	}
}

// An early answer is passed on while the replica still does not read on.
func TestAnswerDuringUploadWithoutReading(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	f := fakeReplica(t, func(c *fakeConn) {
		c.send("HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")
		<-release
	})
	p := lbd(t, []string{f.url()}, quiet...)
	w := p.dial()
	w.sendPost("/v1/x", padded(32<<20))
	if a := w.answer("POST"); a.StatusCode != 413 || a.body != "big" {
		t.Errorf("%s %q", a.Status, a.body)
	}
}

// A replica that takes in a large request slowly has as long as it needs; the time
// for the first byte begins when the request is out.
func TestSlowUpload(t *testing.T) {
	f := fakeReplica(t, func(c *fakeConn) {
		time.Sleep(1500 * time.Millisecond) // nothing in between holds 32 MiB, so it is not out by then
		if n, err := io.CopyN(io.Discard, c.br, 32<<20); err != nil {
			t.Errorf("read %d: %v", n, err)
			return
		}
		c.answer(200, "fine")
		c.keep = false
	})
	p := lbd(t, []string{f.url()}, append([]string{"first-byte-timeout", "1s"}, quiet...)...)
	w := p.dial()
	w.sendPost("/v1/x", padded(32<<20))
	if a := w.answer("POST"); a.StatusCode != 200 {
		t.Errorf("%s %q", a.Status, a.body)
	}
}

// The simulator's faults through lbd, as a second opinion on the raw ones.
func TestSimulatedFaults(t *testing.T) {
	for _, test := range []struct {
		name   string
		faults sim.Faults
		stream bool
		status int
		cut    bool
	}{
		{"reset_before", sim.Faults{ResetBefore: &sim.Fault{Count: 1}}, true, 502, false},
		{"bad_head", sim.Faults{BadHead: &sim.Fault{Count: 1}}, true, 502, false},
		{"bad_length", sim.Faults{BadLength: &sim.Fault{Count: 1}}, false, 502, false},
		{"reset_stream", sim.Faults{ResetStream: &sim.Fault{Count: 1, Events: 3}}, true, 200, true},
		{"truncate_stream", sim.Faults{TruncateStream: &sim.Fault{Count: 1, Events: 3}}, true, 200, true},
		{"bad_chunks", sim.Faults{BadChunks: &sim.Fault{Count: 1, Events: 3}}, true, 200, true},
		{"bad_chunks first", sim.Faults{BadChunks: &sim.Fault{Count: 1}}, true, 502, false},
		{"hang_stream", sim.Faults{HangStream: &sim.Fault{Count: 1, Events: 3}}, true, 200, true},
		{"hang", sim.Faults{Hang: &sim.Fault{Count: 1, Path: "/v1/chat"}}, true, 504, false}, // and not a first poll
		{"lost_done", sim.Faults{LostDone: &sim.Fault{Count: 1}}, true, 200, false},
		{"status", sim.Faults{Status: &sim.Fault{Count: 1, Code: 500}}, true, 500, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			const tokens = 100
			r, settings := replica(t, sim.Config{}), quiet
			if strings.HasPrefix(test.name, "hang") {
				settings = append([]string{"first-byte-timeout", "500ms", "stream-idle-timeout", "500ms"}, quiet...)
			}
			p := lbd(t, []string{r.URL()}, settings...)
			fault(t, r, test.faults)
			// So many that a replica which falls behind, and sends several in one event, still sends more than three.
			a := p.post("/v1/chat/completions", chat(llama, test.stream, longStream))
			if a.status != test.status || (a.err != nil) != test.cut {
				t.Errorf("%d %v; want %d, cut %t\n%s", a.status, a.err, test.status, test.cut, a.body)
			}
			if a := p.post("/v1/chat/completions", chat(llama, test.stream, tokens)); a.status != http.StatusOK || a.err != nil {
				t.Errorf("the next request: %d %v %s", a.status, a.err, a.body)
			}
		})
	}
}
