package sim

import (
	"bytes"
	"encoding/json"
	"io"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEmbeddings(t *testing.T) {
	bothProfiles(t, func(t *testing.T, _ Profile, change func(*Config)) {
		s := started(t, func(c *Config) { change(c); c.EmbeddingDims = 8 })
		code, body := post(t, s.URL()+"/v1/embeddings", `{"model":"`+llama+`","input":["abcd","abcdefgh"]}`)
		var res struct {
			Data []struct {
				Index     int
				Embedding []float64
			}
			Usage struct {
				Prompt int `json:"prompt_tokens"`
			}
		}
		if err := json.Unmarshal([]byte(body), &res); err != nil || code != 200 {
			t.Fatal(code, body)
		}
		if len(res.Data) != 2 || len(res.Data[1].Embedding) != 8 || res.Usage.Prompt != 3 {
			t.Errorf("%s", body)
		}
		sum := 0.0
		for _, v := range res.Data[0].Embedding {
			sum += v * v
		}
		if sum < .999 || sum > 1.001 {
			t.Errorf("length %v, want a unit vector", sum)
		}
		if _, body := post(t, s.URL()+"/v1/embeddings", `{"model":"`+llama+`","input":"a","encoding_format":"base64"}`); !strings.Contains(body, `"embedding":"`) {
			t.Errorf("base64: %s", body)
		}
		if code, body := post(t, s.URL()+"/v1/embeddings", `{"model":"`+llama+`","input":"a","encoding_format":"x"}`); code != 400 {
			t.Errorf("bad format: %d %s", code, body)
		}
	})
}

// TestV019Shapes compares the keys of the smaller endpoints' answers with
// their protocol classes.
func TestV019Shapes(t *testing.T) {
	s := started(t, nil)
	m := `"model":"` + llama + `"`
	for path, c := range map[string]struct{ body, keys string }{
		"/score":          {`{` + m + `,"text_1":"q","text_2":["a","b"]}`, "created data id model object usage"},
		"/rerank":         {`{` + m + `,"query":"q","documents":["a","b"]}`, "id model results usage"},
		"/pooling":        {`{` + m + `,"input":"a"}`, "created data id model object usage"},
		"/classify":       {`{` + m + `,"input":["a","b"]}`, "created data id model object usage"},
		"/invocations":    {`{` + m + `,"prompt":"a","max_tokens":1}`, "choices created id kv_transfer_params model object service_tier system_fingerprint usage"},
		"/v1/score":       {`{` + m + `,"queries":"q","documents":["a"]}`, "created data id model object usage"},
		"/v2/rerank":      {`{"query":"q","documents":["a","b","c"],"top_n":2}`, "id model results usage"},
		"/v1/completions": {`{"prompt":"a","max_tokens":1}`, "choices created id kv_transfer_params model object service_tier system_fingerprint usage"},
	} {
		code, body := post(t, s.URL()+path, c.body)
		if got := keys(t, body); code != 200 || got != c.keys {
			t.Errorf("%s: %d, keys %q, want %q", path, code, got, c.keys)
		}
	}
	_, body := post(t, s.URL()+"/rerank", `{"query":"q","documents":["a","b","c","d"],"top_n":3}`)
	var rank struct {
		Results []struct {
			Score float64 `json:"relevance_score"`
		}
	}
	json.Unmarshal([]byte(body), &rank)
	if r := rank.Results; len(r) != 3 || r[0].Score < r[1].Score || r[1].Score < r[2].Score {
		t.Errorf("rerank: %s", body)
	}
	if code, body := post(t, s.URL()+"/score", `{`+m+`,"text_1":["a","b"],"text_2":["a","b","c"]}`); code != 400 {
		t.Errorf("score 2:3: %d %s", code, body)
	}
	if code, body := post(t, s.URL()+"/invocations", `{}`); code != 400 {
		t.Errorf("invocations: %d %s", code, body)
	}
}

func keys(t *testing.T, body string) string {
	t.Helper()
	var o map[string]any
	if err := json.Unmarshal([]byte(body), &o); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	var ks []string
	for k := range o {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return strings.Join(ks, " ")
}

func TestResponses(t *testing.T) {
	s := started(t, nil)
	_, body := post(t, s.URL()+"/v1/responses", `{"model":"`+llama+`","input":"hello there","instructions":"be brief","max_output_tokens":4}`)
	o := decodeResponse(t, body)
	if o.Status != "incomplete" || o.Usage.OutputTokens != 4 || len(o.Output[0].Content[0].Text) != 16 || *o.Instructions != "be brief" {
		t.Errorf("%s", body)
	}
	if _, again := get(t, s.URL()+"/v1/responses/"+o.ID); again != body {
		t.Errorf("fetched %s\nwant %s", again, body)
	}
	if code, _ := get(t, s.URL()+"/v1/responses/resp_x"); code != 404 {
		t.Errorf("unknown response: %d", code)
	}
	if code, _ := post(t, s.URL()+"/v1/responses/"+o.ID+"/cancel", ""); code != 400 {
		t.Errorf("cancel of a synchronous response: %d", code)
	}
	if code, body := post(t, s.URL()+"/v1/responses", `{"input":"more","previous_response_id":"`+o.ID+`","max_output_tokens":1}`); code != 200 {
		t.Errorf("continued: %d %s", code, body)
	}
	if code, _ := get(t, started(t, nil).URL()+"/v1/responses/"+o.ID); code != 404 {
		t.Errorf("response on another replica: %d, want 404: it is state", code)
	}
}

func decodeResponse(t *testing.T, s string) responseObject {
	t.Helper()
	var o responseObject
	if err := json.Unmarshal([]byte(s), &o); err != nil || len(o.Output) == 0 {
		t.Fatalf("%v in %s", err, s)
	}
	return o
}

func TestResponseEvents(t *testing.T) {
	s := started(t, nil)
	_, body := post(t, s.URL()+"/v1/responses", `{"input":"hello","max_output_tokens":2,"stream":true}`)
	var kinds []string
	for _, l := range strings.Split(body, "\n") {
		if k, ok := strings.CutPrefix(l, "event: "); ok {
			kinds = append(kinds, strings.TrimPrefix(k, "response."))
		}
	}
	want := []string{"created", "in_progress", "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
		"output_text.done", "content_part.done", "output_item.done", "completed"}
	if d := cmp.Diff(want, kinds); d != "" {
		t.Errorf("events (-want +got):\n%s", d)
	}
	if strings.Contains(body, "[DONE]") {
		t.Error("/v1/responses ends without [DONE]")
	}
}

func TestTranscriptions(t *testing.T) {
	s := started(t, nil)
	send := func(fields map[string]string, file []byte) (int, string) {
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		for k, v := range fields {
			w.WriteField(k, v)
		}
		if file != nil {
			part, _ := w.CreateFormFile("file", "a.wav")
			part.Write(file)
		}
		w.Close()
		res, err := client(t).Post(s.URL()+"/v1/audio/transcriptions", w.FormDataContentType(), &b)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(body)
	}
	audio := make([]byte, 64000) // two seconds
	code, body := send(map[string]string{"model": llama}, audio)
	if code != 200 || keys(t, body) != "text usage" || !strings.Contains(body, `"usage":{"type":"duration","seconds":2}`) {
		t.Errorf("%d %s", code, body)
	}
	if code, _ := send(map[string]string{"model": "x"}, audio); code != 404 {
		t.Errorf("unknown model: %d", code)
	}
	if code, _ := send(map[string]string{"model": llama}, nil); code != 400 {
		t.Errorf("no file: %d", code)
	}
	_, body = send(map[string]string{"model": llama, "stream": "true"}, audio)
	if !strings.Contains(body, `"object":"transcription.chunk"`) || !strings.HasSuffix(body, "data: [DONE]\n\n") {
		t.Errorf("stream: %s", body)
	}
}

func TestControlRoutes(t *testing.T) {
	s := started(t, nil)
	if code, _ := post(t, s.URL()+"/sleep?level=2", ""); code != 200 {
		t.Errorf("sleep: %d", code)
	}
	if _, body := get(t, s.URL()+"/is_sleeping"); body != `{"is_sleeping":true}` {
		t.Errorf("asleep: %s", body)
	}
	if _, body := get(t, s.URL()+"/metrics"); !strings.Contains(body, `sleep_state="discard_all"} 1.0`) {
		t.Error("the page does not show level 2 sleep")
	}
	post(t, s.URL()+"/wake_up", "")
	if _, body := get(t, s.URL()+"/is_sleeping"); body != `{"is_sleeping":false}` {
		t.Errorf("awake: %s", body)
	}
	if _, body := post(t, s.URL()+"/v1/load_lora_adapter", `{"lora_name":"x","lora_path":"/p"}`); body != "Success: LoRA adapter 'x' added successfully." {
		t.Errorf("lora: %s", body)
	}
	if code, body := get(t, s.URL()+"/load"); code != 200 || body != `{"server_load":0}` {
		t.Errorf("load: %d %s", code, body)
	}
	st := s.Stats()
	for _, path := range []string{"/sleep", "/wake_up", "/v1/load_lora_adapter"} {
		if st.ByPath[path] != 1 {
			t.Errorf("%s counted %d times", path, st.ByPath[path])
		}
	}
	if st.Received != 0 {
		t.Errorf("received %d: control routes are no API calls", st.Received)
	}
}

func TestSimStats(t *testing.T) {
	s := started(t, nil)
	post(t, s.URL()+"/v1/chat/completions", chatBody(`,"max_tokens":2`))
	_, body := get(t, s.URL()+"/sim/stats")
	var st Stats
	if err := json.Unmarshal([]byte(body), &st); err != nil || st.Finished != 1 || st.Engine.GenerationTokens != 2 {
		t.Errorf("%v: %s", err, body)
	}
	if code, _ := get(t, s.URL()+"/sim/nothing"); code != http.StatusNotFound {
		t.Errorf("unknown control path: %d", code)
	}
}

func TestRequestIDs(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Config)
		echoed bool
		id     string // prefix of the body's id
	}{
		{"v0.6.4", old, true, "chatcmpl-"},
		{"v0.19", nil, false, "chatcmpl-abc"},
		{"v0.19 with headers", func(c *Config) { c.RequestIDHeaders = true }, true, "chatcmpl-abc"},
	} {
		s := started(t, c.change)
		req, _ := http.NewRequest("POST", s.URL()+"/v1/chat/completions", strings.NewReader(chatBody(`,"max_tokens":1`)))
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-Request-Id", "abc")
		res, err := client(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if got := res.Header.Get("X-Request-Id") == "abc"; got != c.echoed {
			t.Errorf("%s: echoed %t", c.name, got)
		}
		if !strings.HasPrefix(string(body), `{"id":"`+c.id) || c.name == "v0.6.4" && strings.Contains(string(body), "chatcmpl-abc") {
			t.Errorf("%s: %s", c.name, body)
		}
	}
}

func TestOrcaHeader(t *testing.T) {
	s := started(t, nil)
	for format, want := range map[string]string{
		"TEXT": "TEXT named_metrics.num_requests_waiting=0.0, named_metrics.kv_cache_usage_perc=0.0",
		"json": `JSON {"named_metrics": {"num_requests_waiting": 0.0, "kv_cache_usage_perc": 0.0}}`,
		"":     "",
	} {
		for _, path := range []string{"/v1/chat/completions", "/v1/completions"} {
			body := `{"messages":[],"prompt":"a","max_tokens":1}`
			req, _ := http.NewRequest("POST", s.URL()+path, strings.NewReader(body))
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("Endpoint-Load-Metrics-Format", format)
			res, err := client(t).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if got := res.Header.Get("Endpoint-Load-Metrics"); got != want {
				t.Errorf("%s %q: %q, want %q", path, format, got, want)
			}
		}
	}
}
