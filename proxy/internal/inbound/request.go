package inbound

import (
	"bytes"
	"fmt"

	"lbd/proxy/internal/relay"
)

// Request is one request of a client. Its slices point into buffers of the
// connection and are valid until Conn.Release.
type Request struct {
	Method, Target []byte
	Minor          int // of HTTP/1.x
	// Fields are all header fields as sent: order, case and repetitions.
	Fields []relay.Field
	// ContentType is the first field of that name, nil if there is none.
	ContentType []byte
	// Body is the content without its framing.
	Body []byte
	// Close says that the client does not expect the connection to stay.
	Close   bool
	Version []byte // as sent, "HTTP/1.1"

	length  int64 // Content-Length, -1 if there is none
	chunked bool
	expects bool // 100-continue
	keep    bool // Connection names keep-alive
	hosts   int
}

// Malformed is an error about bytes that are no request. It quotes nothing: what
// stands in place of a field may be a secret.
type Malformed struct{ Reason string }

func (e *Malformed) Error() string { return e.Reason }

func malformed(format string, args ...any) error { return &Malformed{fmt.Sprintf(format, args...)} }

// maxFields bounds the header fields of one request; browsers and SDKs send
// about twenty.
const maxFields = 256

// reset keeps the room for fields, and nothing that they point to.
func (r *Request) reset() {
	clear(r.Fields)
	*r = Request{Fields: r.Fields[:0], length: -1}
}

// parse reads a whole head, which ends in an empty line.
func (r *Request) parse(head []byte) error {
	r.reset()
	line, rest, _ := bytes.Cut(head, crlf)
	if err := r.requestLine(line); err != nil {
		return err
	}
	for {
		line, rest, _ = bytes.Cut(rest, crlf)
		if len(line) == 0 {
			return r.finish()
		}
		if err := r.field(line); err != nil {
			return err
		}
	}
}

var crlf = []byte("\r\n")

// requestLine reads METHOD SP TARGET SP VERSION, with exactly one space at each
// place (RFC 9112 section 3).
func (r *Request) requestLine(line []byte) error {
	i := bytes.IndexByte(line, ' ')
	j := bytes.LastIndexByte(line, ' ')
	if i <= 0 || i == j {
		return malformed("the request line is not METHOD TARGET VERSION")
	}
	r.Method, r.Target, r.Version = line[:i], line[i+1:j], line[j+1:]
	if !relay.IsToken(r.Method) {
		return malformed("the method is not a token")
	}
	if len(r.Target) == 0 {
		return malformed("the request target is empty")
	}
	for _, c := range r.Target {
		// A fragment is never sent (RFC 9112 section 3.2); uvicorn and nginx cut it off.
		if c <= ' ' || c >= 0x7f || c == '#' {
			return malformed("the request target holds the byte 0x%02x", c)
		}
	}
	if err := r.version(); err != nil { // first: the target of HTTP/2's preface is "*"
		return err
	}
	if !r.targetForm() {
		return malformed("the request target is neither a path nor a URL")
	}
	return nil
}

// targetForm says whether the target has one of the forms of RFC 9112 section 3.2
// that the method allows.
func (r *Request) targetForm() bool {
	if r.Target[0] == '/' {
		return true
	}
	switch string(r.Method) {
	case "CONNECT":
		return true
	case "OPTIONS":
		return len(r.Target) == 1 && r.Target[0] == '*' || absolute(r.Target)
	}
	return absolute(r.Target)
}

// absolute says whether a target is a URL with a scheme (RFC 3986 section 3.1) and
// an authority, both followed by nothing that could be taken for one or the other.
func absolute(target []byte) bool {
	scheme, rest, ok := bytes.Cut(target, []byte("://"))
	if !ok || len(scheme) == 0 || !letter(scheme[0]) {
		return false
	}
	for _, c := range scheme {
		if !letter(c) && !digit(c) && c != '+' && c != '-' && c != '.' {
			return false
		}
	}
	host := rest
	if i := bytes.IndexAny(rest, "/?"); i >= 0 {
		host = rest[:i]
	}
	for _, c := range host {
		if !hostChar[c] {
			return false
		}
	}
	return len(host) > 0
}

