package inbound

import (
	"bufio"
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
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

// standard compares a request that was read with what net/http makes of its bytes.
func standard(t *testing.T, raw string, g got) {
	t.Helper()
	b := bufio.NewReaderSize(strings.NewReader(raw), 64<<10)
	req, err := http.ReadRequest(b)
	var body []byte
	if err == nil {
		body, err = io.ReadAll(req.Body)
	}
	if err != nil {
		if !refusedBySpecialTaste(raw, g) {
			t.Fatalf("%q is refused by net/http: %v", raw, err)
		}
		return
	}
	type reading struct{ Method, Target, Version, Body string }
	want := reading{req.Method, req.RequestURI, req.Proto, string(body)}
	if diff := cmp.Diff(want, reading{g.Method, g.Target, g.Version, g.Body}); diff != "" {
		t.Fatalf("%q is read otherwise by net/http (-want +got):\n%s", raw, diff)
	}
	if rest, _ := io.ReadAll(b); len(rest) > 0 {
		t.Fatalf("%q: net/http leaves %q", raw, rest)
	}
	// What it takes out of the header is counted in the bytes.
	n := strings.Count(g.Fields, "\n")
	for _, name := range []string{"host", "transfer-encoding", "trailer"} {
		n -= strings.Count("\n"+strings.ToLower(g.Fields), "\n"+name+"=")
	}
	for _, v := range req.Header {
		n -= len(v)
	}
	if n != 0 {
		t.Fatalf("%q: %d fields more than net/http reads", raw, n)
	}
}

var chunkBlank = regexp.MustCompile("\r\n[0-9a-fA-F]+[ \t]+;")

// refusedBySpecialTaste are the requests that are accepted here and not by
// net/http, none of which it would frame in another way.
func refusedBySpecialTaste(raw string, g got) bool {
	fields := "\n" + strings.ToLower(g.Fields)
	target := g.Target
	if g.Method == "CONNECT" && !strings.HasPrefix(target, "/") {
		target = "http://" + target
	}
	_, badURL := url.ParseRequestURI(target)
	switch {
	case badURL != nil: // it decodes percent signs and reads the authority; lbd passes both on
		return true
	case strings.Contains(fields, "\ntrailer="): // it wants the names in it to be allowed; lbd drops it with the trailer
		return true
	case strings.Contains(fields, "\ntransfer-encoding="):
		_, content, _ := strings.Cut(raw, "\r\n\r\n")
		return !bytes.HasSuffix([]byte(content), []byte("0\r\n\r\n")) || // it reads trailer fields; lbd drops them
			chunkBlank.MatchString("\r\n"+content) // BWS in front of a chunk extension (RFC 9112 section 7.1.1)
	}
	return false
}
