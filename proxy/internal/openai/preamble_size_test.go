package openai

import (
	"bytes"
	"fmt"
	"testing"
)

// Fields that are as large as a body are not copied beside it, and are told apart all the same.
func TestPreambleOfLargeFields(t *testing.T) {
	preamble := func(form string, tools, system []byte) []byte {
		t.Helper()
		body := fmt.Appendf(nil, form, tools, system)
		var p Peek
		if err := p.ReadJSON(body); err != nil {
			t.Fatal(err)
		}
		got, kept := p.Preamble(body, nil)
		if cap(kept) > 1<<20 {
			t.Errorf("%d bytes are made of a body of %d", cap(kept), len(body))
		}
		return got
	}
	const usual, turned = `{"tools":["%s"],"system":"%s"}`, `{"system":"%[2]s","tools":["%[1]s"]}`
	a, b := bytes.Repeat([]byte("a"), 8<<20), bytes.Repeat([]byte("b"), 8<<20)
	other := bytes.Clone(a)
	other[len(other)/2] = 'x'
	want := preamble(usual, a, b)
	for what, same := range map[string]bool{
		string(preamble(usual, a, b)): true, string(preamble(turned, a, b)): true, string(preamble(usual, other, b)): false,
		string(preamble(usual, a, other)): false, string(preamble(usual, b, a)): false, string(preamble(usual, a, nil)): false,
		string(preamble(usual, a[1:], b)): false, string(preamble(usual, a[:10], b)): false,
	} {
		if (what == string(want)) != same {
			t.Errorf("%.60q, want the same as %.60q: %t", what, want, same)
		}
	}
}
