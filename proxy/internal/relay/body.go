package relay

import (
	"bytes"
	"errors"
	"fmt"
)

// Framing is how the end of a body is known.
type Framing uint8

// The framings of a response body.
const (
	NoBody     Framing = iota
	Length             // Content-Length
	Chunked            // Transfer-Encoding: chunked
	UntilClose         // the end of the connection
)

// Framing returns how the response's body is delimited (RFC 9112 section 6.3).
func (h *Head) Framing(headRequest bool) Framing {
	switch {
	case headRequest, h.Status < 200, h.Status == 204, h.Status == 304, h.Length == 0:
		return NoBody
	case h.Chunked:
		return Chunked
	case h.Length > 0:
		return Length
	}
	return UntilClose
}

// ErrBadFraming is wrapped by every error about chunk framing. They quote nothing:
// what stands in place of the framing may be text of the answer.
var ErrBadFraming = errors.New("malformed chunk framing")

func badFraming(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrBadFraming}, args...)...)
}

// Limits on what chunk framing may add to a body. A chunk size has at most 15
// hexadecimal digits, so it cannot overflow.
const (
	maxSizeDigits = 15
	maxSizeLine   = 512
	maxTrailer    = 16 << 10
	// maxOverhead bounds the framing of all chunks together: what a body of few bytes
	// can make its reader take in by extensions and leading zeros (CVE-2023-39326).
	// Limit and allowance are those of Go's net/http/internal/chunked.go: a chunk may
	// cost 16 bytes and two for each of its own.
	maxOverhead    = 16 << 10
	freeOverhead   = 16
	freeOverheadBy = 2
)

type chunkState uint8

const (
	inSize chunkState = iota
	inData
	afterData   // CRLF expected
	afterDataCR // LF expected
	inTrailer
	ended
)

// Body follows a body through its bytes, however they are cut into reads.
type Body struct {
	framing Framing
	left    int64 // of the length, or of the current chunk
	state   chunkState
	over    int    // bytes of framing beyond what chunks may cost
	line    []byte // chunk-size line or trailer section read so far
}

// Reset begins a body. length matters for Length only.
func (b *Body) Reset(f Framing, length int64) {
	*b = Body{framing: f, left: length, line: b.line[:0]}
	if f == NoBody || (f == Length && length == 0) {
		b.state = ended
	}
}

// Ended says that the last byte of the body has been seen.
func (b *Body) Ended() bool { return b.state == ended }

// End tells the body that the connection has ended. It reports whether the body
// is complete.
func (b *Body) End() bool {
	if b.framing == UntilClose {
		b.state = ended
	}
	return b.state == ended
}

// Trailer returns the trailer section of a chunked body, complete lines with
// their CRLF, once it has ended.
func (b *Body) Trailer() []byte {
	if b.framing != Chunked {
		return nil
	}
	return bytes.TrimSuffix(b.line, []byte("\r\n"))
}

// part says what the bytes that next consumed are.
type part uint8

const (
	framing part = iota // chunk framing in front of or behind data
	payload
	last   // the last chunk's line and the trailer section
	excess // bytes behind the end
)

// next consumes some bytes of p, at least one, all of one kind. For framing,
// held says that the line is not complete: nobody knows yet whether it is the
// last chunk's.
func (b *Body) next(p []byte) (kind part, n int, held bool, err error) {
	switch {
	case b.state == ended:
		return excess, len(p), false, nil
	case b.framing == UntilClose:
		return payload, len(p), false, nil
	case b.framing == Length:
		n = b.take(p)
		if b.left == 0 {
			b.state = ended
		}
		return payload, n, false, nil
	}
	return b.chunked(p)
}

// Next consumes some bytes of p, at least one, and returns those of them that are
// payload. It is for whoever decodes a body instead of passing it on.
func (b *Body) Next(p []byte) (data []byte, n int, err error) {
	kind, n, _, err := b.next(p)
	if kind == payload {
		return p[:n], n, err
	}
	return nil, n, err
}

// Between says that a chunked body stands between two chunks.
func (b *Body) Between() bool { return b.state == inSize && len(b.line) == 0 }

func (b *Body) take(p []byte) int {
	n := int(min(int64(len(p)), b.left))
	b.left -= int64(n)
	return n
}

func (b *Body) chunked(p []byte) (kind part, n int, held bool, err error) {
	switch b.state {
	case inData:
		n = b.take(p)
		if b.left == 0 {
			b.state = afterData
		}
		return payload, n, false, nil
	case afterData, afterDataCR:
		n, err = b.chunkEnd(p)
		return framing, n, false, err
	case inTrailer:
		n, err = b.trailer(p)
		return last, n, false, err
	}
	return b.size(p)
}

// chunkEnd reads the CRLF behind a chunk, or as much of it as has come.
func (b *Body) chunkEnd(p []byte) (n int, err error) {
	if b.state == afterData {
		if p[0] != '\r' {
			return 1, badFraming("byte 0x%02x behind a chunk; want CRLF", p[0])
		}
		b.state, n = afterDataCR, 1
		if len(p) == 1 {
			return n, nil
		}
	}
	if p[n] != '\n' {
		return n + 1, badFraming("byte 0x%02x behind a chunk; want CRLF", p[n])
	}
	b.state = inSize
	return n + 1, nil
}

