package openai

import (
	"bytes"
	"unicode/utf8"
)

// PeekMultipart reads a multipart/form-data body (RFC 7578), as /v1/audio/transcriptions and translations have it. The
// boundary comes from contentType, the value of the Content-Type header. Files are stepped over by a search for the
// boundary; nothing is copied.
func PeekMultipart(contentType, body []byte) (Peek, error) {
	none := Peek{MaxTokens: -1}
	boundary, err := parseContentType(contentType)
	if err != nil {
		return none, err
	}
	if len(body) == 0 {
		return none, ErrEmpty
	}
	r := formReader{b: body, limits: limits{-1, -1, -1}}
	var buf [maxBoundary + 4]byte
	delim := append(append(buf[:0], "\r\n--"...), boundary...) // no field of r: that would put it on the heap
	if !r.parts(delim) {
		return none, &SyntaxError{Format: "multipart/form-data", Offset: r.i, Want: r.want, AtEnd: r.i >= len(body)}
	}
	return r.finish()
}

// maxBoundary is RFC 2046's 70 characters, and room for those who do not keep to it.
const maxBoundary = 200

// parseContentType returns the boundary of a form.
func parseContentType(contentType []byte) ([]byte, error) {
	ps := params{rest: contentType}
	if !bytes.EqualFold(ps.first(), []byte("multipart/form-data")) {
		return nil, ErrNotForm
	}
	var boundary []byte
	for ps.next() {
		switch {
		case keyIs(ps.key, "boundary"):
			if boundary != nil || bytes.IndexByte(ps.value, '\\') >= 0 {
				return nil, ErrNotForm
			}
			boundary = ps.value
		case keyIs(ps.key, "charset") && !isUTF8(ps.value):
			return nil, ErrEncoding
		case extended(ps.key, "boundary"), extended(ps.key, "charset"):
			return nil, ErrNotForm
		}
	}
	if ps.bad || len(boundary) == 0 || len(boundary) > maxBoundary {
		return nil, ErrNotForm
	}
	return boundary, nil
}

func isUTF8(charset []byte) bool {
	return bytes.EqualFold(charset, []byte("utf-8")) || bytes.EqualFold(charset, []byte("utf8")) ||
		bytes.EqualFold(charset, []byte("us-ascii"))
}

// formReader steps over the parts of a form.
type formReader struct {
	b    []byte
	i    int
	want string

	peek   Peek
	file   bool // the model is an uploaded file
	limits limits
}

func (r *formReader) fail(want string) bool {
	r.want = want
	return false
}

// parts reads the whole body; delim is CRLF, two hyphens and the boundary. What precedes the first boundary may be line breaks only, as python-multipart has it; what
// follows the last one is ignored.
func (r *formReader) parts(delim []byte) bool {
	for r.i < len(r.b) && (r.b[r.i] == '\r' || r.b[r.i] == '\n') {
		r.i++
	}
	if !bytes.HasPrefix(r.b[r.i:], delim[2:]) {
		return r.failPrefix(delim[2:], "the boundary of the content type")
	}
	r.i += len(delim) - 2
	for {
		last, ok := r.boundaryEnd()
		if last || !ok {
			return ok
		}
		if !r.part(delim) {
			return false
		}
	}
}

// failPrefix fails at the first byte that differs from what was wanted, so that a body cut short is seen as such.
func (r *formReader) failPrefix(prefix []byte, want string) bool {
	for len(prefix) > 0 && r.i < len(r.b) && r.b[r.i] == prefix[0] {
		r.i++
		prefix = prefix[1:]
	}
	return r.fail(want)
}

// boundaryEnd steps over what follows a boundary: a line break, or the hyphens that make it the last one.
func (r *formReader) boundaryEnd() (last, ok bool) {
	rest := r.b[r.i:]
	switch {
	case bytes.HasPrefix(rest, []byte("--")):
		return true, true
	case len(rest) > 0 && rest[0] == '-':
		return false, r.failPrefix([]byte("--"), "the final boundary")
	}
	return false, r.lineBreak("a line break behind the boundary")
}

func (r *formReader) lineBreak(want string) bool {
	if !bytes.HasPrefix(r.b[r.i:], []byte("\r\n")) {
		return r.failPrefix([]byte("\r\n"), want)
	}
	r.i += 2
	return true
}

// part reads one part: its headers, and its content up to the next boundary.
func (r *formReader) part(delim []byte) bool {
	var d disposition
	if !r.headers(&d) {
		return false
	}
	start := r.i
	for {
		n := bytes.Index(r.b[r.i:], delim)
		if n < 0 {
			r.i = len(r.b)
			return r.fail("the final boundary")
		}
		end := r.i + n
		r.i = end + len(delim)
		if !r.isContent() {
			r.note(d, span{start, end})
			return true
		}
	}
}

// isContent reports whether the text of the boundary that was just stepped over is none, because something else than its
// end follows. White space there is a boundary with padding to newer versions of python-multipart (and RFC 2046) and
// content to older ones, so it counts as a boundary here, and boundaryEnd refuses it.
func (r *formReader) isContent() bool {
	rest := r.b[r.i:]
	switch {
	case len(rest) == 0 || rest[0] == ' ' || rest[0] == '\t':
		return false
	case rest[0] == '\r':
		return len(rest) > 1 && rest[1] != '\n'
	case rest[0] == '-':
		return len(rest) > 1 && rest[1] != '-'
	}
	return true
}

// note keeps what is wanted of one part; a later one replaces an earlier one.
func (r *formReader) note(d disposition, v span) {
	content := r.b[v.start:v.end]
	switch string(d.name) {
	case "model":
		r.peek.Duplicate = r.peek.HasModel
		r.peek.HasModel = true
		r.peek.ModelStart, r.peek.ModelEnd = v.start, v.end
		r.file = d.file
	case "stream":
		r.peek.Stream = truth(content)
	case "max_completion_tokens":
		r.limits[0] = count(content)
	case "max_tokens":
		r.limits[1] = count(content)
	}
}

func (r *formReader) finish() (Peek, error) {
	p := r.peek
	p.form = true
	p.MaxTokens = r.limits.first()
	if !p.HasModel {
		return p, nil
	}
	var err error
	switch {
	case r.file:
		err = ErrModelNotString
	case !plainText(r.b[p.ModelStart:p.ModelEnd]):
		err = ErrModelText
	}
	if err != nil {
		p.HasModel, p.ModelStart, p.ModelEnd = false, 0, 0
	}
	return p, err
}

// plainText reports whether a model from a form is text: UTF-8 without control characters.
func plainText(v []byte) bool {
	for _, c := range v {
		if c < ' ' {
			return false
		}
	}
	return utf8.Valid(v)
}
