package sim

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"lbd/bench/sim/engine"
)

// TestErrors pins status and whole body of every error, per profile.
func TestErrors(t *testing.T) {
	const (
		chat = "/v1/chat/completions"
		text = "/v1/completions"
		flat = `{"object":"error","message":%s,"type":%q,"param":null,"code":%d}`
		json = "application/json"
	)
	nested := func(msg, kind, param string, code int) string {
		if param == "" {
			param = "null"
		} else {
			param = `"` + param + `"`
		}
		return fmt.Sprintf(`{"error":{"message":%s,"type":%q,"param":%s,"code":%d}}`, msg, kind, param, code)
	}
	q := func(s string) string { return string(appendJSONString(nil, s)) }
	type want struct {
		code int
		body string
	}
	v0 := func(msg string) want { return want{400, fmt.Sprintf(flat, q(msg), "BadRequestError", 400)} }
	v1 := func(msg, param string) want { return want{400, nested(q(msg), "BadRequestError", param, 400)} }
	invalid := func(list, param string) want {
		return want{400, nested(q("1 validation error:\n  "+list+" ["+list+"]"), "Bad Request", param, 400)}
	}
	missing := func(field, input string) string {
		return "{'type': 'missing', 'loc': ('body', '" + field + "'), 'msg': 'Field required', 'input': " + input + "}"
	}
	hi := `"model":"` + llama + `","messages":[{"role":"user","content":"hi"}]`
	hiRepr := "'model': '" + llama + "', 'messages': [{'role': 'user', 'content': 'hi'}]"
	long := strings.Repeat("word", 8192)

	cases := []struct {
		name, method, path, contentType, body string
		v064, v019                            want
	}{
		{"unknown model", "POST", chat, json, `{"model":"x","messages":[]}`,
			want{404, fmt.Sprintf(flat, q("The model `x` does not exist."), "NotFoundError", 404)},
			want{404, nested(q("The model `x` does not exist."), "NotFoundError", "model", 404)}},
		{"messages missing", "POST", chat, json, `{"model":"` + llama + `"}`,
			v0("[" + missing("messages", "{'model': '"+llama+"'}") + "]"),
			invalid(missing("messages", "{'model': '"+llama+"'}"), "")},
		{"prompt missing", "POST", text, json, `{"model":"` + llama + `"}`,
			v0("[" + missing("prompt", "{'model': '"+llama+"'}") + "]"),
			invalid(missing("prompt", "{'model': '"+llama+"'}"), "")},
		{"max_tokens below 1", "POST", chat, json, `{` + hi + `,"max_tokens":0}`,
			v0("max_tokens must be at least 1, got 0."),
			v1("max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)", "max_tokens")},
		{"n below 1", "POST", chat, json, `{` + hi + `,"n":0}`,
			v0("n must be at least 1, got 0."), v1("n must be at least 1, got 0. (parameter=n, value=0)", "n")},
		{"temperature below 0", "POST", chat, json, `{` + hi + `,"temperature":-1}`,
			v0("temperature must be non-negative, got -1.0."),
			v1("temperature must be non-negative, got -1.0. (parameter=temperature, value=-1.0)", "temperature")},
		{"stream_options without stream", "POST", chat, json, `{` + hi + `,"stream_options":{"include_usage":true}}`,
			v0("[{'type': 'value_error', 'loc': ('body',), 'msg': 'Value error, Stream options can only be defined when `stream=True`.', 'input': {" + hiRepr + ", 'stream_options': {'include_usage': True}}, 'ctx': {'error': ValueError('Stream options can only be defined when `stream=True`.')}}]"),
			invalid("{'type': 'value_error', 'loc': ('body',), 'msg': 'Value error, Stream options can only be defined when `stream=True`. (parameter=stream_options)', 'input': {"+hiRepr+", 'stream_options': {'include_usage': True}}, 'ctx': {'error': VLLMValidationError('Stream options can only be defined when `stream=True`.')}}", "stream_options")},
		{"prompt too long", "POST", text, json, `{"model":"` + llama + `","prompt":"` + long + `","max_tokens":16}`,
			v0("This model's maximum context length is 8192 tokens. However, you requested 8208 tokens (8192 in the messages, 16 in the completion). Please reduce the length of the messages or completion."),
			v1("This model's maximum context length is 8192 tokens. However, you requested 16 output tokens and your prompt contains at least 8177 input tokens, for a total of at least 8193 tokens. Please reduce the length of the input prompt or the number of requested output tokens. (parameter=input_tokens, value=8177)", "input_tokens")},
		{"chat too long without max_tokens", "POST", chat, json, `{"model":"` + llama + `","messages":[{"role":"user","content":"` + long + `"}]}`,
			v0("This model's maximum context length is 8192 tokens. However, you requested 8202 tokens in the messages, Please reduce the length of the messages."),
			v1("This model's maximum context length is 8192 tokens. However, you requested 0 output tokens and your prompt contains at least 8193 input tokens, for a total of at least 8193 tokens. Please reduce the length of the input prompt or the number of requested output tokens. (parameter=input_tokens, value=8193)", "input_tokens")},
		{"not JSON", "POST", chat, json, `{"model":"m"`,
			v0("[{'type': 'json_invalid', 'loc': ('body', 12), 'msg': 'JSON decode error', 'input': {}, 'ctx': {'error': \"Expecting ',' delimiter\"}}]"),
			invalid("{'type': 'json_invalid', 'loc': ('body', 12), 'msg': 'JSON decode error', 'input': {}, 'ctx': {'error': \"Expecting ',' delimiter\"}}", "")},
		{"no body", "POST", chat, json, ``,
			v0("[{'type': 'missing', 'loc': ('body',), 'msg': 'Field required', 'input': None}]"),
			invalid("{'type': 'missing', 'loc': ('body',), 'msg': 'Field required', 'input': None}", "")},
		{"wrong type of a field", "POST", chat, json, `{` + hi + `,"max_tokens":"x"}`,
			v0("[{'type': 'int_parsing', 'loc': ('body', 'max_tokens'), 'msg': 'Input should be a valid integer, unable to parse string as an integer', 'input': 'x'}]"),
			invalid("{'type': 'int_parsing', 'loc': ('body', 'max_tokens'), 'msg': 'Input should be a valid integer, unable to parse string as an integer', 'input': 'x'}", "")},
		{"unknown field", "POST", chat, json, `{` + hi + `,"max_tokens":1,"kv_transfer_params":{"a":null}}`,
			v0("[{'type': 'extra_forbidden', 'loc': ('body', 'kv_transfer_params'), 'msg': 'Extra inputs are not permitted', 'input': {'a': None}}]"),
			want{200, ""}},
		{"content type", "POST", chat, "text/plain", `{` + hi + `}`,
			want{500, "Internal Server Error"},
			invalid2(nested, q)},
		{"unknown path", "GET", "/nope", "", "", want{404, `{"detail":"Not Found"}`}, want{404, `{"detail":"Not Found"}`}},
		{"model by id", "GET", "/v1/models/" + llama, "", "", want{404, `{"detail":"Not Found"}`}, want{404, `{"detail":"Not Found"}`}},
		{"wrong method", "GET", chat, "", "", want{405, `{"detail":"Method Not Allowed"}`}, want{405, `{"detail":"Method Not Allowed"}`}},
		{"ping", "GET", "/ping", "", "", want{404, `{"detail":"Not Found"}`}, want{200, ""}},
		{"score", "POST", "/score", json, `{"model":"` + llama + `"}`, want{404, `{"detail":"Not Found"}`},
			want{400, ""}},
	}
	servers := map[Profile]*Server{ProfileV064: started(t, old), ProfileV019: started(t, nil)}
	for p, s := range servers {
		for _, c := range cases {
			t.Run(string(p)+" "+c.name, func(t *testing.T) {
				w := c.v019
				if p == ProfileV064 {
					w = c.v064
				}
				req, err := http.NewRequest(c.method, s.URL()+c.path, strings.NewReader(c.body))
				if err != nil {
					t.Fatal(err)
				}
				if c.contentType != "" {
					req.Header.Set("Content-Type", c.contentType)
				}
				code, body := do(t, req)
				if code != w.code || w.body != "" && body != w.body {
					t.Errorf("got  %d %s\nwant %d %s", code, body, w.code, w.body)
				}
			})
		}
	}
}

