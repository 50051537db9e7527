package sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// genRequest is a chat or text completion after validation.
type genRequest struct {
	model      string
	stream     bool
	usage      bool // stream_options.include_usage
	continuous bool
	limit      *int // max_tokens
	minTokens  int
	ignoreEOS  bool
	n          int
	echo       bool
	stop       []string
	keepStop   bool // include_stop_str_in_output
	seed       int
	salt       string
	requestID  string
	prompts    []prompt
	echoed     []string // prompt texts, for echo
	role       string
}

// parseChat reads a chat request, or answers what is wrong with it.
func (r *run) parseChat(x *exchange) (*genRequest, bool) {
	o, ok := r.body(x)
	if !ok {
		return nil, false
	}
	if o.truthy("stream_options") && !o.truthy("stream") {
		r.modelError(x, o, "Stream options can only be defined when `stream=True`.", "stream_options")
		return nil, false
	}
	v := &validator{o: o}
	g := &genRequest{role: "assistant"}
	var msgs []message
	if v.required("messages") {
		msgs = v.messages("messages")
	}
	r.sampling(v, g)
	if m := v.whole("max_completion_tokens"); m != nil && *m != 0 {
		g.limit = m // `request.max_completion_tokens or request.max_tokens`
	}
	g.requestID = v.text("request_id")
	generation := o.null("add_generation_prompt") || v.flag("add_generation_prompt")
	r.strict(v, chatFieldsV064)
	if len(v.details) > 0 {
		r.invalid(x, "", v.details...)
		return nil, false
	}
	if len(msgs) > 0 {
		g.echoed = []string{msgs[len(msgs)-1].content}
		if !generation {
			g.role = msgs[len(msgs)-1].role
		}
	}
	g.prompts = []prompt{chatPrompt(msgs, generation)}
	return g, r.check(x, o, g)
}

// parseCompletion reads a text completion request.
func (r *run) parseCompletion(x *exchange) (*genRequest, bool) {
	o, ok := r.body(x)
	if !ok {
		return nil, false
	}
	if o.truthy("stream_options") && !o.truthy("stream") {
		r.modelError(x, o, "Stream options can only be defined when `stream=True`.", "stream_options")
		return nil, false
	}
	v := &validator{o: o}
	g := &genRequest{}
	r.sampling(v, g)
	if v.required("prompt") {
		g.prompts, g.echoed = v.prompts("prompt")
	}
	r.strict(v, completionFieldsV064)
	if len(v.details) > 0 {
		r.invalid(x, "", v.details...)
		return nil, false
	}
	if g.limit == nil {
		sixteen := 16 // OpenAI's default for completions
		g.limit = &sixteen
	}
	return g, r.check(x, o, g)
}

// sampling reads the fields both kinds share.
func (r *run) sampling(v *validator, g *genRequest) {
	if r.cfg.Profile == ProfileV019 || v.required("model") {
		g.model = v.text("model")
	}
	g.limit = v.whole("max_tokens")
	g.n = 1
	if n := v.whole("n"); n != nil {
		g.n = *n
	}
	if s := v.whole("seed"); s != nil {
		g.seed = *s
	}
	g.stop = v.texts("stop")
	g.stream = v.flag("stream")
	g.echo = v.flag("echo")
	g.ignoreEOS = v.flag("ignore_eos")
	g.keepStop = v.flag("include_stop_str_in_output")
	if m := v.whole("min_tokens"); m != nil {
		g.minTokens = *m
	}
	if r.cfg.Profile == ProfileV019 {
		g.salt = v.text("cache_salt")
	}
	g.usage, g.continuous = v.streamOptions()
}

// streamOptions reads stream_options: include_usage defaults to true inside a
// given object, and continuous_usage_stats needs it.
func (v *validator) streamOptions() (usage, continuous bool) {
	if v.o.null("stream_options") {
		return false, false
	}
	raw := v.o.vals["stream_options"]
	opt, err := parseObject(raw)
	if err != nil {
		v.complain("model_attributes_type", "stream_options",
			"Input should be a valid dictionary or object to extract fields from", raw)
		return false, false
	}
	in := &validator{o: opt}
	usage = !opt.has("include_usage") || in.flag("include_usage")
	continuous = usage && in.flag("continuous_usage_stats")
	v.details = append(v.details, in.details...)
	return usage, continuous
}

// messages reads the chat messages the template sees: role and text.
func (v *validator) messages(key string) []message {
	raw := v.o.vals[key]
	var list []struct {
		Role    string          `json:"role"`
		Content json.RawMessage `json:"content"`
	}
	if len(raw) == 0 || raw[0] != '[' || json.Unmarshal(raw, &list) != nil {
		v.complain("list_type", key, "Input should be a valid list", raw)
		return nil
	}
	msgs := make([]message, len(list))
	for i, m := range list {
		msgs[i] = message{role: m.Role, content: contentText(m.Content)}
	}
	return msgs
}

