package inbound

import (
	"bufio"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// small are limits that a fuzzer can reach.
var small = Limits{Head: 2 << 10, Body: 1 << 10}

// follower is a request that stands behind what is fuzzed.
const follower = "GET /follower HTTP/1.1\r\nHost: f\r\n\r\n"

func FuzzRequest(f *testing.F) {
	for i, e := range corpus(f) {
		if len(e.in) < 8<<10 {
			f.Add([]byte(e.in), uint64(i))
		}
	}
	p, s := newPair(f, nil), still(recorder{}, small)
	f.Fuzz(func(t *testing.T, in []byte, seed uint64) {
		if len(in) > 8<<10 {
			return
		}
		compare(t, p, s, string(in), seed)
		if _, _, end := reference(string(in), small); end == endClean {
			compare(t, p, s, string(in)+follower, seed)
		}
	})
}

// FuzzChunkedRequest fuzzes what stands behind the head of a chunked request.
func FuzzChunkedRequest(f *testing.F) {
	const head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
	for i, e := range corpus(f) {
		if body, ok := strings.CutPrefix(e.in, head); ok && len(body) < 8<<10 {
			f.Add([]byte(body), uint64(i))
		}
	}
	p, s := newPair(f, nil), still(recorder{}, small)
	f.Fuzz(func(t *testing.T, body []byte, seed uint64) {
		if len(body) > 8<<10 {
			return
		}
		compare(t, p, s, head+string(body)+follower, seed)
	})
}

// compare reads in as it is cut by seed, and as the reference does.
func compare(t *testing.T, p *pair, s *Server, in string, seed uint64) {
	t.Helper()
	want, raw, end := reference(in, small)
	r := p.read(t, s, cuts(in, seed)...)
	if diff := cmp.Diff(want, r.reqs); diff != "" {
		t.Fatalf("%q is read otherwise by the reference (-want +got):\n%s", in, diff)
	}
	if (r.err != nil) != (end == endRefused) && end != endBetween {
		t.Fatalf("%q ends with %v; the reference says %s", in, r.err, end)
	}
	for i, g := range r.reqs {
		standard(t, raw[i], g)
	}
}

// cuts cuts s into at most eight pieces.
func cuts(s string, seed uint64) (pieces [][]byte) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	for n := rnd.IntN(8); n > 0 && len(s) > 1; n-- {
		i := 1 + rnd.IntN(len(s)-1)
		if rnd.IntN(2) == 0 {
			i = min(i, 1+rnd.IntN(4))
		}
		pieces, s = append(pieces, []byte(s[:i])), s[i:]
	}
	return append(pieces, []byte(s))
}

// standard compares a request that was read with what net/http makes of its bytes,
// if those are such that net/http has to read them the same way.
func standard(t *testing.T, raw string, g got) {
	t.Helper()
	if !strictlyPlain(raw, g) {
		return
	}
	b := bufio.NewReaderSize(strings.NewReader(raw), 64<<10)
	req, err := http.ReadRequest(b)
	var body []byte
	if err == nil {
		body, err = io.ReadAll(req.Body)
	}
	if err != nil {
		t.Fatalf("%q is refused by net/http: %v", raw, err)
	}
	type reading struct{ Method, Target, Version, Body string }
	want := reading{req.Method, req.RequestURI, req.Proto, string(body)}
	if diff := cmp.Diff(want, reading{g.Method, g.Target, g.Version, g.Body}); diff != "" {
		t.Fatalf("%q is read otherwise by net/http (-want +got):\n%s", raw, diff)
	}
	if rest, _ := io.ReadAll(b); len(rest) > 0 {
		t.Fatalf("%q: net/http leaves %q", raw, rest)
	}
	// Host and Transfer-Encoding it takes out of the header.
	n := strings.Count(g.Fields, "\n")
	for _, name := range []string{"host", "transfer-encoding"} {
		n -= strings.Count("\n"+strings.ToLower(g.Fields), "\n"+name+"=")
	}
	for _, v := range req.Header {
		n -= len(v)
	}
	if n != 0 {
		t.Fatalf("%q: %d fields more than net/http reads", raw, n)
	}
}

var (
	// plainTarget is what every reader of URLs takes: RFC 3986 without escapes, which
	// net/url decodes, and without the authority forms that it checks.
	plainTarget = regexp.MustCompile(`^(?:https?://[a-z0-9.]+(?::[0-9]{1,4})?)?/[A-Za-z0-9._~/-]*(?:\?[A-Za-z0-9._~/=&?-]*)?$`)
	plainChunk  = regexp.MustCompile(`^[0-9a-fA-F]{1,15}(?:;[!-~]*)?$`)
	ownReading  = regexp.MustCompile(`(?m)^(?i:trailer|pragma)=`)
)

// strictlyPlain says whether net/http's reading of a request binds this package's.
// It does not where net/http adds fields (Cache-Control for Pragma), takes some out
// (Trailer), reads trailer fields that are dropped here, looks into the target, or
// refuses blanks that RFC 9112 section 7.1.1 allows.
func strictlyPlain(raw string, g got) bool {
	if !plainTarget.MatchString(g.Target) || ownReading.MatchString(g.Fields) {
		return false
	}
	_, content, _ := strings.Cut(raw, "\r\n\r\n")
	return !strings.Contains("\n"+strings.ToLower(g.Fields), "\ntransfer-encoding=") || plainChunks(content)
}

func plainChunks(s string) bool {
	for {
		line, after, _ := strings.Cut(s, "\r\n")
		if !plainChunk.MatchString(line) {
			return false
		}
		digits, _, _ := strings.Cut(line, ";")
		n, err := strconv.ParseInt(digits, 16, 64)
		if n == 0 || err != nil || n+2 > int64(len(after)) {
			return after == "\r\n"
		}
		s = after[n+2:]
	}
}
