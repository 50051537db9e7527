package relay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"lbd/proxy/internal/sock"
)

// MaxHead is the largest response head in bytes: what one relay buffer holds.
// vLLM's heads are below 1 KiB.
const MaxHead = sock.BufSize

const maxFields = 256

// ErrBadHead is wrapped by every error about a response head.
var ErrBadHead = errors.New("malformed response head")

// HeadError says what is wrong with a response head: what was wanted, and nothing of what
// the replica has sent. Clients are told, and what stands where a head should can be left
// over from another client's answer.
type HeadError string

func (e HeadError) Error() string { return ErrBadHead.Error() + ": want " + string(e) }

func (e HeadError) Unwrap() error { return ErrBadHead }

// Oversized is a head longer than [MaxHead].
var Oversized = HeadError(fmt.Sprintf("at most %d bytes", MaxHead))

var (
	badStart      = HeadError("a first line of HTTP/1.1 and a three-digit status")
	tooManyFields = HeadError(fmt.Sprintf("at most %d header fields", maxFields))
	badLength     = HeadError(fmt.Sprintf("a Content-Length of up to %d digits", maxLengthDigits))
)

// Field is one header field; the slices point into the parsed bytes.
type Field struct{ Name, Value []byte }

// Head is a parsed response head. Its fields point into the bytes given to
// Parse. It is reused from response to response.
type Head struct {
	Status int
	Reason []byte
	Minor  int // of HTTP/1.x
	Fields []Field
	// Length is the Content-Length, -1 if there is none.
	Length  int64
	Chunked bool
	// Connection names the fields that are not to be passed on, of several
	// Connection fields all.
	Connection []byte
	// Close says that the replica will close the connection afterwards.
	Close bool
	// SSE and JSON say what the content type is, when the body is not encoded.
	SSE, JSON bool
	// Encoded says that a Content-Encoding is applied.
	Encoded bool

	closes, keeps bool // Connection names close, keep-alive
}

// Parse reads a head from the start of buf and returns its size. It returns 0
// and no error when buf does not yet hold all of it; what can never become a head
// is refused at once. It is as strict as RFC 9112 lets a recipient be: CRLF line
// ends, no folded lines, no space before a colon, one Content-Length or "chunked"
// and not both.
func (h *Head) Parse(buf []byte) (int, error) {
	*h = Head{Fields: h.Fields[:0], Length: -1}
	for n := 0; ; {
		line, size, err := headLine(buf[n:])
		switch {
		case err != nil:
			return 0, err
		case size == 0:
			return 0, incomplete(buf)
		case n == 0:
			err = h.statusLine(line)
		case len(line) == 0:
			if err = h.finish(); err == nil {
				return n + size, nil
			}
		default:
			err = h.field(line)
		}
		if err != nil {
			return 0, err
		}
		n += size
	}
}

// Clear lets go of the parsed bytes.
func (h *Head) Clear() { *h = Head{Fields: h.Fields[:0], Length: -1} }

// headLine returns the first line of b without its CRLF and its size with it, 0
// when its end has not come.
func headLine(b []byte) (line []byte, size int, err error) {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		return nil, 0, nil
	}
	if i == 0 || b[i-1] != '\r' {
		return nil, 0, HeadError("lines that end in CRLF")
	}
	return b[:i-1], i + 1, nil
}

// finish checks the whole head and draws the conclusions.
func (h *Head) finish() error {
	switch {
	case h.Chunked && h.Length >= 0:
		return HeadError("either Content-Length or Transfer-Encoding, got both")
	case h.Chunked && h.Minor == 0:
		return HeadError("no Transfer-Encoding in HTTP/1.0")
	}
	h.Close = h.closes || (h.Minor == 0 && !h.keeps)
	if h.Encoded {
		h.SSE, h.JSON = false, false
	}
	return nil
}

// incomplete refuses early what can never become a head.
func incomplete(buf []byte) error {
	const magic = "HTTP/1."
	if n := min(len(buf), len(magic)); string(buf[:n]) != magic[:n] {
		return badStart
	}
	if len(buf) > MaxHead {
		return Oversized
	}
	return nil
}

func (h *Head) statusLine(b []byte) error {
	// HTTP/1.x SP 3DIGIT [SP reason]; an absent reason with its space is common.
	if len(b) < 12 || string(b[:7]) != "HTTP/1." || (b[7] != '0' && b[7] != '1') || b[8] != ' ' ||
		(len(b) > 12 && b[12] != ' ') {
		return badStart
	}
	h.Minor = int(b[7] - '0')
	for _, c := range b[9:12] {
		if c < '0' || c > '9' {
			return HeadError("a status of three digits")
		}
		h.Status = h.Status*10 + int(c-'0')
	}
	if h.Status < 100 || h.Status > 599 {
		return HeadError("a status from 100 to 599")
	}
	if len(b) > 13 {
		h.Reason = b[13:]
	}
	return checkValue(h.Reason)
}

