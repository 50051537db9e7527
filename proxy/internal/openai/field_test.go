package openai

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mustPeek(t testing.TB, body string) Peek {
	t.Helper()
	p, err := peekJSON([]byte(body))
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return p
}

func preambleOf(t testing.TB, body string) string {
	t.Helper()
	p := mustPeek(t, body)
	b, _ := p.Preamble([]byte(body), nil)
	return string(b)
}

func TestFields(t *testing.T) {
	body := `{"user":"a","tools":[{"x":1}],"us\u0065r" : "ann","prompt_cache_key":"k\"1","previous_response_id":"resp_1","system":null,"nested":{"user":"no"}}`
	p := mustPeek(t, body)
	got := map[string]string{}
	for name, f := range map[string]Field{
		"user": User, "key": PromptCacheKey, "previous": PreviousResponse, "tools": Tools, "system": System, "salt": CacheSalt,
	} {
		got[name] = string(p.Raw([]byte(body), f)) + "|" + string(p.Text([]byte(body), f))
	}
	want := map[string]string{
		"user": `"ann"|ann`, "key": `"k\"1"|k\"1`, "previous": `"resp_1"|resp_1`, "tools": `[{"x":1}]|`, "system": `|`, "salt": `|`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestFieldsAreTextOnlyIfTheyAreStrings(t *testing.T) {
	for _, v := range []string{`""`, `1`, `null`, `["a"]`, `{"a":1}`, `true`} {
		body := `{"user":` + v + `}`
		p := mustPeek(t, body)
		if got := p.Text([]byte(body), User); got != nil {
			t.Errorf("user %s is the text %q", v, got)
		}
	}
}

// Two requests share a prefix only if what stands before their messages is the same, wherever their bodies have it.
func TestPreamble(t *testing.T) {
	const tools = `[{"type":"function","function":{"name":"f"}}]`
	same := func(a, b string) {
		t.Helper()
		if x, y := preambleOf(t, a), preambleOf(t, b); x != y {
			t.Errorf("%q and %q are preambles of\n%s\n%s; want them equal", x, y, a, b)
		}
	}
	differ := func(a, b string) {
		t.Helper()
		if x, y := preambleOf(t, a), preambleOf(t, b); x == y {
			t.Errorf("%q is the preamble of\n%s\n%s; want two", x, a, b)
		}
	}
	same(`{"model":"m","messages":[],"tools":`+tools+`}`, `{"tools":`+tools+`,"messages":[{}],"stream":true}`)
	same(`{"tools":`+tools+`,"cache_salt":"x"}`, `{"cache_salt":"x","messages":[],"tools":`+tools+`}`)
	same(`{"tools":[]}`, `{}`)
	same(`{"tools":null,"system":"","chat_template_kwargs":{}}`, `{}`)
	same(`{"user":"a","prompt_cache_key":"b"}`, `{}`)
	same(`{"system":[]}`, `{"system":[ ]}`)
	const prompt, billing = `{"type":"text","text":"You are"}`, `{"type":"text","text":"x-anthropic-billing-header: cc_version=2.1; cch=`
	same(`{"system":[`+billing+`1a;"},`+prompt+`]}`, `{"system":[ `+billing+`2b;"} , `+prompt+`]}`)
	same(`{"system":[`+billing+`1a;"},`+prompt+`]}`, `{"system":[`+prompt+`]}`)
	same(`{"tools":`+tools+`,"system":[`+billing+`1a;"},`+prompt+`]}`, `{"tools":`+tools+`,"system":[`+billing+`2b;"},`+prompt+`]}`)
	same(`{"system":[`+billing+`1a;"}]}`, `{}`)
	differ(`{"system":[`+prompt+`,`+billing+`1a;"}]}`, `{"system":[`+prompt+`]}`) // never there
	differ(`{"system":[{"type":"text","text":"\"x-anthropic-billing-header: a"}]}`, `{"system":[{"type":"text","text":"\"x-anthropic-billing-header: b"}]}`)
	differ(`{"system":"x-anthropic-billing-header: a"}`, `{"system":"x-anthropic-billing-header: b"}`) // which vLLM takes as it is
	differ(`{"system":[`+prompt+`]}`, `{"system":["You are"]}`)
	differ(`{"tools":`+tools+`}`, `{}`)
	differ(`{"tools":`+tools+`}`, `{"tools":`+strings.Replace(tools, `"f"`, `"g"`, 1)+`}`)
	differ(`{"tools":`+tools+`,"system":"s"}`, `{"tools":`+tools+`,"instructions":"s"}`)
	for _, key := range []string{"documents", "chat_template", "chat_template_kwargs", "reasoning_effort", "cache_salt", "system", "instructions", "previous_response_id"} {
		differ(`{"messages":[],"`+key+`":"x"}`, `{"messages":[]}`)
		differ(`{"messages":[],"tools":`+tools+`,"`+key+`":"x"}`, `{"messages":[],"tools":`+tools+`}`)
		differ(`{"messages":[],"tools":`+tools+`,"`+key+`":"x"}`, `{"messages":[],"tools":`+tools+`,"`+key+`":"y"}`)
	}
}

func TestPreambleOfOneFieldIsInTheBody(t *testing.T) {
	body := []byte(`{"messages":[],"tools":[{"a":1}]}`)
	p, err := peekJSON(body)
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { p.Preamble(body, nil) }); n != 0 {
		t.Errorf("%g allocations", n)
	}
	body = []byte(`{"messages":[],"tools":[{"a":1}],"cache_salt":"x"}`)
	if p, err = peekJSON(body); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 0, 100)
	if n := testing.AllocsPerRun(100, func() { _, buf = p.Preamble(body, buf) }); n != 0 {
		t.Errorf("%g allocations with a buffer", n)
	}
}

