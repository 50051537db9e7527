package daemon_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"lbd/bench/sim"
)

// messagesError holds an answer of lbd's own to Anthropic's shape.
func messagesError(t *testing.T, status int, h http.Header, body string) (kind, code, message string) {
	t.Helper()
	var v struct {
		Type  string
		Error *struct {
			Type, Message string
			Details       struct {
				Code string `json:"error_code"`
			}
		}
		ID string `json:"request_id"`
	}
	dec := json.NewDecoder(strings.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil || v.Type != "error" || v.Error == nil || v.Error.Message == "" || v.Error.Details.Code == "" {
		t.Fatalf("%d: not an error in Anthropic's shape (%v): %q", status, err, body)
	}
	if v.ID != h.Get("X-Request-Id") || v.ID != h.Get("Request-Id") {
		t.Errorf("request_id %q, X-Request-Id %q, Request-Id %q; want the same", v.ID, h.Get("X-Request-Id"), h.Get("Request-Id"))
	}
	if got := h.Get("Content-Type"); got != "application/json" {
		t.Errorf("content type %q; want application/json", got)
	}
	return v.Error.Type, v.Error.Details.Code, v.Error.Message
}

// wantMessagesError sends a request and expects lbd's own error.
func (p *proxied) wantMessagesError(request string, status int, kind, code string) reply {
	p.t.Helper()
	w := p.dial()
	w.send(request)
	method, _, _ := strings.Cut(request, " ")
	a := w.answer(method)
	gotKind, gotCode, _ := messagesError(p.t, a.StatusCode, a.Header, a.body)
	if a.StatusCode != status || gotKind != kind || gotCode != code {
		p.t.Errorf("%.60q: %d %s %s; want %d %s %s", request, a.StatusCode, gotKind, gotCode, status, kind, code)
	}
	return a
}

func messagesPost(model string, lines ...string) string {
	return postText("/v1/messages", fmt.Sprintf(`{"model":%q,"max_tokens":4,"messages":[{"role":"user","content":"x"}]}`, model), lines...)
}

// What lbd itself has to say on the Messages API it says in Anthropic's shape, whatever
// the spelling of the path.
func TestMessagesErrors(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{Model: qwen})
	p := lbd(t, urls(a, b), "max-request-body-size", "2KiB", "max-request-header-size", "4KiB")
	const line, end = " HTTP/1.1\r\nHost: lbd\r\n", "\r\n"
	unknown := `{"model":"x"}`
	for _, c := range []struct {
		request, kind, code string
		status              int
	}{
		{messagesPost("x"), "not_found_error", "model_not_found", 404},
		{postText("/v1/messages?beta=true", unknown), "not_found_error", "model_not_found", 404},
		{postText("/v1/messages/count_tokens", unknown), "not_found_error", "model_not_found", 404},
		{postText("/v1/messages/batches", unknown), "not_found_error", "model_not_found", 404},
		{postText("/v1/m%65ssages", unknown), "not_found_error", "model_not_found", 404},
		{postText("http://lbd/v1/messages", unknown), "not_found_error", "model_not_found", 404},
		{postText("/v1/messages", `{}`), "invalid_request_error", "model_required", 400},
		{postText("/v1/messages", `{"model":7}`), "invalid_request_error", "invalid_model", 400},
		{postText("/v1/messages", `{`), "invalid_request_error", "invalid_body", 400},
		{postText("/v1/messages/../x", unknown), "invalid_request_error", "invalid_path", 400},
		{"GET /v1/messages" + line + end, "invalid_request_error", "method_not_allowed", 405},
		{"GET /v1/messages/count_tokens" + line + end, "invalid_request_error", "method_not_allowed", 405},
		{"BREW /v1/messages/batches" + line + end, "invalid_request_error", "method_not_allowed", 405},
		{postText("/v1/messages", strings.Repeat("x", 3<<10)), "request_too_large", "request_too_large", 413},
		{"POST /v1/messages" + line + "X: " + strings.Repeat("x", 5<<10) + "\r\n" + end, "invalid_request_error", "request_head_too_large", 431},
		{"POST /v1/messages" + line + "Content-Length: x\r\n" + end, "invalid_request_error", "malformed_request", 400},
		{"POST /v1/messages" + line + "Transfer-Encoding: chunked\r\n" + end + "x\r\n", "invalid_request_error", "malformed_request", 400},
		{"POST /v1/messages HTTP/1.1\r\nno field\n", "invalid_request_error", "malformed_request", 400},
		{"POST /v1/messages HTTP/2.0\r\nHost: lbd\r\n" + end, "invalid_request_error", "http_version_not_supported", 505},
		{messagesPost(llama, "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: x"), "invalid_request_error", "not_implemented", 501},
	} {
		p.wantMessagesError(c.request, c.status, c.kind, c.code)
	}
	for _, path := range []string{"/v1/chat/completions", "/v1/messagesx", "/v1/xmessages", "/v1/x/messages"} {
		w := p.dial()
		w.sendPost(path, unknown)
		if _, code, _ := openAIError(t, w.answer("POST")); code != "model_not_found" {
			t.Errorf("%s: %s; want model_not_found", path, code)
		}
	}
}

