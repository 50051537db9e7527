package load

import (
	"encoding/json"
	"strings"
	"testing"
)

// The text taken without decoding is the text a decoder would find.
func TestPlainContentIsTheText(t *testing.T) {
	for _, text := range []string{"a", ` "quoted" `, `back\slash`, "line\nbreak", "\u00fc \u4e16 \U0001f600", `\"`, `ends in \`, "\x00\x1f", `"}]}`} {
		for _, event := range []string{tokenEvent, textEvent} {
			quoted, err := json.Marshal(text)
			if err != nil {
				t.Fatal(err)
			}
			data := strings.NewReplacer(`" Hello"`, string(quoted), `" a"`, string(quoted)).Replace(event)
			got, plain := plainContent([]byte(data))
			var c chunk
			if err := json.Unmarshal([]byte(data), &c); err != nil {
				t.Fatal(err)
			}
			if !plain || string(got) != string(quoted[1:len(quoted)-1]) || c.text() != text {
				t.Errorf("%s: %q, %v; want %q", data, got, plain, text)
			}
			if escaped := appendEscaped(nil, text); string(escaped) != string(got) {
				t.Errorf("escaped %q, want %q", escaped, got)
			}
		}
	}
	for _, broken := range []string{`{"choices":[{"index":0,"delta":{"content":"}`, `{"choices":[{"index":0,"delta":{"content":"\}`} {
		if got, plain := plainContent([]byte(broken)); plain {
			t.Errorf("%s is plain: %q", broken, got)
		}
	}
}
