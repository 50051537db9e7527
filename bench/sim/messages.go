package sim

import (
	"encoding/json"
	"net/http"
	"strings"
)

// Anthropic's Messages API, as vllm/entrypoints/anthropic@v0.19 serves it: the request
// becomes a chat completion, and its chunks become their events. Text in and text out.

// messagesError is vLLM's AnthropicErrorResponse. Requests that fail validation are
// answered in OpenAI's shape there, too.
type messagesError struct {
	Type  string        `json:"type"`
	Error messagesCause `json:"error"`
}

type messagesCause struct {
	Type    string `json:"type"`
	Message string `json:"message"`
}

func newMessagesError(kind, message string) messagesError {
	return messagesError{"error", messagesCause{kind, message}}
}

type messagesUsage struct {
	InputTokens  int `json:"input_tokens"`
	OutputTokens int `json:"output_tokens"`
}

type messagesText struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

type messagesAnswer struct {
	ID         string         `json:"id"`
	Type       string         `json:"type"`
	Role       string         `json:"role"`
	Content    []messagesText `json:"content"`
	Model      string         `json:"model"`
	StopReason string         `json:"stop_reason"`
	Usage      messagesUsage  `json:"usage"`
}

// parseMessages reads what both routes take, or answers what is wrong with it.
func (r *run) parseMessages(x *exchange, more func(*validator, *genRequest)) (*genRequest, *object, bool) {
	o, ok := r.body(x)
	if !ok {
		return nil, nil, false
	}
	v := &validator{o: o}
	g := &genRequest{n: 1, role: "assistant"}
	if v.required("model") {
		g.model = v.text("model")
	}
	var msgs []message
	if v.required("messages") {
		msgs = v.messages("messages")
	}
	if s := systemText(o.vals["system"]); s != "" {
		msgs = append([]message{{"system", s}}, msgs...)
	}
	more(v, g)
	if len(v.details) > 0 {
		r.invalid(x, "", v.details...)
		return nil, nil, false
	}
	g.prompts = []prompt{chatPrompt(msgs, true)}
	x.anthropic = true
	return g, o, true
}

// billingHeader begins a block of Claude Code's that is another in each request; vLLM
// leaves it out (#36829).
const billingHeader = "x-anthropic-billing-header"

// systemText is the system prompt: a string, or text blocks one behind the other.
func systemText(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	var blocks []messagesText
	if json.Unmarshal(raw, &blocks) != nil {
		return ""
	}
	for _, b := range blocks {
		if b.Type == "text" && !strings.HasPrefix(b.Text, billingHeader) {
			s += b.Text
		}
	}
	return s
}

func (r *run) messages(x *exchange) {
	g, o, ok := r.parseMessages(x, func(v *validator, g *genRequest) {
		g.stream = v.flag("stream")
		g.stop = v.texts("stop_sequences")
		if v.required("max_tokens") {
			g.limit = v.whole("max_tokens")
		}
		if g.limit != nil && *g.limit <= 0 {
			v.details = append(v.details, "{'type': 'value_error', 'loc': ('body', 'max_tokens'), 'msg': 'Value error, max_tokens must be positive', 'input': "+
				repr(v.o.vals["max_tokens"])+", 'ctx': {'error': ValueError('max_tokens must be positive')}}")
		}
	})
	if !ok || !r.check(x, o, g) {
		return
	}
	r.generate(x, g, &messenger{reply: r.newReply(x, g, "chatcmpl-")})
}

func (r *run) countTokens(x *exchange) {
	g, o, ok := r.parseMessages(x, func(*validator, *genRequest) {})
	if !ok || !r.check(x, o, g) || !r.room(x, 1) {
		return
	}
	n := g.prompts[0].tokens()
	type context struct {
		Original int `json:"original_input_tokens"`
	}
	x.json(http.StatusOK, struct {
		InputTokens int     `json:"input_tokens"`
		Context     context `json:"context_management"`
	}{n, context{n}})
}

// messenger is messages_full_converter and message_stream_converter.
type messenger struct {
	reply
	block bool // a content block is open
}

func (m *messenger) open() error {
	if !m.g.stream {
		return nil
	}
	return m.x.startStream()
}

// event sends one. Its fields are in the order of AnthropicStreamEvent.
func (m *messenger) event(kind string, fields any) error {
	return m.x.chunk(append(append([]byte("event: "+kind+"\ndata: "), encodeJSON(fields)...), "\n\n"...))
}

// first is the chunk with the role, which comes with the first token.
func (m *messenger) first() error {
	type message struct {
		ID           string        `json:"id"`
		Content      []int         `json:"content"`
		Model        string        `json:"model"`
		StopReason   *string       `json:"stop_reason"`
		StopSequence *string       `json:"stop_sequence"`
		Usage        messagesUsage `json:"usage"`
	}
	return m.event("message_start", struct {
		Type    string  `json:"type"`
		Message message `json:"message"`
	}{"message_start", message{ID: m.id, Content: []int{}, Model: m.r.cfg.Model, Usage: messagesUsage{InputTokens: m.g.prompts[0].tokens()}}})
}

func (m *messenger) deliver(c *choice, from, to int) error {
	if !m.g.stream {
		return nil
	}
	if from == 0 {
		if err := m.first(); err != nil {
			return err
		}
	}
	text := c.piece(from, to)
	if text == "" { // end of text
		return nil
	}
	if !m.block {
		m.block = true
		err := m.event("content_block_start", struct {
			Type  string       `json:"type"`
			Block messagesText `json:"content_block"`
			Index int          `json:"index"`
		}{"content_block_start", messagesText{Type: "text"}, 0})
		if err != nil {
			return err
		}
	}
	return m.event("content_block_delta", struct {
		Type  string       `json:"type"`
		Delta messagesText `json:"delta"`
		Index int          `json:"index"`
	}{"content_block_delta", messagesText{"text_delta", text}, 0})
}

func (m *messenger) finish(choices []*choice, prompts int) error {
	c := choices[0]
	reason := "end_turn"
	if c.reason == "length" {
		reason = "max_tokens"
	}
	usage := messagesUsage{prompts, c.tokens}
	if !m.g.stream {
		a := messagesAnswer{ID: m.id, Type: "message", Role: "assistant", Content: []messagesText{}, Model: m.r.cfg.Model, StopReason: reason, Usage: usage}
		if text := c.piece(0, c.tokens); text != "" {
			a.Content = append(a.Content, messagesText{"text", text})
		}
		m.x.json(http.StatusOK, a)
		return nil
	}
	if m.block {
		err := m.event("content_block_stop", struct {
			Type  string `json:"type"`
			Index int    `json:"index"`
		}{"content_block_stop", 0})
		if err != nil {
			return err
		}
	}
	type delta struct {
		StopReason string `json:"stop_reason"`
	}
	err := m.event("message_delta", struct {
		Type  string        `json:"type"`
		Delta delta         `json:"delta"`
		Usage messagesUsage `json:"usage"`
	}{"message_delta", delta{reason}, usage})
	if err != nil {
		return err
	}
	if !m.x.hit.is("lost_done") {
		if err := m.event("message_stop", struct {
			Type string `json:"type"`
		}{"message_stop"}); err != nil {
			return err
		}
	}
	m.x.endStream()
	return nil
}
