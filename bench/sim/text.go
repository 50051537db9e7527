package sim

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
)

// tokenBytes is the whole tokenizer: four bytes are one token. Real BPE
// vocabularies average 3.5 to 4.5 bytes per token on English text.
const tokenBytes = 4

// Overheads of the chat template, in tokens, after Llama 3's: one begin
// marker, four for a role header and one end marker per message, four for the
// header that opens the answer.
const (
	beginTokens  = 1
	headerTokens = 4
	endTokens    = 1
)

// ChatTokens is usage.prompt_tokens of a chat: the template overhead plus each
// content's bytes/4, rounded up per message.
func ChatTokens(contents ...string) int {
	n := beginTokens + headerTokens
	for _, c := range contents {
		n += headerTokens + TextTokens(c) + endTokens
	}
	return n
}

// TextTokens is the token count of plain text: bytes/4, rounded up.
func TextTokens(s string) int { return (len(s) + tokenBytes - 1) / tokenBytes }

// prompt is a tokenized prompt: token i is bytes [4i, 4i+4), so tokens, text
// and block hashes are three readings of the same bytes.
type prompt struct {
	data []byte
	text int // bytes of data that are text, less the padding of the last token
}

func (p *prompt) tokens() int { return len(p.data) / tokenBytes }

func (p *prompt) pad() {
	for len(p.data)%tokenBytes != 0 {
		p.data = append(p.data, 0)
	}
}

func textPrompt(s string) prompt {
	p := prompt{data: make([]byte, 0, len(s)+tokenBytes), text: len(s)}
	p.data = append(p.data, s...)
	p.pad()
	return p
}

func tokenPrompt(ids []uint32) prompt {
	p := prompt{data: make([]byte, 0, len(ids)*tokenBytes)}
	for _, id := range ids {
		p.data = binary.BigEndian.AppendUint32(p.data, id)
	}
	p.text = len(p.data)
	return p
}

// message is one chat message as far as the template looks at it.
type message struct{ role, content string }

func chatPrompt(msgs []message, generation bool) prompt {
	size := tokenBytes * (beginTokens + headerTokens)
	for _, m := range msgs {
		size += len(m.content) + tokenBytes*(headerTokens+endTokens+1)
	}
	p := prompt{data: make([]byte, 0, size)}
	p.data = append(p.data, "<s>\n"...)
	for _, m := range msgs {
		p.data = appendHeader(p.data, m.role)
		p.data = append(p.data, m.content...)
		p.pad()
		p.data = append(p.data, "<e>\n"...)
	}
	if generation {
		p.data = appendHeader(p.data, "assistant")
	}
	p.text = len(p.data)
	return p
}

// appendHeader writes "<|role|>\n" in exactly headerTokens tokens.
func appendHeader(b []byte, role string) []byte {
	const width = headerTokens * tokenBytes
	if len(role) > width-5 {
		role = role[:width-5]
	}
	b = append(append(b, "<|"...), role...)
	for n := len(role); n < width-5; n++ {
		b = append(b, ' ')
	}
	return append(b, "|>\n"...)
}

func (p *prompt) ids() []uint32 {
	ids := make([]uint32, 0, p.tokens())
	for i := 0; i < len(p.data); i += tokenBytes {
		ids = append(ids, binary.BigEndian.Uint32(p.data[i:]))
	}
	return ids
}

// detokenize is the inverse of ids; the padding of a last token is dropped.
func detokenize(ids []uint32) string {
	p := tokenPrompt(ids)
	b := p.data
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	return string(b)
}

// FNV-1a, 64 bits.
const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

func hashBytes(h uint64, b []byte) uint64 {
	for _, c := range b {
		h = (h ^ uint64(c)) * fnvPrime
	}
	return h
}

// blocks chains a hash over the full blocks, as vLLM does: equal prefixes of
// 16 tokens = 64 bytes give equal leading hashes. Salt keys the chain (vLLM's
// cache_salt).
func (p *prompt) blocks(blockSize int, salt string) []uint64 {
	size := blockSize * tokenBytes
	out := make([]uint64, 0, len(p.data)/size)
	h := hashBytes(fnvOffset, []byte(salt))
	for b := p.data; len(b) >= size; b = b[size:] {
		h = hashBytes(h, b[:size])
		out = append(out, h)
	}
	return out
}

// words are the continuations a text is made of. Each is three letters, so
// with its space it is four bytes: one token.
var words = [...]string{
	" the", " and", " for", " you", " are", " but", " not", " all", " can", " one",
	" day", " get", " has", " how", " man", " new", " now", " old", " see", " two",
	" way", " who", " did", " its", " let", " say", " she", " too", " use", " big",
	" few", " got", " far", " low", " own", " run", " set", " try", " ask", " end",
	" map", " key", " log", " mix", " net", " odd", " pay", " red", " sun", " top",
}

// openers start a text; they have no leading space.
var openers = [...]string{"Sure", "Well", "Here", "This", "That", "Okay", "Most", "When"}

// story is the deterministic text of one choice.
type story uint64

func (s story) word(i int) string {
	x := uint64(s) + uint64(i)*0x9e3779b97f4a7c15
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb
	x ^= x >> 31
	if i == 0 {
		return openers[x%uint64(len(openers))]
	}
	return words[x%uint64(len(words))]
}

// appendWords appends tokens [from, to).
func (s story) appendWords(b []byte, from, to int) []byte {
	for i := from; i < to; i++ {
		b = append(b, s.word(i)...)
	}
	return b
}

// Lognormal length of an answer nobody limited: median 200 tokens, sigma 0.7,
// within what public chat traces show.
const (
	naturalMedian = 200
	naturalSigma  = 0.7
)

// natural is the number of tokens, end-of-text included, the text would have.
func (s story) natural() int {
	r := rand.New(rand.NewPCG(uint64(s), 0x6c62645f73696d))
	n := int(math.Round(naturalMedian * math.Exp(naturalSigma*r.NormFloat64())))
	return max(n, 2)
}
