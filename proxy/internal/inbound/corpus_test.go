package inbound

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// example is one line of testdata/requests.txt.
type example struct {
	name   string
	bodies []string
	err    string // empty = the connection ends in silence
	in     string
}

func corpus(t testing.TB) (examples []example) {
	t.Helper()
	text, err := os.ReadFile("testdata/requests.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(text), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		part := strings.SplitN(line, " | ", 3)
		if len(part) != 3 {
			t.Fatalf("%q is not NAME | OUTCOMES | BYTES", line)
		}
		e := example{name: part[0], in: strings.Join(strs(t, part[2]), "")}
		for _, s := range words(part[1]) {
			if s[0] == '"' {
				e.bodies = append(e.bodies, strs(t, s)...)
			} else {
				e.err = s
			}
		}
		examples = append(examples, e)
	}
	return examples
}

// words cuts a line at its blanks outside quotes.
func words(line string) (w []string) {
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		q, err := strconv.QuotedPrefix(line)
		if err != nil {
			q, _, _ = strings.Cut(line, " ")
		}
		w, line = append(w, q), line[len(q):]
	}
	return w
}

// strs reads quoted strings and runs such as x*9.
func strs(t testing.TB, line string) (out []string) {
	t.Helper()
	for _, w := range words(line) {
		if c, n, ok := strings.Cut(w, "*"); ok && len(c) == 1 {
			count, err := strconv.Atoi(n)
			if err != nil {
				t.Fatalf("%q is not a run", w)
			}
			out = append(out, strings.Repeat(c, count))
			continue
		}
		s, err := strconv.Unquote(w)
		if err != nil {
			t.Fatalf("%q is not a string", w)
		}
		out = append(out, s)
	}
	return out
}

// kind is what the corpus calls an error.
func kind(err error) string {
	var bad *Malformed
	switch {
	case err == nil:
		return ""
	case errors.As(err, &bad):
		return "bad"
	}
	for e, name := range map[error]string{ErrVersion: "version", ErrHeadSize: "head", ErrBodySize: "body", ErrCut: "cut", ErrTimeout: "late", ErrSlow: "slow", ErrMemory: "memory"} {
		if errors.Is(err, e) {
			return name
		}
	}
	return err.Error()
}

func TestRequests(t *testing.T) {
	p, s := newPair(t, nil), still(recorder{}, plentiful)
	for _, e := range corpus(t) {
		t.Run(e.name, func(t *testing.T) {
			ways := map[string][][]byte{"at once": {[]byte(e.in)}, "in halves": halves(e.in)}
			if len(e.in) < 400 {
				ways["byte by byte"] = bytewise(e.in)
			}
			for way, pieces := range ways {
				r := p.read(t, s, pieces...)
				var bodies []string
				for _, g := range r.reqs {
					bodies = append(bodies, g.Body)
				}
				if diff := cmp.Diff(e.bodies, bodies); diff != "" || kind(r.err) != e.err {
					t.Errorf("%s: error %q; want %q; bodies (-want +got):\n%s", way, kind(r.err), e.err, diff)
				}
			}
			reqs, _, end := reference(e.in, plentiful)
			if len(reqs) != len(e.bodies) || (end == endRefused) != (e.err != "") {
				t.Errorf("the reference reads %d requests, %s", len(reqs), end)
			}
		})
	}
	if n := s.Open(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

func halves(s string) [][]byte {
	return [][]byte{[]byte(s[:len(s)/2]), []byte(s[len(s)/2:])}
}

func bytewise(s string) (pieces [][]byte) {
	for i := range len(s) {
		pieces = append(pieces, []byte(s[i:i+1]))
	}
	return pieces
}

// Names, values, order and repetitions are those of the client.
func TestRequestAsSent(t *testing.T) {
	p, s := newPair(t, nil), still(recorder{}, plentiful)
	r := p.read(t, s, []byte("PoST /a?b HTTP/1.1\r\nX-b: 1 \r\nhOst:\tA:1\r\nX-B:2\r\ncontent-TYPE: t\r\nContent-Type: u\r\n"+
		"Content-Length: 2\r\nconnection: x, Close\r\n\r\nhi"))
	want := []got{{
		Method: "PoST", Target: "/a?b", Version: "HTTP/1.1", ContentType: "t", Body: "hi", Close: true,
		Fields: "X-b=1\nhOst=A:1\nX-B=2\ncontent-TYPE=t\nContent-Type=u\nContent-Length=2\nconnection=x, Close\n",
	}}
	if diff := cmp.Diff(want, r.reqs); diff != "" || r.err != nil {
		t.Errorf("error %v, (-want +got):\n%s", r.err, diff)
	}
}

// What stands in place of a field may be a secret.
func TestErrorsQuoteNothing(t *testing.T) {
	p, s := newPair(t, nil), still(recorder{}, plentiful)
	for _, in := range []string{
		"GET /secret secret HTTP/1.1\r\n\r\n", "secret\xff / HTTP/1.1\r\n\r\n", "GET / secret\r\n\r\n", "GET secret HTTP/1.1\r\n\r\n",
		"GET / HTTP/1.1\r\nsecret\r\n\r\n", "GET / HTTP/1.1\r\nX: secret\x00\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: secret\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: secret\r\n\r\n", "GET / HTTP/1.1\r\nHost: secret/\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nsecret\r\n",
	} {
		r := p.read(t, s, []byte(in))
		if kind(r.err) != "bad" || strings.Contains(r.err.Error(), "secret") {
			t.Errorf("%q: %v", in, r.err)
		}
	}
}
