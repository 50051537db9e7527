package daemon_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// wire is a client that sends exactly the bytes it is told to.
type wire struct {
	t  *testing.T
	nc *net.TCPConn
	br *bufio.Reader
}

func (p *proxied) dial() *wire {
	p.t.Helper()
	return dialWire(p.t, p.Addr().String())
}

func dialWire(t *testing.T, addr string) *wire {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	w := &wire{t: t, nc: nc.(*net.TCPConn), br: bufio.NewReader(nc)}
	w.patient()
	return w
}

// patient gives what comes next as long as until has.
func (w *wire) patient() { w.nc.SetDeadline(time.Now().Add(patience)) }

func (w *wire) send(s string) {
	w.t.Helper()
	w.patient()
	if _, err := io.WriteString(w.nc, s); err != nil {
		w.t.Fatal(err)
	}
}

// sendPost sends a JSON POST with the length of its body.
func (w *wire) sendPost(path, body string, lines ...string) {
	w.t.Helper()
	w.send(postText(path, body, lines...))
}

func postText(path, body string, lines ...string) string {
	lines = append(lines, "Content-Type: application/json", "Content-Length: "+strconv.Itoa(len(body)))
	return "POST " + path + " HTTP/1.1\r\nHost: lbd\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n" + body
}

// reply is one response as it came.
type reply struct {
	*http.Response
	body string
	err  error // of reading the body: a truncated answer
}

// answer reads one response to a request of that method, whole.
func (w *wire) answer(method string) reply {
	w.t.Helper()
	return replyOf(w.head(method))
}

func replyOf(resp *http.Response) reply {
	b, err := io.ReadAll(resp.Body)
	return reply{resp, string(b), err}
}

// head reads a response head; its Body reads on.
func (w *wire) head(method string) *http.Response {
	w.t.Helper()
	w.patient()
	resp, err := http.ReadResponse(w.br, &http.Request{Method: method})
	if err != nil {
		w.t.Fatalf("reading the response head: %v", err)
	}
	return resp
}

// final is head behind any interim answers.
func (w *wire) final(method string) *http.Response {
	w.t.Helper()
	for {
		if resp := w.head(method); resp.StatusCode/100 != 1 {
			return resp
		}
	}
}

// closed waits for the end of the connection and returns what came before it.
func (w *wire) closed() string {
	w.t.Helper()
	w.patient()
	b, err := io.ReadAll(w.br)
	if err != nil && !isReset(err) {
		w.t.Fatalf("waiting for the end of the connection: %v", err)
	}
	return string(b)
}

// reset ends the connection with RST.
func (w *wire) reset() {
	w.nc.SetLinger(0)
	w.nc.Close()
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// fake is a replica that speaks bytes, so that it can also speak wrong ones. It
// answers lbd's own requests well and gives the others to the script.
type fake struct {
	t      *testing.T
	ln     net.Listener
	model  string
	script func(c *fakeConn)

	deaf   chan struct{}     // closed when connections are no longer accepted
	gauges func() string     // what /metrics says; nil is nothing
	before func(path string) // before a page of its own is answered; nil is nothing

	mu     sync.Mutex
	conns  map[net.Conn]bool
	heads  []string // of requests given to the script
	bodies []string
	wg     sync.WaitGroup
}

// fakeConn is one request on a connection of a fake, its head read, its body
// not.
type fakeConn struct {
	*fake
	nc   *net.TCPConn
	br   *bufio.Reader
	head string // with the empty line
	nth  int    // request on this connection, from 1
	keep bool   // read another request; the script sets it
}

func fakeReplica(t *testing.T, script func(c *fakeConn)) *fake {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{t: t, ln: ln, model: llama, script: script, deaf: make(chan struct{}), conns: map[net.Conn]bool{}}
	f.wg.Go(f.accept)
	t.Cleanup(f.close)
	return f
}

func (f *fake) url() string { return "http://" + f.ln.Addr().String() }

func (f *fake) close() {
	f.ln.Close()
	f.mu.Lock()
	for c := range f.conns {
		c.Close()
	}
	f.conns = nil
	f.mu.Unlock()
	f.wg.Wait()
}

func (f *fake) accept() {
	defer close(f.deaf)
	for {
		nc, err := f.ln.Accept()
		if err != nil {
			return
		}
		f.mu.Lock()
		if f.conns == nil {
			nc.Close()
		} else {
			f.conns[nc] = true
			f.wg.Go(func() { f.serve(nc.(*net.TCPConn)) })
		}
		f.mu.Unlock()
	}
}

func (f *fake) serve(nc *net.TCPConn) {
	defer func() {
		nc.Close()
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.conns, nc)
	}()
	br := bufio.NewReader(nc)
	for nth := 1; ; nth++ {
		head, err := readUntilBlank(br)
		if err != nil {
			return
		}
		c := &fakeConn{fake: f, nc: nc, br: br, head: head, nth: nth}
		if body, own := f.ownPage(head); own {
			c.send("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body)
			continue
		}
		f.mu.Lock()
		f.heads = append(f.heads, head)
		f.mu.Unlock()
		if f.script(c); !c.keep {
			return
		}
	}
}

func readUntilBlank(br *bufio.Reader) (string, error) {
	var head strings.Builder
	for {
		line, err := br.ReadString('\n')
		head.WriteString(line)
		if err != nil || line == "\r\n" {
			return head.String(), err
		}
	}
}

func (f *fake) ownPage(head string) (string, bool) {
	path, _, _ := strings.Cut(strings.TrimPrefix(head, "GET "), " ")
	if f.before != nil {
		f.before(path)
	}
	switch {
	case strings.HasPrefix(path, "/metrics") && f.gauges != nil:
		return f.gauges(), true
	case path == "/health", strings.HasPrefix(path, "/metrics"):
		return "", true
	case path == "/v1/models":
		return fmt.Sprintf(`{"object":"list","data":[{"id":%q,"object":"model"}]}`, f.model), true
	}
	return "", false
}

// requests returns the heads the script has been given.
func (f *fake) requests() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.heads...)
}

