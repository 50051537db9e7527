package daemon_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lbd/bench/sim"
)

// relayedPaths are those of DESIGN 4.3: whatever is below /v1/, and vLLM's
// model-carrying paths elsewhere.
var relayedPaths = []string{
	"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/score", "/v1/rerank", "/v1/responses", "/v1/messages",
	"/v1/audio/transcriptions", "/v1/responses/resp_1/cancel", "/v1/something/new", "/v1/chat/completions/", "/v1/chat/completions?x=/sleep",
	"/v1/chat/completions/batch", "/v1/", "/v1/files/a%20b", "/v1//chat", "/v1/sleep", "/v1/x/metrics",
	"/tokenize", "/detokenize", "/score", "/rerank", "/v2/rerank", "/v2/embed", "/pooling", "/classify", "/invocations",
	"/inference/v1/generate", "/cohere/v2/chat", "/generative_scoring",
}

// controlPaths act on one replica, however they are spelled.
var controlPaths = []string{
	"/sleep", "/sleep?level=1", "/wake_up", "/is_sleeping", "/pause", "/resume", "/is_paused", "/start_profile", "/stop_profile",
	"/reset_prefix_cache", "/reset_mm_cache", "/reset_encoder_cache", "/collective_rpc", "/server_info", "/load", "/tokenizer_info",
	"/scale_elastic_ep", "/is_scaling_elastic_ep", "/abort_requests", "/v1/load_lora_adapter", "/v1/unload_lora_adapter",
	"/fault_tolerance/status", "/metrics/", "/sleep/", "/sleep//", "/v1/load_lora_adapter/", "/v1/load_lora_adapter?x=1",
	"/%73leep", "/v1/load%5Flora_adapter", "/v1%2Fload_lora_adapter", "/v1/load_lora_adapter%2F", "http://other/sleep", "http://other/v1/load_lora_adapter",
	"//sleep", "//v1//load_lora_adapter", "/v1//load_lora_adapter", "/%2Fsleep",
}

func TestRelayedPaths(t *testing.T) {
	f := fakeReplica(t, echo)
	p := lbd(t, []string{f.url()})
	w := p.dial()
	for _, path := range relayedPaths {
		n := len(f.requests())
		w.sendPost(path, `{"model":"`+llama+`"}`)
		a := w.answer("POST")
		heads := f.requests()
		if a.StatusCode != 200 || len(heads) != n+1 || !strings.HasPrefix(heads[n], "POST "+path+" HTTP/1.1\r\n") {
			t.Errorf("%s: %s %s", path, a.Status, a.body)
		}
	}
}

func TestControlPaths(t *testing.T) {
	f := fakeReplica(t, echo)
	p := lbd(t, []string{f.url()})
	w := p.dial()
	for _, path := range controlPaths {
		for _, method := range []string{"POST", "GET"} {
			w.send(method + " " + path + " HTTP/1.1\r\nHost: lbd\r\nContent-Length: 2\r\n\r\n{}")
			a := w.answer(method)
			if a.StatusCode != 403 {
				t.Errorf("%s %s: %s %s; want 403", method, path, a.Status, a.body)
				continue
			}
			if _, code, message := openAIError(t, a); code != "forbidden" || !strings.Contains(message, "admin") {
				t.Errorf("%s: %s %q; want forbidden and a word of the admin listener", path, code, message)
			}
		}
	}
	if got := f.requests(); len(got) > 0 {
		t.Errorf("a replica got %q", got)
	}
}