// contentText joins the text parts of a message with newlines, as vLLM does
// for templates that want a string.
func contentText(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	var parts []struct {
		Text string `json:"text"`
	}
	if json.Unmarshal(raw, &parts) != nil {
		return ""
	}
	texts := make([]string, len(parts))
	for i, p := range parts {
		texts[i] = p.Text
	}
	return strings.Join(texts, "\n")
}

// prompts reads what vLLM takes for a prompt or an embedding input: a string,
// a list of strings, a list of token ids, or a list of those.
func (v *validator) prompts(key string) (ps []prompt, texts []string) {
	raw := v.o.vals[key]
	var one string
	var many []string
	var ids []uint32
	var lists [][]uint32
	switch {
	case bytes.Equal(raw, []byte("[]")):
	case json.Unmarshal(raw, &one) == nil:
		return []prompt{textPrompt(one)}, []string{one}
	case json.Unmarshal(raw, &many) == nil:
		for _, s := range many {
			ps = append(ps, textPrompt(s))
		}
		return ps, many
	case json.Unmarshal(raw, &ids) == nil:
		return []prompt{tokenPrompt(ids)}, []string{detokenize(ids)}
	case json.Unmarshal(raw, &lists) == nil:
		for _, l := range lists {
			ps = append(ps, tokenPrompt(l))
			texts = append(texts, detokenize(l))
		}
		return ps, texts
	}
	v.complain("string_type", key, "Input should be a valid string", raw)
	return nil, nil
}

// check applies what vLLM checks after pydantic: the model, the context, the
// sampling parameters.
func (r *run) check(x *exchange, o *object, g *genRequest) bool {
	err := r.resolve(o, g.model)
	for i := 0; err == nil && i < len(g.prompts); i++ {
		err = r.fits(&g.prompts[i], g.limit)
	}
	if err == nil {
		err = r.sane(o, g)
	}
	if err != nil {
		r.reject(x, err)
	}
	return err == nil
}

// fits checks prompt and limit against the context.
func (r *run) fits(p *prompt, limit *int) *apiError {
	n, most := p.tokens(), r.eng.MaxModelLen
	head := fmt.Sprintf("This model's maximum context length is %d tokens. However, you requested ", most)
	out := 0
	if limit != nil {
		out = *limit
	}
	switch {
	case limit == nil && n >= most && r.cfg.Profile == ProfileV064:
		return r.badRequest(head+fmt.Sprintf("%d tokens in the messages, Please reduce the length of the messages.", n), "", nil)
	case n+out <= most && n < most:
		return nil
	case r.cfg.Profile == ProfileV064 && n+out > most:
		return r.badRequest(head+fmt.Sprintf("%d tokens (%d in the messages, %d in the completion). "+
			"Please reduce the length of the messages or completion.", out+n, n, out), "", nil)
	case r.cfg.Profile == ProfileV064:
		return nil
	}
	// The v0.19 tokenizer stops one token after the room there is
	// (renderers/params.py).
	count := min(n, max(most-out, 0)+1)
	return r.badRequest(head+fmt.Sprintf("%d output tokens and your prompt contains at least %d input tokens, "+
		"for a total of at least %d tokens. Please reduce the length of the input prompt or the number of requested output tokens.",
		out, count, count+out), "input_tokens", count)
}

// sane is SamplingParams._verify_args, as far as clients get it wrong.
func (r *run) sane(o *object, g *genRequest) *apiError {
	v := &validator{o: o}
	t, p := v.number("temperature"), v.number("top_p")
	switch {
	case g.n < 1:
		return r.badRequest(fmt.Sprintf("n must be at least 1, got %d.", g.n), "n", g.n)
	case t != nil && *t < 0:
		return r.badRequest("temperature must be non-negative, got "+pythonFloat(*t)+".", "temperature", pythonFloat(*t))
	case p != nil && (*p <= 0 || *p > 1):
		return r.badRequest("top_p must be in (0, 1], got "+pythonFloat(*p)+".", "top_p", pythonFloat(*p))
	case g.limit != nil && *g.limit < 1 && !(g.echo && *g.limit == 0):
		return r.badRequest(fmt.Sprintf("max_tokens must be at least 1, got %d.", *g.limit), "max_tokens", *g.limit)
	case g.minTokens < 0:
		return r.badRequest(fmt.Sprintf("min_tokens must be greater than or equal to 0, got %d.", g.minTokens), "min_tokens", g.minTokens)
	case g.limit != nil && g.minTokens > *g.limit:
		return r.badRequest(fmt.Sprintf("min_tokens must be less than or equal to max_tokens=%d, got %d.", *g.limit, g.minTokens), "min_tokens", g.minTokens)
	}
	if prio := v.whole("priority"); prio != nil && *prio != 0 && r.cfg.Profile == ProfileV064 {
		return r.badRequest(fmt.Sprintf("Got priority %d but Priority scheduling is not enabled.", *prio), "", nil)
	}
	return nil
}
