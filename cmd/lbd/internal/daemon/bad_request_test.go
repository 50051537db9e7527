package daemon_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"lbd/bench/sim"
)

// badBodies are refused although the HTTP around them is fine, so the connection
// stays.
var badBodies = []struct {
	name, body string
	status     int
	code       string
	says       string // part of the message
}{
	{"not JSON", `hello`, 400, "invalid_body", "JSON"},
	{"cut JSON", `{"model":"` + llama + `","messages":[`, 400, "invalid_body", "JSON"},
	{"two values", `{"model":"` + llama + `"}{}`, 400, "invalid_body", "JSON"},
	{"not an object", `["model"]`, 400, "invalid_body", "object"},
	{"UTF-16", "\xff\xfe{\x00}\x00", 400, "invalid_body", ""},
	{"empty", ``, 400, "model_required", llama},
	{"no model", `{"messages":[]}`, 400, "model_required", qwen},
	{"unknown model", `{"model":"nobody"}`, 404, "model_not_found", llama},
	{"other case", `{"model":"` + strings.ToLower(llama) + `"}`, 404, "model_not_found", qwen},
	{"empty name", `{"model":""}`, 404, "model_not_found", llama},
	{"number", `{"model":7}`, 400, "invalid_model", "string"},
	{"null", `{"model":null}`, 400, "model_required", llama},
	{"array", `{"model":["` + llama + `"]}`, 400, "invalid_model", "string"},
	{"object", `{"model":{}}`, 400, "invalid_model", "string"},
	{"bad last of two", `{"model":"` + llama + `","model":7}`, 400, "invalid_model", "string"},
	{"unknown last of two", `{"model":"` + llama + `","model":"nobody"}`, 404, "model_not_found", "nobody"},
	{"long name", `{"model":"` + strings.Repeat("n", 10_000) + `"}`, 404, "model_not_found", "nnnn"},
	{"control bytes in the name", `{"model":"a\u0000\u001b[2Jb"}`, 404, "model_not_found", llama},
}

func TestBadBodies(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{Model: qwen})
	p := lbd(t, []string{a.URL(), b.URL()})
	w := p.dial()
	for _, test := range badBodies {
		t.Run(test.name, func(t *testing.T) {
			w.t = t
			w.sendPost("/v1/completions", test.body, "X-Request-Id: bad")
			got := w.answer("POST")
			if got.StatusCode != test.status || got.Close {
				t.Fatalf("%s, close %t: %s; want %d on a connection that stays", got.Status, got.Close, got.body, test.status)
			}
			kind, code, message := openAIError(t, got)
			if kind != "invalid_request_error" || (test.code != "" && code != test.code) || !strings.Contains(message, test.says) || len(message) > 600 {
				t.Errorf("%s %s %q; want %s and %q in it", kind, code, message, test.code, test.says)
			}
			if id := got.Header.Get("X-Request-Id"); id != "bad" {
				t.Errorf("X-Request-Id is %q", id)
			}
			goodRequest(t, w)
		})
	}
	untouched(t, a, len(badBodies))
	untouched(t, b, 0)
}

// A body that comes compressed is told apart from one that is broken.
func TestCompressedBody(t *testing.T) {
	p := lbd(t, urls(replica(t, sim.Config{}), replica(t, sim.Config{Model: qwen})))
	w := p.dial()
	for coding, says := range map[string]string{
		"gzip": `body has the Content-Encoding "gzip"; want none`, "Identity": "body is not a JSON object", "": "body is not a JSON object",
	} {
		w.sendPost("/v1/chat/completions", "\x1f\x8b\x08", "Content-Encoding: "+coding)
		a := w.answer("POST")
		if _, code, message := openAIError(t, a); a.StatusCode != 400 || code != "invalid_body" || message != says {
			t.Errorf("Content-Encoding %q: %s %s %q; want 400 invalid_body %q", coding, a.Status, code, message, says)
		}
	}
}

const goodID = "good-one"

// goodRequest shows that the connection is usable.
func goodRequest(t *testing.T, w *wire) {
	t.Helper()
	w.sendPost("/v1/completions", `{"model":"`+llama+`","prompt":"x","max_tokens":1}`, "X-Request-Id: "+goodID)
	if a := w.answer("POST"); a.StatusCode != http.StatusOK || a.err != nil {
		t.Errorf("the next request on the connection: %s %v %s", a.Status, a.err, a.body)
	}
}

// untouched says that a replica got nothing but good requests.
func untouched(t *testing.T, r *sim.Server, good int) {
	t.Helper()
	n := 0
	for _, q := range r.Requests() {
		switch {
		case q.RequestID == goodID:
			n++
		case q.Path != "/v1/models":
			t.Errorf("the replica got %s %s %q", q.Method, q.Path, q.Body)
		}
	}
	if n != good {
		t.Errorf("the replica got %d good requests; want %d", n, good)
	}
}

