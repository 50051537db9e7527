package relay

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"lbd/proxy/internal/sock"
)

type source struct{}

func (source) SetReadDeadline(time.Time) error { return nil }

// bodies are well-formed chunked bodies.
var bodies = map[string]string{
	"empty":             "0\r\n\r\n",
	"one":               "5\r\nhello\r\n0\r\n\r\n",
	"events":            chunk("data: {\"a\":1}\n\n") + chunk("data: [DONE]\n\n") + "0\r\n\r\n",
	"sizes":             "A\r\n0123456789\r\n0a;x=y\r\n0123456789\r\n00001\t \r\nz\r\n000;last=\"no\"\r\n\r\n",
	"extensions":        "3;a;b=c;d=\"e f\"\r\nabc\r\n1 ; x\r\n0\r\n0 ;\x80\r\n\r\n",
	"trailer":           "1\r\nx\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n",
	"payload of frames": chunk("\r\n0\r\n\r\n") + chunk("0") + chunk("\n") + chunk("\r") + "0\r\n\r\n",
	"longest trailer":   "0\r\nX: " + strings.Repeat("y", maxTrailer-7) + "\r\n\r\n",
	"long line":         "1;" + strings.Repeat("e", maxSizeLine-4) + "\r\nx\r\n0\r\n\r\n",
	"long trailer":      "0\r\nX: " + strings.Repeat("t", 100) + "\r\n\r\n",
}

var malformed = map[string]string{
	"no size":                 "\r\nx\r\n0\r\n\r\n",
	"bare LF size":            "1\nx\r\n0\r\n\r\n",
	"only LF":                 "\n",
	"0x":                      "0x1\r\nx\r\n0\r\n\r\n",
	"minus":                   "-1\r\nx\r\n0\r\n\r\n",
	"plus":                    "+1\r\nx\r\n0\r\n\r\n",
	"leading blank":           " 1\r\nx\r\n0\r\n\r\n",
	"text behind size":        "1 x\r\nx\r\n0\r\n\r\n",
	"comma":                   "1,1\r\nx\r\n0\r\n\r\n",
	"sixteen digits":          "0000000000000001\r\nx\r\n0\r\n\r\n",
	"overflow":                "FFFFFFFFFFFFFFFFF\r\nx",
	"CR in extension":         "1;a\rb\r\nx\r\n0\r\n\r\n",
	"NUL in extension":        "1;a\x00b\r\nx\r\n0\r\n\r\n",
	"chunk too long":          "1\r\nxy\r\n0\r\n\r\n",
	"chunk without end":       "1\r\nx0\r\n\r\n",
	"CR CR":                   "1\r\nx\r\r\n0\r\n\r\n",
	"LF behind chunk":         "1\r\nx\n0\r\n\r\n",
	"line too long":           "1;" + strings.Repeat("e", maxSizeLine-3) + "\r\nx\r\n0\r\n\r\n",
	"line without end":        "1;" + strings.Repeat("e", 2*maxSizeLine),
	"LF trailer":              "0\r\nX: 1\n\r\n",
	"LF end":                  "0\r\n\n",
	"trailer without colon":   "0\r\nX\r\n\r\n",
	"trailer without name":    "0\r\n: x\r\n\r\n",
	"blank before the colon":  "0\r\nX : y\r\n\r\n",
	"folded trailer":          "0\r\nX: y\r\n z: 1\r\n\r\n",
	"CR in trailer":           "0\r\nX: a\rb\r\n\r\n",
	"message as trailer":      "0\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
	"trailer a byte too long": "0\r\nX: " + strings.Repeat("y", maxTrailer-6) + "\r\n\r\n",
	"trailer too long":        "0\r\n" + strings.Repeat("X: y\r\n", maxTrailer/6+1) + "\r\n",
}

// relayed runs a body through a Stream.
func relayed(framing Framing, length int64, mode Mode, first string, parts []string, end error) (got string, s *Stream, err error) {
	var client bytes.Buffer
	s = &Stream{Up: &pieces{parts: parts, err: end}, Rest: []byte(first), Mode: mode}
	s.Body.Reset(framing, length)
	err = s.Run(&client)
	return client.String(), s, err
}