// invalid2 is the one complaint FastAPI prints as a plain string.
func invalid2(nested func(msg, kind, param string, code int) string, q func(string) string) struct {
	code int
	body string
} {
	const s = "Unsupported Media Type: Only 'application/json' is allowed"
	return struct {
		code int
		body string
	}{400, nested(q("1 validation error:\n  "+s+` ["`+s+`"]`), "Bad Request", "", 400)}
}

func TestAuth(t *testing.T) {
	bothProfiles(t, func(t *testing.T, p Profile, change func(*Config)) {
		s := started(t, func(c *Config) { change(c); c.APIKey = "k" })
		for path, want := range map[string]int{"/v1/models": 401, "/health": 200, "/version": 200, "/metrics": 200, "/v1/nope": 404} {
			if code, body := get(t, s.URL()+path); code != want || code == 401 && body != `{"error":"Unauthorized"}` {
				t.Errorf("%s without a key: %d %s, want %d", path, code, body, want)
			}
		}
		for auth, want := range map[string]int{"Bearer k": 200, "Bearer x": 401, "bearer k": map[Profile]int{ProfileV064: 401, ProfileV019: 200}[p]} {
			req, _ := http.NewRequest("GET", s.URL()+"/v1/models", nil)
			req.Header.Set("Authorization", auth)
			if code, _ := do(t, req); code != want {
				t.Errorf("%q: %d, want %d", auth, code, want)
			}
		}
	})
}

func TestLastDuplicateKeyWins(t *testing.T) {
	s := started(t, nil)
	code, body := post(t, s.URL()+"/v1/completions", `{"model":"nope","prompt":"a","max_tokens":1,"model":"`+llama+`"}`)
	if code != 200 {
		t.Errorf("%d %s, want 200: the last model is served", code, body)
	}
	if code, _ = post(t, s.URL()+"/v1/completions", `{"model":"`+llama+`","prompt":"a","max_tokens":1,"model":"nope"}`); code != 404 {
		t.Errorf("%d, want 404: the last model is not served", code)
	}
}

func TestEngineConfigErrors(t *testing.T) {
	for want, cfg := range map[string]Config{
		`profile "v9"`:  {Model: llama, Profile: "v9"},
		`model ""`:      {},
		"speed -1":      {Model: llama, Speed: -1},
		"max_model_len": {Model: llama, Engine: engine.Config{MaxModelLen: 100000, NumBlocks: 10}},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New: %v, want %q", err, want)
		}
	}
}

func do(t *testing.T, req *http.Request) (int, string) {
	t.Helper()
	res, err := client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var b strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := res.Body.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			return res.StatusCode, b.String()
		}
	}
}
