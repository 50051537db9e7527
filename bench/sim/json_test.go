package sim

import (
	"encoding/json"
	"testing"
)

func TestParseObjectKeepsTheLast(t *testing.T) {
	o, err := parseObject([]byte(`{"a":1,"b":2,"a":{"x":[3]}}`))
	if err != nil {
		t.Fatal(err)
	}
	if string(o.vals["a"]) != `{"x":[3]}` || len(o.keys) != 2 || o.keys[0] != "a" {
		t.Errorf("%v %s", o.keys, o.vals["a"])
	}
}

func TestRepr(t *testing.T) {
	for in, want := range map[string]string{ // each printed by CPython 3.11
		`{"a":[1,true,null,"it's"]}`: `{'a': [1, True, None, "it's"]}`,
		`"a\"b'c"`:                   `'a"b\'c'`,
		`"\n\t\u0001é"`:              `'\n\t\x01é'`,
		`1e3`:                        `1000.0`,
		`0.1`:                        `0.1`,
		`1e400`:                      `inf`,
		`[]`:                         `[]`,
		`{}`:                         `{}`,
		`12345678901234567890`:       `12345678901234567890`,
	} {
		if got := repr([]byte(in)); got != want {
			t.Errorf("repr(%s) = %s, want %s", in, got, want)
		}
	}
}

func TestPythonJSONError(t *testing.T) {
	for in, want := range map[string]string{ // messages of CPython's json.loads
		`{"a":1`:   "Expecting ',' delimiter 6",
		`{"a":}`:   "Expecting value 5",
		`{"a" 1}`:  "Expecting ':' delimiter 5",
		`{"a":1}x`: "Extra data 7",
		`{a:1}`:    "Expecting property name enclosed in double quotes 1",
		`[1 2]`:    "Expecting ',' delimiter 3",
		`x`:        "Expecting value 0",
	} {
		_, err := parseObject([]byte(in))
		if err == nil {
			t.Errorf("%s: accepted", in)
			continue
		}
		msg, at := pythonJSONError([]byte(in), err)
		if got := msg + " " + itoa(at); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}

func FuzzParseObject(f *testing.F) {
	for _, s := range []string{`{"a":1,"a":2}`, `{"messages":[{"role":"user","content":"x"}]}`, `[1]`, `{"a`, `"\ud800"`, `{"a":1e999}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := parseObject(b)
		if err != nil {
			msg, at := pythonJSONError(b, err)
			if msg == "" || at < 0 || at > len(b) {
				t.Errorf("%q: %q at %d", b, msg, at)
			}
			return
		}
		if repr(b) == "" {
			t.Errorf("%q: no repr", b)
		}
		for k, v := range o.vals {
			if !json.Valid(v) {
				t.Errorf("%q: field %q is %q", b, k, v)
			}
		}
	})
}

// FuzzChatBody throws bodies at the whole validation.
func FuzzChatBody(f *testing.F) {
	s, err := New(Config{Model: llama})
	if err != nil {
		f.Fatal(err)
	}
	r, err := newRun(s, s.cfg)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"messages":[{"role":"user","content":[{"type":"text","text":"x"}]}],"n":2,"stop":["a"],"stream_options":{"include_usage":"yes"},"stream":1}`))
	f.Add([]byte(`{"messages":[],"max_tokens":1.0,"temperature":"0.5","seed":-1,"model":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := parseObject(b)
		if err != nil {
			return
		}
		v := &validator{o: o}
		g := &genRequest{}
		if v.required("messages") {
			v.messages("messages")
		}
		r.sampling(v, g)
		v.prompts("prompt")
		v.forbid(chatFieldsV064)
		r.sane(o, g)
	})
}
