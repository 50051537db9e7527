package openai

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
)

// Field is a field of a JSON body that is kept if it is there.
type Field uint8

// The fields. Those up to preamble decide how a prompt begins, in the order in which templates put what comes of them: tools,
// documents and the system prompt stand before the messages (Hugging Face's apply_chat_template takes tools, documents,
// chat_template and further arguments; vLLM v0.19 passes reasoning_effort to it, and takes the system of /v1/messages and the
// instructions of /v1/responses for the first message). A cache_salt is hashed into the first block (vLLM's
// kv_cache_utils.generate_block_hash_extra_keys), and what a response id stands for comes before the input.
const (
	ChatTemplate Field = iota
	ChatTemplateArguments
	ReasoningEffort
	CacheSalt
	Tools
	Documents
	System
	Instructions
	PreviousResponse
	preamble = iota
)

// What clients name themselves or their sessions with.
const (
	User           Field = preamble + iota
	PromptCacheKey       // replaces user for that purpose (OpenAI's API reference, since 2025)
	fields         = iota + preamble
)

// narrow is a span in half the space: a Peek is copied a few times, and no body is larger than the 4 GiB that can be configured.
type narrow struct{ start, end uint32 }

// Raw is the value of a field as it stands in the body, with quotes or brackets; nil if it is absent or null. The last one
// counts if there are several.
func (p *Peek) Raw(body []byte, f Field) []byte {
	if s := p.fields[f]; s.end > 0 {
		return body[s.start:s.end]
	}
	return nil
}

// Text is the value of a field without its quotes, escapes left as they are; nil if it is not a string.
func (p *Peek) Text(body []byte, f Field) []byte {
	if v := p.Raw(body, f); len(v) > 2 && v[0] == '"' {
		return v[1 : len(v)-1]
	}
	return nil
}

// Preamble is what decides how the prompt begins, beside the model and ahead of the prompt itself: equal for requests that
// can share a prefix, whatever the order of the fields in the body. Where it is one field, it is a part of body; else it is
// written to buf, which is returned for the next call. For a field beyond largestPart its hash stands there.
func (p *Peek) Preamble(body, buf []byte) (preamble, kept []byte) {
	only, n := Field(0), 0
	for f := range Field(len(p.fields)) {
		if f == User {
			break
		}
		if p.part(body, f) != nil {
			only = f
			n++
		}
	}
	switch n {
	case 0:
		return nil, buf
	case 1:
		return p.part(body, only), buf
	}
	buf = buf[:0]
	for f := range User {
		if v := p.part(body, f); v != nil {
			buf = appendPart(append(buf, byte(f)), v)
		}
	}
	return buf, buf
}

// part is what a field brings into the preamble, nil for nothing.
func (p *Peek) part(body []byte, f Field) []byte {
	v := p.Raw(body, f)
	if f == System {
		v = systemBlocks(v)
	}
	if emptyValue(v) {
		return nil
	}
	return v
}

// Claude Code puts a text block of this beginning in front of its system prompt, with a checksum that is another in each
// request. vLLM leaves the block out since #36829, and with it every request would seem to share nothing with any other.
const billingHeader = `"x-anthropic-billing-header`

// billingWithin is how far into a system prompt its text begins, in bytes: behind a type and a key.
const billingWithin = 128

// systemBlocks is a system prompt from its first block on that counts; one that is no list of blocks is all of it.
func systemBlocks(v []byte) []byte {
	if len(v) == 0 || v[0] != '[' {
		return v
	}
	s := scanner{b: v, i: 1}
	s.space()
	if i := bytes.Index(v[:min(len(v), billingWithin)], []byte(billingHeader)); i > 0 && v[i-1] != '\\' && s.at('{') && s.value() && s.i > i {
		s.space()
		if s.at(',') {
			s.i++
			s.space()
		}
	}
	if s.at(']') {
		return nil
	}
	return v[s.i:]
}

// largestPart is the largest field, in bytes, of which a preamble has a copy: what bodies may take together is bounded, and
// nobody counts their copies.
const largestPart = 64 << 10

// seed is this process's: clients cannot make two fields look alike.
var seed = maphash.MakeSeed()

func appendPart(dst, v []byte) []byte {
	if len(v) <= largestPart {
		return append(dst, v...)
	}
	return binary.LittleEndian.AppendUint64(dst, maphash.Bytes(seed, v))
}

// emptyValue says that a value is as good as absent: "", [] and {}.
func emptyValue(v []byte) bool { return len(v) == 2 && v[0] != '"' || string(v) == `""` }