// cut divides s at the given positions.
func cut(s string, at ...int) (parts []string) {
	from := 0
	for _, i := range append(at, len(s)) {
		if i > from {
			parts = append(parts, s[from:i])
			from = i
		}
	}
	return parts
}

// everySplit calls f with s in one piece, in every two (of a very long s in some
// two) and in random pieces.
func everySplit(s string, f func(parts []string)) {
	f(cut(s))
	for i := 1; i < len(s); i += 1 + len(s)/1000*40 {
		f(cut(s, i))
	}
	rng := rand.New(rand.NewPCG(1, uint64(len(s))))
	for range min(200, 20000/(len(s)+1)) {
		f(randomCut(rng, s))
	}
	f(strings.Split(s, "")) // byte by byte
}

func randomCut(rng *rand.Rand, s string) []string {
	var at []int
	for i := rng.IntN(8) + 1; i < len(s); i += rng.IntN(len(s)/4+8) + 1 {
		at = append(at, i)
	}
	return cut(s, at...)
}

func TestChunkedEverySplit(t *testing.T) {
	for name, raw := range bodies {
		t.Run(name, func(t *testing.T) {
			want, err := reference(raw)
			if err != nil || want.end != len(raw) {
				t.Fatalf("reference: %v, ends at %d of %d", err, want.end, len(raw))
			}
			everySplit(raw, func(parts []string) {
				for _, inHead := range []bool{false, true} {
					first, rest := "", slices.Clone(parts)
					if inHead {
						first, rest = rest[0], rest[1:]
					}
					checkChunked(t, want, raw, first, rest)
				}
			})
		})
	}
}

