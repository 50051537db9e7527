package sim

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
)

// responseStore remembers answers of /v1/responses, which clients fetch by id
// later: state that only this replica has, and loses with a restart.
type responseStore struct {
	mu    sync.Mutex
	byID  map[string]responseObject
	order []string
}

// storedResponses bounds the store. vLLM's own is unbounded.
const storedResponses = 1024

func (s *responseStore) put(o responseObject) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID == nil {
		s.byID = make(map[string]responseObject)
	}
	if _, ok := s.byID[o.ID]; !ok {
		s.order = append(s.order, o.ID)
	}
	s.byID[o.ID] = o
	if len(s.order) > storedResponses {
		delete(s.byID, s.order[0])
		s.order = s.order[1:]
	}
}

func (s *responseStore) get(id string) (responseObject, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.byID[id]
	return o, ok
}

// responseRoute is GET /v1/responses/{id} and POST /v1/responses/{id}/cancel.
func responseRoute(rest string) (route, string, bool) {
	if _, ok := strings.CutSuffix(rest, "/cancel"); ok {
		return route{methods: "POST", serve: (*run).fetchResponse}, "/v1/responses/{response_id}/cancel", true
	}
	return route{methods: "GET", serve: (*run).fetchResponse}, "/v1/responses/{response_id}", !strings.Contains(rest, "/")
}

func (r *run) fetchResponse(x *exchange) {
	id := strings.TrimSuffix(strings.TrimPrefix(x.path, "/v1/responses/"), "/cancel")
	o, ok := r.store.get(id)
	switch {
	case !ok:
		r.reject(x, &apiError{message: "Response with id '" + id + "' not found.", kind: "invalid_request_error", param: "response_id", code: http.StatusNotFound})
	case strings.HasSuffix(x.path, "/cancel"):
		r.reject(x, &apiError{message: "Cannot cancel a synchronous response.", kind: "invalid_request_error", param: "response_id", code: http.StatusBadRequest})
	default:
		x.json(http.StatusOK, o)
	}
}

type responseText struct {
	Annotations []int  `json:"annotations"`
	Text        string `json:"text"`
	Type        string `json:"type"`
	Logprobs    *int   `json:"logprobs"`
}

type responseMessage struct {
	ID      string         `json:"id"`
	Content []responseText `json:"content"`
	Role    string         `json:"role"`
	Status  string         `json:"status"`
	Type    string         `json:"type"`
}

type responseUsage struct {
	InputTokens   int            `json:"input_tokens"`
	InputDetails  map[string]int `json:"input_tokens_details"`
	OutputTokens  int            `json:"output_tokens"`
	OutputDetails map[string]int `json:"output_tokens_details"`
	TotalTokens   int            `json:"total_tokens"`
}

type responseObject struct {
	ID                string            `json:"id"`
	CreatedAt         int64             `json:"created_at"`
	IncompleteDetails *responseWhy      `json:"incomplete_details"`
	Instructions      *string           `json:"instructions"`
	Metadata          *int              `json:"metadata"`
	Model             string            `json:"model"`
	Object            string            `json:"object"`
	Output            []responseMessage `json:"output"`
	ParallelToolCalls bool              `json:"parallel_tool_calls"`
	Temperature       float64           `json:"temperature"`
	ToolChoice        string            `json:"tool_choice"`
	Tools             []int             `json:"tools"`
	TopP              float64           `json:"top_p"`
	Background        bool              `json:"background"`
	MaxOutputTokens   int               `json:"max_output_tokens"`
	MaxToolCalls      *int              `json:"max_tool_calls"`
	Previous          *string           `json:"previous_response_id"`
	Prompt            *int              `json:"prompt"`
	Reasoning         *int              `json:"reasoning"`
	ServiceTier       string            `json:"service_tier"`
	Status            string            `json:"status"`
	Text              *int              `json:"text"`
	TopLogprobs       *int              `json:"top_logprobs"`
	Truncation        string            `json:"truncation"`
	Usage             *responseUsage    `json:"usage"`
	User              *string           `json:"user"`
}

