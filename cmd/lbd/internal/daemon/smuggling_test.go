package daemon_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// smuggled is one line of the corpus of proxy/internal/inbound, whose requests ask for
// /, /next and, where no request may be seen, /evil.
type smuggled struct {
	name   string
	bodies int  // requests that may be read
	err    bool // and one is refused behind them
	in     string
}

func corpus(t *testing.T) (all []smuggled) {
	t.Helper()
	for _, e := range examples(t, "inbound/testdata/requests.txt", 300) {
		s := smuggled{name: e.name, in: e.bytes}
		for _, w := range e.outcome {
			if w.quoted {
				s.bodies++
			} else {
				s.err = true
			}
		}
		all = append(all, s)
	}
	return all
}

// example is a line of a corpus: what is sent, and what becomes of it.
type example struct {
	name    string
	outcome []quotedWord
	bytes   string
}

// examples reads a corpus of proxy/internal, of which there must be so many lines.
func examples(t *testing.T, file string, least int) (all []example) {
	t.Helper()
	text, err := os.ReadFile("../../../../proxy/internal/" + file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		part := strings.SplitN(line, " | ", 3)
		if len(part) != 3 || line[0] == '#' {
			continue
		}
		var in strings.Builder
		for _, w := range quotedWords(t, part[2]) {
			in.WriteString(w.text)
		}
		all = append(all, example{part[0], quotedWords(t, part[1]), in.String()})
	}
	if len(all) < least {
		t.Fatalf("%d examples", len(all))
	}
	return all
}

type quotedWord struct {
	text   string
	quoted bool
}

// quotedWords reads Go strings, runs such as x*9, and bare words.
func quotedWords(t *testing.T, line string) (words []quotedWord) {
	t.Helper()
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		q, err := strconv.QuotedPrefix(line)
		if err != nil {
			q, _, _ = strings.Cut(line, " ")
		}
		line = line[len(q):]
		if s, err := strconv.Unquote(q); err == nil {
			words = append(words, quotedWord{s, true})
		} else if c, n, ok := strings.Cut(q, "*"); ok && len(c) == 1 {
			count, err := strconv.Atoi(n)
			if err != nil {
				t.Fatalf("%q is not a run", q)
			}
			words = append(words, quotedWord{strings.Repeat(c, count), false})
		} else {
			words = append(words, quotedWord{q, false})
		}
	}
	return words
}

// onPaths gives the requests of an example paths that are relayed and bodies that are
// JSON, without changing a length within a body.
var onPaths = strings.NewReplacer("/next ", "/v1/n ", "/evil ", "/v1/e ",
	"\r\nabcde\r\n0", "\r\n{   }\r\n0", "3\r\nabc\r\n2\r\nde", "3\r\n{  \r\n2\r\n }", "\r\n0123456789\r\n0", "\r\n{        }\r\n0",
	"\r\n\r\nabcdefgh", "\r\n\r\n{      }", "\r\n\r\nabc", "\r\n\r\n{ }", "3\r\nabc\r\n", "3\r\n{ }\r\n")

func (s *smuggled) sent() string {
	in := s.in
	for _, line := range []string{"GET / HTTP/1.1\r\n", "POST / HTTP/1.1\r\n", "POST / HTTP/1.0\r\n"} {
		if rest, ok := strings.CutPrefix(in, line); ok {
			in = strings.Replace(line, "/ ", "/v1/x ", 1) + rest
		}
	}
	return onPaths.Replace(in)
}

// target answers with the target of the request, and a request id of its own.
func target(c *fakeConn) {
	c.body()
	_, rest, _ := strings.Cut(c.head, " ")
	path, _, _ := strings.Cut(rest, " ")
	c.answer(200, strconv.Quote(path))
}

