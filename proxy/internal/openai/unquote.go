package openai

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

// unquote appends the text of a JSON string to dst. raw is the string without its quotes and must be valid.
func unquote(dst, raw []byte) []byte {
	for {
		n := bytes.IndexByte(raw, '\\')
		if n < 0 {
			return append(dst, raw...)
		}
		dst = append(dst, raw[:n]...)
		r, size := unescape(raw[n:])
		dst = utf8.AppendRune(dst, r)
		raw = raw[n+max(size, 1):]
	}
}

// validText reports whether raw, a JSON string without its quotes, is text that json.loads and pydantic both take, and
// whether it has escapes.
func validText(raw []byte) (escaped, ok bool) {
	if !utf8.Valid(raw) {
		return false, false
	}
	for i := 0; i < len(raw); {
		switch c := raw[i]; {
		case c < ' ':
			return escaped, false
		case c != '\\':
			i++
		default:
			escaped = true
			_, size := unescape(raw[i:])
			if size == 0 {
				return escaped, false
			}
			i += size
		}
	}
	return escaped, true
}

// unescape decodes the escape that raw starts with, a surrogate pair as one. The size is 0 if it is none, or half a pair.
func unescape(raw []byte) (r rune, size int) {
	if len(raw) < 2 {
		return 0, 0
	}
	switch c := raw[1]; c {
	case '"', '\\', '/':
		return rune(c), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		return unescapeHex(raw)
	}
	return 0, 0
}

// unescapeHex decodes \uXXXX or a pair of them.
func unescapeHex(raw []byte) (r rune, size int) {
	r, ok := hex4(raw)
	switch {
	case !ok:
		return 0, 0
	case !utf16.IsSurrogate(r):
		return r, 6
	}
	low, ok := hex4(raw[6:])
	if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
		return 0, 0
	}
	return r, 12
}

// hex4 reads the four digits of the \uXXXX that raw starts with.
func hex4(raw []byte) (r rune, ok bool) {
	if len(raw) < 6 || raw[0] != '\\' || raw[1] != 'u' {
		return 0, false
	}
	for _, c := range raw[2:6] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}
