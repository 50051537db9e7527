package load

import (
	"encoding/json"
	"strconv"
)

// words are 64 words of three letters and a space: one token each under the
// simulated replica's rule (4 bytes = 1 token), and common enough to be one token
// each in the vocabularies of today's models, so that the length of a prompt is
// nearly right there too. What the replica counted is in Record.PromptTokens.
const words = "the and for are but not you all any can had her was one our out " +
	"day get has him his how man new now old see two way who boy did " +
	"its let put say she too use dad car dog cat run sit big red hot " +
	"sun sky sea air top end add art ask bad bag bed box bus buy cup "

const (
	wordBytes = 4
	wordBits  = 6 // 64 words
)

// Kinds of text; equal numbers of different kinds give different texts.
const (
	textUnique = iota + 1
	textPrefix
	textBlock
	textTurn // and what follows: later turns of a conversation
)

// source is a splitmix64 generator (Steele, Lea, Flood: Fast Splittable
// Pseudorandom Number Generators, 2014).
type source uint64

func (s *source) next() uint64 {
	*s += 0x9e3779b97f4a7c15
	z := uint64(*s)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func newSource(seed, kind, number uint64) source {
	s := source(seed)
	s = source(s.next() ^ kind)
	return source(s.next() ^ number)
}

// appendWords adds n tokens from the source.
func appendWords(dst []byte, n int, s source) []byte {
	for n > 0 {
		bits := s.next()
		for range min(n, 64/wordBits) {
			w := bits & (1<<wordBits - 1) * wordBytes
			dst = append(dst, words[w:w+wordBytes]...)
			bits >>= wordBits
		}
		n -= min(n, 64/wordBits)
	}
	return dst
}

// appendPrompt adds the prompt of request number index. The text is a function of
// the seed and what the request asks for; what is not shared by Prefix or Blocks
// differs between any two requests within its first 64 bytes (96 random bits), so
// that no prefix cache hits by accident.
func appendPrompt(dst []byte, seed uint64, index int, q Request) []byte {
	left := q.PromptTokens
	for _, id := range q.Blocks {
		n := min(left, q.BlockTokens)
		dst = appendWords(dst, n, newSource(seed, textBlock, id))
		left -= n
	}
	if q.Blocks == nil && q.Prefix != 0 {
		n := max(0, min(left, q.PrefixTokens))
		dst = appendWords(dst, n, newSource(seed, textPrefix, q.Prefix))
		left -= n
	}
	return appendWords(dst, left, newSource(seed, textUnique, uint64(index)))
}

// appendBody adds the JSON body. It has only fields vLLM v0.6.4 knows: that
// version answers 400 to any other, and to stream_options without stream.
func appendBody(dst []byte, api API, seed uint64, t *talk) []byte {
	name, err := json.Marshal(t.request.Model)
	if err != nil {
		panic("BUG: load: a string has no JSON: " + err.Error())
	}
	dst = append(dst, `{"model":`...)
	dst = append(dst, name...)
	if api == Chat {
		dst = append(dst, `,"messages":[`...)
		dst = append(dst, t.past...)
		dst = append(dst, `{"role":"user","content":"`...)
		dst = t.appendSay(dst, seed)
		dst = append(dst, `"}]`...)
	} else {
		dst = append(dst, `,"prompt":"`...)
		dst = append(dst, t.past...)
		dst = t.appendSay(dst, seed)
		dst = append(dst, '"')
	}
	output := int64(t.asked().OutputTokens)
	dst = append(dst, `,"max_tokens":`...)
	dst = strconv.AppendInt(dst, output, 10)
	dst = append(dst, `,"min_tokens":`...)
	dst = strconv.AppendInt(dst, output, 10)
	dst = append(dst, `,"ignore_eos":true,"temperature":0`...)
	if t.request.Stream {
		dst = append(dst, `,"stream":true,"stream_options":{"include_usage":true}`...)
	}
	return append(dst, '}')
}
