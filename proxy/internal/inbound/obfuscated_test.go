package inbound

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"lbd/proxy/internal/relay"
)

// mutations are the lines of defparam's smuggler (configs/exhaustive.py, after "HTTP
// Desync Attacks", Kettle 2019), %s being the field's name, %c one byte of 256 and %v
// its value.
var mutations = []string{
	"NAME:%cVALUE", "NAME: %cVALUE", "NAME%c: VALUE", "%cNAME: VALUE", "NAME: VALUE%c",
	"X: X%cNAME: VALUE", "NAME: VALUE%cX: X", "X: X\r%cNAME: VALUE", "X: X%c\nNAME: VALUE",
	"NAME: VALUE\r%cX: X", "NAME: VALUE%c\nX: X", "X: X\r\n%cNAME: VALUE", "NAME: VALUE\r\n%cX: X",
	"NA%cME: VALUE", "NAME: VAL%cUE", "NAME: VALUE,%c", "NAME: %c,VALUE", "NAME: \"VALUE\"%c", "NAME:\r\n%cVALUE",
}

// Whatever byte stands in or around a framing field: either the request is refused, or
// the line is, to everybody who reads RFC 9112, the field itself or another one, and
// the framing is that of the other line.
func TestEveryByteAroundFraming(t *testing.T) {
	refused, framing := 0, 0
	for _, field := range []struct{ name, value, other string }{
		{"Transfer-Encoding", "chunked", "Content-Length: 7"},
		{"Content-Length", "3", "Transfer-Encoding: chunked"},
		{"Content-Length", "3", "Content-Length: 7"},
	} {
		for _, m := range mutations {
			for b := range 256 {
				line := mutated(m, field.name, field.value, byte(b))
				for _, head := range []string{line + "\r\n" + field.other, field.other + "\r\n" + line} {
					var r Request
					err := r.parse([]byte("POST / HTTP/1.1\r\nHost: a\r\n" + head + "\r\n\r\n"))
					var bad *Malformed
					switch {
					case errors.As(err, &bad):
						refused++
						continue
					case err != nil:
						t.Fatalf("%q: %v", line, err)
					}
					framing++
					for _, f := range r.Fields {
						if !strings.EqualFold(string(f.Name), field.name) || string(f.Name)+": "+string(f.Value) == field.other {
							continue
						}
						t.Errorf("%q: two fields frame: %q", line, f.Name)
					}
					if strings.ContainsAny(line, "\r\n\x00") && !strings.Contains(line, "\r\n") {
						t.Errorf("%q is accepted", line)
					}
					if wantChunked := strings.HasPrefix(field.other, "Transfer"); r.chunked != wantChunked || !wantChunked && r.length != 7 {
						t.Errorf("%q: chunked %v, length %d; want the framing of %q", line, r.chunked, r.length, field.other)
					}
				}
			}
		}
	}
	// Both ways must occur, or nothing is shown: another name needs a token byte.
	if refused < 20_000 || framing < 1000 {
		t.Errorf("%d refused, %d framed by the other field", refused, framing)
	}
}

func mutated(m, name, value string, b byte) string {
	half := len(name) / 2
	m = strings.ReplaceAll(m, "NA%cME", name[:half]+"%c"+name[half:])
	m = strings.ReplaceAll(m, "VAL%cUE", value[:1]+"%c"+value[1:])
	m = strings.NewReplacer("NAME", name, "VALUE", value).Replace(m)
	return strings.Replace(m, "%c", string([]byte{b}), 1)
}

// The same for sizes of chunks: a byte that is no digit in or around one is refused,
// but for blanks behind it and what begins an extension.
func TestEveryByteAroundChunkSize(t *testing.T) {
	for b := range 256 {
		c := string([]byte{byte(b)})
		isHex := strings.Contains("0123456789abcdefABCDEF", c)
		for body, ok := range map[string]bool{
			c + "3\r\nabc\r\n0\r\n\r\n":             c == "0",
			"3" + c + "\r\nabc\r\n0\r\n\r\n":        c == ";" || c == " " || c == "\t",
			"3\r" + c + "abc\r\n0\r\n\r\n":          c == "\n",
			"3" + c + "\nabc\r\n0\r\n\r\n":          c == "\r",
			"3\r\nabc" + c + "\n0\r\n\r\n":          c == "\r",
			"3\r\nabc\r" + c + "0\r\n\r\n":          c == "\n",
			"3\r\nabc\r\n" + c + "0\r\n\r\n":        c == "0",
			"3\r\nabc\r\n0" + c + "\r\n\r\n":        c == ";" || c == " " || c == "\t" || c == "0",
			"3\r\nabc\r\n0\r" + c + "\r\n":          c == "\n",
			"3\r\nabc\r\n0\r\n" + c + "\n":          c == "\r",
			"3\r\nabc\r\n0\r\n\r" + c:               c == "\n",
			"3;" + c + "\r\nabc\r\n0\r\n\r\n":       b >= ' ' && b != 0x7f || c == "\t",
			"3;x=\"" + c + "\"\r\nabc\r\n0\r\n\r\n": b >= ' ' && b != 0x7f || c == "\t",
		} {
			var chunks relay.Body
			chunks.Reset(relay.Chunked, 0)
			data, err := decodeAll(&chunks, body)
			if got := err == nil && chunks.Ended(); got != ok && !(isHex && err == nil) {
				t.Errorf("%q: accepted %v, %v; want %v", body, got, err, ok)
			}
			if ok && data != "abc" {
				t.Errorf("%q: body %q", body, data)
			}
		}
	}
}

func decodeAll(b *relay.Body, in string) (data string, err error) {
	for len(in) > 0 && !b.Ended() {
		p, n, err := b.Next([]byte(in))
		if err != nil {
			return data, err
		}
		data, in = data+string(p), in[n:]
	}
	if len(in) > 0 {
		return data, fmt.Errorf("%q is left", in)
	}
	return data, nil
}