type responseWhy struct {
	Reason string `json:"reason"`
}

// responses is POST /v1/responses, text in and text out.
func (r *run) responses(x *exchange) {
	o, ok := r.body(x)
	if !ok {
		return
	}
	v := &validator{o: o}
	g := &genRequest{n: 1, role: "assistant", model: v.text("model"), stream: v.flag("stream"), limit: v.whole("max_output_tokens")}
	var msgs []message
	instructions := v.text("instructions")
	if instructions != "" {
		msgs = append(msgs, message{"system", instructions})
	}
	var text string
	switch {
	case !v.required("input"):
	case json.Unmarshal(o.vals["input"], &text) == nil:
		msgs = append(msgs, message{"user", text})
	default:
		msgs = append(msgs, v.messages("input")...)
	}
	if len(v.details) > 0 {
		r.invalid(x, "", v.details...)
		return
	}
	if prev := v.text("previous_response_id"); prev != "" {
		earlier, ok := r.store.get(prev)
		if !ok {
			r.reject(x, &apiError{message: "Response with id '" + prev + "' not found.", kind: "invalid_request_error", param: "response_id", code: http.StatusNotFound})
			return
		}
		msgs = append([]message{{"assistant", earlier.Output[0].Content[0].Text}}, msgs...)
	}
	g.prompts = []prompt{chatPrompt(msgs, true)}
	if !r.check(x, o, g) {
		return
	}
	a := r.newReply(x, g, "resp_")
	r.generate(x, g, &responder{reply: a, instructions: instructions, message: "msg_" + r.s.ids.uuid()})
}

// responder writes a response object, or the events that build one up.
type responder struct {
	reply
	instructions string
	message      string
	seq          int
}

func (p *responder) object(status string) responseObject {
	o := responseObject{
		ID: p.id, CreatedAt: p.created, Model: p.r.cfg.Model, Object: "response", Output: []responseMessage{},
		ParallelToolCalls: true, Temperature: 1, ToolChoice: "auto", Tools: []int{}, TopP: 1,
		MaxOutputTokens: p.r.eng.MaxModelLen - p.g.prompts[0].tokens(), ServiceTier: "auto", Status: status, Truncation: "disabled",
	}
	if p.g.limit != nil {
		o.MaxOutputTokens = *p.g.limit
	}
	if p.instructions != "" {
		o.Instructions = &p.instructions
	}
	return o
}

func (p *responder) event(kind string, fields map[string]any) error {
	fields["type"], fields["sequence_number"] = kind, p.seq
	p.seq++
	return p.x.chunk(append(append([]byte("event: "+kind+"\ndata: "), encodeJSON(fields)...), "\n\n"...))
}

func (p *responder) item(status string, content []responseText) responseMessage {
	return responseMessage{ID: p.message, Content: content, Role: "assistant", Status: status, Type: "message"}
}

func (p *responder) open() error {
	if !p.g.stream {
		return nil
	}
	if err := p.x.startStream(); err != nil {
		return err
	}
	for _, kind := range []string{"response.created", "response.in_progress"} {
		if err := p.event(kind, map[string]any{"response": p.object("in_progress")}); err != nil {
			return err
		}
	}
	return nil
}

func (p *responder) part(fields map[string]any) map[string]any {
	fields["item_id"], fields["output_index"], fields["content_index"] = p.message, 0, 0
	return fields
}

func (p *responder) deliver(c *choice, from, to int) error {
	if !p.g.stream {
		return nil
	}
	if from == 0 {
		if err := p.event("response.output_item.added", map[string]any{"output_index": 0, "item": p.item("in_progress", []responseText{})}); err != nil {
			return err
		}
		empty := responseText{Annotations: []int{}, Type: "output_text"}
		if err := p.event("response.content_part.added", p.part(map[string]any{"part": empty})); err != nil {
			return err
		}
	}
	return p.event("response.output_text.delta", p.part(map[string]any{"delta": c.piece(from, to), "logprobs": []int{}}))
}

