package relay

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
)

// What is kept of an answer does not grow with it, whatever it is made of.
func TestEndlessEvent(t *testing.T) {
	const size = 64 * maxLine
	for name, piece := range map[string]string{
		"line": "data: " + strings.Repeat("x", 1000), "colons": strings.Repeat(`":`, 500), "usage": strings.Repeat(`"usage":{`, 100),
		"quotes": strings.Repeat(`"`, 1000), "lines": "data: x\n", "empty": "\n\n", "returns": strings.Repeat("\r", 1000),
	} {
		for _, sse := range []bool{true, false} {
			var s Sniffer
			s.Reset(sse, nil)
			for n := 0; n < size; n += len(piece) {
				s.Feed([]byte(piece), epoch)
				if len(s.line) > maxLine || cap(s.line) > 2*maxLine {
					t.Fatalf("%s, sse %v: %d bytes kept, room for %d", name, sse, len(s.line), cap(s.line))
				}
			}
			s.Feed([]byte("\n\n"+delta(`"content":"a"`)), epoch)
			if sse && s.Events != 1 {
				t.Errorf("%s: %d events; want the one behind it", name, s.Events)
			}
		}
	}
}

// Nor does what is kept of framing.
func TestEndlessFraming(t *testing.T) {
	piece := bytes.Repeat([]byte("x"), 4<<10)
	for name, start := range map[string]string{"extension": "1;", "trailer": "0\r\nX: ", "trailer line": "0\r\nX", "size": "", "zeros": "0"} {
		var b Body
		b.Reset(Chunked, 0)
		p := []byte(start)
		for n := 0; ; n += len(p) {
			if n > 64<<10 {
				t.Fatalf("%s: not refused after %d bytes", name, n)
			}
			_, used, err := b.Next(append(p, piece...))
			if err != nil {
				break
			}
			p = p[min(used, len(p)):]
		}
		if cap(b.line) > 64<<10 {
			t.Errorf("%s: room for %d bytes", name, cap(b.line))
		}
	}
}

// FuzzAnswer reads whole answers: how they are cut makes no difference, and nothing
// that is not a complete answer looks like one.
func FuzzAnswer(f *testing.F) {
	for i, e := range corpus(f) {
		if len(e.in) < 8<<10 {
			f.Add([]byte(e.in), uint64(i))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, seed uint64) {
		if len(in) == 0 || len(in) > 8<<10 {
			return
		}
		for _, end := range []error{errOpen, errEnd} {
			body, reusable, err := received([]string{string(in)}, end)
			parts := randomCut(rand.New(rand.NewPCG(seed, seed)), string(in))
			gotBody, gotReusable, gotErr := received(parts, end)
			if gotBody != body || (gotErr == nil) != (err == nil) {
				t.Fatalf("%q: %q, %v; in one piece %q, %v", parts, gotBody, gotErr, body, err)
			}
			if reusable && !gotReusable && err == nil { // the reverse is excess that comes later
				t.Fatalf("%q: not reusable in parts only", parts)
			}
		}
		// The same head alone says how much belongs to it.
		var h Head
		if n, err := h.Parse(in); err == nil && n > 0 && h.Status >= 200 && h.Framing(false) == Length {
			whole := n + int(min(h.Length, int64(len(in))))
			_, reusable, err := received([]string{string(in)}, errOpen)
			if (err == nil) != (len(in) >= whole && h.Length <= int64(len(in)-n)) || err == nil && reusable != (len(in) == whole && !h.Close) {
				t.Fatalf("%q: %v, reusable %v with %d of %d bytes", in, err, reusable, len(in)-n, h.Length)
			}
		}
	})
}