func TestFormsHaveNoFields(t *testing.T) {
	body, contentType := writeForm(t, "whisper", []byte("audio"))
	p, err := PeekMultipart(contentType, body)
	if err != nil {
		t.Fatal(err)
	}
	for f := range Field(fields) {
		if v := p.Raw(body, f); v != nil {
			t.Errorf("field %d is %q", f, v)
		}
	}
}

// FuzzFields compares with encoding/json: what is read of a field is what a decoder reads.
func FuzzFields(f *testing.F) {
	for _, s := range []string{
		`{"user":"a","tools":[1]}`, `{"prompt_cache_key":"","user":null}`, `{"previous_response_id":"resp_1","user":1,"user":"x"}`,
		`{"cache_salt":"a","tools":[],"system":[{"type":"text"}]}`, `{"\u0075ser":"x"}`, `{"chat_template_kwargs":{"a":{"user":1}}}`,
	} {
		f.Add([]byte(s))
	}
	names := map[string]Field{
		"tools": Tools, "documents": Documents, "system": System, "instructions": Instructions, "chat_template": ChatTemplate,
		"chat_template_kwargs": ChatTemplateArguments, "reasoning_effort": ReasoningEffort, "cache_salt": CacheSalt,
		"previous_response_id": PreviousResponse, "user": User, "prompt_cache_key": PromptCacheKey,
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := peekJSON(body)
		var want map[string]json.RawMessage
		if err != nil || json.Unmarshal(body, &want) != nil {
			return
		}
		for name, field := range names {
			raw := bytes.TrimSpace(want[name])
			if string(raw) == "null" {
				raw = nil
			}
			if got := p.Raw(body, field); !bytes.Equal(got, raw) {
				t.Errorf("%s is %q; want %q", name, got, raw)
			}
		}
		if pre, _ := p.Preamble(body, nil); len(pre) > len(body)+fields {
			t.Errorf("a preamble of %d bytes of %d", len(pre), len(body))
		}
	})
}
