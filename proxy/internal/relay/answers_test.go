package relay

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
)

// example is one line of testdata/answers.txt.
type example struct {
	name, outcome string // bad, cut, keep or close
	body          string // of the latter two
	in            string
}

func corpus(t testing.TB) (examples []example) {
	t.Helper()
	text, err := os.ReadFile("testdata/answers.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		part := strings.SplitN(line, " | ", 3)
		if line == "" || line[0] == '#' {
			continue
		}
		if len(part) != 3 {
			t.Fatalf("%q is not NAME | OUTCOME | BYTES", line)
		}
		e := example{name: part[0], outcome: part[1], in: strings.Join(texts(t, part[2]), "")}
		if q, err := strconv.QuotedPrefix(part[1]); err == nil {
			e.body, e.outcome = strings.Join(texts(t, q), ""), strings.TrimSpace(part[1][len(q):])
		}
		if !strings.Contains(" bad cut keep close ", " "+e.outcome+" ") {
			t.Fatalf("%s: outcome %q", e.name, e.outcome)
		}
		examples = append(examples, e)
	}
	return examples
}

// texts reads Go strings and runs such as x*9.
func texts(t testing.TB, line string) (out []string) {
	t.Helper()
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		q, err := strconv.QuotedPrefix(line)
		if err != nil {
			q, _, _ = strings.Cut(line, " ")
		}
		line = line[len(q):]
		if c, n, ok := strings.Cut(q, "*"); ok && len(c) == 1 {
			count, err := strconv.Atoi(n)
			if err != nil {
				t.Fatalf("%q is not a run", q)
			}
			out = append(out, strings.Repeat(c, count))
			continue
		}
		s, err := strconv.Unquote(q)
		if err != nil {
			t.Fatalf("%q is not a string", q)
		}
		out = append(out, s)
	}
	return out
}

var (
	errOpen = errors.New("the replica says no more, and has not ended its side")
	errEnd  = errors.New("the replica has ended its side")
)

// received is what a proxy makes of an answer that comes in parts, with the parts of
// this package and the rules of proxy.readHead for what precedes a final answer. end is
// what comes behind the parts.
func received(parts []string, end error) (body string, reusable bool, err error) {
	var h Head
	buf, size, interim := []byte{}, 0, 0
	for {
		size, err = h.Parse(buf)
		switch {
		case err != nil:
			return "", false, err
		case size > 0 && h.Status == 101:
			return "", false, errors.New("101")
		case size > 0 && h.Status < 200:
			if interim++; interim > 16 {
				return "", false, errors.New("too many interim answers")
			}
			buf = bytes.Clone(buf[size:])
			continue
		}
		if size > 0 {
			break
		}
		if len(parts) == 0 {
			return "", false, end
		}
		buf, parts = append(buf, parts[0]...), parts[1:]
	}
	var client bytes.Buffer
	up := &pieces{parts: append([]string{string(buf[size:])}, parts...)}
	if up.parts[0] == "" {
		up.parts = up.parts[1:]
	}
	if end == errOpen {
		up.err = errOpen
	}
	s := &Stream{Up: up, Mode: Unchunk}
	s.Body.Reset(h.Framing(false), h.Length)
	s.Excess = h.Framing(false) == NoBody && len(up.parts) > 0 // see exchange.noBody
	err = s.Run(&client)
	return client.String(), !s.Excess && !h.Close, err
}

// However an answer is cut into reads, it ends as the corpus says.
func TestAnswers(t *testing.T) {
	examples := corpus(t)
	if len(examples) < 150 {
		t.Fatalf("%d examples", len(examples))
	}
	for _, e := range examples {
		t.Run(e.name, func(t *testing.T) {
			ways := [][]string{cut(e.in), cut(e.in, len(e.in)/2)}
			if len(e.in) < 400 {
				ways = append(ways, strings.Split(e.in, ""))
			}
			for _, parts := range ways {
				e.check(t, parts)
			}
		})
	}
}

func (e *example) check(t *testing.T, parts []string) {
	t.Helper()
	open, _, openErr := received(parts, errOpen)
	ended, reusable, endedErr := received(parts, errEnd)
	switch e.outcome {
	case "bad":
		if openErr == nil || errors.Is(openErr, errOpen) {
			t.Errorf("%v; want it refused without waiting", openErr)
		}
	case "cut":
		if !errors.Is(openErr, errOpen) || endedErr == nil {
			t.Errorf("%v, then %v; want more to be waited for, and the end to be seen", openErr, endedErr)
		}
	case "keep":
		if openErr != nil || open != e.body || !reusable {
			t.Errorf("%q, reusable %v, %v; want %q", open, reusable, openErr, e.body)
		}
	case "close":
		// What is behind the end may come later; then the connection is not quiet.
		if endedErr != nil || ended != e.body || reusable && len(parts) == 1 {
			t.Errorf("%q, reusable %v, %v; want %q on a connection that ends", ended, reusable, endedErr, e.body)
		}
	}
	if strings.Contains(open+ended, "evil") {
		t.Errorf("what is not the answer is passed on: %q, %q", open, ended)
	}
}
