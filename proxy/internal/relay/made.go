package relay

import "bytes"

// headMade looks for the id in the head of a JSON body, of which p came last. What the
// first tailSize bytes do not show is not looked for any longer: vLLM's objects begin
// with their id.
func (s *Sniffer) headMade(p []byte) {
	s.fed += len(p)
	if s.fed == len(p) {
		s.lookMade(p[:min(len(p), tailSize)], len(p) >= tailSize)
	} else if s.fed == len(s.line) { // nothing was dropped from its start
		s.lookMade(s.line, len(s.line) >= tailSize)
	} else {
		s.Made = nil
	}
}

// lookMade tells Made of the id if b shows one. The last look is the last one.
func (s *Sniffer) lookMade(b []byte, last bool) {
	id := responseID(b)
	if id != nil {
		s.Made.Made(id)
	}
	if id != nil || last {
		s.Made = nil
	}
}

// longestID bounds what is taken for an id, in bytes; vLLM's have 37.
const longestID = 256

// responseID returns the id of a response object: the member id of the JSON object that b begins, as of an answer that
// does not stream, or of its member response, as of the event response.created. b may end anywhere. Members of the same name
// further in are not the response's: clients choose what stands there.
func responseID(b []byte) []byte {
	depth, inside := 0, 0 // inside is the depth of the member response, 0 outside
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '{', '[':
			depth++
		case '}', ']':
			if depth == inside {
				inside = 0
			}
			depth--
		case '"':
			text, end := quoted(b, i)
			if end < 0 {
				return nil
			}
			value := valueAfter(b, end)
			i = end - 1
			if value < 0 || depth != max(inside, 1) {
				continue
			}
			switch {
			case string(text) == "id" && value < len(b) && b[value] == '"':
				id, end := quoted(b, value)
				if end < 0 || len(id) == 0 || len(id) > longestID || bytes.IndexByte(id, '\\') >= 0 {
					return nil
				}
				return id
			case string(text) == "response" && depth == 1 && value < len(b) && b[value] == '{':
				inside = 2
			}
		}
	}
	return nil
}

// quoted returns the string whose opening quote is at i, and where it ends; -1 if it does not.
func quoted(b []byte, i int) (text []byte, end int) {
	for j := i + 1; j < len(b); j++ {
		switch b[j] {
		case '\\':
			j++
		case '"':
			return b[i+1 : j], j + 1
		}
	}
	return nil, -1
}

// valueAfter returns where the value of a key that ends at i begins; -1 if what ends there is no key.
func valueAfter(b []byte, i int) int {
	for i < len(b) && isSpace(b[i]) {
		i++
	}
	if i == len(b) || b[i] != ':' {
		return -1
	}
	for i++; i < len(b) && isSpace(b[i]); i++ {
	}
	return i
}
