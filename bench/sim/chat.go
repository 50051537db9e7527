package sim

import (
	"net/http"
	"strconv"
	"time"
)

// reply holds what every chunk of an answer repeats.
type reply struct {
	r       *run
	x       *exchange
	g       *genRequest
	id      string
	created int64
	buf     []byte
}

func (r *run) newReply(x *exchange, g *genRequest, prefix string) reply {
	id := g.requestID
	if r.cfg.Profile == ProfileV019 {
		if h := x.req.Header.Get("X-Request-Id"); h != "" { // #10968: the header is the id
			id = h
		}
	}
	if id == "" {
		id = r.s.ids.uuid()
	}
	return reply{r: r, x: x, g: g, id: prefix + id, created: time.Now().Unix()}
}

func (a *reply) v019() bool { return a.r.cfg.Profile == ProfileV019 }

// chunkHead appends the fields before choices.
func (a *reply) chunkHead(object string) []byte {
	b := append(a.buf[:0], `{"id":`...)
	b = appendJSONString(b, a.id)
	b = append(append(b, `,"object":"`...), object...)
	b = strconv.AppendInt(append(b, `","created":`...), a.created, 10)
	b = appendJSONString(append(b, `,"model":`...), a.r.cfg.Model)
	return append(b, `,"choices":[`...)
}

func appendUsage(b []byte, prompt, completion int) []byte {
	b = strconv.AppendInt(append(b, `{"prompt_tokens":`...), int64(prompt), 10)
	b = strconv.AppendInt(append(b, `,"total_tokens":`...), int64(prompt+completion), 10)
	b = strconv.AppendInt(append(b, `,"completion_tokens":`...), int64(completion), 10)
	return append(b, '}')
}

// done ends a stream: the usage chunk if wanted, then [DONE].
func (a *reply) done(object string, choices []*choice, prompts int) error {
	if a.g.usage {
		u := a.r.usageOf(prompts, choices)
		b := append(a.chunkHead(object), `],"usage":`...)
		b = appendUsage(b, u.PromptTokens, u.CompletionTokens)
		if u.Details != nil {
			b = strconv.AppendInt(append(b[:len(b)-1], `,"prompt_tokens_details":{"cached_tokens":`...), int64(u.Details.Cached), 10)
			b = append(b, "}}"...)
		}
		b = append(b, '}')
		if err := a.send(b); err != nil {
			return err
		}
	}
	if !a.x.hit.is("lost_done") {
		if err := a.x.event([]byte("[DONE]")); err != nil {
			return err
		}
	}
	a.x.endStream()
	return nil
}

func (a *reply) send(b []byte) error {
	a.buf = b
	return a.x.event(b)
}

func (r *run) chat(x *exchange) {
	g, ok := r.parseChat(x)
	if !ok {
		return
	}
	a := r.newReply(x, g, "chatcmpl-")
	if g.stream {
		r.generate(x, g, &chatStream{reply: a, begun: make([]bool, g.n)})
		return
	}
	r.generate(x, g, &chatFull{reply: a})
}

const chatChunk = "chat.completion.chunk"

// chatStream is chat_completion_stream_generator.
type chatStream struct {
	reply
	roles bool
	begun []bool
}

func (s *chatStream) open() error { return s.x.startStream() }

func (s *chatStream) deliver(c *choice, from, to int) error {
	if !s.roles { // with the first output of any choice
		s.roles = true
		if err := s.sendRoles(c); err != nil {
			return err
		}
	}
	b := s.chunkHead(chatChunk)
	b = strconv.AppendInt(append(b, `{"index":`...), int64(c.index), 10)
	b = append(b, `,"delta":{"content":`...)
	b = appendJSONString(b, c.piece(from, to))
	b = append(b, `},"logprobs":null,"finish_reason":`...)
	if c.done {
		b = append(append(append(b, '"'), c.reason...), `","stop_reason":`...)
		b = appendStop(b, c)
	} else {
		b = append(b, "null"...)
	}
	if s.v019() {
		b = append(b, `,"token_ids":null`...)
	}
	b = append(b, "}]"...)
	return s.send(s.counted(b, c, c.tokens))
}

// counted ends a chunk, with the running usage if that was asked for.
func (s *chatStream) counted(b []byte, c *choice, completion int) []byte {
	if s.g.continuous {
		b = append(b, `,"usage":`...)
		b = appendUsage(b, c.prompt.tokens(), completion)
	}
	return append(b, '}')
}

func appendStop(b []byte, c *choice) []byte {
	if c.stop == "" {
		return append(b, "null"...)
	}
	return appendJSONString(b, c.stop)
}

