package daemon_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lbd/access/certs"
	"lbd/access/certs/certstest"
	"lbd/access/keys"
	"lbd/bench/sim"
)

// Keys of clients, of the replicas and of the operator in the tests below.
const (
	aliceKey    = "lbd-alice-marker-0123456789"
	bobKey      = "lbd-bob-marker-0123456789"
	upstreamKey = "upstream-marker-0123456789"
	adminToken  = "admin-token-marker-0123456789"
)

// keyFile writes the lines of clients: name, key, limits.
func keyFile(t *testing.T, clients ...[3]string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "keys.txt")
	writeKeys(t, path, clients...)
	return path
}

func writeKeys(t *testing.T, path string, clients ...[3]string) {
	t.Helper()
	text := "# clients\n"
	for _, c := range clients {
		text += c[0] + " " + keys.DigestOf(c[1]).String() + " " + c[2] + "\n"
	}
	write(t, path, text)
}

func bearer(key string) []string { return []string{"Authorization", "Bearer " + key} }

// wantError checks the shape of an answer of access control.
func wantError(t *testing.T, a answer, status int, code string) {
	t.Helper()
	var e struct {
		Error struct {
			Message, Type, Code string
			Param               *string
		}
	}
	if err := json.Unmarshal([]byte(a.body), &e); err != nil || a.status != status || e.Error.Code != code || e.Error.Type == "" || e.Error.Message == "" {
		t.Errorf("%d %s, %v; want %d %s", a.status, a.body, err, status, code)
	}
	if status == 401 && a.header.Get("WWW-Authenticate") != "Bearer" {
		t.Errorf("401 without WWW-Authenticate: %v", a.header)
	}
	if status == 429 && a.header.Get("Retry-After") == "" {
		t.Errorf("429 without Retry-After: %v", a.header)
	}
}

// Only holders of a key get in, everywhere but on the pages that say whether lbd is
// well, and in OpenAI's and Anthropic's way of sending it.
func TestOnlyHoldersOfAKeyGetIn(t *testing.T) {
	r := replica(t, sim.Config{})
	p := lbd(t, urls(r), "api-keys-file", keyFile(t, [3]string{"alice", aliceKey, ""}))
	paths := []string{"/v1/chat/completions", "/v1/completions", "/tokenize", "/v1/models", "/v1/models/" + llama, "/sleep", "/nowhere", "/health/", "//health", "/%68ealth", "/"}
	for _, path := range paths {
		for _, header := range [][]string{nil, bearer("nobody-has-this-key-0123"), {"X-Api-Key", "nobody-has-this-key-0123"}, {"Authorization", "Basic eDp5"}, {"Authorization", aliceKey}} {
			code := "missing_api_key"
			if len(header) > 0 && strings.Contains(header[1], "nobody") {
				code = "invalid_api_key"
			}
			wantError(t, p.post(path, chat(llama, false, 1), header...), 401, code)
		}
	}
	for _, header := range [][]string{bearer(aliceKey), {"authorization", "bearer " + aliceKey}, {"X-Api-Key", aliceKey}, {"x-api-key", aliceKey, "Authorization", "Bearer " + aliceKey}} {
		if a := p.post("/v1/chat/completions", chat(llama, false, 1), header...); a.status != 200 {
			t.Errorf("%q: %d %s", header, a.status, a.body)
		}
	}
	wantError(t, p.post("/v1/chat/completions", chat(llama, false, 1), "X-Api-Key", bobKey, "Authorization", "Bearer "+aliceKey), 401, "invalid_api_key")
	for _, path := range []string{"/health", "/ready", "/version", "/metrics"} {
		if a := p.get(path); a.status != 200 {
			t.Errorf("%s without a key: %d", path, a.status)
		}
	}
	for _, q := range r.Requests() {
		if strings.HasPrefix(q.Path, "/v1/chat") && (q.Header.Get("Authorization") != "" || q.Header.Get("X-Api-Key") != "") {
			t.Errorf("the replica got %v", q.Header)
		}
	}
	if got := p.metric(`lbd_key_rejected_total{key="none",reason="missing_key"}`); got == "" || got == "0" {
		t.Errorf("lbd_key_rejected_total: %q", got)
	}
	p.counted(`lbd_key_requests_total{key="alice"}`, "4")
}

