package faults

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"lbd/bench/sim"
)

// raw is a replica of few words, for what the simulated one cannot do: it has a say
// in what becomes of each connection.
type raw struct {
	ln net.Listener
	// spoils is asked at the head of each request but lbd's own. The connection is
	// reset if it says so, with the body unread or after it.
	spoils func(nth int) (reset, read bool)

	mu    sync.Mutex
	conns map[net.Conn]bool
	seen  []sim.RecordedRequest
	wg    sync.WaitGroup
}

// startRaw listens on an address, "127.0.0.1:0" for any.
func startRaw(t *testing.T, addr string, spoils func(nth int) (reset, read bool)) *raw {
	t.Helper()
	r := &raw{spoils: spoils, conns: map[net.Conn]bool{}}
	var err error
	if r.ln, err = net.Listen("tcp", addr); err != nil {
		t.Fatal(err)
	}
	r.wg.Go(r.accept)
	t.Cleanup(r.stop)
	return r
}

// well spoils nothing.
func well(int) (reset, read bool) { return false, false }

// Addr implements server.
func (r *raw) Addr() string { return r.ln.Addr().String() }

// URL implements server.
func (r *raw) URL() string { return "http://" + r.Addr() }

// Requests implements server.
func (r *raw) Requests() []sim.RecordedRequest {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]sim.RecordedRequest(nil), r.seen...)
}

// connections counts those that are open.
func (r *raw) connections() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.conns)
}

// stop ends it as SIGKILL does.
func (r *raw) stop() {
	r.ln.Close()
	r.mu.Lock()
	for c := range r.conns {
		c.Close()
	}
	r.mu.Unlock()
	r.wg.Wait()
}

func (r *raw) accept() {
	for {
		c, err := r.ln.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		r.conns[c] = true
		r.mu.Unlock()
		r.wg.Go(func() { r.serve(c) })
	}
}

func (r *raw) serve(c net.Conn) {
	defer func() {
		c.Close()
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.conns, c)
	}()
	br := bufio.NewReader(c)
	for nth := 1; ; nth++ {
		q, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		if q.Method == "POST" {
			if !r.post(c, q, nth) {
				return
			}
			continue
		}
		io.WriteString(c, page(q.URL.Path))
	}
}

func (r *raw) post(c net.Conn, q *http.Request, nth int) (on bool) {
	reset, read := r.spoils(nth)
	if reset && !read {
		c.(*net.TCPConn).SetLinger(0)
		return false
	}
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return false
	}
	r.mu.Lock()
	r.seen = append(r.seen, sim.RecordedRequest{Time: time.Now(), Method: q.Method, RequestID: q.Header.Get("X-Request-Id")})
	r.mu.Unlock()
	if reset {
		c.(*net.TCPConn).SetLinger(0)
		return false
	}
	_, err = io.WriteString(c, answer(strings.Contains(string(body), `"stream":true`)))
	return err == nil
}

// answer is a whole one.
func answer(stream bool) string {
	if !stream {
		return whole("application/json", `{"object":"chat.completion","model":"`+llama+`"}`)
	}
	events := `data: {"object":"chat.completion.chunk","model":"` + llama + `","choices":[{"delta":{"content":"x"}}]}` + "\n\ndata: [DONE]\n\n"
	return fmt.Sprintf("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(events), events)
}

// page is what lbd itself asks for.
func page(path string) string {
	switch {
	case strings.HasPrefix(path, "/metrics"):
		return whole("text/plain", "vllm:num_requests_running{model_name=\"m\"} 0\nvllm:num_requests_waiting{model_name=\"m\"} 0\n")
	case path == "/v1/models":
		return whole("application/json", `{"object":"list","data":[{"id":"`+llama+`","object":"model"}]}`)
	}
	return whole("application/json", `{}`)
}

func whole(kind, body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n%s", kind, len(body), body)
}