func (h *Head) field(line []byte) error {
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 {
		return HeadError("header lines that are NAME: VALUE")
	}
	f := Field{Name: line[:colon], Value: TrimBlanks(line[colon+1:])}
	if !IsToken(f.Name) {
		return HeadError("header names that are tokens")
	}
	if err := checkValue(f.Value); err != nil {
		return err
	}
	if len(h.Fields) == maxFields {
		return tooManyFields
	}
	h.Fields = append(h.Fields, f)
	return h.interpret(f)
}

func (h *Head) interpret(f Field) error {
	switch len(f.Name) { // most fields are none of these
	case len("content-length"):
		if EqualFold(f.Name, "content-length") {
			return h.contentLength(f.Value)
		}
	case len("transfer-encoding"):
		if EqualFold(f.Name, "transfer-encoding") {
			if h.Chunked || !EqualFold(f.Value, "chunked") {
				return HeadError("one Transfer-Encoding, chunked")
			}
			h.Chunked = true
		}
	case len("connection"):
		if EqualFold(f.Name, "connection") {
			h.nominate(f.Value)
			h.closes = h.closes || HasToken(f.Value, "close")
			h.keeps = h.keeps || HasToken(f.Value, "keep-alive")
		}
	case len("content-type"):
		if EqualFold(f.Name, "content-type") {
			h.SSE = hasPrefixFold(f.Value, "text/event-stream")
			h.JSON = hasPrefixFold(f.Value, "application/json")
		}
	case len("content-encoding"):
		if EqualFold(f.Name, "content-encoding") {
			h.Encoded = !EqualFold(f.Value, "identity")
		}
	}
	return nil
}

func (h *Head) contentLength(v []byte) error {
	n, err := parseLength(v)
	if err != nil {
		return err
	}
	if h.Length >= 0 && h.Length != n {
		return HeadError("one Content-Length, got two that differ")
	}
	h.Length = n
	return nil
}

// nominate copies only if a replica sends more than one Connection field.
func (h *Head) nominate(list []byte) {
	if h.Connection == nil {
		h.Connection = list
		return
	}
	h.Connection = slices.Concat(h.Connection, []byte(","), list)
}

// maxLengthDigits keeps a Content-Length within int64.
const maxLengthDigits = 18

func parseLength(b []byte) (n int64, err error) {
	if len(b) == 0 || len(b) > maxLengthDigits {
		return 0, badLength
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, badLength
		}
		n = n*10 + int64(c-'0')
	}
	return n, nil
}

// IsToken says whether b is a token of RFC 9110 section 5.6.2.
func IsToken(b []byte) bool {
	for _, c := range b {
		if !tokenChar[c] {
			return false
		}
	}
	return len(b) > 0
}

var tokenChar = func() (t [256]bool) {
	for c := '0'; c <= '9'; c++ {
		t[c] = true
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c], t[c-'a'+'A'] = true, true
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		t[c] = true
	}
	return t
}()

// checkValue refuses control characters other than the tab, as RFC 9110 section
// 5.5 asks for; bytes above 0x7f are opaque and pass.
func checkValue(b []byte) error {
	if i := BadValueByte(b); i >= 0 {
		return HeadError("no control characters in header values")
	}
	return nil
}

// BadValueByte returns the index of the first byte that no header value may
// hold, -1 if there is none.
func BadValueByte(b []byte) int {
	i := 0
	for ; i+8 <= len(b); i += 8 {
		if suspicious(binary.LittleEndian.Uint64(b[i:])) {
			break
		}
	}
	for ; i < len(b); i++ {
		if c := b[i]; (c < ' ' || c == 0x7f) && c != '\t' {
			return i
		}
	}
	return -1
}

// suspicious says that one of eight bytes is below the space or may be DEL. It
// looks at all at once, as "Determine if a word has a byte less than n" in
// S. E. Anderson's Bit Twiddling Hacks does.
func suspicious(w uint64) bool {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	del := w ^ 0x7f*ones
	return ((w-0x20*ones)&^w|(del-ones)&^del)&highs != 0
}

// TrimBlanks is bytes.Trim(b, " \t") without building a set for it.
func TrimBlanks(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// HasToken says whether a comma-separated list names token (lower case).
func HasToken(list []byte, token string) bool {
	for len(list) > 0 {
		var item []byte
		item, list, _ = bytes.Cut(list, []byte(","))
		if EqualFold(TrimBlanks(item), token) {
			return true
		}
	}
	return false
}

// HasName says whether a comma-separated list names a header field.
func HasName(list, name []byte) bool {
	for len(list) > 0 {
		var item []byte
		item, list, _ = bytes.Cut(list, []byte(","))
		if bytes.EqualFold(TrimBlanks(item), name) {
			return true
		}
	}
	return false
}

// EqualFold compares ASCII letters without regard to case; want is lower case.
func EqualFold(b []byte, want string) bool { return len(b) == len(want) && hasPrefixFold(b, want) }

func hasPrefixFold(b []byte, want string) bool {
	if len(b) < len(want) {
		return false
	}
	for i := range len(want) {
		c := b[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != want[i] {
			return false
		}
	}
	return true
}
