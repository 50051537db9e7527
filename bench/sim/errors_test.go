package sim

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"lbd/bench/sim/engine"
)

const (
	chatPath = "/v1/chat/completions"
	textPath = "/v1/completions"
	flat     = `{"object":"error","message":%s,"type":%q,"param":null,"code":%d}`
)

// refusal is status and whole body of an error; a body of "" is not looked at.
type refusal struct {
	code int
	body string
}

func quoted(s string) string { return string(appendJSONString(nil, s)) }

func nested(msg, kind, param string, code int) string {
	if param == "" {
		param = "null"
	} else {
		param = `"` + param + `"`
	}
	return fmt.Sprintf(`{"error":{"message":%s,"type":%q,"param":%s,"code":%d}}`, msg, kind, param, code)
}

// v0 and v1 are what the two generations say of a bad value.
func v0(msg string) refusal {
	return refusal{400, fmt.Sprintf(flat, quoted(msg), "BadRequestError", 400)}
}

func v1(msg, param string) refusal {
	return refusal{400, nested(quoted(msg), "BadRequestError", param, 400)}
}

// invalid is what v0.19 makes of pydantic's complaints.
func invalid(list, param string) refusal {
	return refusal{400, nested(quoted("1 validation error:\n  "+list+" ["+list+"]"), "Bad Request", param, 400)}
}

func missing(field, input string) string {
	return "{'type': 'missing', 'loc': ('body', '" + field + "'), 'msg': 'Field required', 'input': " + input + "}"
}

// hi are the fields of a chat, as JSON and as Python prints them.
const (
	hi     = `"model":"` + llama + `","messages":[{"role":"user","content":"hi"}]`
	hiRepr = "'model': '" + llama + "', 'messages': [{'role': 'user', 'content': 'hi'}]"
)

// errorCase is a request that is refused, by each profile in its words.
type errorCase struct {
	name, method, path, contentType, body string
	v064, v019                            refusal
}

func (c *errorCase) check(t *testing.T, s *Server, want refusal) {
	req, err := http.NewRequest(c.method, s.URL()+c.path, strings.NewReader(c.body))
	if err != nil {
		t.Fatal(err)
	}
	if c.contentType != "" {
		req.Header.Set("Content-Type", c.contentType)
	}
	code, body := do(t, req)
	if code != want.code || want.body != "" && body != want.body {
		t.Errorf("got  %d %s\nwant %d %s", code, body, want.code, want.body)
	}
}

// checkErrors pins status and whole body of every error, per profile.
func checkErrors(t *testing.T, cases []errorCase) {
	v064, v019 := started(t, old), started(t, nil)
	for _, c := range cases {
		t.Run(string(ProfileV064)+" "+c.name, func(t *testing.T) { c.check(t, v064, c.v064) })
		t.Run(string(ProfileV019)+" "+c.name, func(t *testing.T) { c.check(t, v019, c.v019) })
	}
}

// Requests that can be read and ask for what there is not, or cannot be.
func TestErrorsOfValues(t *testing.T) {
	checkErrors(t, []errorCase{
		{"unknown model", "POST", chatPath, jsonType, `{"model":"x","messages":[]}`,
			refusal{404, fmt.Sprintf(flat, quoted("The model `x` does not exist."), "NotFoundError", 404)},
			refusal{404, nested(quoted("The model `x` does not exist."), "NotFoundError", "model", 404)}},
		{"max_tokens below 1", "POST", chatPath, jsonType, `{` + hi + `,"max_tokens":0}`,
			v0("max_tokens must be at least 1, got 0."),
			v1("max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)", "max_tokens")},
		{"n below 1", "POST", chatPath, jsonType, `{` + hi + `,"n":0}`,
			v0("n must be at least 1, got 0."), v1("n must be at least 1, got 0. (parameter=n, value=0)", "n")},
		{"temperature below 0", "POST", chatPath, jsonType, `{` + hi + `,"temperature":-1}`,
			v0("temperature must be non-negative, got -1.0."),
			v1("temperature must be non-negative, got -1.0. (parameter=temperature, value=-1.0)", "temperature")},
		{"stream_options without stream", "POST", chatPath, jsonType, `{` + hi + `,"stream_options":{"include_usage":true}}`,
			v0("[{'type': 'value_error', 'loc': ('body',), 'msg': 'Value error, Stream options can only be defined when `stream=True`.', 'input': {" + hiRepr + ", 'stream_options': {'include_usage': True}}, 'ctx': {'error': ValueError('Stream options can only be defined when `stream=True`.')}}]"),
			invalid("{'type': 'value_error', 'loc': ('body',), 'msg': 'Value error, Stream options can only be defined when `stream=True`. (parameter=stream_options)', 'input': {"+hiRepr+", 'stream_options': {'include_usage': True}}, 'ctx': {'error': VLLMValidationError('Stream options can only be defined when `stream=True`.')}}", "stream_options")},
	})
}