// No spelling of a control path is taken for another path and then understood by
// the replica (starlette and httptools drop a fragment).
func TestControlPathsInDisguise(t *testing.T) {
	f := fakeReplica(t, echo)
	p := lbd(t, []string{f.url()})
	for _, path := range []string{
		"/v1/load_lora_adapter#x", "/v1/load_lora_adapter%23", "/v1/x/../load_lora_adapter", "/v1/x/%2e%2e/load_lora_adapter", "/v1/./load_lora_adapter",
		"/v1/..", "/sleep#", "/v1/load_lora_adapter\\", "/v1/load_lora_adapter%00", "/v1/x/..%2Fload_lora_adapter", "sleep", "/sleep;x", "http://h#/v1/x",
		"http://h?/v1/load_lora_adapter", "/v1/%zz",
	} {
		w := p.dial()
		w.send("POST " + path + " HTTP/1.1\r\nHost: lbd\r\nContent-Length: 2\r\n\r\n{}")
		a := w.answer("POST")
		heads := f.requests()
		if a.StatusCode == 200 && strings.ContainsAny(heads[len(heads)-1], "#\\") || a.StatusCode == 200 && strings.Contains(path, "..") {
			t.Errorf("%s was relayed: %s", path, heads[len(heads)-1])
		}
		if a.StatusCode != 200 {
			openAIError(t, a)
		}
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	f := fakeReplica(t, echo)
	p := lbd(t, []string{f.url()})
	w := p.dial()
	for _, test := range []struct {
		method, path string
		status       int
		code, allow  string
	}{
		{"GET", "/", 404, "unknown_path", ""},
		{"GET", "/docs", 404, "unknown_path", ""},
		{"POST", "/v2/other", 404, "unknown_path", ""},
		{"POST", "/v1", 404, "unknown_path", ""},
		{"POST", "/V1/chat/completions", 404, "unknown_path", ""},
		{"POST", "/tokenize/", 404, "unknown_path", ""},
		{"GET", "/health/", 404, "unknown_path", ""},
		{"POST", "/health", 405, "method_not_allowed", "GET, HEAD"},
		{"PUT", "/metrics", 405, "method_not_allowed", "GET, HEAD"},
		{"POST", "/v1/models", 405, "method_not_allowed", "GET, HEAD"},
		{"DELETE", "/v1/models/x", 405, "method_not_allowed", "GET, HEAD"},
		{"TRACE", "/v1/chat/completions", 405, "method_not_allowed", "POST, OPTIONS"},
		{"BREW", "/tokenize", 405, "method_not_allowed", "POST, OPTIONS"},
		{"post", "/v1/chat/completions", 405, "method_not_allowed", "POST, OPTIONS"},
		{"GET", "/v1/chat/completions", 405, "method_not_allowed", "POST, OPTIONS"},
		{"PUT", "/v1/embeddings", 405, "method_not_allowed", "POST, OPTIONS"},
		{"DELETE", "/rerank", 405, "method_not_allowed", "POST, OPTIONS"},
		{"TRACE", "/v1/files", 405, "method_not_allowed", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"},
		{"GET", "/v1/models/", 404, "model_not_found", ""},
		{"GET", "/v1/models/nobody", 404, "model_not_found", ""},
	} {
		w.send(test.method + " " + test.path + " HTTP/1.1\r\nHost: lbd\r\nX-Request-Id: mine\r\nContent-Length: 2\r\n\r\n{}")
		a := w.answer(test.method)
		if id := a.Header["X-Request-Id"]; len(id) != 1 || id[0] != "mine" {
			t.Errorf("%s %s: X-Request-Id %q; want that of the request", test.method, test.path, id)
		}
		if a.StatusCode != test.status || a.Header.Get("Allow") != test.allow {
			t.Errorf("%s %s: %s, Allow %q; want %d, %q", test.method, test.path, a.Status, a.Header.Get("Allow"), test.status, test.allow)
		}
		if _, code, _ := openAIError(t, a); code != test.code {
			t.Errorf("%s %s: %s; want %s", test.method, test.path, code, test.code)
		}
	}
	if got := f.requests(); len(got) > 0 {
		t.Errorf("a replica got %q", got)
	}
}

// Own pages answer on GET and HEAD with the same head.
func TestOwnPagesGetAndHead(t *testing.T) {
	p := lbd(t, []string{replica(t, sim.Config{}).URL()})
	w := p.dial()
	for _, path := range []string{"/health", "/ready", "/version", "/metrics", "/v1/models", "/v1/models/" + llama, "/health?verbose", "http://x/ready"} {
		w.send("GET " + path + " HTTP/1.1\r\nHost: lbd\r\n\r\n")
		get := w.answer("GET")
		w.send("HEAD " + path + " HTTP/1.1\r\nHost: lbd\r\n\r\n")
		head := w.answer("HEAD")
		if get.StatusCode != 200 || head.StatusCode != 200 || get.body == "" || head.body != "" {
			t.Errorf("%s: %s, HEAD %s", path, get.Status, head.Status)
		}
		if path != "/metrics" && head.ContentLength != get.ContentLength {
			t.Errorf("%s: length %d, HEAD %d", path, get.ContentLength, head.ContentLength)
		}
	}
	if got := p.get("/health").body; got != `{"status":"healthy","replicas":1,"healthy_replicas":1,"models":{"`+llama+`":{"replicas":1,"healthy":1}}}` {
		t.Error(got)
	}
	if got := p.get("/version").body; got != `{"version":"test"}` {
		t.Error(got)
	}
}

// configFile writes a configuration file and returns the setting that names it.
func configFile(t *testing.T, text string) []string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "lbd.yml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"config", name}
}

func TestAliases(t *testing.T) {
	f, other := fakeReplica(t, echo), fakeReplica(t, echo)
	other.model = qwen
	p := lbd(t, nil, configFile(t, fmt.Sprintf(`
models:
  - name: %s
    aliases: [llama-8b, "other/ža\"b"]
    replicas: [{url: %s}]
  - name: %s
    replicas: [{url: %s}]
`, llama, f.url(), qwen, other.url()))...)
	var list struct {
		Data []struct{ ID, Root string }
	}
	if err := json.Unmarshal([]byte(p.get("/v1/models").body), &list); err != nil {
		t.Fatal(err)
	}
	ids := map[string]string{}
	for _, m := range list.Data {
		ids[m.ID] = m.Root
	}
	if len(ids) != 4 || ids["llama-8b"] != llama || ids[`other/ža"b`] != llama {
		t.Errorf("models %v; want two and two aliases", ids)
	}
	for _, path := range []string{"/v1/models/llama-8b", "/v1/models/" + llama, "/v1/models/" + strings.ReplaceAll(llama, "/", "%2F")} {
		if a := p.get(path); a.status != 200 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	const boundary = "Content-Type: multipart/form-data; boundary=b"
	form := func(model string) string {
		return "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nllama-8b\x00\xff\r\n--b\r\n" +
			"Content-Disposition: form-data; name=\"model\"\r\n\r\n" + model + "\r\n--b--\r\n"
	}
	for _, test := range []struct{ name, line, sent, want string }{
		{"json", "X: 1", `{ "x":"llama-8b", "model" : "llama-8b" ,"messages":[{"model":"llama-8b"}], "é":1.0 }`, `{ "x":"llama-8b", "model" : "` + llama + `" ,"messages":[{"model":"llama-8b"}], "é":1.0 }`},
		{"escaped", "X: 1", `{"model":"other\/\u017ea\"b","a":1}`, `{"model":"` + llama + `","a":1}`},
		{"last of two", "X: 1", `{"model":"` + qwen + `","model":"llama-8b"}`, `{"model":"` + qwen + `","model":"` + llama + `"}`},
		{"own name", "X: 1", `{"model":"` + llama + `"}`, `{"model":"` + llama + `"}`},
		{"form", boundary, form("llama-8b"), form(llama)},
		{"form, own name", boundary, form(llama), form(llama)},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := p.dial()
			n := len(f.received())
			w.send(fmt.Sprintf("POST /v1/x HTTP/1.1\r\nHost: lbd\r\n%s\r\nContent-Length: %d\r\n\r\n%s", test.line, len(test.sent), test.sent))
			if a := w.answer("POST"); a.StatusCode != 200 {
				t.Fatalf("%s %s", a.Status, a.body)
			}
			if got := f.received()[n]; got != test.want {
				t.Errorf("%q; want %q", got, test.want)
			}
		})
	}
	if got := other.requests(); len(got) > 0 {
		t.Errorf("the other model's replica got %q", got)
	}
	w := p.dial()
	w.sendPost("/v1/x", `{"model":"nobody"}`)
	a := w.answer("POST")
	kind, code, message := openAIError(t, a)
	if a.StatusCode != http.StatusNotFound || kind != "invalid_request_error" || code != "model_not_found" ||
		!slices.ContainsFunc([]string{"llama-8b"}, func(s string) bool { return strings.Contains(message, s) }) {
		t.Errorf("%s %s %s %q; want model_not_found and what is served", a.Status, kind, code, message)
	}
}