func letter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func (r *Request) version() error {
	v := r.Version
	if len(v) != len("HTTP/1.1") || string(v[:5]) != "HTTP/" || !digit(v[5]) || v[6] != '.' || !digit(v[7]) {
		return malformed("the version is not HTTP/1.1")
	}
	r.Minor = int(v[7] - '0')
	if string(v[:7]) == "HTTP/1." && r.Minor <= 1 {
		return nil
	}
	return ErrVersion
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

func (r *Request) field(line []byte) error {
	i := bytes.IndexByte(line, ':')
	switch {
	case line[0] == ' ' || line[0] == '\t':
		return malformed("folded header lines are not accepted")
	case i < 0 || !relay.IsToken(line[:i]):
		return malformed("a header line is not NAME: VALUE")
	}
	f := relay.Field{Name: line[:i], Value: relay.TrimBlanks(line[i+1:])}
	if i := relay.BadValueByte(f.Value); i >= 0 {
		return malformed("header %s holds the byte 0x%02x", f.Name, f.Value[i])
	}
	if len(r.Fields) == maxFields {
		return malformed("more than %d header fields", maxFields)
	}
	r.Fields = append(r.Fields, f)
	return r.interpret(f)
}

// interpret looks at the fields that say how the request is framed.
func (r *Request) interpret(f relay.Field) error {
	switch len(f.Name) {
	case len("host"):
		if relay.EqualFold(f.Name, "host") {
			return r.host(f.Value)
		}
	case len("expect"):
		r.expects = r.expects || (relay.EqualFold(f.Name, "expect") && relay.EqualFold(f.Value, "100-continue"))
	case len("connection"):
		if relay.EqualFold(f.Name, "connection") {
			r.Close = r.Close || relay.HasToken(f.Value, "close")
			r.keep = r.keep || relay.HasToken(f.Value, "keep-alive")
		}
	case len("content-type"):
		if r.ContentType == nil && relay.EqualFold(f.Name, "content-type") {
			r.ContentType = f.Value
		}
	case len("content-length"):
		if relay.EqualFold(f.Name, "content-length") {
			return r.contentLength(f.Value)
		}
	case len("transfer-encoding"):
		if relay.EqualFold(f.Name, "transfer-encoding") {
			return r.transferEncoding(f.Value)
		}
	}
	return nil
}

// hostChar are the bytes of an authority (RFC 3986 section 3.2.2).
var hostChar = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
	}
	for _, c := range "-._~%!$&'()*+,;=:[]" {
		t[c] = true
	}
	return t
}()

func (r *Request) host(v []byte) error {
	if r.hosts++; r.hosts > 1 {
		return malformed("more than one Host")
	}
	for _, c := range v {
		if !hostChar[c] {
			return malformed("Host holds the byte 0x%02x", c)
		}
	}
	return nil
}

// maxLengthDigits keeps a Content-Length within int64.
const maxLengthDigits = 18

// contentLength takes one number in one field: a list or a repetition, even of
// equal numbers, is what smuggling is made of (RFC 9112 section 6.3).
func (r *Request) contentLength(v []byte) error {
	if r.length >= 0 {
		return malformed("more than one Content-Length")
	}
	if len(v) == 0 || len(v) > maxLengthDigits {
		return malformed("Content-Length is not a number of bytes")
	}
	r.length = 0
	for _, c := range v {
		if !digit(c) {
			return malformed("Content-Length is not a number of bytes")
		}
		r.length = r.length*10 + int64(c-'0')
	}
	return nil
}

func (r *Request) transferEncoding(v []byte) error {
	if r.chunked || !relay.EqualFold(v, "chunked") {
		return malformed("a Transfer-Encoding other than one chunked is not accepted")
	}
	r.chunked = true
	return nil
}

// finish draws the conclusions of the whole head.
func (r *Request) finish() error {
	switch {
	case r.chunked && r.length >= 0:
		return malformed("both Content-Length and Transfer-Encoding are given")
	case r.chunked && r.Minor == 0:
		return malformed("Transfer-Encoding in HTTP/1.0")
	case r.hosts == 0 && r.Minor == 1:
		return malformed("no Host header")
	}
	r.Close = r.Close || (r.Minor == 0 && !r.keep)
	return nil
}
