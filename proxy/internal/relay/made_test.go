package relay

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// ids collects what a sniffer finds.
type ids []string

func (l *ids) Made(id []byte) { *l = append(*l, string(id)) }

func made(sse, only bool, parts ...string) (found ids, s Sniffer) {
	s.Reset(sse, nil)
	s.Made, s.MadeOnly = &found, only
	for _, p := range parts {
		s.Feed([]byte(p), time.Now())
	}
	s.End()
	return found, s
}

const createdEvent = "event: response.created\ndata: {\"response\":{\"id\":\"resp_1\",\"object\":\"response\"},\"sequence_number\":0,\"type\":\"response.created\"}\n\n"

func TestMade(t *testing.T) {
	const whole = `{"id":"resp_1","created_at":1,"metadata":{"id":"mine"},"usage":{"input_tokens":5,"output_tokens":7}}`
	for _, c := range []struct {
		name string
		sse  bool
		in   string
		want ids
	}{
		{"whole", false, whole, ids{"resp_1"}},
		{"spaced", false, " {\n \"id\" : \"resp_1\" }", ids{"resp_1"}},
		{"behind a client's", false, `{"metadata":{"id":"mine","response":{"id":"mine"}},"list":[{"id":"mine"}],"s":"\"id\":\"mine\"","id":"resp_1"}`, ids{"resp_1"}},
		{"none", false, `{"object":"list","data":[{"id":"x"}]}`, nil},
		{"no text", false, `{"id":17}`, nil},
		{"empty", false, `{"id":""}`, nil},
		{"escaped", false, `{"id":"a\"b"}`, nil},
		{"too long", false, `{"id":"` + strings.Repeat("x", 300) + `"}`, nil},
		{"too late", false, `{"text":"` + strings.Repeat("x", 5000) + `","id":"resp_1"}`, nil},
		{"events", true, createdEvent + createdEvent + data("[DONE]"), ids{"resp_1"}},
		{"CRLF", true, strings.ReplaceAll(createdEvent, "\n", "\r\n"), ids{"resp_1"}},
		{"first event without one", true, data(`{"type":"x"}`) + createdEvent, nil},
		{"event with its own id", true, data(`{"item":{"id":"mine"},"response":{"metadata":{"id":"mine"},"id":"resp_1"}}`), ids{"resp_1"}},
	} {
		for _, only := range []bool{false, true} {
			if got, _ := made(c.sse, only, c.in); !cmp.Equal(c.want, got) {
				t.Errorf("%s: %q; want %q", c.name, got, c.want)
			}
			if c.name == "too late" {
				continue
			}
			for cut := range c.in {
				if got, _ := made(c.sse, only, c.in[:cut], c.in[cut:]); !cmp.Equal(c.want, got) {
					t.Errorf("%s, cut at %d: %q; want %q", c.name, cut, got, c.want)
				}
			}
			if got, _ := made(c.sse, only, strings.Split(c.in, "")...); !cmp.Equal(c.want, got) {
				t.Errorf("%s, byte by byte: %q; want %q", c.name, got, c.want)
			}
		}
	}
	_, s := made(false, false, whole)
	if s.Usage != (Usage{5, 7, -1}) {
		t.Errorf("usage is %v beside the id", s.Usage)
	}
	if _, s = made(false, true, whole); s.Usage != unknown {
		t.Errorf("usage is %v though only the id is wanted", s.Usage)
	}
	if _, s = made(true, true, createdEvent+delta(`"content":"a"`)); s.Events != 0 {
		t.Error("tokens were counted though only the id is wanted")
	}
}

// What is read is the member that a decoder reads, for objects without repeated keys.
func FuzzResponseID(f *testing.F) {
	f.Add([]byte(`{"id":"resp_1"}`))
	f.Add([]byte(`{"response":{"id":"resp_1"},"x":[{}]}`))
	f.Add([]byte(`{"a":"\\\"","response":{"b":{"id":"c"}},"id":"d"}`))
	f.Add([]byte(`{"response":[],"id":"`))
	f.Fuzz(func(t *testing.T, b []byte) {
		id := responseID(b)
		if len(id) > longestID {
			t.Fatalf("an id of %d bytes", len(id))
		}
		var o map[string]json.RawMessage
		if id == nil || json.Unmarshal(b, &o) != nil {
			return
		}
		var inner map[string]json.RawMessage
		json.Unmarshal(o["response"], &inner)
		text := func(raw json.RawMessage) string { return strings.Trim(string(raw), `"`) }
		if got := string(id); got != text(o["id"]) && got != text(inner["id"]) && strings.Count(string(b), `"id"`) < 2 {
			t.Errorf("%q; want %q or %q", got, o["id"], inner["id"])
		}
	})
}
