package relay

import (
	"bytes"
	"time"
)

// Usage is what a replica said a request cost, in tokens; -1 is unknown.
type Usage struct{ Prompt, Completion, Cached int }

// Gaps takes durations in seconds; a Prometheus histogram is one.
type Gaps interface{ Observe(seconds float64) }

// Sniffer reads a response in passing. It never changes and never delays it, and
// what it does not understand it ignores.
type Sniffer struct {
	// SSE says that the body is a stream of events; else it is one JSON value.
	SSE bool
	// TTFT gets the time from Start to the first event with content, Gaps every
	// inter-token latency; nil = not wanted.
	TTFT, Gaps Gaps
	Start      time.Time
	// First and Last are when the first and the last event with content came.
	// The chunk that only names the role is no content (vLLM sends it together
	// with the first token).
	First, Last time.Time
	// Events counts events with content.
	Events int
	Usage  Usage

	line    []byte // of an event that is split over reads; tail of a JSON body
	skip    bool   // within a line that is too long
	content int    // index of the key that held content last
}

// maxLine bounds what is kept of an event that is split over reads, tailSize
// what is kept of a JSON body to find the usage at its end.
const (
	maxLine  = 64 << 10
	tailSize = 2 << 10
)

// Reset makes the sniffer ready for another response.
func (s *Sniffer) Reset(sse bool, gaps Gaps) {
	line := s.line[:0]
	if cap(line) > maxLine/8 {
		line = nil
	}
	*s = Sniffer{SSE: sse, Gaps: gaps, Usage: Usage{-1, -1, -1}, line: line}
}

// Feed takes the next payload bytes, which came at now.
func (s *Sniffer) Feed(p []byte, now time.Time) {
	if !s.SSE {
		s.feedJSON(p, now)
		return
	}
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			s.hold(p)
			return
		}
		line := p[:i]
		p = p[i+1:]
		if s.skip {
			s.skip = false
			continue
		}
		if len(s.line) > 0 {
			s.line = append(s.line, line...)
			line = s.line
		}
		s.event(line, now)
		s.line = s.line[:0]
	}
}

func (s *Sniffer) hold(p []byte) {
	if s.skip || len(s.line)+len(p) > maxLine {
		s.skip, s.line = true, s.line[:0]
		return
	}
	s.line = append(s.line, p...)
}

func (s *Sniffer) event(line []byte, now time.Time) {
	if len(line) < 6 || string(line[:5]) != "data:" {
		return
	}
	if s.hasContent(line) {
		if s.Events == 0 {
			s.First = now
			if s.TTFT != nil {
				s.TTFT.Observe(now.Sub(s.Start).Seconds())
			}
		} else if s.Gaps != nil {
			s.Gaps.Observe(now.Sub(s.Last).Seconds())
		}
		s.Last = now
		s.Events++
	}
	s.readUsage(line)
}

// contentKeys are the JSON keys whose non-empty string is generated content: of
// chat deltas (content, the reasoning fields, tool call arguments), of
// completions (text), of the responses API (delta) and of Anthropic's messages
// (text, partial_json, thinking).
var contentKeys = [...][]byte{
	[]byte(`"content":`), []byte(`"text":`), []byte(`"reasoning_content":`), []byte(`"reasoning":`),
	[]byte(`"arguments":`), []byte(`"delta":`), []byte(`"partial_json":`), []byte(`"thinking":`),
}

// hasContent looks first for the key it found last: a stream rarely changes it.
func (s *Sniffer) hasContent(line []byte) bool {
	if nonEmptyString(line, contentKeys[s.content]) {
		return true
	}
	for i, key := range contentKeys {
		if i != s.content && nonEmptyString(line, key) {
			s.content = i
			return true
		}
	}
	return false
}

// nonEmptyString finds key with a string behind it that is not "". A quote
// within a JSON string is escaped, so key cannot match inside one.
func nonEmptyString(line, key []byte) bool {
	for {
		i := bytes.Index(line, key)
		if i < 0 {
			return false
		}
		line = line[i+len(key):]
		v := bytes.TrimLeft(line, " ")
		if len(v) > 1 && v[0] == '"' && v[1] != '"' {
			return true
		}
	}
}

func (s *Sniffer) feedJSON(p []byte, now time.Time) {
	if s.First.IsZero() {
		s.First = now
	}
	s.Last = now
	if len(p) >= tailSize {
		s.line = append(s.line[:0], p[len(p)-tailSize:]...)
		return
	}
	if over := len(s.line) + len(p) - 2*tailSize; over > 0 {
		s.line = append(s.line[:0], s.line[len(s.line)-tailSize:]...)
	}
	s.line = append(s.line, p...)
}

// End is called when the body has ended.
func (s *Sniffer) End() {
	if !s.SSE {
		s.readUsage(s.line)
	}
}

var usageKey = []byte(`"usage":`)

// readUsage reads the last usage object that starts in b.
func (s *Sniffer) readUsage(b []byte) {
	i := bytes.LastIndex(b, usageKey)
	if i < 0 {
		return
	}
	b = bytes.TrimLeft(b[i+len(usageKey):], " \n\r\t")
	if len(b) == 0 || b[0] != '{' {
		return
	}
	set(&s.Usage.Prompt, b, "prompt_tokens", "input_tokens")
	set(&s.Usage.Completion, b, "completion_tokens", "output_tokens")
	set(&s.Usage.Cached, b, "cached_tokens", "cache_read_input_tokens")
}

// set reads the number behind the first of the keys that is there. OpenAI says
// prompt and completion, the responses API and Anthropic say input and output.
func set(dst *int, b []byte, keys ...string) {
	for _, k := range keys {
		if n, ok := number(b, k); ok {
			*dst = n
			return
		}
	}
}

func number(b []byte, key string) (int, bool) {
	for {
		i := bytes.Index(b, []byte(key))
		if i < 1 {
			return 0, false
		}
		quoted := b[i-1] == '"'
		b = b[i+len(key):]
		if !quoted || len(b) < 2 || b[0] != '"' {
			continue // the tail of a longer key
		}
		b = bytes.TrimLeft(b[1:], ": \n\r\t")
		n, digits := 0, 0
		for digits < len(b) && b[digits] >= '0' && b[digits] <= '9' && digits < maxTokenDigits {
			n = n*10 + int(b[digits]-'0')
			digits++
		}
		return n, digits > 0
	}
}

// maxTokenDigits keeps a token count within int.
const maxTokenDigits = 12
