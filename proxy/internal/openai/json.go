package openai

import (
	"bytes"
	"math"
)

// ReadJSON reads a JSON body. It always reads to the end, because only the last of several equal keys counts and a body
// that was cut short must not be sent; it allocates nothing unless it fails. What p held before is forgotten. It fills p in
// place: a Peek that is handed up by value through five calls made the stack of every stream 4 KiB larger.
func (p *Peek) ReadJSON(body []byte) error {
	*p = Peek{MaxTokens: -1}
	if len(body) == 0 {
		return ErrEmpty
	}
	if !plainUTF8(body) {
		return ErrEncoding
	}
	r := jsonReader{scanner: scanner{b: body}, peek: p, limits: limits{-1, -1, -1}}
	r.space()
	if r.i < len(body) && body[r.i] != '{' {
		return ErrNotObject
	}
	if !r.object() {
		*p = Peek{MaxTokens: -1}
		return r.err()
	}
	return r.finish()
}

// plainUTF8 reports whether body can be UTF-8 without a byte order mark: json.detect_encoding of Python's json package
// goes by the marks and by where among the first two bytes a NUL is.
func plainUTF8(body []byte) bool {
	if len(body) < 2 {
		return true
	}
	return body[0] != 0 && body[1] != 0 && body[0] < 0xFE &&
		!bytes.HasPrefix(body, []byte("\xEF\xBB\xBF"))
}

// limits are max_completion_tokens, max_tokens and max_output_tokens; -1 is unknown.
type limits [3]int

func (l limits) first() int {
	for _, n := range l {
		if n >= 0 {
			return n
		}
	}
	return -1
}

// span is a byte range of the body, empty if the value is absent.
type span struct{ start, end int }

// jsonReader collects the members of the top-level object.
type jsonReader struct {
	scanner
	peek    *Peek
	limits  limits
	prompts [3]span // messages, prompt, input
}

// object reads the whole body: the object, and nothing but white space behind it.
func (r *jsonReader) object() bool {
	if !r.at('{') {
		return r.fail("an object")
	}
	r.i++
	r.space()
	if r.at('}') {
		r.i++
		return r.end()
	}
	for {
		if !r.member() {
			return false
		}
		r.space()
		switch {
		case r.at('}'):
			r.i++
			return r.end()
		case !r.at(','):
			return r.fail("a comma or }")
		}
		r.i++
		r.space()
	}
}

func (r *jsonReader) end() bool {
	r.space()
	return r.i == len(r.b) || r.fail("the end of the body")
}

// member reads one key and its value.
func (r *jsonReader) member() bool {
	start := r.i
	if !r.at('"') {
		return r.fail("a key in quotes")
	}
	if !r.str() {
		return false
	}
	raw := r.b[start+1 : r.i-1]
	if !r.colon() {
		return false
	}
	value := r.i
	if !r.value() {
		return false
	}
	r.note(raw, span{value, r.i})
	return true
}

// note keeps what is wanted of one member; a later one replaces an earlier one.
func (r *jsonReader) note(rawKey []byte, v span) {
	var buf [longestKey]byte
	switch string(plainKey(&buf, rawKey)) {
	case "model":
		r.peek.Duplicate = r.peek.HasModel
		r.peek.HasModel = true
		r.peek.ModelStart, r.peek.ModelEnd = v.start, v.end
	case "stream":
		r.peek.Stream = truth(unquoted(r.b[v.start:v.end]))
	case "messages":
		r.prompts[0] = r.orNone(v)
	case "prompt":
		r.prompts[1] = r.orNone(v)
	case "input":
		r.prompts[2] = r.orNone(v)
	case "max_completion_tokens":
		r.limits[0] = count(r.b[v.start:v.end])
	case "max_tokens":
		r.limits[1] = count(r.b[v.start:v.end])
	case "max_output_tokens":
		r.limits[2] = count(r.b[v.start:v.end])
	case "tools":
		r.keep(Tools, v)
	case "documents":
		r.keep(Documents, v)
	case "system":
		r.keep(System, v)
	case "instructions":
		r.keep(Instructions, v)
	case "chat_template":
		r.keep(ChatTemplate, v)
	case "chat_template_kwargs":
		r.keep(ChatTemplateArguments, v)
	case "reasoning_effort":
		r.keep(ReasoningEffort, v)
	case "cache_salt":
		r.keep(CacheSalt, v)
	case "previous_response_id":
		r.keep(PreviousResponse, v)
	case "user":
		r.keep(User, v)
	case "prompt_cache_key":
		r.keep(PromptCacheKey, v)
	}
}

