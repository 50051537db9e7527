package openai

import (
	"strconv"
	"unicode/utf8"
)

// Peek is what lbd reads from one request body. It holds offsets, not text: it is valid as long as the body it was read
// from and must be used with that body only.
type Peek struct {
	// ModelStart and ModelEnd are the byte range of the model's value: with its quotes in JSON, the content of the field in
	// a form; the last one if there are several. Both are 0 if there is none.
	ModelStart, ModelEnd int
	// HasModel is true if there is a model, Duplicate if there is more than one.
	HasModel, Duplicate bool
	// Stream is true if the answer is to be an event stream, by pydantic's reading of a bool (true, 1, "yes", ...).
	Stream bool
	// MaxTokens bounds the answer: max_completion_tokens, else max_tokens, else max_output_tokens; -1 is unknown.
	MaxTokens int
	// PromptStart and PromptEnd are the raw byte range of the value of messages, else prompt, else input, with its
	// brackets or quotes. Both are 0 if there is none, and always in a form: the prompt of a transcription is a hint about
	// spelling, not something that a prefix cache holds.
	PromptStart, PromptEnd int

	// fields are the ranges of the values of further fields; empty without one, and always in a form.
	fields [fields]narrow

	form    bool // the model is the raw content of a form field
	escaped bool // the model is a JSON string with escapes
}

// ModelBytes is the name of the model, nil if there is none. It is a part of body unless the JSON string has escapes;
// only then does it allocate.
func (p *Peek) ModelBytes(body []byte) []byte {
	switch {
	case !p.HasModel:
		return nil
	case p.form:
		return body[p.ModelStart:p.ModelEnd]
	}
	raw := body[p.ModelStart+1 : p.ModelEnd-1]
	if !p.escaped {
		return raw
	}
	return unquote(make([]byte, 0, len(raw)), raw)
}

// ReplaceModel appends body to dst with the model replaced by name: what an alias does, and the only case in which lbd
// changes a byte of a body. Only the winning occurrence is replaced; a body without a model is appended as it is. In a
// form, name must not hold a line break, or it could end the field; the names lbd passes come from its configuration,
// and a name with a control character is answered by a panic.
func ReplaceModel(dst, body []byte, p Peek, name string) []byte {
	if !p.HasModel {
		return append(dst, body...)
	}
	dst = append(dst, body[:p.ModelStart]...)
	if p.form {
		dst = appendField(dst, name)
	} else {
		dst = appendQuoted(dst, name)
	}
	return append(dst, body[p.ModelEnd:]...)
}

func appendField(dst []byte, name string) []byte {
	for i := range len(name) {
		if name[i] < ' ' {
			panic("BUG: control character in the name of a model: " + strconv.Quote(name))
		}
	}
	return append(dst, name...)
}

// appendQuoted appends name as a JSON string: RFC 8259 section 7 asks for escapes of the quote, the backslash and the
// control characters only. Bad UTF-8 becomes U+FFFD, as in encoding/json: anything else would spoil the whole body.
func appendQuoted(dst []byte, name string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, r := range name {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r < ' ':
			dst = append(dst, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}