// Nothing that is published as request smuggling makes a replica see a request that
// lbd has not read, or a client an answer that is not its own.
func TestSmuggling(t *testing.T) {
	f := fakeReplica(t, target)
	p := lbd(t, []string{f.url()}, append([]string{"max-request-body-size", "1MiB", "max-request-header-size", "64KiB"}, quiet...)...)
	victim := p.dial()
	served, bodies := 0, 0
	for i, s := range corpus(t) {
		t.Run(s.name, func(t *testing.T) {
			before, gotBefore := len(f.requests()), len(f.received())
			replies := s.throw(t, p)
			heads, got := f.requests()[before:], f.received()[gotBefore:]
			if len(replies) != s.answers() {
				t.Errorf("%d answers; want %d", len(replies), s.answers())
			}
			for _, h := range heads {
				wellFramed(t, h)
			}
			for _, b := range got {
				if b != "" && !(b[0] == '{' && b[len(b)-1] == '}') {
					t.Errorf("the replica got the body %.80q", b)
				}
				bodies += min(len(b), 1)
			}
			served += len(heads)
			checkReplies(t, replies, heads)
			// Somebody else, on the same connections to the replica.
			mine := fmt.Sprintf("/v1/victim/%d", i)
			victim.t = t
			victim.send("GET " + mine + " HTTP/1.1\r\nHost: lbd\r\n\r\n")
			if a := victim.answer("GET"); a.StatusCode != 200 || a.body != strconv.Quote(mine) {
				t.Errorf("another client got %s %s", a.Status, a.body)
			}
		})
	}
	// Each example and the one behind it; nothing came between them either.
	if n := len(f.requests()); n != served+len(corpus(t)) {
		t.Errorf("the replica got %d requests; want %d", n, served+len(corpus(t)))
	}
	// What is well-formed must have arrived, or nothing was shown.
	if served < 150 || bodies < 20 {
		t.Errorf("%d requests and %d bodies reached the replica", served, bodies)
	}
}

// throw sends the example and returns the answers until the connection ends.
func (s *smuggled) throw(t *testing.T, p *proxied) (replies []reply) {
	t.Helper()
	w := dialWire(t, p.Addr().String())
	io.WriteString(w.nc, s.sent()) // fails when lbd has refused it already
	if !s.asksLast() {
		// No FIN where lbd ends the connection: it would end what is under way.
		if strings.Contains(s.name, "cut") || s.bodies == 0 {
			w.nc.CloseWrite()
		}
	} else {
		io.WriteString(w.nc, last)
	}
	for {
		resp, err := http.ReadResponse(w.br, &http.Request{Method: "POST"})
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !isReset(err) {
				t.Errorf("the connection does not end: %v", err)
			}
			return replies
		}
		if resp.StatusCode == 100 {
			continue
		}
		b, err := io.ReadAll(resp.Body)
		replies = append(replies, reply{resp, string(b), err})
	}
}

// last is what is sent behind an example that is in order.
const last = "GET /v1/last HTTP/1.1\r\nHost: lbd\r\nConnection: close\r\n\r\n"

// asksLast says that last is sent behind the example.
func (s *smuggled) asksLast() bool { return !s.err && !strings.Contains(s.name, "between chunks") }

// endsConnection are examples of which lbd reads the first request and no other: it
// asks for that, or it is 4 bytes too long with the path that sent gives it.
var endsConnection = []string{"close is only noted", "line HTTP/1.0", "head as large as may be"}

// answers is how many there must be: one for each request, for last if it is sent, and
// for what is refused.
func (s *smuggled) answers() int {
	switch {
	case slices.Contains(endsConnection, s.name):
		return 1
	case s.err || s.asksLast():
		return s.bodies + 1
	}
	return s.bodies
}

// wellFramed says that a replica cannot mistake a head for anything else.
func wellFramed(t *testing.T, head string) {
	t.Helper()
	if strings.Contains(head, "/v1/e ") {
		t.Errorf("the replica got what no request was: %q", head)
	}
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head)))
	if err != nil {
		t.Errorf("the replica got %q: %v", head, err)
		return
	}
	lower := "\r\n" + strings.ToLower(head)
	for _, name := range []string{"transfer-encoding", "te", "trailer", "expect", "connection", "upgrade", "keep-alive", "http2-settings", "proxy-connection"} {
		if strings.Contains(lower, "\r\n"+name+":") {
			t.Errorf("the replica got a %s: %q", name, head)
		}
	}
	if n := strings.Count(lower, "\r\ncontent-length:"); n > 1 || n == 0 && req.Method == "POST" {
		t.Errorf("%d Content-Length in %q", n, head)
	}
	if n := strings.Count(lower, "\r\nhost:"); n != 1 || req.Host == "a" || req.Host == "b" {
		t.Errorf("%d Host, %q, in %q", n, req.Host, head)
	}
}

// checkReplies says that the answers are those of the requests that the replica got, in
// their order, one each, and lbd's own; and that there is none behind a refusal of bytes
// that are no request.
func checkReplies(t *testing.T, replies []reply, heads []string) {
	t.Helper()
	var paths []string
	for _, h := range heads {
		_, rest, _ := strings.Cut(h, " ")
		path, _, _ := strings.Cut(rest, " ")
		paths = append(paths, strconv.Quote(path))
	}
	for i, r := range replies {
		if r.err != nil {
			t.Errorf("answer %d: %v", i, r.err)
		}
		switch {
		case r.StatusCode == 200:
			if len(paths) == 0 || r.body != paths[0] {
				t.Errorf("answer %d is %q; the replica got %q", i, r.body, paths)
				return
			}
			paths = paths[1:]
		case strings.Contains(r.body, "malformed_request") && i < len(replies)-1:
			t.Errorf("%d answers behind a malformed request", len(replies)-1-i)
		}
	}
	if len(paths) > 0 {
		t.Errorf("no answer to %q", paths)
	}
}

