package openai

import (
	"encoding/json"
	"testing"
)

func TestReplaceModel(t *testing.T) {
	for _, c := range []struct{ name, body, model, want string }{
		{"plain", `{"a":1,"model":"x" ,"b":2}`, "meta/y", `{"a":1,"model":"meta/y" ,"b":2}`},
		{"no model", `{"a":1}`, "y", `{"a":1}`},
		{"winner only", `{"model":"x","model":"x"}`, "y", `{"model":"x","model":"y"}`},
		{"escaped key stays", `{"mod\u0065l":"\u0078"}`, "y", `{"mod\u0065l":"y"}`},
		{"needs escapes", `{"model":"x"}`, "q\"b\\n\n\x01é😀\u2028</a>", `{"model":"q\"b\\n\u000a\u0001é😀` + "\u2028" + `</a>"}`},
		{"bad utf-8", `{"model":"x"}`, "a\xffb", `{"model":"a` + "\uFFFD" + `b"}`},
		{"empty", `{"model":"x"}`, "", `{"model":""}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := peekJSON([]byte(c.body))
			if err != nil {
				t.Fatal(err)
			}
			got := ReplaceModel([]byte("head "), []byte(c.body), p, c.model)
			if string(got) != "head "+c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if !json.Valid(got[len("head "):]) {
				t.Errorf("%q is not JSON", got)
			}
		})
	}
}

func TestReplaceModelInForm(t *testing.T) {
	body := form("--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper\r\n--b--\r\n")
	p, err := PeekMultipart(body.contentType, body.body)
	if err != nil {
		t.Fatal(err)
	}
	got := string(ReplaceModel(nil, body.body, p, `open"ai`))
	want := "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nopen\"ai\r\n--b--\r\n"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestReplaceModelInFormRefusesLineBreaks(t *testing.T) {
	body := form("--b\r\nContent-Disposition: form-data; name=model\r\n\r\nx\r\n--b--")
	p, err := PeekMultipart(body.contentType, body.body)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if recover() == nil {
			t.Error("a line break in the name was written into the form")
		}
	}()
	ReplaceModel(nil, body.body, p, "x\r\n--b--")
}
