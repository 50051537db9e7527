package load

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lbd/internal/loopback"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeRequest is what the fake server has read.
type fakeRequest struct {
	*http.Request
	body struct {
		Model     string `json:"model"`
		MaxTokens int    `json:"max_tokens"`
		Stream    bool   `json:"stream"`
	}
	raw []byte
}

// script answers one request on the wire; false closes the connection after it.
type script func(c net.Conn, q *fakeRequest) (keep bool)

// fake is a server that speaks bytes, so that it can also speak wrong ones.
type fake struct {
	t       *testing.T
	script  script
	mu      sync.Mutex
	dials   int
	serving sync.WaitGroup
}

// dial connects through a pipe; pipes block in a way synctest understands.
func (f *fake) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	f.mu.Lock()
	f.dials++
	f.mu.Unlock()
	f.serving.Go(func() { f.serve(server) })
	return client, nil
}

func (f *fake) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		q := &fakeRequest{Request: req}
		if q.raw, err = io.ReadAll(req.Body); err != nil {
			return
		}
		if err := json.Unmarshal(q.raw, &q.body); err != nil {
			f.t.Errorf("body %q: %v", q.raw, err)
		}
		if !f.script(c, q) {
			return
		}
	}
}

// listen serves the script over TCP until the test ends.
func (f *fake) listen() (url string) {
	l := loopback.Listen(f.t)
	f.serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.dials++
			f.mu.Unlock()
			f.serving.Go(func() { f.serve(c) })
		}
	})
	f.t.Cleanup(func() {
		l.Close()
		f.serving.Wait()
	})
	return "http://" + l.Addr().String()
}

const streamHead = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n" +
	"x-lbd-replica: r1\r\ntransfer-encoding: chunked\r\n\r\n"

// Events as vLLM sends them (SSE bytes of v0.6.4 and later).
const (
	roleEvent   = `{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1731628800,"model":"M","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}`
	tokenEvent  = `{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1731628800,"model":"M","choices":[{"index":0,"delta":{"content":" Hello"},"logprobs":null,"finish_reason":null}]}`
	finishEvent = `{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1731628800,"model":"M","choices":[{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"length","stop_reason":null}]}`
	textEvent   = `{"id":"cmpl-1","object":"text_completion","created":1731628800,"model":"M","choices":[{"index":0,"text":" a","logprobs":null,"finish_reason":null,"stop_reason":null}],"usage":null}`
)

func usageEvent(prompt, out int) string {
	return fmt.Sprintf(`{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1731628800,"model":"M","choices":[],"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d}}`,
		prompt, prompt+out, out)
}

// send writes each event as one HTTP chunk, as uvicorn does.
func send(c net.Conn, events ...string) {
	for _, e := range events {
		sendRaw(c, "data: "+e+"\n\n")
	}
}

func sendRaw(c net.Conn, bytes string) {
	fmt.Fprintf(c, "%x\r\n%s\r\n", len(bytes), bytes)
}

func endChunks(c net.Conn) { io.WriteString(c, "0\r\n\r\n") }

// answerAfter streams max_tokens tokens: the first after ttft, the others itl apart.
func answerAfter(ttft, itl time.Duration) script {
	return func(c net.Conn, q *fakeRequest) bool {
		time.Sleep(ttft)
		io.WriteString(c, streamHead)
		send(c, roleEvent, tokenEvent)
		for range q.body.MaxTokens - 1 {
			time.Sleep(itl)
			send(c, tokenEvent)
		}
		send(c, finishEvent, usageEvent(7, q.body.MaxTokens), "[DONE]")
		endChunks(c)
		return true
	}
}

// plainAnswer is a whole response with a body.
func plainAnswer(status int, contentType, body string) string {
	return fmt.Sprintf("HTTP/1.1 %d %s\r\ncontent-type: %s\r\nx-lbd-replica: r1\r\ncontent-length: %d\r\n\r\n%s",
		status, http.StatusText(status), contentType, len(body), body)
}

// every makes n equal streaming requests, gap apart.
func every(n int, gap time.Duration) iter.Seq[Request] {
	return func(yield func(Request) bool) {
		for i := range n {
			if !yield(Request{At: time.Duration(i) * gap, Model: "M", PromptTokens: 8, OutputTokens: 4, Stream: true}) {
				return
			}
		}
	}
}

// run runs against the script through pipes and waits for the server's end too.
func run(t *testing.T, s script, o Options) (*Results, *fake) {
	t.Helper()
	f := &fake{t: t, script: s}
	o.Target, o.Dial, o.KeepRecords = "http://fake:1", f.dial, true
	res, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	f.serving.Wait()
	return res, f
}

func one(q Request) iter.Seq[Request] { return slices.Values([]Request{q}) }

func causes(res *Results) string {
	var all []string
	for _, rec := range res.Records {
		all = append(all, rec.failure())
	}
	return strings.Join(all, ",")
}

// connections is how many were made so far.
func (f *fake) connections() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dials
}