const postStart = "POST /v1/completions HTTP/1.1\r\nHost: lbd\r\nContent-Type: application/json\r\n"

// badRequests are refused as HTTP. What comes behind them on the connection
// cannot be trusted to be a request, so it ends.
var badRequests = []struct {
	name, sent string
	fin        bool // the client then ends its side
	status     int
	code       string
	says       string
}{
	{"garbage", "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", false, 400, "malformed_request", ""},
	{"one word", "HELLO\r\n\r\n", false, 400, "malformed_request", ""},
	{"HTTP/0.9", "GET /v1/x\r\n\r\n", false, 400, "malformed_request", ""},
	{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", false, 505, "http_version_not_supported", "HTTP/1.1"},
	{"HTTP/3.0", "GET /v1/x HTTP/3.0\r\nHost: lbd\r\n\r\n", false, 0, "", ""},
	{"HTTP/1.9", "GET /v1/x HTTP/1.9\r\nHost: lbd\r\n\r\n", false, 505, "http_version_not_supported", "HTTP/1.1"},
	{"http/1.1", "GET /v1/x http/1.1\r\nHost: lbd\r\n\r\n", false, 400, "malformed_request", "version"},
	{"no host", "GET /v1/x HTTP/1.1\r\n\r\n", false, 400, "malformed_request", "host"},
	{"two hosts", "GET /v1/x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", false, 400, "malformed_request", "host"},
	{"odd host", "GET /v1/x HTTP/1.1\r\nHost: a b\r\n\r\n", false, 400, "malformed_request", ""},
	{"space in a name", postStart + "X Y: 1\r\nContent-Length: 2\r\n\r\n{}", false, 400, "malformed_request", ""},
	{"space before a colon", postStart + "X-Y : 1\r\nContent-Length: 2\r\n\r\n{}", false, 400, "malformed_request", ""},
	{"framing in disguise", postStart + "Transfer Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}", false, 400, "malformed_request", ""},
	{"no colon", postStart + "X-Y\r\nContent-Length: 2\r\n\r\n{}", false, 400, "malformed_request", ""},
	{"folded line", postStart + "X-Y: 1\r\n  2\r\nContent-Length: 2\r\n\r\n{}", false, 400, "malformed_request", ""},
	{"folded first line", "GET /v1/x HTTP/1.1\r\n X: 1\r\nHost: lbd\r\n\r\n", false, 400, "malformed_request", ""},
	{"NUL in a value", postStart + "X-Y: a\x00b\r\nContent-Length: 2\r\n\r\n{}", false, 400, "malformed_request", ""},
	{"CR in a value", postStart + "X-Y: a\rb\r\nContent-Length: 2\r\n\r\n{}", false, 400, "malformed_request", ""},
	{"escape in a value", postStart + "X-Y: a\x1bb\r\nContent-Length: 2\r\n\r\n{}", false, 400, "malformed_request", ""},
	{"empty name", postStart + ": 1\r\nContent-Length: 2\r\n\r\n{}", false, 400, "malformed_request", ""},
	{"two lengths", postStart + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", false, 400, "malformed_request", ""},
	{"length list", postStart + "Content-Length: 2, 2\r\n\r\n{}", false, 400, "malformed_request", ""},
	{"negative length", postStart + "Content-Length: -2\r\n\r\n{}", false, 400, "malformed_request", ""},
	{"signed length", postStart + "Content-Length: +2\r\n\r\n{}", false, 400, "malformed_request", ""},
	{"huge length", postStart + "Content-Length: 99999999999999999999\r\n\r\n{}", false, 400, "malformed_request", ""},
	{"length and chunked", postStart + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", false, 400, "malformed_request", "Content-Length"},
	{"chunked and length", postStart + "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n", false, 400, "malformed_request", "Content-Length"},
	{"unknown coding", postStart + "Transfer-Encoding: gzip\r\n\r\n{}", false, 400, "malformed_request", ""},
	{"unknown coding, chunked", postStart + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", false, 400, "malformed_request", ""},
	{"chunked twice", postStart + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false, 400, "malformed_request", ""},
	{"identity and length", postStart + "Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\n{}", false, 400, "malformed_request", "Transfer-Encoding"},
	{"chunked in HTTP/1.0", "POST /v1/x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false, 400, "malformed_request", ""},
	{"bad chunk size", postStart + "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", false, 400, "malformed_request", ""},
	{"bad chunk end", postStart + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}XX0\r\n\r\n", false, 400, "malformed_request", ""},
	{"body too short", postStart + "Content-Length: 10\r\n\r\n{}", true, 400, "malformed_request", "before the end of its body"},
	{"chunked cut", postStart + "Transfer-Encoding: chunked\r\n\r\n20\r\n{}", true, 400, "malformed_request", "before the end of its body"},
	{"head cut", postStart + "X-Y:", true, 400, "malformed_request", ""},
	{"asterisk", "OPTIONS * HTTP/1.1\r\nHost: lbd\r\n\r\n", false, 400, "invalid_path", ""},
	{"asterisk POST", "POST * HTTP/1.1\r\nHost: lbd\r\nContent-Length: 0\r\n\r\n", false, 400, "malformed_request", ""},
	{"CONNECT", "CONNECT lbd:80 HTTP/1.1\r\nHost: lbd:80\r\n\r\n", false, 0, "", ""},
	{"space in the target", "GET /v1/a b HTTP/1.1\r\nHost: lbd\r\n\r\n", false, 400, "malformed_request", ""},
	{"control byte in the target", "GET /v1/a\x01b HTTP/1.1\r\nHost: lbd\r\n\r\n", false, 400, "malformed_request", ""},
	{"dot segments", "GET /v1/../sleep HTTP/1.1\r\nHost: lbd\r\n\r\n", false, 400, "invalid_path", "dot segments"},
	{"bad escape", "GET /v1/%zz HTTP/1.1\r\nHost: lbd\r\n\r\n", false, 400, "invalid_path", ""},
	{"long head", "GET /v1/x HTTP/1.1\r\nHost: lbd\r\nX-Long: " + strings.Repeat("x", 40<<10) + "\r\n\r\n", false, 431, "request_head_too_large", "32768"},
	{"endless head", "GET /v1/x HTTP/1.1\r\nHost: lbd\r\n" + strings.Repeat("X-A: 1\r\n", 8<<10), false, 431, "request_head_too_large", "32768"},
	{"long target", "GET /v1/" + strings.Repeat("x", 40<<10) + " HTTP/1.1\r\nHost: lbd\r\n\r\n", false, 431, "request_head_too_large", "32768"},
	{"length above the limit", postStart + "Content-Length: 2000000\r\n\r\n{}", false, 413, "request_too_large", "1048576"},
	{"WebSocket", "GET /v1/realtime HTTP/1.1\r\nHost: lbd\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", false, 501, "not_implemented", "WebSocket"},
}

func TestBadRequests(t *testing.T) {
	r := replica(t, sim.Config{})
	p := lbd(t, []string{r.URL()}, "max-request-body-size", "1MiB")
	for _, test := range badRequests {
		t.Run(test.name, func(t *testing.T) {
			w := dialWire(t, p.Addr().String())
			w.send(test.sent)
			if test.fin {
				w.nc.CloseWrite()
			}
			got := w.answer("POST")
			if got.StatusCode < 400 || got.StatusCode > 505 || (test.status != 0 && got.StatusCode != test.status) {
				t.Fatalf("%s %s; want %d", got.Status, got.body, test.status)
			}
			if id := got.Header["X-Request-Id"]; len(id) != 1 || id[0] == "" {
				t.Errorf("X-Request-Id is %q; want one", id)
			}
			kind, code, message := openAIError(t, got)
			if kind != "invalid_request_error" || (test.code != "" && code != test.code) || !containsFold(message, test.says) {
				t.Errorf("%s %s %q; want %s and %q in it", kind, code, message, test.code, test.says)
			}
			if strings.ContainsAny(message, "\x00\x1b\r\n") {
				t.Errorf("the message holds control bytes: %q", message)
			}
			if !got.Close {
				goodRequest(t, w)
				if test.code == "malformed_request" {
					t.Error("the connection stays although the request was malformed")
				}
			} else if rest := w.closed(); rest != "" {
				t.Errorf("behind the answer came %q", rest)
			}
		})
	}
	for _, q := range r.Requests() {
		if q.RequestID != goodID && q.Path != "/v1/models" {
			t.Errorf("the replica got %s %s %q", q.Method, q.Path, q.Body)
		}
	}
}

func containsFold(s, part string) bool {
	return strings.Contains(strings.ToLower(s), strings.ToLower(part))
}

// A client that sends on and on, in either framing, still gets to read why it is
// refused.
func TestBodyAboveTheLimit(t *testing.T) {
	r := replica(t, sim.Config{})
	p := lbd(t, []string{r.URL()}, "max-request-body-size", "1MiB")
	block := strings.Repeat("x", 64<<10)
	for _, test := range []struct{ name, start, block string }{
		{"length", postStart + "Content-Length: 67108864\r\n\r\n", block},
		{"expected", postStart + "Expect: 100-continue\r\nContent-Length: 67108864\r\n\r\n", block},
		{"chunked", postStart + "Transfer-Encoding: chunked\r\n\r\n", chunk(block)},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := dialWire(t, p.Addr().String())
			sent := make(chan int)
			go func() {
				n := 0
				defer func() { sent <- n }()
				for part := test.start; n < 32<<20; part = test.block {
					m, err := io.WriteString(w.nc, part)
					if n += m; err != nil {
						return
					}
				}
			}()
			got := w.head("POST")
			if got.StatusCode == http.StatusContinue {
				got = w.head("POST")
			}
			body, err := io.ReadAll(got.Body)
			if got.StatusCode != 413 || err != nil || !got.Close {
				t.Fatalf("%s %v %s", got.Status, err, body)
			}
			if _, code, message := errorOf(t, got.Header.Get("Content-Type"), string(body)); code != "request_too_large" || !strings.Contains(message, "1048576") {
				t.Errorf("%s %q", code, message)
			}
			w.nc.Close()
			<-sent
		})
	}
	untouched(t, r, 0)
}

// The limit itself is allowed.
func TestBodyAtTheLimit(t *testing.T) {
	f := fakeReplica(t, echo)
	p := lbd(t, []string{f.url()}, "max-request-body-size", "1MiB")
	w := p.dial()
	for i, framing := range []string{"length", "chunked", "Expect"} {
		sendFramed(w, framing, padded(1<<20))
		if a := w.answer("POST"); a.StatusCode != 200 || len(f.received()[i]) != 1<<20 {
			t.Errorf("%s: %s %s", framing, a.Status, a.body)
		}
	}
}

// A request that does not arrive in time is answered, an idle connection just
// closed.
func TestRequestTimeout(t *testing.T) {
	r := replica(t, sim.Config{})
	p := lbd(t, []string{r.URL()}, "client-read-timeout", "600ms", "client-idle-timeout", "600ms")
	for name, part := range map[string]string{"in the head": "POST /v1/x HT", "in the body": postStart + "Content-Length: 10\r\n\r\n{"} {
		t.Run(name, func(t *testing.T) {
			w := dialWire(t, p.Addr().String())
			w.send(part)
			got := w.answer("POST")
			if _, code, _ := openAIError(t, got); got.StatusCode != 408 || code != "request_timeout" {
				t.Errorf("%s %s", got.Status, code)
			}
			if rest := w.closed(); rest != "" {
				t.Errorf("behind the answer came %q", rest)
			}
		})
	}
	t.Run("idle", func(t *testing.T) {
		w := dialWire(t, p.Addr().String())
		goodRequest(t, w)
		if rest := w.closed(); rest != "" {
			t.Errorf("an idle connection got %q", rest)
		}
	})
	untouched(t, r, 1)
}

// A client that ends between two chunks has not sent a request; fasthttp closes
// without an answer.
func TestBodyWithoutLastChunk(t *testing.T) {
	r := replica(t, sim.Config{})
	p := lbd(t, []string{r.URL()})
	w := p.dial()
	w.send(postStart + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n")
	w.nc.CloseWrite()
	if got := w.closed(); got != "" {
		t.Errorf("got %q", got)
	}
	untouched(t, r, 0)
}

// A body that names nothing goes to the only model there is.
func TestOnlyModel(t *testing.T) {
	f := fakeReplica(t, echo)
	p := lbd(t, []string{f.url()})
	w := p.dial()
	for i, body := range []string{`{}`, `{"x":1}`, ``, `{"model":null}`} {
		w.sendPost("/v1/x", body)
		if a := w.answer("POST"); a.StatusCode != 200 || f.received()[i] != body {
			t.Errorf("%q: %s %s", body, a.Status, a.body)
		}
	}
	w.send("GET /v1/responses/resp_1 HTTP/1.1\r\nHost: lbd\r\n\r\n")
	if a := w.answer("GET"); a.StatusCode != 200 {
		t.Errorf("%s %s", a.Status, a.body)
	}
}

// What clients get wrong shows in lbd's own metrics, under a model name that
// cannot be chosen by them.
func TestBadRequestsAreCounted(t *testing.T) {
	p := lbd(t, []string{replica(t, sim.Config{}).URL()})
	w := p.dial()
	w.sendPost("/v1/x", `{"model":"invented"}`)
	w.answer("POST")
	w.send("GARBAGE\r\n\r\n")
	w.closed()
	for _, code := range []int{404, 400} {
		series := fmt.Sprintf(`lbd_requests_total{code="%d",model="other"}`, code)
		p.counted(series, "1")
	}
	// A connection that only opens and resets, as a TCP health check does, is no
	// request.
	p.dial().reset()
	late := p.dial()
	late.send("POST /v1/x HTTP/1.1\r\n")
	late.reset()
	goodRequest(t, p.dial())
	p.until("all counted", func() bool { return p.metric(`lbd_requests_total{code="200",model="`+llama+`"}`) == "1" })
	if got := p.metric(`lbd_requests_total{code="400",model="other"}`); got != "1" {
		t.Errorf("a reset connection was counted as a bad request: %s", got)
	}
}