// received returns the bodies read so far.
func (f *fake) received() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.bodies...)
}

func (c *fakeConn) send(s string) error {
	_, err := io.WriteString(c.nc, s)
	return err
}

// field returns a header field of the request, "" if absent.
func (c *fakeConn) field(name string) string { return headField(c.head, name) }

func headField(head, name string) string {
	for line := range strings.SplitSeq(head, "\r\n") {
		if n, v, ok := strings.Cut(line, ":"); ok && strings.EqualFold(n, name) {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// body reads the request's body.
func (c *fakeConn) body() string {
	n, _ := strconv.Atoi(c.field("content-length"))
	b := make([]byte, n)
	n, _ = io.ReadFull(c.br, b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bodies = append(c.bodies, string(b[:n]))
	return string(b[:n])
}

// answer sends a small JSON answer and keeps the connection.
func (c *fakeConn) answer(status int, body string) {
	c.keep = true
	c.send(fmt.Sprintf("HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s",
		status, http.StatusText(status), len(body), body))
}

func (c *fakeConn) reset() {
	c.nc.SetLinger(0)
	c.nc.Close()
}

// gone waits until lbd has closed its side.
func (c *fakeConn) gone() { io.Copy(io.Discard, c.br) }

// say returns a script that reads the request, sends s and closes unless told to
// keep the connection.
func say(s string, keep bool) func(*fakeConn) {
	return func(c *fakeConn) {
		c.body()
		c.send(s)
		c.keep = keep
	}
}

// chunk frames one chunk.
func chunk(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }

const sseHead = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"

func event(text string) string {
	return chunk(fmt.Sprintf("data: {\"choices\":[{\"delta\":{\"content\":%q}}]}\n\n", text))
}

const lastEvents = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"

// firstDiff shows where two texts part, for bodies too long to print.
func firstDiff(got, want string) string {
	i := 0
	for i < len(got) && i < len(want) && got[i] == want[i] {
		i++
	}
	cut := func(s string) string { return s[min(i, len(s)):min(i+40, len(s))] }
	return fmt.Sprintf("lengths %d and %d, parting at %d: %q, want %q", len(got), len(want), i, cut(got), cut(want))
}

// openAIError returns the error of an answer of lbd's own, or fails the test
// when it has not OpenAI's shape.
func openAIError(t *testing.T, r reply) (kind, code, message string) {
	t.Helper()
	return errorOf(t, r.Header.Get("Content-Type"), r.body)
}

func errorOf(t *testing.T, contentType, body string) (kind, code, message string) {
	t.Helper()
	var v struct {
		Error *struct {
			Message, Type, Code string
			Param               *string
		}
	}
	dec := json.NewDecoder(strings.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil || v.Error == nil || v.Error.Message == "" || v.Error.Type == "" || v.Error.Code == "" {
		t.Fatalf("not an error in OpenAI's shape (%v): %q", err, body)
	}
	if contentType != "application/json" {
		t.Errorf("content type of an error is %q; want application/json", contentType)
	}
	return v.Error.Type, v.Error.Code, v.Error.Message
}
