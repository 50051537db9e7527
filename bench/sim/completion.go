package sim

import (
	"net/http"
	"strconv"
)

func (r *run) completion(x *exchange) {
	g, ok := r.parseCompletion(x)
	if !ok {
		return
	}
	a := r.newReply(x, g, "cmpl-")
	if g.stream {
		r.generate(x, g, &completionStream{reply: a})
		return
	}
	r.generate(x, g, &completionFull{reply: a})
}

// completionStream is completion_stream_generator: unlike chat chunks its
// chunks are dumped with every unset field.
type completionStream struct{ reply }

func (s *completionStream) open() error { return s.x.startStream() }

func (s *completionStream) deliver(c *choice, from, to int) error {
	text := c.piece(from, to)
	if from == 0 {
		text = c.lead + text
	}
	b := s.chunkHead("text_completion")
	b = strconv.AppendInt(append(b, `{"index":`...), int64(c.index), 10)
	b = appendJSONString(append(b, `,"text":`...), text)
	b = append(b, `,"logprobs":null,"finish_reason":`...)
	if c.done {
		b = append(append(append(b, '"'), c.reason...), '"')
		b = appendStop(append(b, `,"stop_reason":`...), c)
	} else {
		b = append(b, `null,"stop_reason":null`...)
	}
	if s.v019() {
		b = append(b, `,"prompt_token_ids":null,"token_ids":null`...)
	}
	b = append(b, `}],"usage":`...)
	if s.g.continuous {
		b = appendFullUsage(b, c.prompt.tokens(), c.tokens)
	} else {
		b = append(b, "null"...)
	}
	return s.send(append(b, '}'))
}

// appendFullUsage dumps the unset details, too.
func appendFullUsage(b []byte, prompt, completion int) []byte {
	b = appendUsage(b, prompt, completion)
	return append(b[:len(b)-1], `,"prompt_tokens_details":null}`...)
}

func (s *completionStream) finish(choices []*choice, prompts int) error {
	return s.done("text_completion", choices, prompts)
}

type completionFull struct{ reply }

func (f *completionFull) open() error                     { return nil }
func (f *completionFull) deliver(*choice, int, int) error { return nil }

type textChoice struct {
	Index          int     `json:"index"`
	Text           string  `json:"text"`
	Logprobs       *int    `json:"logprobs"`
	FinishReason   string  `json:"finish_reason"`
	StopReason     *string `json:"stop_reason"`
	PromptLogprobs *int    `json:"prompt_logprobs"`
}

type textChoiceV019 struct {
	Index          int     `json:"index"`
	Text           string  `json:"text"`
	Logprobs       *int    `json:"logprobs"`
	FinishReason   string  `json:"finish_reason"`
	StopReason     *string `json:"stop_reason"`
	TokenIDs       *int    `json:"token_ids"`
	PromptLogprobs *int    `json:"prompt_logprobs"`
	PromptTokenIDs *int    `json:"prompt_token_ids"`
}

type textResponse struct {
	ID      string       `json:"id"`
	Object  string       `json:"object"`
	Created int64        `json:"created"`
	Model   string       `json:"model"`
	Choices []textChoice `json:"choices"`
	Usage   usageInfo    `json:"usage"`
}

type textResponseV019 struct {
	ID                string           `json:"id"`
	Object            string           `json:"object"`
	Created           int64            `json:"created"`
	Model             string           `json:"model"`
	Choices           []textChoiceV019 `json:"choices"`
	ServiceTier       *int             `json:"service_tier"`
	SystemFingerprint *int             `json:"system_fingerprint"`
	Usage             usageInfo        `json:"usage"`
	KVTransferParams  *int             `json:"kv_transfer_params"`
}

func (f *completionFull) finish(choices []*choice, prompts int) error {
	usage := f.r.usageOf(prompts, choices)
	if f.v019() {
		res := textResponseV019{ID: f.id, Object: "text_completion", Created: f.created, Model: f.r.cfg.Model, Usage: usage}
		for _, c := range choices {
			res.Choices = append(res.Choices, textChoiceV019{
				Index: c.index, Text: c.lead + c.piece(0, c.tokens), FinishReason: c.reason, StopReason: c.stopReason(),
			})
		}
		f.x.json(http.StatusOK, res, f.orca()...)
		return nil
	}
	res := textResponse{ID: f.id, Object: "text_completion", Created: f.created, Model: f.r.cfg.Model, Usage: usage}
	for _, c := range choices {
		res.Choices = append(res.Choices, textChoice{
			Index: c.index, Text: c.lead + c.piece(0, c.tokens), FinishReason: c.reason, StopReason: c.stopReason(),
		})
	}
	f.x.json(http.StatusOK, res)
	return nil
}
