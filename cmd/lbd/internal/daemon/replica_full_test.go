package daemon_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"lbd/balancer"
)

// What vLLM 0.32 answers beyond --max-num-queued-reqs and --max-num-queued-tokens.
const (
	fullQueue  = `{"error":{"message":"The engine is currently busy and cannot accept new requests. Please try again later or on a different instance.","type":"Service Unavailable","param":null,"code":503}}`
	fullTokens = `{"error":{"message":"The engine has reached its prefill token backlog limit. Please try again later or on a different instance.","type":"Service Unavailable","param":null,"code":503}}`
	// The router of /v1/messages takes it for a failure of its own.
	fullMessages = `{"type":"error","error":{"type":"internal_error","message":"The engine is currently busy and cannot accept new requests. Please try again later or on a different instance."}}`
	fullEvents   = "data: " + fullQueue + "\n\ndata: [DONE]\n\n"
)

// full is how a replica without room answers, in each way that vLLM does.
var full = map[string]func(*fakeConn){
	"queue":    func(c *fakeConn) { c.answer(503, fullQueue) },
	"tokens":   func(c *fakeConn) { c.answer(503, fullTokens) },
	"messages": func(c *fakeConn) { c.answer(500, fullMessages) },
	"body behind its head": func(c *fakeConn) {
		c.send(fmt.Sprintf("HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n", len(fullQueue)))
		time.Sleep(time.Millisecond) // uvicorn writes them apart
		c.send(fullQueue)
		c.keep = true
	},
	"stream": func(c *fakeConn) {
		c.send(sseHead + chunk(fullEvents) + "0\r\n\r\n")
		c.keep = true
	},
	"stream behind its head": func(c *fakeConn) {
		c.send(sseHead)
		time.Sleep(time.Millisecond)
		c.send(chunk("data: "+fullQueue+"\n\n") + lastEvents)
		c.keep = true
	},
}

// What a replica has no room for did not run: another one has it, and nothing is wrong
// with the one that is full.
func TestReplicaFull(t *testing.T) {
	for name, refuse := range full {
		t.Run(name, func(t *testing.T) {
			const n = 20
			serving := make(chan bool, 1)
			f := fakeReplica(t, func(c *fakeConn) {
				c.body()
				select {
				case <-serving:
					c.answer(200, "{}")
				default:
					refuse(c)
				}
			})
			g := fakeReplica(t, func(c *fakeConn) { c.body(); c.answer(200, "{}") })
			p := lbd(t, []string{f.url(), g.url()}, quiet...)
			ask := func() {
				for i := range n {
					if got := p.post("/v1/x", `{"stream":true}`); got.status != 200 || got.body != "{}" {
						t.Errorf("request %d: %d %s; want the answer of the replica with room", i, got.status, got.body)
					}
				}
			}
			ask() // before it has served anything
			serving <- true
			p.post("/v1/x", "{}")
			p.post("/v1/x", "{}")
			ask()
			if got := len(f.requests()); got != n+1 {
				t.Errorf("the full replica was asked %d times; want %d", got, n+1)
			}
			addr := f.ln.Addr().String()
			if h := p.Snapshot().Replica(addr).Health; h.State != balancer.Healthy || h.Ejections != 0 {
				t.Errorf("a replica that is full is %v after %d ejections", h.State, h.Ejections)
			}
			p.counted(`lbd_retries_total{model="`+llama+`",reason="replica_full"}`, fmt.Sprint(n))
			p.counted(`lbd_upstream_errors_total{reason="server_error",replica="`+addr+`"}`, "0")
		})
	}
}

// When all are full the client is told so in the words of the last one asked.
func TestAllReplicasFull(t *testing.T) {
	for name, refuse := range full {
		t.Run(name, func(t *testing.T) {
			refused := func(c *fakeConn) { c.body(); refuse(c) }
			a, b := fakeReplica(t, refused), fakeReplica(t, refused)
			p := lbd(t, []string{a.url(), b.url()}, quiet...)
			for range 10 {
				got := p.post("/v1/x", `{"stream":true}`)
				status := 503
				switch {
				case name == "messages":
					status = 500
				case strings.HasPrefix(name, "stream"):
					status = 200
				}
				if got.status != status {
					t.Errorf("%d; want the replica's %d", got.status, status)
				}
				if got.body != fullQueue && got.body != fullTokens && got.body != fullEvents && got.body != fullMessages {
					t.Errorf("%s; want the replica's own answer", got.body)
				}
			}
			if got := len(a.requests()) + len(b.requests()); got != 20 {
				t.Errorf("%d attempts; want each replica asked once for each request", got)
			}
			for _, f := range []*fake{a, b} {
				if h := p.Snapshot().Replica(f.ln.Addr().String()).Health; h.State != balancer.Healthy || h.Ejections != 0 {
					t.Errorf("a replica that is full is %v after %d ejections", h.State, h.Ejections)
				}
			}
		})
	}
}