// size reads a chunk-size line, from one read in place or over several by way of
// b.line.
func (b *Body) size(p []byte) (kind part, n int, held bool, err error) {
	n, line, err := b.untilLF(p, maxSizeLine)
	if err != nil || line == nil {
		return framing, n, true, err
	}
	size, err := parseSize(line)
	if err == nil {
		err = b.charge(len(line)+2*len("\r\n"), size)
	}
	if err != nil {
		return framing, n, false, err
	}
	b.line = b.line[:0]
	if size == 0 {
		b.state = inTrailer
		return last, n, false, nil
	}
	b.state, b.left = inData, size
	return framing, n, false, nil
}

// charge counts the framing of one chunk in bytes.
func (b *Body) charge(framing int, size int64) error {
	b.over = max(0, b.over+framing-freeOverhead-freeOverheadBy*int(min(size, maxOverhead)))
	if b.over > maxOverhead {
		return badFraming("more framing than body")
	}
	return nil
}

// untilLF returns the line that ends in p, without its CRLF, or nil when p holds
// only a part of it.
func (b *Body) untilLF(p []byte, limit int) (n int, line []byte, err error) {
	i := bytes.IndexByte(p, '\n')
	if i < 0 {
		b.line = append(b.line, p...)
		if len(b.line) > limit {
			return len(p), nil, badFraming("line longer than %d bytes", limit)
		}
		return len(p), nil, nil
	}
	line = p[:i+1]
	if len(b.line) > 0 {
		b.line = append(b.line, line...)
		line = b.line
	}
	if len(line) > limit {
		return i + 1, nil, badFraming("line longer than %d bytes", limit)
	}
	if len(line) < 2 || line[len(line)-2] != '\r' {
		return i + 1, nil, badFraming("chunk-size line does not end in CRLF")
	}
	return i + 1, line[:len(line)-2], nil
}

// parseSize reads a chunk-size line: digits, blanks, an extension. Nothing is
// made of extensions; they only have to be text.
func parseSize(line []byte) (size int64, err error) {
	n := 0
	for n < len(line) && hexDigit[line[n]] >= 0 {
		if n == maxSizeDigits {
			return 0, badFraming("chunk size of more than %d digits", maxSizeDigits)
		}
		size = size<<4 | int64(hexDigit[line[n]])
		n++
	}
	if n == 0 {
		return 0, badFraming("chunk size is not hexadecimal")
	}
	rest := bytes.TrimLeft(line[n:], " \t")
	if len(rest) > 0 && rest[0] != ';' {
		return 0, badFraming("byte 0x%02x behind a chunk size", rest[0])
	}
	if i := BadValueByte(rest); i >= 0 {
		return 0, badFraming("byte 0x%02x in a chunk extension", rest[i])
	}
	return size, nil
}

// hexDigit holds the value of a hexadecimal digit, -1 for other bytes.
var hexDigit = func() (t [256]int8) {
	for c := range t {
		t[c] = -1
	}
	for i, c := range []byte("0123456789abcdef") {
		t[c] = int8(i)
	}
	for i, c := range []byte("ABCDEF") {
		t[c] = int8(i + 10)
	}
	return t
}()

// trailer collects lines up to the empty one that ends the body.
func (b *Body) trailer(p []byte) (n int, err error) {
	for n < len(p) {
		i := bytes.IndexByte(p[n:], '\n')
		end := len(p)
		if i >= 0 {
			end = n + i + 1
		}
		b.line = append(b.line, p[n:end]...)
		n = end
		if len(b.line) > maxTrailer {
			return n, badFraming("trailer section longer than %d bytes", maxTrailer)
		}
		if i < 0 {
			return n, nil
		}
		if err = b.trailerLine(); b.state == ended || err != nil {
			return n, err
		}
	}
	return n, nil
}

// trailerLine looks at the line that has just come to its end. What is no field is
// refused (RFC 9112 section 7.1.2): somebody else may take it for the next message.
func (b *Body) trailerLine() error {
	line, ok := bytes.CutSuffix(b.line, []byte("\r\n"))
	if !ok {
		return badFraming("trailer line does not end in CRLF")
	}
	line = line[bytes.LastIndexByte(line, '\n')+1:]
	if len(line) == 0 {
		b.state = ended
		return nil
	}
	i := bytes.IndexByte(line, ':')
	if i < 0 || !IsToken(line[:i]) || BadValueByte(line[i+1:]) >= 0 {
		return badFraming("trailer line is not NAME: VALUE")
	}
	return nil
}

// TrailerFields calls yield for each field of the trailer section of a body.
func TrailerFields(section []byte, yield func(name, value []byte)) {
	for len(section) > 0 {
		var line []byte
		line, section, _ = bytes.Cut(section, []byte("\r\n"))
		name, value, _ := bytes.Cut(line, []byte(":"))
		yield(name, TrimBlanks(value))
	}
}
