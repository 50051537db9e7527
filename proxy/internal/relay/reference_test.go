package relay

import (
	"errors"
	"io"
	"regexp"
	"strings"

	"lbd/proxy/internal/sock"
)

// decoded is what the reference makes of a chunked body.
type decoded struct {
	payload string
	upTo    int // where the last chunk's line begins: so much is passed on
	end     int // size of the body
	trailer string
	// known is, for every position, how much of the input may have been passed
	// on once so many bytes have come: a size line is kept until it is whole.
	known []int
}

var errReference = errors.New("not a chunked body")

// reference decodes a chunked body in the plainest way: all of it at once, with
// strings, by RFC 9112 section 7.1 and the limits of this package.
func reference(raw string) (d decoded, err error) {
	d.known = make([]int, len(raw)+1)
	over := 0
	for at := 0; ; {
		line, ok := crlfLine(raw[at:], maxSizeLine)
		size, sized := chunkSize(line)
		over = max(0, over+len(line)+4-16-2*int(min(size, 1<<20)))
		if !ok || !sized || over > 16<<10 {
			d.keep(at, len(raw))
			return d, errReference
		}
		start := at + len(line) + 2
		if size == 0 {
			d.keep(at, len(raw))
			d.upTo = at
			d.trailer, ok = trailerSection(raw[start:])
			if !ok {
				return d, errReference
			}
			d.end = start + len(d.trailer) + 2
			return d, nil
		}
		d.keep(at, start-1)
		if int64(len(raw)-start) < size+2 || raw[start+int(size):start+int(size)+2] != "\r\n" {
			d.pass(start, len(raw))
			return d, errReference
		}
		d.payload += raw[start : start+int(size)]
		at = start + int(size) + 2
		d.pass(start, at-1)
	}
}

// keep says that of what has come up to each of these positions nothing behind the first
// of them may have been passed on.
func (d *decoded) keep(from, to int) {
	for i := from; i <= to; i++ {
		d.known[i] = from
	}
}

// pass says that all of it may have been.
func (d *decoded) pass(from, to int) {
	for i := from; i <= to; i++ {
		d.known[i] = i
	}
}

func crlfLine(s string, limit int) (string, bool) {
	i := strings.Index(s, "\n")
	if i < 1 || i >= limit || s[i-1] != '\r' {
		return "", false
	}
	return s[:i-1], true
}

func chunkSize(line string) (size int64, ok bool) {
	digits := line[:len(line)-len(strings.TrimLeft(line, "0123456789abcdefABCDEF"))]
	if len(digits) < 1 || len(digits) > 15 {
		return 0, false
	}
	for _, c := range strings.ToLower(digits) {
		size = size*16 + int64(strings.IndexRune("0123456789abcdef", c))
	}
	rest := strings.TrimLeft(line[len(digits):], " \t")
	if rest != "" && rest[0] != ';' {
		return 0, false
	}
	for i := range len(rest) {
		if (rest[i] < 32 && rest[i] != 9) || rest[i] == 127 {
			return 0, false
		}
	}
	return size, true
}

var (
	refName    = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
	refControl = regexp.MustCompile("[\x00-\x08\x0a-\x1f\x7f]")
)

// trailerSection returns the trailer lines with their CRLF, without the empty
// line that ends them.
func trailerSection(s string) (string, bool) {
	n := 0
	for {
		line, ok := crlfLine(s[n:], maxTrailer-n)
		if !ok {
			return "", false
		}
		if line == "" {
			return s[:n], true
		}
		if name, value, ok := strings.Cut(line, ":"); !ok || !refName.MatchString(name) || refControl.MatchString(value) {
			return "", false
		}
		n += len(line) + 2
	}
}

// pieces is a replica that sends its bytes in the given portions and then ends
// its side, or fails with err.
type pieces struct {
	source
	parts []string
	err   error
}

func (p *pieces) ReadBuf() (*sock.Buf, int, error) {
	if len(p.parts) == 0 {
		if p.err != nil {
			return nil, 0, p.err
		}
		return nil, 0, io.EOF
	}
	b := sock.GetBuf()
	n := copy(b.B[:], p.parts[0])
	if p.parts[0] = p.parts[0][n:]; p.parts[0] == "" {
		p.parts = p.parts[1:]
	}
	return b, n, nil
}