func (p *responder) finish(choices []*choice, prompts int) error {
	c := choices[0]
	text := responseText{Annotations: []int{}, Text: c.piece(0, c.tokens), Type: "output_text"}
	item := p.item("completed", []responseText{text})
	o := p.object("completed")
	if c.reason == "length" {
		o.Status, o.IncompleteDetails = "incomplete", &responseWhy{"max_output_tokens"}
	}
	o.Output = []responseMessage{item}
	o.Usage = &responseUsage{
		InputTokens: prompts, InputDetails: map[string]int{"cached_tokens": c.cached},
		OutputTokens: c.tokens, OutputDetails: map[string]int{"reasoning_tokens": 0}, TotalTokens: prompts + c.tokens,
	}
	p.r.store.put(o)
	if !p.g.stream {
		p.x.json(http.StatusOK, o)
		return nil
	}
	for _, e := range []struct {
		kind   string
		fields map[string]any
	}{
		{"response.output_text.done", p.part(map[string]any{"text": text.Text, "logprobs": []int{}})},
		{"response.content_part.done", p.part(map[string]any{"part": text})},
		{"response.output_item.done", map[string]any{"output_index": 0, "item": item}},
		{"response.completed", map[string]any{"response": o}},
	} {
		if err := p.event(e.kind, e.fields); err != nil {
			return err
		}
	}
	p.x.endStream()
	return nil
}

// transcriptions is the multipart route of speech models. One second of audio
// is taken to be 32,000 bytes (16 kHz, 16 bit) and to say three tokens.
func (r *run) transcriptions(x *exchange) {
	form, err := x.multipart()
	if err != nil || len(form.file) == 0 {
		r.invalid(x, "", "{'type': 'missing', 'loc': ('body', 'file'), 'msg': 'Field required', 'input': None}")
		return
	}
	if m := form.values["model"]; m != "" && !r.cfg.serves(m) {
		r.reject(x, notFound(m))
		return
	}
	seconds := max(len(form.file)/32000, 1)
	limit := 3 * seconds
	g := &genRequest{
		n: 1, limit: &limit, ignoreEOS: true, stream: form.values["stream"] == "true",
		usage: form.values["stream_include_usage"] == "true", prompts: []prompt{textPrompt(string(form.file[:min(len(form.file), 6000)]))},
	}
	a := r.newReply(x, g, "trsc-")
	r.generate(x, g, &transcript{reply: a, seconds: seconds, plain: form.values["response_format"] == "text"})
}

type transcript struct {
	reply
	seconds int
	plain   bool
}

func (t *transcript) open() error {
	if t.g.stream {
		return t.x.startStream()
	}
	return nil
}

func (t *transcript) deliver(c *choice, from, to int) error {
	if !t.g.stream {
		return nil
	}
	b := t.chunkHead("transcription.chunk")
	b = appendJSONString(append(b, `{"delta":{"content":`...), c.piece(from, to))
	b = append(b, `}`...)
	if c.done {
		b = append(b, `,"finish_reason":"stop","stop_reason":null`...)
	}
	return t.send(append(b, "}]}"...))
}

func (t *transcript) finish(choices []*choice, prompts int) error {
	if t.g.stream {
		return t.done("transcription.chunk", choices, prompts)
	}
	text := choices[0].piece(0, choices[0].tokens)
	if t.plain {
		t.x.respond(http.StatusOK, "text/plain; charset=utf-8", []byte(text))
		return nil
	}
	t.x.json(http.StatusOK, struct {
		Text  string `json:"text"`
		Usage struct {
			Type    string `json:"type"`
			Seconds int    `json:"seconds"`
		} `json:"usage"`
	}{text, struct {
		Type    string `json:"type"`
		Seconds int    `json:"seconds"`
	}{"duration", t.seconds}})
	return nil
}
