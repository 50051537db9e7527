package load

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func readEvents(r io.Reader) (events []string, err error) {
	var e eventReader
	e.reset(r)
	for {
		data, err := e.next()
		if err != nil {
			return events, err
		}
		events = append(events, string(data))
	}
}

// The examples of WHATWG HTML section 9.2.6, as far as data goes.
func TestEventsOfTheStandard(t *testing.T) {
	tests := []struct {
		in   string
		want []string
	}{
		{"data: YHOO\ndata: +2\ndata: 10\n\n", []string{"YHOO\n+2\n10"}},
		{": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event", []string{"first event", "second event"}},
		{"data\n\ndata\ndata\n\ndata:", []string{"", "\n"}},
		{"data:test\n\ndata: test\n\n", []string{"test", "test"}},
		{"datax: no\n\nxdata: no\n\n", nil},
	}
	for _, tt := range tests {
		got, err := readEvents(strings.NewReader(tt.in))
		if diff := cmp.Diff(tt.want, got); diff != "" || err != io.EOF {
			t.Errorf("%q: %v %s", tt.in, err, diff)
		}
	}
}

// However the bytes arrive, the events are the same.
func FuzzEvents(f *testing.F) {
	f.Add([]byte("data: " + tokenEvent + "\n\ndata: [DONE]\n\n"))
	f.Add([]byte(": c\r\ndata: a\r\ndata:b\r\n\r\n\r\ndata\n\n"))
	f.Add([]byte("data: cut"))
	f.Add([]byte("\n\n\n:\nid: 4\n\ndata:\n\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		whole, err := readEvents(bytes.NewReader(in))
		if err != io.EOF && err != errEventTooLong {
			t.Fatal(err)
		}
		for name, r := range map[string]io.Reader{
			"bytewise": iotest.OneByteReader(bytes.NewReader(in)),
			"data+EOF": iotest.DataErrReader(bytes.NewReader(in)),
		} {
			got, gotErr := readEvents(r)
			if diff := cmp.Diff(whole, got); diff != "" || gotErr != err {
				t.Errorf("%s: %v, want %v: %s", name, gotErr, err, diff)
			}
		}
	})
}

// What the fast path calls content is content to the decoder as well, unless the
// event says things twice (the decoder takes the last, in any case of letters).
func FuzzPlainContent(f *testing.F) {
	for _, e := range []string{roleEvent, tokenEvent, finishEvent, textEvent, usageEvent(1, 2), "[DONE]", "{}", "",
		`{"choices":[{"index":0,"delta":{"content":"`, `{"choices":[{"index":0,"delta":{"content":"}`} {
		f.Add([]byte(e))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, plain := plainContent(data); !plain {
			return
		}
		// encoding/json also takes the long s for an s when it looks for a field.
		lower := bytes.ReplaceAll(bytes.ToLower(data), []byte("\u017f"), []byte("s"))
		for _, key := range []string{`"choices"`, `"delta"`, `"content"`, `"text"`} {
			if bytes.Count(lower, []byte(key)) > 1 {
				return
			}
		}
		var top map[string]json.RawMessage
		var c chunk
		if bytes.Contains(lower, []byte(`\u`)) || json.Unmarshal(data, &top) != nil || json.Unmarshal(data, &c) != nil {
			return
		}
		if top["choices"] != nil && !c.hasContent() {
			t.Errorf("%q has no content to the decoder", data)
		}
	})
}

func TestFastPathKnowsTheUsualEvents(t *testing.T) {
	tests := []struct {
		name, event string
		plain       bool
	}{
		{"chat", tokenEvent, true},
		{"completions", textEvent, true},
		{"quote as content", strings.Replace(tokenEvent, `" Hello"`, `"\""`, 1), true},
		{"role", roleEvent, false},
		{"finish", finishEvent, false},
		{"usage", usageEvent(1, 2), false},
		{"content that talks of content", `{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}],"x":"\"choices\":[{\"index\":0,\"delta\":{\"content\":\"y"}`, false},
	}
	for _, tt := range tests {
		if _, got := plainContent([]byte(tt.event)); got != tt.plain {
			t.Errorf("%s: plain %v, want %v", tt.name, got, tt.plain)
		}
		var c chunk
		if err := json.Unmarshal([]byte(tt.event), &c); err != nil || tt.plain && !c.hasContent() {
			t.Errorf("%s: the decoder says %v, content %v", tt.name, err, c.hasContent())
		}
	}
}

func FuzzAPIError(f *testing.F) {
	f.Add([]byte(`{"error":{"message":"m","type":"t","param":null,"code":404}}`))
	f.Add([]byte(`{"error":"Unauthorized"}`))
	f.Add([]byte(`{"object":"error","message":"m","type":"t","code":"c"}`))
	f.Add([]byte(`{"detail":"Not Found"}`))
	f.Add([]byte(`<html>`))
	f.Add([]byte(`{"error":[]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, message := apiError(body); len(bytes.TrimSpace(body)) > 0 && message == "" && !json.Valid(body) {
			t.Errorf("%q: nothing to tell", body)
		}
	})
}

func TestAPIErrorShapes(t *testing.T) {
	tests := []struct{ body, code, message string }{
		{`{"error":{"message":"m","type":"NotFoundError","param":null,"code":404}}`, "NotFoundError", "m"},
		{`{"error":{"message":"m","type":"t","code":"model_not_found"}}`, "model_not_found", "m"},
		{`{"error":{"message":"m","type":"t","code":null}}`, "t", "m"},
		{`{"error":{"message":"m","type":"t","code":"502"}}`, "t", "m"},
		{`{"error":"Unauthorized"}`, "", "Unauthorized"},
		{`{"object":"error","message":"m","type":"BadRequestError","code":400}`, "BadRequestError", "m"},
		{`{"detail":"Not Found"}`, "", `{"detail":"Not Found"}`},
		{`upstream gone`, "", `upstream gone`},
	}
	for _, tt := range tests {
		if code, message := apiError([]byte(tt.body)); code != tt.code || message != tt.message {
			t.Errorf("%s: code %q, message %q; want %q, %q", tt.body, code, message, tt.code, tt.message)
		}
	}
}

func FuzzModelNames(f *testing.F) {
	f.Add([]byte(`{"object":"list","data":[{"id":"M"},{"id":"N"}]}`))
	f.Add([]byte(`{"data":[]}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		names, err := modelNames(body)
		if (err == nil) == (len(names) == 0) {
			t.Errorf("%q: names %q, error %v", body, names, err)
		}
	})
}