func (r *jsonReader) keep(f Field, v span) {
	v = r.orNone(v)
	r.peek.fields[f] = narrow{uint32(v.start), uint32(v.end)}
}

// orNone is v, or nothing if the value is null: pydantic's Optional fields take null as absent.
func (r *jsonReader) orNone(v span) span {
	if r.b[v.start] == 'n' {
		return span{}
	}
	return v
}

// finish settles what only the end of the body can tell.
func (r *jsonReader) finish() error {
	p := r.peek
	p.MaxTokens = r.limits.first()
	for _, s := range r.prompts {
		if s.end > 0 {
			p.PromptStart, p.PromptEnd = s.start, s.end
			break
		}
	}
	if !p.HasModel {
		return nil
	}
	var err error
	switch r.b[p.ModelStart] {
	case 'n': // null, which is absent like that of every Optional field of pydantic's
		p.HasModel, p.ModelStart, p.ModelEnd = false, 0, 0
		return nil
	case '"':
		var ok bool
		if p.escaped, ok = validText(r.b[p.ModelStart+1 : p.ModelEnd-1]); !ok {
			err = ErrModelText
		}
	default:
		err = ErrModelNotString
	}
	if err != nil {
		p.HasModel, p.ModelStart, p.ModelEnd, p.escaped = false, 0, 0, false
	}
	return err
}

// longestKey is len("max_completion_tokens").
const longestKey = 21

// plainKey is a key with its escapes decoded. One that is too long, or beyond ASCII, to be looked for comes out empty or
// as it is, which is none of those either.
func plainKey(buf *[longestKey]byte, raw []byte) []byte {
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw
	}
	return decodeKey(buf[:0], raw)
}

func decodeKey(dst, raw []byte) []byte {
	for i := 0; i < len(raw); {
		c, size := rune(raw[i]), 1
		if c == '\\' {
			c, size = unescape(raw[i:])
		}
		if size == 0 || c >= 0x80 || len(dst) == cap(dst) {
			return nil
		}
		dst = append(dst, byte(c))
		i += size
	}
	return dst
}

// unquoted is v without its quotes if it is a string.
func unquoted(v []byte) []byte {
	if v[0] == '"' {
		return v[1 : len(v)-1]
	}
	return v
}

// truth is pydantic's lax reading of a bool (docs.pydantic.dev, conversion table), without its spellings in escapes.
func truth(v []byte) bool {
	switch len(v) {
	case 1:
		return v[0] == '1' || v[0]|0x20 == 't' || v[0]|0x20 == 'y'
	case 2:
		return bytes.EqualFold(v, []byte("on"))
	case 3:
		return bytes.EqualFold(v, []byte("yes")) || string(v) == "1.0"
	case 4:
		return bytes.EqualFold(v, []byte("true"))
	}
	return false
}

// count is a number of tokens, -1 if v is none. pydantic's lax int also takes "64", 64.0 and 6.4e1; the first two are
// read here, the last is left unknown.
func count(v []byte) int {
	v = bytes.TrimSuffix(unquoted(v), []byte(".0"))
	if len(v) == 0 {
		return -1
	}
	n := 0
	for _, c := range v {
		if c < '0' || c > '9' {
			return -1
		}
		if n = n*10 + int(c-'0'); n > math.MaxInt32 {
			n = math.MaxInt32 // beyond every context window
		}
	}
	return n
}