// sendRoles opens every choice, and repeats the last message if echo is set.
func (s *chatStream) sendRoles(c *choice) error {
	lead := ""
	if s.g.echo {
		lead = c.lead
	}
	for i := range s.g.n {
		b := s.chunkHead(chatChunk)
		b = strconv.AppendInt(append(b, `{"index":`...), int64(i), 10)
		b = appendJSONString(append(b, `,"delta":{"role":`...), s.g.role)
		b = append(b, `,"content":""},"logprobs":null,"finish_reason":null}]`...)
		prompts := ""
		if s.v019() {
			prompts = `,"prompt_token_ids":null`
		}
		if s.g.continuous {
			b = appendUsage(append(b, `,"usage":`...), c.prompt.tokens(), 0)
		}
		b = append(append(b, prompts...), '}')
		if err := s.send(b); err != nil {
			return err
		}
	}
	for i := 0; lead != "" && i < s.g.n; i++ {
		b := s.chunkHead(chatChunk)
		b = strconv.AppendInt(append(b, `{"index":`...), int64(i), 10)
		b = appendJSONString(append(b, `,"delta":{"content":`...), lead)
		b = append(b, `},"logprobs":null,"finish_reason":null}]`...)
		if err := s.send(s.counted(b, c, 0)); err != nil {
			return err
		}
	}
	return nil
}

func (s *chatStream) finish(choices []*choice, prompts int) error {
	return s.done(chatChunk, choices, prompts)
}

// chatFull is chat_completion_full_generator.
type chatFull struct{ reply }

func (f *chatFull) open() error                     { return nil }
func (f *chatFull) deliver(*choice, int, int) error { return nil }

// Answers of v0.6.4: ChatCompletionResponse.model_dump().
type chatMessageV064 struct {
	Role      string `json:"role"`
	Content   string `json:"content"`
	ToolCalls []int  `json:"tool_calls"`
}

type chatChoice[M any] struct {
	Index        int     `json:"index"`
	Message      M       `json:"message"`
	Logprobs     *int    `json:"logprobs"`
	FinishReason string  `json:"finish_reason"`
	StopReason   *string `json:"stop_reason"`
}

type chatResponseV064 struct {
	ID             string                        `json:"id"`
	Object         string                        `json:"object"`
	Created        int64                         `json:"created"`
	Model          string                        `json:"model"`
	Choices        []chatChoice[chatMessageV064] `json:"choices"`
	Usage          usageInfo                     `json:"usage"`
	PromptLogprobs *int                          `json:"prompt_logprobs"`
}

// Answers of v0.19 carry more nulls.
type chatMessageV019 struct {
	Role         string `json:"role"`
	Content      string `json:"content"`
	Refusal      *int   `json:"refusal"`
	Annotations  *int   `json:"annotations"`
	Audio        *int   `json:"audio"`
	FunctionCall *int   `json:"function_call"`
	ToolCalls    []int  `json:"tool_calls"`
	Reasoning    *int   `json:"reasoning"`
}

type chatChoiceV019 struct {
	chatChoice[chatMessageV019]
	TokenIDs *int `json:"token_ids"`
}

type chatResponseV019 struct {
	ID                string           `json:"id"`
	Object            string           `json:"object"`
	Created           int64            `json:"created"`
	Model             string           `json:"model"`
	Choices           []chatChoiceV019 `json:"choices"`
	ServiceTier       *int             `json:"service_tier"`
	SystemFingerprint *int             `json:"system_fingerprint"`
	Usage             usageInfo        `json:"usage"`
	PromptLogprobs    *int             `json:"prompt_logprobs"`
	PromptTokenIDs    *int             `json:"prompt_token_ids"`
	KVTransferParams  *int             `json:"kv_transfer_params"`
}

func (c *choice) stopReason() *string {
	if c.stop == "" {
		return nil
	}
	return &c.stop
}

func (f *chatFull) finish(choices []*choice, prompts int) error {
	usage := f.r.usageOf(prompts, choices)
	if f.v019() {
		res := chatResponseV019{ID: f.id, Object: "chat.completion", Created: f.created, Model: f.r.cfg.Model, Usage: usage}
		for _, c := range choices {
			res.Choices = append(res.Choices, chatChoiceV019{chatChoice: chatChoice[chatMessageV019]{
				Index: c.index, FinishReason: c.reason, StopReason: c.stopReason(),
				Message: chatMessageV019{Role: f.g.role, Content: c.lead + c.piece(0, c.tokens), ToolCalls: []int{}},
			}})
		}
		f.x.json(http.StatusOK, res, f.orca()...)
		return nil
	}
	res := chatResponseV064{ID: f.id, Object: "chat.completion", Created: f.created, Model: f.r.cfg.Model, Usage: usage}
	for _, c := range choices {
		res.Choices = append(res.Choices, chatChoice[chatMessageV064]{
			Index: c.index, FinishReason: c.reason, StopReason: c.stopReason(),
			Message: chatMessageV064{Role: f.g.role, Content: c.lead + c.piece(0, c.tokens), ToolCalls: []int{}},
		})
	}
	f.x.json(http.StatusOK, res)
	return nil
}