// Who waits for 100 Continue is told so only if the body is wanted.
func TestExpect(t *testing.T) {
	f := fakeReplica(t, echo)
	p := lbd(t, []string{f.url()}, append([]string{"max-request-body-size", "1KiB"}, quiet...)...)
	for _, test := range []struct {
		name, lines string
		want        int // first status
	}{
		{"small", "Expect: 100-continue\r\nContent-Length: 2", 100},
		{"chunked", "Expect: 100-continue\r\nTransfer-Encoding: chunked", 100},
		{"too large", "Expect: 100-continue\r\nContent-Length: 1025", 413},
		{"malformed", "Expect: 100-continue\r\nContent-Length: 2\r\nTransfer-Encoding: chunked", 400},
		{"of HTTP/1.0", "", 200},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := dialWire(t, p.Addr().String())
			version := "HTTP/1.1"
			if test.lines == "" {
				version, test.lines = "HTTP/1.0", "Expect: 100-continue\r\nContent-Length: 0"
			}
			w.send("POST /v1/x " + version + "\r\nHost: lbd\r\n" + test.lines + "\r\n\r\n")
			resp := w.head("POST")
			if resp.StatusCode != test.want {
				t.Fatalf("%s; want %d", resp.Status, test.want)
			}
			if test.want != 100 {
				if b, _ := io.ReadAll(resp.Body); test.want >= 400 && !resp.Close {
					t.Errorf("%s %s: the connection stays, and with it what was announced", resp.Status, b)
				}
				return
			}
			if strings.Contains(test.lines, "chunked") {
				w.send("2\r\n{}\r\n0\r\n\r\n")
			} else {
				w.send("{}")
			}
			if a := w.answer("POST"); a.StatusCode != 200 {
				t.Errorf("%s %s", a.Status, a.body)
			}
		})
	}
	if got := f.received(); !slices.Equal(got, []string{"{}", "{}", ""}) {
		t.Errorf("the replica got %q", got)
	}
}

// The host of an absolute target is the one the client asked for (RFC 9112 section
// 3.2.2), whatever Host says.
func TestAbsoluteTargetWins(t *testing.T) {
	f := fakeReplica(t, target)
	p := lbd(t, []string{f.url()}, quiet...)
	w := p.dial()
	for sent, want := range map[string]string{
		"http://b:1/v1/x": "b:1", "http://b:1/v1/x?u=http://c/": "b:1", "/v1/x": "a", "/v1/x?u=http://c/": "a", "https://b/v1/x": "b",
	} {
		n := len(f.requests())
		w.send("GET " + sent + " HTTP/1.1\r\nHost: a\r\n\r\n")
		if a := w.answer("GET"); a.StatusCode != 200 || !strings.HasPrefix(a.body, `"/v1/x`) {
			t.Fatalf("%s: %s %s", sent, a.Status, a.body)
		}
		head := f.requests()[n]
		if got := headField(head, "X-Forwarded-Host"); got != want || headField(head, "Host") != f.ln.Addr().String() {
			t.Errorf("%s: the replica is told of %q; want %q\n%s", sent, got, want, head)
		}
	}
}

// A client that sends requests and reads no answer is given so many as fit into
// buffers, and dropped.
func TestPipeliningFlood(t *testing.T) {
	f := fakeReplica(t, func(c *fakeConn) {
		c.body()
		c.answer(200, `"`+strings.Repeat("x", 64<<10)+`"`)
	})
	p := lbd(t, []string{f.url()}, append([]string{"client-write-timeout", "300ms"}, quiet...)...)
	w := p.dial()
	w.nc.SetReadBuffer(4 << 10)
	requests := strings.Repeat(postText("/v1/x", "{}"), 100)
	sent := 0
	for {
		n, err := io.WriteString(w.nc, requests)
		if sent += n; err != nil {
			if sent > 32<<20 {
				t.Errorf("%d bytes of requests were taken in", sent)
			}
			break
		}
	}
	p.until("own load 0", func() bool { return p.Snapshot().Replicas[0].InFlight() == 0 })
	if n := len(f.requests()); n == 0 || n > 1000 {
		t.Errorf("the replica got %d requests of a client that reads nothing", n)
	}
}