// Who has no key cannot make lbd hold a body: the answer comes before it is sent.
func TestRefusedBeforeTheBody(t *testing.T) {
	r := replica(t, sim.Config{})
	p := lbd(t, urls(r), "api-keys-file", keyFile(t, [3]string{"alice", aliceKey, ""}))
	c := dial(p)
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	fmt.Fprint(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n")
	b := make([]byte, 12)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "HTTP/1.1 401" {
		t.Errorf("%q %v; want 401 without 100 Continue", b, err)
	}
}

func TestModelsOfAKey(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{Model: qwen})
	p := lbd(t, urls(a, b), "api-keys-file", keyFile(t, [3]string{"alice", aliceKey, "models=Qwen/*"}, [3]string{"bob", bobKey, ""}))
	if got := p.post("/v1/chat/completions", chat(qwen, false, 1), bearer(aliceKey)...); got.status != 200 {
		t.Errorf("an allowed model: %d %s", got.status, got.body)
	}
	wantError(t, p.post("/v1/chat/completions", chat(llama, false, 1), bearer(aliceKey)...), 403, "model_not_allowed")
	unknown := p.post("/v1/chat/completions", chat("unknown", false, 1), bearer(aliceKey)...)
	wantError(t, unknown, 404, "model_not_found")
	if strings.Contains(unknown.body, "llama") {
		t.Errorf("a model that the client may not use is told: %s", unknown.body)
	}
	if got := p.get("/v1/models", bearer(aliceKey)...); strings.Contains(got.body, llama) || !strings.Contains(got.body, qwen) {
		t.Errorf("models of alice: %s", got.body)
	}
	if got := p.get("/v1/models/"+llama, bearer(aliceKey)...); got.status != 404 || strings.Contains(got.body, "Served here: "+llama) {
		t.Errorf("a model of others: %d %s", got.status, got.body)
	}
	if got := p.get("/v1/models/"+qwen, bearer(aliceKey)...); got.status != 200 {
		t.Errorf("her own: %d", got.status)
	}
	if got := p.get("/v1/models", bearer(bobKey)...); !strings.Contains(got.body, llama) || !strings.Contains(got.body, qwen) {
		t.Errorf("models of bob: %s", got.body)
	}
	for _, q := range a.Requests() {
		if q.Method == "POST" {
			t.Errorf("the replica of another model got %s", q.Path)
		}
	}
}

// Limits are heard of as 429, cost the replica nothing, and end with the requests
// that reached them.
// Who has made no key yet is told why everybody is refused.
func TestNobodyHasAKey(t *testing.T) {
	const warning = "no client has a key, so all are refused"
	file := keyFile(t)
	p := lbd(t, urls(replica(t, sim.Config{})), "api-keys-file", file)
	if !strings.Contains(p.log.String(), warning) {
		t.Errorf("no %q in\n%s", warning, p.log.String())
	}
	other := lbd(t, urls(replica(t, sim.Config{})), "api-keys-file", keyFile(t, [3]string{"alice", aliceKey, ""}))
	if strings.Contains(other.log.String(), warning) {
		t.Errorf("%q though there is a key", warning)
	}
}