// The limits of admission and of API keys, and when to come back.
func TestMessagesRefused(t *testing.T) {
	g := newGate(t)
	file := keyFile(t, [3]string{"alice", aliceKey, "max_in_flight=2"}, [3]string{"bob", bobKey, "models=none"})
	p := lbd(t, []string{g.url()}, "admission-max-in-flight", "1", "admission-queue-length", "1", "api-keys-file", file, "metrics-access", "open")
	alice := "X-Api-Key: " + aliceKey
	p.wantMessagesError(messagesPost(llama), 401, "authentication_error", "missing_api_key")
	p.wantMessagesError(messagesPost(llama, "X-Api-Key: nobody-has-this-key-0123"), 401, "authentication_error", "invalid_api_key")
	p.wantMessagesError(messagesPost(llama, "X-Api-Key: "+bobKey), 403, "permission_error", "model_not_allowed")
	run := p.sendNamed("run", alice)
	p.until("it runs", func() bool { return g.count() == 1 })
	waiting := p.sendNamed("waiting", alice)
	p.waits(1)
	if a := p.wantMessagesError(messagesPost(llama, alice), 429, "rate_limit_error", "rate_limit_exceeded"); a.Header.Get("Retry-After") == "" {
		t.Errorf("no Retry-After: %v", a.Header)
	}
	writeKeys(t, file, [3]string{"alice", aliceKey, ""})
	if err := p.Reload(); err != nil {
		t.Fatal(err)
	}
	if a := p.wantMessagesError(messagesPost(llama, alice), 429, "rate_limit_error", "overloaded"); a.Header.Get("Retry-After") == "" {
		t.Errorf("no Retry-After: %v", a.Header)
	}
	g.answer()
	p.until("the one that waited runs", func() bool { return g.count() == 2 })
	g.answer()
	for _, w := range []*wire{run, waiting} {
		if a := w.answer("POST"); a.StatusCode != 200 {
			t.Errorf("%s %s", a.Status, a.body)
		}
	}
}

// Of replicas that fail.
func TestMessagesOfFailingReplicas(t *testing.T) {
	f := fakeReplica(t, func(c *fakeConn) {
		switch body := c.body(); {
		case strings.Contains(body, "nonsense"):
			c.send("nonsense\r\n\r\n")
		case strings.Contains(body, "silence"):
			c.gone()
		}
	})
	p := lbd(t, []string{f.url()}, "first-byte-timeout", "200ms")
	with := func(word string) string {
		return postText("/v1/messages", fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":%q}]}`, llama, word))
	}
	p.wantMessagesError(with("nonsense"), 502, "api_error", "replica_error")
	p.wantMessagesError(with("silence"), 504, "timeout_error", "timeout")
	f.close()
	p.until("nobody in service", func() bool { return p.get("/health").status == 503 })
	if a := p.wantMessagesError(with("x"), 503, "overloaded_error", "no_healthy_replica"); a.Header.Get("Retry-After") == "" {
		t.Errorf("no Retry-After: %v", a.Header)
	}
}
