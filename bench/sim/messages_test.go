package sim

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func messagesBody(more string) string {
	return `{"model":"` + llama + `","max_tokens":3,"messages":[{"role":"user","content":[{"type":"text","text":"hello"}]}]` + more + `}`
}

func TestMessages(t *testing.T) {
	s := started(t, nil)
	code, body := post(t, s.URL()+"/v1/messages", messagesBody(``))
	var a messagesAnswer
	if err := json.Unmarshal([]byte(body), &a); err != nil || code != 200 {
		t.Fatalf("%d %v %s", code, err, body)
	}
	if a.Type != "message" || a.Role != "assistant" || a.Model != llama || a.StopReason != "max_tokens" || len(a.Content) != 1 ||
		len(a.Content[0].Text) != 3*tokenBytes || a.Usage.OutputTokens != 3 || a.Usage.InputTokens == 0 {
		t.Errorf("%s", body)
	}
	_, body = post(t, s.URL()+"/v1/messages", messagesBody(`,"stream":true`))
	var kinds []string
	text := ""
	for _, l := range strings.Split(body, "\n") {
		if k, ok := strings.CutPrefix(l, "event: "); ok {
			kinds = append(kinds, k)
		}
		if d, ok := strings.CutPrefix(l, "data: "); ok {
			var e struct {
				Type  string
				Delta messagesText
				Usage *messagesUsage
			}
			if err := json.Unmarshal([]byte(d), &e); err != nil || e.Type != kinds[len(kinds)-1] {
				t.Errorf("%v in %s", err, l)
			}
			if text += e.Delta.Text; e.Usage != nil && *e.Usage != a.Usage {
				t.Errorf("usage %v; want %v", *e.Usage, a.Usage)
			}
		}
	}
	want := []string{"message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop"}
	if d := cmp.Diff(want, slices.Compact(kinds)); d != "" {
		t.Errorf("events (-want +got):\n%s", d)
	}
	if text != a.Content[0].Text {
		t.Errorf("text %q; want %q", text, a.Content[0].Text)
	}
}

// The system prompt counts, but for the block that Claude Code puts in front of it.
func TestCountTokens(t *testing.T) {
	s := started(t, nil)
	count := func(more string) string {
		t.Helper()
		code, body := post(t, s.URL()+"/v1/messages/count_tokens", messagesBody(more))
		if code != 200 {
			t.Errorf("%d %s", code, body)
		}
		return body
	}
	bare, brief := count(``), count(`,"system":"be brief"`)
	if bare == brief || !strings.Contains(bare, `"input_tokens":`) {
		t.Errorf("%s and, with a system prompt, %s", bare, brief)
	}
	if got := count(`,"system":[{"type":"text","text":"x-anthropic-billing-header: cch=1;"},{"type":"text","text":"be "},{"type":"text","text":"brief"}]`); got != brief {
		t.Errorf("in blocks: %s; want %s", got, brief)
	}
}

// vLLM answers what its handler refuses in Anthropic's shape, and a failed validation in
// OpenAI's.
func TestMessagesErrors(t *testing.T) {
	s := started(t, nil)
	for body, want := range map[string]string{
		strings.Replace(messagesBody(``), llama, "x", 1): "{\"type\":\"error\",\"error\":{\"type\":\"NotFoundError\",\"message\":\"The model `x` does not exist.\"}}",
		messagesBody(`,"max_tokens":1000000`):            `{"type":"error","error":{"type":"BadRequestError",`,
		messagesBody(`,"max_tokens":0`):                  `{"error":{"message":"1 validation error:`,
		`{"model":"x","max_tokens":1}`:                   `{"error":{"message":"1 validation error:`,
	} {
		if _, got := post(t, s.URL()+"/v1/messages", body); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s; want %s", body, got, want)
		}
	}
	if err := s.SetFaults(Faults{StreamError: &Fault{Events: 3}}); err != nil {
		t.Fatal(err)
	}
	if _, got := post(t, s.URL()+"/v1/messages", messagesBody(`,"stream":true`)); !strings.HasSuffix(got, "event: error\ndata: "+
		`{"type":"error","error":{"type":"internal_error","message":"Internal server error"}}`+"\n\ndata: [DONE]\n\n") {
		t.Errorf("%s", got)
	}
}

func TestNoMessagesInV064(t *testing.T) {
	s := started(t, func(c *Config) { c.Profile = ProfileV064 })
	if code, body := post(t, s.URL()+"/v1/messages", messagesBody(``)); code != 404 {
		t.Errorf("%d %s; want 404", code, body)
	}
}