func TestLimitsOfAKey(t *testing.T) {
	r := replica(t, sim.Config{})
	file := keyFile(t, [3]string{"alice", aliceKey, "max_in_flight=1"}, [3]string{"bob", bobKey, "requests_per_minute=2"},
		[3]string{"carol", "lbd-carol-marker-0123456789", "tokens_per_minute=60"})
	p := lbd(t, urls(r), "api-keys-file", file)
	hold(t, r)
	ctx, leave := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, "POST", p.url+"/v1/chat/completions", strings.NewReader(chat(llama, true, longStream)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Api-Key", aliceKey)
	req.Header.Set("Content-Type", "application/json")
	resp, err := p.http.Do(req)
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	wantError(t, p.post("/v1/chat/completions", chat(llama, false, 1), bearer(aliceKey)...), 429, "rate_limit_exceeded")
	leave()
	resp.Body.Close()
	letGo(t, r)
	p.until("the place of a client that left is free", func() bool {
		return p.post("/v1/chat/completions", chat(llama, false, 1), bearer(aliceKey)...).status == 200
	})
	for i, want := range []int{200, 200, 429, 429} {
		if got := p.post("/v1/chat/completions", chat(llama, false, 1), bearer(bobKey)...); got.status != want {
			t.Errorf("request %d of bob: %d; want %d", i, got.status, want)
		}
	}
	carol := bearer("lbd-carol-marker-0123456789")
	if got := p.post("/v1/chat/completions", chat(llama, false, 100), carol...); got.status != 200 {
		t.Fatalf("carol: %d %s", got.status, got.body)
	}
	got := p.post("/v1/chat/completions", chat(llama, false, 1), carol...)
	wantError(t, got, 429, "rate_limit_exceeded")
	if s := got.header.Get("Retry-After"); len(s) < 2 { // 100 tokens at 60 a minute: most of a minute's debt
		t.Errorf("carol owes forty tokens and more; Retry-After %q", s)
	}
	if spent := p.metric(`lbd_key_tokens_total{key="carol"}`); len(spent) < 3 {
		t.Errorf("tokens of carol: %q; want those of usage", spent)
	}
	p.counted(`lbd_key_inflight_requests{key="alice"}`, "0")
}

// The line of a request that a key's limits or models refuse says whose it was.
func TestRefusedKeyIsLogged(t *testing.T) {
	file := keyFile(t, [3]string{"alice", aliceKey, "models=other/*"}, [3]string{"bob", bobKey, "requests_per_minute=1"})
	p := lbd(t, urls(replica(t, sim.Config{})), "api-keys-file", file, "access-log", "true")
	for _, c := range []struct{ key, name, model, code string }{
		{aliceKey, "alice", llama, "model_not_allowed"}, {aliceKey, "alice", "nobody", "model_not_found"},
		{bobKey, "bob", llama, ""}, {bobKey, "bob", llama, "rate_limit_exceeded"},
	} {
		p.post("/v1/chat/completions", chat(c.model, false, 1), append(bearer(c.key), "X-Request-Id", c.name+c.code)...)
		line := p.logged(`"request_id":"` + c.name + c.code + `"`)
		if !strings.Contains(line, `"key":"`+c.name+`"`) || c.code != "" && !strings.Contains(line, `"error":"`+c.code+`"`) {
			t.Errorf("%s; want the key %s and the error %q", line, c.name, c.code)
		}
	}
	p.counted(`lbd_key_inflight_requests{key="alice"}`, "0")
	p.counted(`lbd_key_inflight_requests{key="bob"}`, "0")
	p.counted(`lbd_key_requests_total{key="bob"}`, "1")
}

// A reload takes keys away and adds others; a stream that runs under a key that is
// gone goes on.
func TestKeysAreReloaded(t *testing.T) {
	r := replica(t, sim.Config{})
	file := keyFile(t, [3]string{"alice", aliceKey, ""})
	p := lbd(t, urls(r), "api-keys-file", file, "admin-token", adminToken)
	req, err := http.NewRequest("POST", p.url+"/v1/chat/completions", strings.NewReader(chat(llama, true, 40)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+aliceKey)
	req.Header.Set("Content-Type", "application/json")
	resp, err := p.http.Do(req)
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	defer resp.Body.Close()
	writeKeys(t, file, [3]string{"bob", bobKey, ""})
	if err := p.Reload(); err != nil {
		t.Fatal(err)
	}
	wantError(t, p.post("/v1/chat/completions", chat(llama, false, 1), bearer(aliceKey)...), 401, "invalid_api_key")
	if got := p.post("/v1/chat/completions", chat(llama, false, 1), bearer(bobKey)...); got.status != 200 {
		t.Errorf("the new key: %d", got.status)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(body), "[DONE]") {
		t.Errorf("the stream of a key that is gone: %v, ends in %.40q", err, string(body)[max(0, len(body)-40):])
	}
	write(t, file, "alice "+aliceKey+"\n")
	if err := p.Reload(); err == nil || strings.Contains(err.Error(), aliceKey) {
		t.Errorf("a key in plain text is taken, or told: %v", err)
	}
	if got := p.post("/v1/chat/completions", chat(llama, false, 1), bearer(bobKey)...); got.status != 200 {
		t.Errorf("after a reload that failed: %d", got.status)
	}
}

// What replicas are sent in place of what clients send, in every combination.
func TestClientsKeysAndReplicasKeys(t *testing.T) {
	for _, c := range []struct {
		keys, upstream bool
		want           string
	}{
		{false, false, "Bearer " + aliceKey}, {true, false, ""}, {false, true, "Bearer " + upstreamKey}, {true, true, "Bearer " + upstreamKey},
	} {
		r := replica(t, sim.Config{})
		var settings []string
		if c.keys {
			settings = append(settings, "api-keys-file", keyFile(t, [3]string{"alice", aliceKey, ""}))
		}
		if c.upstream {
			settings = append(settings, "upstream-api-key", upstreamKey)
		}
		p := lbd(t, urls(r), settings...)
		if a := p.post("/v1/chat/completions", chat(llama, false, 1), bearer(aliceKey)...); a.status != 200 {
			t.Fatalf("%+v: %d", c, a.status)
		}
		seen := 0
		for _, q := range r.Requests() {
			if strings.HasPrefix(q.Path, "/v1/chat") {
				seen++
				if got := q.Header.Values("Authorization"); strings.Join(got, "|") != c.want {
					t.Errorf("%+v: the replica got %q; want %q", c, got, c.want)
				}
			}
		}
		if seen != 1 {
			t.Errorf("%+v: %d requests arrived", c, seen)
		}
	}
}

func TestMetricsAccess(t *testing.T) {
	r := replica(t, sim.Config{})
	file := keyFile(t, [3]string{"alice", aliceKey, ""})
	for access, want := range map[string][2]int{"open": {200, 200}, "key": {401, 200}, "off": {404, 404}} {
		p := lbd(t, urls(r), "api-keys-file", file, "metrics-access", access)
		if got := [2]int{p.get("/metrics").status, p.get("/metrics", bearer(aliceKey)...).status}; got != want {
			t.Errorf("%s: %v without and with a key; want %v", access, got, want)
		}
		if got := p.onAdmin("GET", "/metrics", ""); got.status != 200 {
			t.Errorf("%s: %d on the admin listener", access, got.status)
		}
	}
}

// Preflights are answered without a key and without a replica, and answers carry the
// origin that asked.
func TestCORS(t *testing.T) {
	const page, evil = "https://chat.example.org", "https://evil.example"
	r := replica(t, sim.Config{})
	p := lbd(t, urls(r), "cors-allowed-origins", page, "api-keys-file", keyFile(t, [3]string{"alice", aliceKey, ""}))
	pre := func(origin string) answer {
		return p.do("OPTIONS", "/v1/chat/completions", "", "Origin", origin, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization,content-type")
	}
	a := pre(page)
	if h := a.header; a.status != 204 || h.Get("Access-Control-Allow-Origin") != page || !strings.Contains(h.Get("Access-Control-Allow-Methods"), "POST") ||
		h.Get("Access-Control-Allow-Headers") != "authorization,content-type" || h.Get("Vary") != "Origin" {
		t.Errorf("preflight: %d %v", a.status, h)
	}
	if h := pre(evil).header; h.Get("Access-Control-Allow-Origin") != "" || h.Get("Vary") != "Origin" {
		t.Errorf("preflight of another page: %v", h)
	}
	for _, c := range []struct {
		origin, want string
		header       []string
		status       int
	}{
		{page, page, bearer(aliceKey), 200}, {evil, "", bearer(aliceKey), 200}, {page, page, nil, 401}, {"", "", bearer(aliceKey), 200},
	} {
		header := c.header
		if c.origin != "" {
			header = append([]string{"Origin", c.origin}, header...)
		}
		for _, stream := range []bool{false, true} {
			a := p.post("/v1/chat/completions", chat(llama, stream, 2), header...)
			if got := strings.Join(a.header.Values("Access-Control-Allow-Origin"), "|"); got != c.want || a.status != c.status {
				t.Errorf("%+v: %d, allowed %q", c, a.status, got)
			}
		}
	}
	if n := r.Stats().ByPath["/v1/chat/completions"]; n != 6 {
		t.Errorf("%d requests reached the replica; want 6, and no preflight", n)
	}
}

// allowsAll is a replica that sends the fields of vLLM's CORS middleware on /v1/x.
func allowsAll(c *fakeConn) {
	body := c.body()
	fields := ""
	if strings.Contains(c.head, " /v1/x ") {
		fields = "access-control-allow-origin: *\r\naccess-control-allow-credentials: true\r\n"
	}
	c.keep = true
	if strings.Contains(body, `"stream":true`) {
		c.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n" + fields + "\r\ne\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
		return
	}
	c.send("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n" + fields + "\r\n{}")
}

// corsFields are those of an answer that browsers go by.
func corsFields(h http.Header) (fields []string) {
	for name, values := range h {
		if strings.HasPrefix(name, "Access-Control-") || name == "Vary" {
			fields = append(fields, name+": "+strings.Join(values, "|"))
		}
	}
	slices.Sort(fields)
	return fields
}

// Without origins lbd has no say: it adds nothing to any answer, drops nothing of a
// replica's, and a preflight is a request like another.
func TestCORSOff(t *testing.T) {
	const page = "https://chat.example.org"
	f := fakeReplica(t, allowsAll)
	p := lbd(t, []string{f.url()}, quiet...)
	locked := lbd(t, []string{f.url()}, append([]string{"api-keys-file", keyFile(t, [3]string{"alice", aliceKey, ""})}, quiet...)...)
	preflight := []string{"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization"}
	theirs := []string{"Access-Control-Allow-Credentials: true", "Access-Control-Allow-Origin: *"}
	for _, c := range []struct {
		name, method, path, body string
		p                        *proxied
		header                   []string
		status                   int
		want                     []string
	}{
		{"own page", "GET", "/health", "", p, nil, 200, nil},
		{"list of models", "GET", "/v1/models", "", p, nil, 200, nil},
		{"relayed", "POST", "/v1/y", "{}", p, nil, 200, nil},
		{"relayed stream", "POST", "/v1/y", `{"stream":true}`, p, nil, 200, nil},
		{"relayed with the replica's fields", "POST", "/v1/x", "{}", p, nil, 200, theirs},
		{"relayed stream with the replica's fields", "POST", "/v1/x", `{"stream":true}`, p, nil, 200, theirs},
		{"unknown model", "POST", "/v1/x", `{"model":"nobody"}`, p, nil, 404, nil},
		{"not JSON", "POST", "/v1/x", "{", p, nil, 400, nil},
		{"unknown path", "GET", "/nothing", "", p, nil, 404, nil},
		{"control path", "POST", "/sleep", "", p, nil, 403, nil},
		{"no key", "POST", "/v1/x", "{}", locked, nil, 401, nil},
		{"preflight", "OPTIONS", "/v1/y", "", p, preflight, 200, nil},
		{"preflight with the replica's fields", "OPTIONS", "/v1/x", "", p, preflight, 200, theirs},
		{"preflight of an own page", "OPTIONS", "/health", "", p, preflight, 405, nil},
		{"preflight without a key", "OPTIONS", "/v1/x", "", locked, preflight, 401, nil},
	} {
		before := len(f.requests())
		a := c.p.do(c.method, c.path, c.body, append([]string{"Origin", page}, c.header...)...)
		if got := corsFields(a.header); a.status != c.status || !slices.Equal(got, c.want) {
			t.Errorf("%s: %d %q; want %d %q", c.name, a.status, got, c.status, c.want)
		}
		relayed := c.status == 200 && c.path != "/health" && c.path != "/v1/models"
		if n := len(f.requests()) - before; n > 1 || relayed != (n == 1) {
			t.Errorf("%s: the replica got %d requests", c.name, n)
		}
	}
	w := p.dial()
	w.send("GET /v1/y HTTP/1.1\r\nHost: lbd\r\nOrigin: " + page + "\r\nContent-Length: x\r\n\r\n")
	if a := w.answer("GET"); a.StatusCode != 400 || corsFields(a.Header) != nil {
		t.Errorf("malformed: %s %q", a.Status, corsFields(a.Header))
	}
}

// With origins, or with none at all, a replica's fields reach nobody.
func TestCORSIsNotTheReplicas(t *testing.T) {
	const page = "https://chat.example.org"
	for origins, want := range map[string]string{page: page, "https://other.example": "", "none": "", "*": "*"} {
		f := fakeReplica(t, allowsAll)
		p := lbd(t, []string{f.url()}, append([]string{"cors-allowed-origins", origins}, quiet...)...)
		for _, body := range []string{"{}", `{"stream":true}`} {
			a := p.post("/v1/x", body, "Origin", page)
			if got := strings.Join(a.header.Values("Access-Control-Allow-Origin"), "|"); a.status != 200 || got != want || a.header.Get("Access-Control-Allow-Credentials") != "" {
				t.Errorf("%s: %d %q; want %q", origins, a.status, corsFields(a.header), want)
			}
		}
	}
}

// Replicas are told what lbd saw, and a client's own word only if it is a known proxy.
func TestForwardedHeaders(t *testing.T) {
	lie := []string{"X-Forwarded-For", "6.6.6.6", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "evil.example", "Forwarded", "for=6.6.6.6", "X-Real-Ip", "6.6.6.6"}
	for _, c := range []struct {
		settings []string
		want     string
	}{
		{nil, "127.0.0.1 http HOST - -"},
		{[]string{"trusted-proxies", "127.0.0.0/8"}, "6.6.6.6, 127.0.0.1 https evil.example for=6.6.6.6 6.6.6.6"},
		{[]string{"forwarded-headers", "pass"}, "6.6.6.6 https evil.example for=6.6.6.6 6.6.6.6"},
		{[]string{"forwarded-headers", "drop"}, "- - - - -"},
	} {
		r := replica(t, sim.Config{})
		p := lbd(t, urls(r), c.settings...)
		if a := p.post("/v1/chat/completions", chat(llama, false, 1), lie...); a.status != 200 {
			t.Errorf("%q: %d %s", c.settings, a.status, a.body)
		}
		arrived := 0
		want := strings.Replace(c.want, "HOST", p.Addr().String(), 1)
		for _, q := range r.Requests() {
			if !strings.HasPrefix(q.Path, "/v1/chat") {
				continue
			}
			arrived++
			var got []string
			for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "X-Real-Ip"} {
				v := strings.Join(q.Header.Values(name), "|")
				if v == "" {
					v = "-"
				}
				got = append(got, v)
			}
			if g := strings.Join(got, " "); g != want {
				t.Errorf("%q: %s; want %s", c.settings, g, want)
			}
		}
		if arrived != 1 {
			t.Errorf("%q: %d requests arrived", c.settings, arrived)
		}
	}
}

// The data plane in TLS on both sides: whole answers, streams, reuse, errors, and a
// certificate that is renewed under way.
func TestDataPlaneInTLS(t *testing.T) {
	ca := certstest.New(t, "ca")
	server, mine := ca.Write(t, t.TempDir(), "127.0.0.1"), ca.Write(t, t.TempDir(), "127.0.0.1")
	r := replica(t, sim.Config{})
	addr := front(t, r, certs.Files{Cert: server.Cert, Key: server.Key, CA: server.CA})
	p := lbd(t, []string{"https://" + addr}, "upstream-tls-ca-file", mine.CA, "upstream-tls-cert-file", mine.Cert, "upstream-tls-key-file", mine.Key,
		"tls-cert-file", mine.Cert, "tls-key-file", mine.Key)
	c := p.over(&tls.Config{RootCAs: ca.Pool()})
	c.http.Transport.(*http.Transport).DisableKeepAlives = false
	t.Cleanup(c.http.CloseIdleConnections)
	for range 20 {
		if a := c.post("/v1/chat/completions", chat(llama, false, 3)); a.status != 200 || a.err != nil || !strings.Contains(a.body, `"choices"`) {
			t.Fatalf("%d %v %s", a.status, a.err, a.body)
		}
	}
	if a := c.post("/v1/chat/completions", chat(llama, true, 50)); a.status != 200 || a.err != nil || !strings.HasSuffix(a.body, "data: [DONE]\n\n") {
		t.Errorf("stream: %d %v %.80q", a.status, a.err, a.body)
	}
	large := strings.Repeat("x ", 1<<20)
	if a := c.post("/v1/completions", fmt.Sprintf(`{"model":%q,"max_tokens":1,"prompt":%q}`, llama, large)); a.err != nil || a.status == 502 {
		t.Errorf("a large body: %d %v %.200s", a.status, a.err, a.body)
	}
	time.Sleep(2 * time.Second) // the connection is parked by now: nobody waits for it
	if a := c.get("/v1/models"); a.status != 200 {
		t.Errorf("a page of lbd's own: %d", a.status)
	}
	before := shownBy(t, p.Addr().String(), ca)
	ca.Write(t, filepath.Dir(mine.Cert), "127.0.0.1")
	p.until("the renewed certificate is shown", func() bool { return shownBy(t, p.Addr().String(), ca) != before })
	if a := c.post("/v1/chat/completions", chat(llama, false, 3)); a.status != 200 {
		t.Errorf("after the renewal: %d %v", a.status, a.err)
	}
	for _, q := range r.Requests() {
		if v := q.Header.Get("X-Forwarded-Proto"); strings.HasPrefix(q.Path, "/v1/chat") && v != "https" {
			t.Errorf("X-Forwarded-Proto %q", v)
		}
	}
}

// Whoever sends HTTP in plain text to a listener in TLS is told so, and gets nothing else;
// what is neither is not answered.
func TestPlainTextWhereTLSIsSpoken(t *testing.T) {
	ca := certstest.New(t, "ca")
	mine := ca.Write(t, t.TempDir(), "127.0.0.1")
	r := replica(t, sim.Config{})
	p := lbd(t, []string{r.URL()}, "tls-cert-file", mine.Cert, "tls-key-file", mine.Key)
	asked := len(r.Requests())
	for _, size := range []int{0, 4 << 20} { // and what is not read does not reset the answer
		w := p.dial()
		go w.sendPost("/v1/completions", strings.Repeat("x", size))
		a := w.answer("POST")
		if _, _, message := openAIError(t, a); a.StatusCode != 400 || !strings.Contains(message, "https") || a.Header.Get("X-Request-Id") == "" {
			t.Errorf("%d bytes: %s %v %s", size, a.Status, a.Header, a.body)
		}
		if rest, err := io.ReadAll(w.br); len(rest) > 0 {
			t.Errorf("and then %q, %v", rest, err)
		}
	}
	for _, says := range []string{"SSH-2.0-OpenSSH_9.6\r\n", "\x16\x03\x01\x00\x05hello"} {
		w := p.dial()
		w.send(says)
		rest, _ := io.ReadAll(w.br)
		if strings.Contains(string(rest), "HTTP") {
			t.Errorf("%q is answered %q", says, rest)
		}
	}
	for _, q := range r.Requests()[asked:] {
		if q.Path == "/v1/completions" {
			t.Error("a request in plain text reached the replica")
		}
	}
}

// A client in TLS that leaves takes its request with it.
func TestClientInTLSLeaves(t *testing.T) {
	ca := certstest.New(t, "ca")
	server, mine := ca.Write(t, t.TempDir(), "127.0.0.1"), ca.Write(t, t.TempDir(), "127.0.0.1")
	r := replica(t, sim.Config{})
	addr := front(t, r, certs.Files{Cert: server.Cert, Key: server.Key})
	p := lbd(t, []string{"https://" + addr}, "upstream-tls-ca-file", mine.CA, "tls-cert-file", mine.Cert, "tls-key-file", mine.Key)
	c := p.over(&tls.Config{RootCAs: ca.Pool()})
	ctx, leave := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, "POST", c.url+"/v1/chat/completions", strings.NewReader(chat(llama, true, longStream)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	io.ReadFull(resp.Body, make([]byte, 20))
	leave()
	resp.Body.Close()
	p.until("own load is back at zero", func() bool { return p.Snapshot().Replica(addr).InFlight() == 0 })
	p.until("the replica has stopped", func() bool { return r.Stats().InFlight == 0 })
}

// No prompt, key or token is in anything that lbd writes: the log at its chattiest,
// metrics, pages of both listeners and errors, with access control and TLS on, while
// things go wrong.
func TestNothingWrittenHoldsASecret(t *testing.T) {
	ca := certstest.New(t, "ca")
	mine := ca.Write(t, t.TempDir(), "127.0.0.1")
	r := replica(t, sim.Config{})
	file := keyFile(t, [3]string{"alice", aliceKey, "max_in_flight=5 requests_per_minute=1000 tokens_per_minute=100000000"}, [3]string{"bob", bobKey, "models=none-of-these requests_per_minute=1"})
	p := lbd(t, urls(r), "log-level", "trace", "access-log", "true", "api-keys-file", file, "upstream-api-key", upstreamKey, "admin-token", adminToken,
		"admin-tls-cert-file", mine.Cert, "admin-tls-key-file", mine.Key, "cors-allowed-origins", "https://chat.example.org")
	admin := p.admin(&tls.Config{RootCAs: ca.Pool()})
	var seen strings.Builder
	note := func(a answer) {
		seen.WriteString(a.body)
		for name, values := range a.header {
			seen.WriteString(name + ": " + strings.Join(values, " ") + "\n")
		}
	}
	prompt := fmt.Sprintf(`{"model":%q,"max_tokens":4,"messages":[{"role":"user","content":%q}]}`, llama, secretPrompt)
	for _, key := range []string{aliceKey, bobKey, "unknown-marker-0123456789", ""} {
		for _, f := range []sim.Faults{{}, {Status: &sim.Fault{Count: 1}}, {ResetBefore: &sim.Fault{Count: 1}}, {BadHead: &sim.Fault{Count: 1}}} {
			fault(t, r, f)
			note(p.post("/v1/chat/completions?key="+secretQuery, prompt, "Authorization", "Bearer "+key, "Cookie", "c="+secretKey))
			note(p.post("/v1/chat/completions", strings.Replace(prompt, llama, "unknown", 1), "X-Api-Key", key))
			note(p.post("/nowhere", secretPrompt, "X-Api-Key", key))
		}
		malformed(p, "POST / HTTP/1.1\r\nHost: x\r\nAuthorization Bearer "+key+"\r\n\r\n")
		for _, path := range []string{"/fleet", "/config", "/metrics", "/debug/pprof/goroutine?debug=2", "/debug/pprof/heap?debug=1", "/debug/vars", "/debug/pprof/cmdline"} {
			note(admin.get(path, "Authorization", "Bearer "+adminToken))
			note(admin.get(path, "Authorization", "Bearer "+key))
		}
		note(admin.do("POST", "/pick", prompt, "Authorization", "Bearer "+adminToken))
		note(admin.do("POST", "/fleet/reset_prefix_cache?key="+secretQuery, secretPrompt, "Authorization", "Bearer "+adminToken))
		note(admin.do("POST", "/reload", "", "Authorization", "Bearer "+adminToken))
	}
	write(t, file, "alice "+aliceKey+"\n"+bobKey+"\n")
	note(admin.do("POST", "/reload", "", "Authorization", "Bearer "+adminToken))
	note(p.get("/metrics"))
	note(p.get("/health"))
	printed, err := json.Marshal(load(t, urls(r), "upstream-api-key", upstreamKey, "admin-token", adminToken, "api-keys", "x "+aliceKey))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{"an answer": seen.String(), "the log": p.log.String(), "the configuration": string(printed)}
	for what, text := range all {
		for _, secret := range []string{aliceKey, bobKey, upstreamKey, adminToken, "unknown-marker", secretPrompt, secretQuery, secretKey, keys.DigestOf(aliceKey).String()[7:]} {
			if i := strings.Index(text, secret); i >= 0 {
				t.Errorf("%q is in %s: ...%s", secret, what, text[max(0, i-300):i+len(secret)])
			}
		}
	}
	if !strings.Contains(p.log.String(), `"key":"alice"`) || !strings.Contains(seen.String(), `key="alice"`) || len(p.log.logged("request")) < 20 {
		t.Error("the name of the client is neither logged nor counted, or nothing happened: this proves nothing")
	}
}
