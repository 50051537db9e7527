package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// validator checks fields as pydantic does and words its complaints.
type validator struct {
	o       *object
	details []string
}

func quoteKey(k string) string { return reprString(k) }

func (v *validator) complain(kind, key, msg string, input []byte) {
	v.details = append(v.details, fmt.Sprintf("{'type': '%s', 'loc': ('body', %s), 'msg': '%s', 'input': %s}",
		kind, quoteKey(key), msg, repr(input)))
}

// required complains about an absent field.
func (v *validator) required(key string) bool {
	if v.o.has(key) {
		return true
	}
	v.complain("missing", key, "Field required", v.o.raw)
	return false
}

// whole reads an optional integer. Pydantic's lax mode takes "5" and 5.0, too.
func (v *validator) whole(key string) *int {
	if v.o.null(key) {
		return nil
	}
	raw := v.o.vals[key]
	text := string(raw)
	var s string
	if json.Unmarshal(raw, &s) == nil {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil {
			v.complain("int_parsing", key, "Input should be a valid integer, unable to parse string as an integer", raw)
			return nil
		}
		return &n
	}
	if n, err := strconv.Atoi(text); err == nil {
		return &n
	}
	f, err := strconv.ParseFloat(text, 64)
	switch {
	case text == "true" || text == "false":
		n := len("false") - len(text)
		return &n
	case err != nil:
		v.complain("int_type", key, "Input should be a valid integer", raw)
		return nil
	case f != math.Trunc(f):
		v.complain("int_from_float", key, "Input should be a valid integer, got a number with a fractional part", raw)
		return nil
	}
	n := int(f)
	return &n
}

func (v *validator) number(key string) *float64 {
	if v.o.null(key) {
		return nil
	}
	var f float64
	raw := v.o.vals[key]
	if json.Unmarshal(raw, &f) == nil {
		return &f
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		v.complain("float_type", key, "Input should be a valid number", raw)
		return nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		v.complain("float_parsing", key, "Input should be a valid number, unable to parse string as a number", raw)
		return nil
	}
	return &f
}

func (v *validator) flag(key string) bool {
	if v.o.null(key) {
		return false
	}
	raw := v.o.vals[key]
	switch strings.ToLower(strings.Trim(string(raw), `"`)) {
	case "true", "1", "1.0", "yes", "on", "t", "y":
		return true
	case "false", "0", "0.0", "no", "off", "f", "n":
		return false
	}
	if raw[0] == '"' {
		v.complain("bool_parsing", key, "Input should be a valid boolean, unable to interpret input", raw)
	} else {
		v.complain("bool_type", key, "Input should be a valid boolean", raw)
	}
	return false
}

func (v *validator) text(key string) string {
	if v.o.null(key) {
		return ""
	}
	var s string
	if json.Unmarshal(v.o.vals[key], &s) != nil {
		v.complain("string_type", key, "Input should be a valid string", v.o.vals[key])
	}
	return s
}

// texts reads a string or a list of strings.
func (v *validator) texts(key string) []string {
	if v.o.null(key) {
		return nil
	}
	var s string
	if json.Unmarshal(v.o.vals[key], &s) == nil {
		return []string{s}
	}
	var list []string
	if json.Unmarshal(v.o.vals[key], &list) != nil {
		v.complain("list_type", key, "Input should be a valid list", v.o.vals[key])
	}
	return list
}

// forbid complains about every field not in known: extra="forbid".
func (v *validator) forbid(known map[string]bool) {
	for _, k := range v.o.keys {
		if !known[k] {
			v.complain("extra_forbidden", k, "Extra inputs are not permitted", v.o.vals[k])
		}
	}
}

// modelError words a failed "before" validator, which is reported alone.
func (r *run) modelError(x *exchange, o *object, message, param string) {
	class, text := "ValueError", message
	if r.cfg.Profile == ProfileV019 {
		class, text = "VLLMValidationError", message+" (parameter="+param+")"
	}
	r.invalid(x, param, fmt.Sprintf("{'type': 'value_error', 'loc': ('body',), 'msg': %s, 'input': %s, 'ctx': {'error': %s(%s)}}",
		reprString("Value error, "+text), repr(o.raw), class, reprString(message)))
}

// body decodes an API call's JSON object, or answers why not.
func (r *run) body(x *exchange) (*object, bool) {
	if !x.isJSON() && x.req.Header.Get("Content-Type") != "" {
		x.fail() // v0.6.4's validators call .get on the bytes
		return nil, false
	}
	if len(x.body) == 0 {
		r.invalid(x, "", "{'type': 'missing', 'loc': ('body',), 'msg': 'Field required', 'input': None}")
		return nil, false
	}
	o, err := parseObject(x.body)
	switch {
	case errors.Is(err, errNotObject):
		x.fail()
		return nil, false
	case err != nil:
		msg, at := pythonJSONError(x.body, err)
		r.invalid(x, "", fmt.Sprintf("{'type': 'json_invalid', 'loc': ('body', %d), 'msg': 'JSON decode error', 'input': {}, 'ctx': {'error': %s}}",
			at, reprString(msg)))
		return nil, false
	}
	return o, true
}

// resolve finds the served model; v0.19 takes an absent one for the only one.
func (r *run) resolve(o *object, model string) *apiError {
	if r.cfg.Profile == ProfileV019 && (o == nil || o.null("model") || model == "") {
		return nil
	}
	if r.cfg.serves(model) {
		return nil
	}
	return notFound(model)
}

func set(words string) map[string]bool {
	m := make(map[string]bool)
	for _, w := range strings.Fields(words) {
		m[w] = true
	}
	return m
}

// Fields of vllm/entrypoints/openai/protocol.py@v0.6.4.post1. Its models have
// extra="forbid"; v0.19 ignores what it does not know.
const samplingV064 = " frequency_penalty logit_bias logprobs max_tokens n presence_penalty response_format seed stop stream" +
	" stream_options temperature top_p user best_of use_beam_search top_k min_p repetition_penalty length_penalty stop_token_ids" +
	" include_stop_str_in_output ignore_eos min_tokens skip_special_tokens spaces_between_special_tokens truncate_prompt_tokens" +
	" prompt_logprobs echo add_special_tokens guided_json guided_regex guided_choice guided_grammar guided_decoding_backend" +
	" guided_whitespace_pattern priority model "

const templateV064 = " add_generation_prompt continue_final_message add_special_tokens "

var (
	chatFieldsV064 = set("messages top_logprobs max_completion_tokens tools tool_choice parallel_tool_calls documents" +
		" chat_template chat_template_kwargs request_id" + templateV064 + samplingV064)
	completionFieldsV064 = set("prompt suffix allowed_token_ids" + samplingV064)
	embeddingFieldsV064  = set("model input encoding_format dimensions user truncate_prompt_tokens additional_data" +
		" add_special_tokens priority")
	embeddingChatFieldsV064 = set("model messages encoding_format dimensions user truncate_prompt_tokens additional_data" +
		" chat_template chat_template_kwargs priority" + templateV064)
	tokenizeFieldsV064     = set("model prompt add_special_tokens")
	tokenizeChatFieldsV064 = set("model messages" + templateV064)
	detokenizeFieldsV064   = set("model tokens")
)

// strict applies extra="forbid" where the profile has it.
func (r *run) strict(v *validator, known map[string]bool) {
	if r.cfg.Profile == ProfileV064 {
		v.forbid(known)
	}
}