// A sender may not make lbd read much more framing than body. A chunk of one byte
// may cost 18 (maxOverhead); what is beyond adds up, and larger chunks pay it back.
func TestChunkOverhead(t *testing.T) {
	one := func(framing int) string { return "1;" + strings.Repeat("e", framing-6) + "\r\nx\r\n" }
	large := chunk(strings.Repeat("x", 9<<10))
	for name, test := range map[string]struct {
		raw string
		ok  bool
	}{
		"single bytes":           {strings.Repeat("1\r\nx\r\n", 5000), true},
		"all that is free":       {strings.Repeat(one(18), 5000), true},
		"the limit":              {strings.Repeat(one(18+256), 64), true},
		"a byte more":            {strings.Repeat(one(18+256), 64) + one(19), false},
		"leading zeros":          {strings.Repeat("00000000000001;"+strings.Repeat("e", 480)+"\r\nx\r\n", 40), false},
		"large chunks pay":       {strings.Repeat(strings.Repeat(one(18+256), 60)+large, 20), true},
		"but not in advance":     {strings.Repeat(large, 20) + strings.Repeat(one(18+256), 65), false},
		"the last chunk's, also": {strings.Repeat(one(18+256), 64) + "0;" + strings.Repeat("e", 100) + "\r\n\r\n", false},
	} {
		raw := test.raw + "0\r\n\r\n"
		if _, err := reference(raw); (err == nil) != test.ok {
			t.Errorf("%s: reference: %v", name, err)
		}
		for _, parts := range [][]string{cut(raw), cut(raw, len(raw)/2), inBits(raw)} {
			if _, _, err := relayed(Chunked, 0, Verbatim, "", parts, nil); (err == nil) != test.ok || err != nil && !errors.Is(err, ErrBadFraming) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// inBits cuts a body byte by byte, a long one by sevens, which meet every border as well.
func inBits(s string) (parts []string) {
	size := 1
	if len(s) > 50_000 {
		size = 7
	}
	for p := range slices.Chunk([]byte(s), size) {
		parts = append(parts, string(p))
	}
	return parts
}

func checkChunked(t *testing.T, want decoded, raw, first string, parts []string) {
	t.Helper()
	got, s, err := relayed(Chunked, 0, Verbatim, first, slices.Clone(parts), nil)
	if err != nil || got != raw[:want.upTo] {
		t.Fatalf("%q + %q: verbatim = %q, %v; want %q", first, parts, got, err, raw[:want.upTo])
	}
	if s.Excess || s.Relayed != int64(len(want.payload)) || string(s.Body.Trailer()) != want.trailer {
		t.Fatalf("%q + %q: excess %t, %d bytes, trailer %q; want %+v", first, parts, s.Excess, s.Relayed, s.Body.Trailer(), want)
	}
	got, _, err = relayed(Chunked, 0, Unchunk, first, parts, nil)
	if err != nil || got != want.payload {
		t.Fatalf("%q + %q: unchunked = %q, %v; want %q", first, parts, got, err, want.payload)
	}
}

// A body cut off anywhere (a very long one near its ends and in some places between) is
// an error, and until then everything that is known not to be the last chunk has been
// passed on.
func TestChunkedTruncatedEverywhere(t *testing.T) {
	for name, raw := range bodies {
		t.Run(name, func(t *testing.T) {
			d, _ := reference(raw)
			for n := range raw {
				if near := min(n, len(raw)-n); near > 500 && n%41 > 0 {
					continue
				}
				want := raw[:min(d.known[n], d.upTo)]
				for _, parts := range [][]string{cut(raw[:n]), cut(raw[:n], n/2), strings.Split(raw[max(n-20, 0):n], "")} {
					if missing := n - len(strings.Join(parts, "")); missing > 0 {
						parts = append([]string{raw[:missing]}, parts...)
					}
					got, _, err := relayed(Chunked, 0, Verbatim, "", parts, nil)
					if !errors.Is(err, ErrTruncated) {
						t.Fatalf("first %d bytes of %q: error %v; want ErrTruncated", n, raw, err)
					}
					if got != want {
						t.Fatalf("first %d bytes of %q: passed on %q; want %q", n, raw, got, want)
					}
				}
			}
		})
	}
}

func TestChunkedMalformedEverySplit(t *testing.T) {
	for name, raw := range malformed {
		t.Run(name, func(t *testing.T) {
			if _, err := reference(raw); err == nil {
				t.Fatal("the reference accepts it")
			}
			everySplit(raw, func(parts []string) {
				for _, mode := range []Mode{Verbatim, Unchunk} {
					got, _, err := relayed(Chunked, 0, mode, "", slices.Clone(parts), nil)
					if !errors.Is(err, ErrBadFraming) {
						t.Fatalf("%q: error %v; want ErrBadFraming", parts, err)
					}
					if mode == Verbatim && !strings.HasPrefix(raw, got) {
						t.Fatalf("%q: passed on %q", parts, got)
					}
				}
			})
		})
	}
}

func TestCheckFindsWhatRunWould(t *testing.T) {
	check := func(rest string) error {
		s := &Stream{Rest: []byte(rest)}
		s.Body.Reset(Chunked, 0)
		before := s.Body
		err := s.Check()
		if s.Body.state != before.state || s.Body.left != before.left || len(s.Body.line) != 0 {
			t.Fatalf("Check(%q) moved the body", rest)
		}
		return err
	}
	for name, raw := range bodies {
		for n := range len(raw) + 1 {
			if err := check(raw[:n]); err != nil {
				t.Errorf("%s: Check(first %d bytes) = %v", name, n, err)
			}
		}
	}
	for name, raw := range malformed {
		if err := check(raw); !errors.Is(err, ErrBadFraming) {
			t.Errorf("%s: Check = %v; want ErrBadFraming", name, err)
		}
	}
}

func TestExcess(t *testing.T) {
	const raw = "3\r\nabc\r\n0\r\nA: b\r\n\r\n"
	for _, extra := range []string{"x", "HTTP/1.1 200 OK\r\n\r\n", "\r\n"} {
		everySplit(raw+extra, func(parts []string) {
			all, one := slices.Clone(parts), ""
			got, s, err := relayed(Chunked, 0, Verbatim, "", all, nil)
			if err != nil || got != "3\r\nabc\r\n" || string(s.Body.Trailer()) != "A: b\r\n" {
				t.Fatalf("%q: %q, %v", parts, got, err)
			}
			// What was not read is for the pool to find.
			for _, p := range parts {
				if len(one) < len(raw) {
					one += p
				}
			}
			if want := len(one) > len(raw); s.Excess != want {
				t.Fatalf("%q: excess = %t; want %t", parts, s.Excess, want)
			}
		})
	}
}

func TestLength(t *testing.T) {
	const raw = "hello, world"
	everySplit(raw, func(parts []string) {
		got, s, err := relayed(Length, int64(len(raw)), Verbatim, "", slices.Clone(parts), nil)
		if err != nil || got != raw || s.Excess || s.Relayed != int64(len(raw)) {
			t.Fatalf("%q: %q, %v, excess %t", parts, got, err, s.Excess)
		}
		got, s, err = relayed(Length, int64(len(raw)-3), Verbatim, parts[0], slices.Clone(parts[1:]), nil)
		if err != nil || got != raw[:len(raw)-3] {
			t.Fatalf("%q with length %d: %q, %v, excess %t", parts, len(raw)-3, got, err, s.Excess)
		}
	})
	for n := range raw {
		got, _, err := relayed(Length, int64(len(raw)), Verbatim, raw[:n/2], cut(raw[n/2:n]), nil)
		if !errors.Is(err, ErrTruncated) || got != raw[:n] {
			t.Errorf("first %d bytes: %q, %v; want ErrTruncated", n, got, err)
		}
	}
	if got, s, err := relayed(Length, 5, Verbatim, "hello, world", nil, nil); got != "hello" || err != nil || !s.Excess {
		t.Errorf("excess with the head: %q, %v, excess %t", got, err, s.Excess)
	}
}

// A body of no bytes ends without a read, and nothing behind it is passed on.
func TestNothing(t *testing.T) {
	for _, f := range []Framing{NoBody, Length} {
		got, s, err := relayed(f, 0, Verbatim, "", nil, errors.New("read"))
		if got != "" || err != nil || s.Excess {
			t.Errorf("framing %d: %q, %v, excess %t", f, got, err, s.Excess)
		}
		got, s, err = relayed(f, 0, Verbatim, "stray", nil, errors.New("read"))
		if got != "" || err != nil || !s.Excess {
			t.Errorf("framing %d, stray bytes: %q, %v, excess %t", f, got, err, s.Excess)
		}
	}
}

func TestUntilClose(t *testing.T) {
	raw := strings.Repeat("hello, world\r\n", 5)
	everySplit(raw, func(parts []string) {
		got, s, err := relayed(UntilClose, 0, Unchunk, "", slices.Clone(parts), nil)
		if err != nil || got != raw || !s.Excess {
			t.Fatalf("%q: %q, %v; connection may be reused: %t", parts, got, err, !s.Excess)
		}
		got, _, err = relayed(UntilClose, 0, Rechunk, parts[0], slices.Clone(parts[1:]), nil)
		d, refErr := reference(got + "0\r\n\r\n")
		if err != nil || refErr != nil || d.payload != raw {
			t.Fatalf("%q: rechunked %q, %v, %v", parts, got, err, refErr)
		}
		_, _, err = relayed(UntilClose, 0, Rechunk, "", slices.Clone(parts), io.ErrUnexpectedEOF)
		if !errors.Is(err, ErrTruncated) || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%q, reset: error %v", parts, err)
		}
	})
	if got, _, err := relayed(UntilClose, 0, Rechunk, "", nil, nil); got != "" || err != nil {
		t.Errorf("empty: %q, %v", got, err)
	}
	big := strings.Repeat("x", 3*sock.BufSize)
	got, _, err := relayed(UntilClose, 0, Rechunk, "", []string{big}, nil)
	if d, refErr := reference(got + "0\r\n\r\n"); err != nil || refErr != nil || d.payload != big {
		t.Errorf("%d bytes: %v, %v", len(big), err, refErr)
	}
}

func TestAppendHex(t *testing.T) {
	for _, n := range []int{0, 1, 9, 10, 15, 16, 255, 4096, sock.BufSize, 1<<62 + 7} {
		if got := string(appendHex(nil, n)); got != fmt.Sprintf("%x", n) {
			t.Errorf("appendHex(%d) = %q", n, got)
		}
	}
}

type brokenClient struct{ left int }

var errBroken = errors.New("broken")

func (c *brokenClient) Write(p []byte) (int, error) {
	if c.left -= len(p); c.left < 0 {
		return len(p) + c.left, errBroken
	}
	return len(p), nil
}

func TestClientErrorIsTheClients(t *testing.T) {
	for _, tt := range []struct {
		framing Framing
		mode    Mode
	}{{Chunked, Verbatim}, {Chunked, Unchunk}, {Length, Verbatim}, {UntilClose, Rechunk}} {
		raw := bodies["events"]
		for left := range 20 {
			s := &Stream{Up: &pieces{parts: cut(raw, 3, 9, 20)}, Mode: tt.mode}
			s.Body.Reset(tt.framing, int64(len(raw)))
			err := s.Run(&brokenClient{left: left})
			if !errors.Is(err, ErrClient) || !errors.Is(err, errBroken) || errors.Is(err, ErrTruncated) {
				t.Errorf("%+v, client takes %d bytes: error %v; want ErrClient", tt, left, err)
			}
		}
	}
}

func TestResetForgets(t *testing.T) {
	_, s, err := relayed(Chunked, 0, Verbatim, "5;ext", nil, nil) // ends within a held line
	if err == nil {
		t.Fatal("no error")
	}
	s.Reset()
	var client bytes.Buffer
	s.Body.Reset(Chunked, 0)
	s.Up = &pieces{parts: []string{"2\r\nok\r\n0\r\n\r\n"}}
	if err := s.Run(&client); err != nil || client.String() != "2\r\nok\r\n" {
		t.Errorf("second response: %q, %v", client.String(), err)
	}
}

func TestTrailerFields(t *testing.T) {
	var got []string
	TrailerFields([]byte("X-A: 1\r\nX-B:\t3 \r\nX-C:\r\n"), func(n, v []byte) {
		got = append(got, fmt.Sprintf("%s=%s", n, v))
	})
	if want := []string{"X-A=1", "X-B=3", "X-C="}; !slices.Equal(got, want) {
		t.Errorf("fields %q; want %q", got, want)
	}
}

func FuzzStream(f *testing.F) {
	for _, s := range bodies {
		f.Add([]byte(s), uint64(1))
	}
	for _, s := range malformed {
		f.Add([]byte(s), uint64(2))
	}
	f.Add([]byte("1\r\nx\r\n0\r\n\r\nexcess"), uint64(3))
	f.Fuzz(func(t *testing.T, in []byte, seed uint64) {
		raw := string(in)
		want, refErr := reference(raw)
		parts := randomCut(rand.New(rand.NewPCG(seed, seed)), raw)
		got, s, err := relayed(Chunked, 0, Verbatim, "", slices.Clone(parts), nil)
		if (err == nil) != (refErr == nil) {
			t.Fatalf("%q: error %v; reference: %v", parts, err, refErr)
		}
		if err != nil {
			if !strings.HasPrefix(raw, got) || (want.upTo > 0 && len(got) > want.upTo) {
				t.Fatalf("%q: passed on %q", parts, got)
			}
			return
		}
		if got != raw[:want.upTo] || string(s.Body.Trailer()) != want.trailer || s.Relayed != int64(len(want.payload)) {
			t.Fatalf("%q: passed on %q; want %q", parts, got, raw[:want.upTo])
		}
		if got, _, err = relayed(Chunked, 0, Unchunk, "", parts, nil); err != nil || got != want.payload {
			t.Fatalf("%q: payload %q, %v; want %q", parts, got, err, want.payload)
		}
	})
}
