package openai

import "bytes"

// MaxDepth is the deepest nesting of a JSON body that is read; deeper is a [SyntaxError]. Python refuses far less (its
// recursion limit is 1,000 by default), so nothing that vLLM takes is lost.
const MaxDepth = 1 << 16

// scanner steps over JSON. Its methods move i forward and report success; after a failure i is where, want is what.
type scanner struct {
	b    []byte
	i    int
	want string
}

func (s *scanner) fail(want string) bool {
	s.want = want
	return false
}

func (s *scanner) err() error {
	return &SyntaxError{Format: "JSON", Offset: s.i, Want: s.want, AtEnd: s.i >= len(s.b)}
}

// at reports whether the next byte is c.
func (s *scanner) at(c byte) bool { return s.i < len(s.b) && s.b[s.i] == c }

// space steps over white space: RFC 8259 section 2, and json.loads.
func (s *scanner) space() {
	b, i := s.b, s.i
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	s.i = i
}

// value steps over one value of any kind.
func (s *scanner) value() bool {
	if s.i >= len(s.b) {
		return s.fail("a value")
	}
	switch c := s.b[s.i]; c {
	case '"':
		return s.str()
	case '{', '[':
		return s.container()
	default:
		return s.scalar(c)
	}
}

// str steps over the string whose opening quote is next. Only the closing quote is looked for (see the package doc), with
// the vector instructions of bytes.IndexByte: this is where the bytes of a long prompt go by.
func (s *scanner) str() bool {
	b, i := s.b, s.i+1
	for end := min(i+short, len(b)); i < end; i++ {
		if b[i] == '"' {
			s.i = i + 1
			return true
		}
		if b[i] == '\\' {
			break
		}
	}
	for {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			s.i = len(b)
			return s.fail("the end of a string")
		}
		i += n + 1
		if b[i-2] != '\\' || !escapedQuote(b, i-1) {
			s.i = i
			return true
		}
	}
}

// short is the length up to which a byte-by-byte loop finds the closing quote sooner than a call of bytes.IndexByte: that
// of most keys, roles and model names.
const short = 12

// escapedQuote reports whether the quote at i has an odd number of backslashes before it. The opening quote of its string
// bounds the walk, and no backslash is walked over twice.
func escapedQuote(b []byte, i int) bool {
	j := i - 1
	for b[j] == '\\' {
		j--
	}
	return (i-j)%2 == 0
}

// scalar steps over a number or a literal that starts with c.
func (s *scanner) scalar(c byte) bool {
	switch c {
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	case 'N':
		return s.literal("NaN")
	case 'I':
		return s.literal("Infinity")
	}
	if c == '-' || isDigit(c) {
		return s.integer() || s.number()
	}
	return s.fail("a value")
}

func (s *scanner) literal(word string) bool {
	for j := range len(word) {
		if !s.at(word[j]) {
			return s.fail(word)
		}
		s.i++
	}
	return true
}

// integer steps over a number without sign, fraction and exponent: prompts come as token ids, too. It does not move if the
// next number is another.
func (s *scanner) integer() bool {
	b, i := s.b, s.i
	for i < len(b) && isDigit(b[i]) {
		i++
	}
	switch {
	case i == s.i, b[s.i] == '0' && i > s.i+1:
		return false
	case i < len(b) && (b[i] == '.' || b[i]|0x20 == 'e'):
		return false
	}
	s.i = i
	return true
}

func isDigit(c byte) bool { return c-'0' <= 9 }

// number steps over a number of any kind: RFC 8259 section 6, and -Infinity, which json.loads takes too.
func (s *scanner) number() bool {
	if s.at('-') {
		s.i++
		if s.at('I') {
			return s.literal("Infinity")
		}
	}
	if s.at('0') {
		s.i++
	} else if !s.digits() {
		return false
	}
	if s.at('.') {
		s.i++
		if !s.digits() {
			return false
		}
	}
	if s.at('e') || s.at('E') {
		s.i++
		if s.at('+') || s.at('-') {
			s.i++
		}
		return s.digits()
	}
	return true
}

// digits steps over one or more digits.
func (s *scanner) digits() bool {
	b, i := s.b, s.i
	for i < len(b) && isDigit(b[i]) {
		i++
	}
	if i == s.i {
		return s.fail("a digit")
	}
	s.i = i
	return true
}

// container steps over the object or array that is next, without recursion: a body of 20,000 brackets must not grow the
// stack. A value that nests deeper than one word remembers is begun again with room for MaxDepth.
func (s *scanner) container() bool {
	start := s.i
	var open [1]uint64
	ok, deeper := s.nested(open[:])
	if deeper {
		s.i = start
		return s.deepContainer()
	}
	return ok
}

// deepContainer is not inlined: its 8 KiB of stack are for the rare deep value only.
//
//go:noinline
func (s *scanner) deepContainer() bool {
	var open [MaxDepth / 64]uint64
	ok, deeper := s.nested(open[:])
	if deeper {
		return s.fail("brackets nested less deep")
	}
	return ok
}

// nested steps over the container that is next. Bit d of open is 1 if the bracket open at depth d is that of an object.
func (s *scanner) nested(open []uint64) (ok, deeper bool) {
	depth := -1 // of the innermost open bracket
	object := false
	for {
		// A value is next, or with a bracket just opened its end.
		if c := s.peek(); c == '{' || c == '[' {
			if depth++; depth >= len(open)*64 {
				return false, true
			}
			object = c == '{'
			setBit(open, depth, object)
			s.i++
			s.space()
			if !s.at(c + 2) { // '{'+2 == '}', '['+2 == ']'
				if object && !s.key() {
					return false, false
				}
				continue
			}
		} else if !s.value() {
			return false, false
		}
		// A value has ended, or the byte that closes an empty container is next: close what closes here.
		for {
			s.space()
			if s.at(',') {
				break
			}
			if !s.at(closing(object)) {
				return s.fail(wantNext(object)), false
			}
			s.i++
			if depth--; depth < 0 {
				return true, false
			}
			object = bit(open, depth)
		}
		s.i++
		s.space()
		if object && !s.key() {
			return false, false
		}
	}
}

// peek is the next byte, 0 at the end.
func (s *scanner) peek() byte {
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

// key steps over the key of a member, its colon, and the white space around it.
func (s *scanner) key() bool {
	if !s.at('"') {
		return s.fail("a key in quotes")
	}
	return s.str() && s.colon()
}

func (s *scanner) colon() bool {
	s.space()
	if !s.at(':') {
		return s.fail("a colon")
	}
	s.i++
	s.space()
	return true
}

func closing(object bool) byte {
	if object {
		return '}'
	}
	return ']'
}

func wantNext(object bool) string {
	if object {
		return "a comma or }"
	}
	return "a comma or ]"
}

func bit(set []uint64, i int) bool { return set[i>>6]>>(i&63)&1 == 1 }

func setBit(set []uint64, i int, on bool) {
	if on {
		set[i>>6] |= 1 << (i & 63)
	} else {
		set[i>>6] &^= 1 << (i & 63)
	}
}