func TestErrorsOfLength(t *testing.T) {
	long := strings.Repeat("word", 8192)
	checkErrors(t, []errorCase{
		{"prompt too long", "POST", textPath, jsonType, `{"model":"` + llama + `","prompt":"` + long + `","max_tokens":16}`,
			v0("This model's maximum context length is 8192 tokens. However, you requested 8208 tokens (8192 in the messages, 16 in the completion). Please reduce the length of the messages or completion."),
			v1("This model's maximum context length is 8192 tokens. However, you requested 16 output tokens and your prompt contains at least 8177 input tokens, for a total of at least 8193 tokens. Please reduce the length of the input prompt or the number of requested output tokens. (parameter=input_tokens, value=8177)", "input_tokens")},
		{"chat too long without max_tokens", "POST", chatPath, jsonType, `{"model":"` + llama + `","messages":[{"role":"user","content":"` + long + `"}]}`,
			v0("This model's maximum context length is 8192 tokens. However, you requested 8202 tokens in the messages, Please reduce the length of the messages."),
			v1("This model's maximum context length is 8192 tokens. However, you requested 0 output tokens and your prompt contains at least 8193 input tokens, for a total of at least 8193 tokens. Please reduce the length of the input prompt or the number of requested output tokens. (parameter=input_tokens, value=8193)", "input_tokens")},
	})
}

// Bodies that are not what the path takes.
func TestErrorsOfSyntax(t *testing.T) {
	// The one complaint FastAPI prints as a plain string.
	const unsupported = "Unsupported Media Type: Only 'application/json' is allowed"
	wrongType := refusal{400, nested(quoted("1 validation error:\n  "+unsupported+` ["`+unsupported+`"]`), "Bad Request", "", 400)}
	checkErrors(t, []errorCase{
		{"messages missing", "POST", chatPath, jsonType, `{"model":"` + llama + `"}`,
			v0("[" + missing("messages", "{'model': '"+llama+"'}") + "]"),
			invalid(missing("messages", "{'model': '"+llama+"'}"), "")},
		{"prompt missing", "POST", textPath, jsonType, `{"model":"` + llama + `"}`,
			v0("[" + missing("prompt", "{'model': '"+llama+"'}") + "]"),
			invalid(missing("prompt", "{'model': '"+llama+"'}"), "")},
		{"not JSON", "POST", chatPath, jsonType, `{"model":"m"`,
			v0("[{'type': 'json_invalid', 'loc': ('body', 12), 'msg': 'JSON decode error', 'input': {}, 'ctx': {'error': \"Expecting ',' delimiter\"}}]"),
			invalid("{'type': 'json_invalid', 'loc': ('body', 12), 'msg': 'JSON decode error', 'input': {}, 'ctx': {'error': \"Expecting ',' delimiter\"}}", "")},
		{"no body", "POST", chatPath, jsonType, ``,
			v0("[{'type': 'missing', 'loc': ('body',), 'msg': 'Field required', 'input': None}]"),
			invalid("{'type': 'missing', 'loc': ('body',), 'msg': 'Field required', 'input': None}", "")},
		{"wrong type of a field", "POST", chatPath, jsonType, `{` + hi + `,"max_tokens":"x"}`,
			v0("[{'type': 'int_parsing', 'loc': ('body', 'max_tokens'), 'msg': 'Input should be a valid integer, unable to parse string as an integer', 'input': 'x'}]"),
			invalid("{'type': 'int_parsing', 'loc': ('body', 'max_tokens'), 'msg': 'Input should be a valid integer, unable to parse string as an integer', 'input': 'x'}", "")},
		{"unknown field", "POST", chatPath, jsonType, `{` + hi + `,"max_tokens":1,"kv_transfer_params":{"a":null}}`,
			v0("[{'type': 'extra_forbidden', 'loc': ('body', 'kv_transfer_params'), 'msg': 'Extra inputs are not permitted', 'input': {'a': None}}]"),
			refusal{200, ""}},
		{"content type", "POST", chatPath, "text/plain", `{` + hi + `}`,
			refusal{500, "Internal Server Error"},
			wrongType},
	})
}

func TestErrorsOfRoutes(t *testing.T) {
	checkErrors(t, []errorCase{
		{"unknown path", "GET", "/nope", "", "", refusal{404, `{"detail":"Not Found"}`}, refusal{404, `{"detail":"Not Found"}`}},
		{"model by id", "GET", "/v1/models/" + llama, "", "", refusal{404, `{"detail":"Not Found"}`}, refusal{404, `{"detail":"Not Found"}`}},
		{"wrong method", "GET", chatPath, "", "", refusal{405, `{"detail":"Method Not Allowed"}`}, refusal{405, `{"detail":"Method Not Allowed"}`}},
		{"ping", "GET", "/ping", "", "", refusal{404, `{"detail":"Not Found"}`}, refusal{200, ""}},
		{"score", "POST", "/score", jsonType, `{"model":"` + llama + `"}`, refusal{404, `{"detail":"Not Found"}`},
			refusal{400, ""}},
	})
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
