package relay

import (
	"bytes"
	"time"
)

// Usage is what a replica said a request cost, in tokens; -1 is unknown.
type Usage struct{ Prompt, Completion, Cached int }

// Gaps takes durations in seconds; a Prometheus histogram is one.
type Gaps interface{ Observe(seconds float64) }

// Tokens hears when events with content come.
type Tokens interface {
	FirstToken(now time.Time)
	// Tokens tells of n further events, the last of them at now.
	Tokens(n int, now time.Time)
}

// Made hears what a replica calls a response that it has made and may keep.
type Made interface {
	// Made is called before the bytes with the id are passed on. The id is valid during the call.
	Made(id []byte)
}

// Sniffer reads a response in passing. It never changes and never delays it, and
// what it does not understand it ignores.
type Sniffer struct {
	// SSE says that the body is a stream of events; else it is one JSON value.
	SSE bool
	// TTFT gets the time from Start to the first event with content, Gaps every
	// inter-token latency; nil = not wanted.
	TTFT, Gaps Gaps
	Start      time.Time
	// Tokens hears of each event with content; nil = nobody does.
	Tokens Tokens
	// First and Last are when the first and the last event with content came.
	// The chunk that only names the role is no content (vLLM sends it together
	// with the first token).
	First, Last time.Time
	// Events counts events with content.
	Events int
	Usage  Usage
	// Made hears of the id of the response object that the answer is or announces, at
	// most once; nil = nobody does. With MadeOnly nothing else is read.
	Made     Made
	MadeOnly bool

	line  []byte // of an event that is split over reads; tail of a JSON body
	fed   int    // bytes of a JSON body so far, as long as Made waits
	skip  bool   // within a line that is too long
	whole bool   // the event's type says that it repeats what deltas have brought
}

// maxLine bounds the lines that are looked at (one may be split over reads and
// has to be kept), tailSize what is kept of a JSON body to find the usage at its
// end.
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
		if len(s.line) == 0 && !s.skip && i <= maxLine {
			s.oneLine(p[:i], now)
		} else {
			s.lineEnd(p[:i], now)
		}
		p = p[i+1:]
	}
}

// hold keeps the start of a line.
func (s *Sniffer) hold(p []byte) {
	if s.skip || len(s.line)+len(p) > maxLine {
		s.skip, s.line = true, s.line[:0]
		return
	}
	s.line = append(s.line, p...)
}

// lineEnd takes the rest of a line.
func (s *Sniffer) lineEnd(p []byte, now time.Time) {
	s.hold(p)
	if !s.skip {
		s.oneLine(s.line, now)
	}
	s.skip, s.line = false, s.line[:0]
}

// oneLine takes a line without its LF. A stream whose lines end in CR alone is
// not understood; nobody sends one.
func (s *Sniffer) oneLine(line []byte, now time.Time) {
	switch {
	case bytes.HasPrefix(line, []byte("data:")):
		s.data(line[len("data:"):], now)
	case bytes.HasPrefix(line, []byte("event:")):
		s.whole = !bytes.HasSuffix(trimCR(line), []byte("delta"))
	case len(trimCR(line)) == 0:
		s.whole = false
	}
}

func trimCR(line []byte) []byte { return bytes.TrimSuffix(line, []byte("\r")) }

func (s *Sniffer) data(value []byte, now time.Time) {
	if s.Made != nil {
		s.lookMade(value, true)
	}
	if s.MadeOnly {
		return
	}
	content, usage := scan(value)
	if content && !s.whole {
		s.token(now)
	}
	if usage != nil {
		s.readUsage(usage)
	}
}

// token notes an event with content.
func (s *Sniffer) token(now time.Time) {
	if s.Events == 0 {
		s.First = now
		if s.TTFT != nil {
			s.TTFT.Observe(now.Sub(s.Start).Seconds())
		}
		if s.Tokens != nil {
			s.Tokens.FirstToken(now)
		}
	} else {
		if s.Gaps != nil {
			s.Gaps.Observe(now.Sub(s.Last).Seconds())
		}
		if s.Tokens != nil {
			s.Tokens.Tokens(1, now)
		}
	}
	s.Last = now
	s.Events++
}

// scan goes from colon to colon through JSON text. content says that one of the
// keys that hold generated text has a string that is not empty; usage is what
// starts with the last usage object. A quote within a JSON string is escaped, so
// text that quotes JSON is not taken for it: its keys end in a backslash.
func scan(b []byte) (content bool, usage []byte) {
	for i := 0; ; {
		j := bytes.IndexByte(b[i:], ':')
		if j < 0 {
			return content, usage
		}
		i += j + 1
		if i < 2 || b[i-2] != '"' {
			continue
		}
		v := i
		for v < len(b) && isSpace(b[v]) {
			v++
		}
		switch {
		case v+1 >= len(b):
		case b[v] == '"':
			content = content || (b[v+1] != '"' && holdsContent(keyBefore(b[:i-2])))
		case b[v] == '{' && string(keyBefore(b[:i-2])) == "usage":
			usage = b[v:]
		}
	}
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\r' || c == '\t' }

// keyBefore returns what stands behind the last quote of b.
func keyBefore(b []byte) []byte { return b[bytes.LastIndexByte(b, '"')+1:] }

// holdsContent names the keys whose string is generated content: of chat deltas
// (content, the reasoning fields, tool call arguments), of completions (text), of
// the responses API (delta) and of Anthropic's messages (text, partial_json,
// thinking).
func holdsContent(key []byte) bool {
	switch string(key) {
	case "content", "text", "reasoning_content", "reasoning", "arguments", "delta", "partial_json", "thinking":
		return true
	}
	return false
}

func (s *Sniffer) feedJSON(p []byte, now time.Time) {
	if s.First.IsZero() {
		s.First = now
	}
	s.Last = now
	if s.MadeOnly && s.Made == nil {
		return
	}
	if s.Made != nil {
		defer s.headMade(p)
	}
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
	if s.SSE || s.MadeOnly {
		return
	}
	if _, usage := scan(s.line); usage != nil {
		s.readUsage(usage)
	}
}

// readUsage reads a usage object that starts b. OpenAI says prompt and
// completion, the responses API and Anthropic say input and output. What Anthropic
// calls input is without what was read from a cache or written to one, which are
// counts beside it (vLLM since #40912); everywhere else it is the whole prompt.
func (s *Sniffer) readUsage(b []byte) {
	input, beside := -1, 0
	for i := 0; ; {
		j := bytes.IndexByte(b[i:], ':')
		if j < 0 {
			break
		}
		i += j + 1
		if i < 2 || b[i-2] != '"' {
			continue
		}
		n, ok := count(b[i:])
		if !ok {
			continue // null, or an object with details
		}
		switch string(keyBefore(b[:i-2])) {
		case "prompt_tokens", "input_tokens":
			input = n
		case "completion_tokens", "output_tokens":
			s.Usage.Completion = n
		case "cached_tokens":
			s.Usage.Cached = n
		case "cache_read_input_tokens":
			s.Usage.Cached = n
			beside += n
		case "cache_creation_input_tokens":
			beside += n
		}
	}
	if input >= 0 {
		s.Usage.Prompt = input + beside
	}
}

// maxCountDigits keeps a token count within int.
const maxCountDigits = 12

func count(b []byte) (n int, ok bool) {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	for i := 0; i < len(b) && i < maxCountDigits && '0' <= b[i] && b[i] <= '9'; i++ {
		n, ok = n*10+int(b[i]-'0'), true
	}
	return n, ok
}
