package daemon_test

import (
	"fmt"
	"slices"
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
	"stream as Python writes it": func(c *fakeConn) {
		c.send(sseHead + chunk("data: "+spaced(fullQueue)+"\n\n") + lastEvents)
		c.keep = true
	},
	"stream behind its head": func(c *fakeConn) {
		c.send(sseHead)
		time.Sleep(time.Millisecond)
		c.send(chunk("data: "+fullQueue+"\n\n") + lastEvents)
		c.keep = true
	},
}

// spaced is JSON as json.dumps has it.
func spaced(s string) string { return strings.NewReplacer(`":`, `": `, `,"`, `, "`).Replace(s) }

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
				if !slices.Contains([]string{fullQueue, fullTokens, fullEvents, fullMessages, spaced(fullEvents)}, got.body) {
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

// What only resembles a refusal may have run, and is passed on.
func TestNotAReplicaFull(t *testing.T) {
	quoted := strings.Replace(fullQueue, `"The engine`, `"template error near: The engine`, 1)
	quotedMessages := strings.Replace(fullMessages, `"The engine`, `"template error near: The engine`, 1)
	nested := `{"detail":` + fullQueue + "}"
	const path, responses = "/v1/x", "/v1/responses"
	for name, c := range map[string]struct {
		path, body string
		say        func(*fakeConn)
	}{
		"quoted":           {path, `{}`, func(c *fakeConn) { c.answer(503, quoted) }},
		"nested":           {path, `{}`, func(c *fakeConn) { c.answer(503, nested) }},
		"messages, quoted": {path, `{}`, func(c *fakeConn) { c.answer(500, quotedMessages) }},
		"another status":   {path, `{}`, func(c *fakeConn) { c.answer(429, fullQueue) }},
		"no JSON": {path, `{}`, func(c *fakeConn) {
			c.send("HTTP/1.1 503 Service Unavailable\r\ncontent-length: " + fmt.Sprint(len(fullQueue)) + "\r\n\r\n" + fullQueue)
		}},
		"stream, quoted":   {path, `{"stream":true}`, func(c *fakeConn) { c.send(sseHead + chunk("data: "+quoted+"\n\n") + lastEvents) }},
		"stream, nested":   {path, `{"stream":true}`, func(c *fakeConn) { c.send(sseHead + chunk("data: "+nested+"\n\n") + lastEvents) }},
		"stream, later":    {path, `{"stream":true}`, func(c *fakeConn) { c.send(sseHead + chunk("data:{}\n\ndata: "+fullQueue+"\n\n") + lastEvents) }},
		"stream, comment":  {path, `{"stream":true}`, func(c *fakeConn) { c.send(sseHead + chunk(": data: "+fullQueue+"\n\n") + lastEvents) }},
		"turns with tools": {responses, `{"model":"` + llama + `","input":"x","tools":[{"type":"mcp"}]}`, func(c *fakeConn) { c.answer(503, fullQueue) }},
		"stream of turns":  {responses, `{"tools":[{"type":"mcp"}],"model":"` + llama + `","input":"x","stream":true}`, func(c *fakeConn) { c.send(sseHead + chunk(fullEvents) + "0\r\n\r\n") }},
	} {
		t.Run(name, func(t *testing.T) {
			script := func(conn *fakeConn) {
				if conn.body(); strings.Contains(conn.head, "/v1/warm") {
					conn.answer(200, "{}")
					return
				}
				c.say(conn)
			}
			f, g := fakeReplica(t, script), fakeReplica(t, script)
			p := lbd(t, []string{f.url(), g.url()}, quiet...)
			for range 2 { // what has served does not load
				p.post("/v1/warm", "{}")
			}
			p.post(c.path, c.body)
			if got := len(f.requests()) + len(g.requests()); got != 3 {
				t.Errorf("the request was sent %d times; want once", got-2)
			}
		})
	}
}

// The 503 of a replica that loads goes to another one although its body cannot be had.
func TestLoadingWithoutABody(t *testing.T) {
	f := fakeReplica(t, func(c *fakeConn) {
		c.body()
		c.send("HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{")
	})
	g := fakeReplica(t, func(c *fakeConn) { c.body(); c.answer(200, "{}") })
	p := lbd(t, []string{f.url(), g.url()}, quiet...)
	for range 2 {
		if a := p.post("/v1/x", "{}"); a.status != 200 {
			t.Errorf("%d %s; want the answer of the other replica", a.status, a.body)
		}
	}
	p.counted(`lbd_retries_total{model="`+llama+`",reason="loading"}`, "1")
}

// What vLLM runs in one turn only, it has refused before it ran anything.
func TestReplicaFullOfResponses(t *testing.T) {
	for name, body := range map[string]string{
		"no tools": `{"model":"chat","input":"x"}`, "functions": `{"model":"chat","input":"x","tools":[{"type":"function","name":"f","parameters":{"type":"mcp"}}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			f := fakeReplica(t, func(c *fakeConn) { c.body(); c.answer(503, fullQueue) })
			g := fakeReplica(t, func(c *fakeConn) { c.body(); c.answer(200, "{}") })
			p, _ := configured(t, "strategy: cycle\nendpoints: ["+f.url()+", "+g.url()+"]\nmodels: [{name: "+llama+", aliases: [chat]}]\n")
			p.until("in service", func() bool { return len(available(p, llama)) == 2 })
			for range 2 {
				if a := p.post("/v1/responses", body); a.status != 200 {
					t.Errorf("%d %s; want the answer of the replica with room", a.status, a.body)
				}
			}
		})
	}
}
