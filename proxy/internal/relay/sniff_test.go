package relay

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var epoch = time.Unix(1731628800, 0)

// seen is what a sniffer has found out.
type seen struct {
	Events int
	Usage  Usage
}

func sniffed(sse bool, parts ...string) seen {
	var s Sniffer
	s.Reset(sse, nil)
	for _, p := range parts {
		s.Feed([]byte(p), epoch)
	}
	s.End()
	return seen{s.Events, s.Usage}
}

func data(json string) string { return "data: " + json + "\n\n" }

func delta(fields string) string {
	return data(`{"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{` + fields + `},"logprobs":null,"finish_reason":null}]}`)
}

var (
	unknown  = Usage{-1, -1, -1}
	usageObj = `"usage":{"prompt_tokens":11,"total_tokens":27,"completion_tokens":16}`
)

var streams = []struct {
	name, in string
	want     seen
}{
	{"nothing", "", seen{0, unknown}},
	{"role only", delta(`"role":"assistant","content":""`), seen{0, unknown}},
	{"role and content", delta(`"role":"assistant","content":"H"`), seen{1, unknown}},
	{"null content", delta(`"content":null`), seen{0, unknown}},
	{"three tokens", delta(`"content":"a"`) + delta(`"content":" b"`) + delta(`"content":"c"`) + data("[DONE]"), seen{3, unknown}},
	{"no space behind data", "data:{\"delta\":{\"content\":\"x\"}}\n\n", seen{1, unknown}},
	{"spaced JSON", data(`{"choices": [{"delta": {"content": "x"}}]}`), seen{1, unknown}},
	{"spaced JSON, empty", data(`{"choices": [{"delta": {"content": ""}}]}`), seen{0, unknown}},
	{"CRLF", strings.ReplaceAll(delta(`"role":"assistant","content":""`)+delta(`"content":"a"`)+data("{"+usageObj+"}"), "\n", "\r\n"), seen{1, Usage{11, 16, -1}}},
	{"comments and other lines", ": ping\n\nid: 1\nretry: 5\n" + delta(`"content":"a"`) + "dat", seen{1, unknown}},
	{"line without end", `data: {"delta":{"content":"x"}}`, seen{0, unknown}},
	{"reasoning", delta(`"reasoning_content":"hm"`) + delta(`"reasoning":"hm"`) + delta(`"content":"x"`), seen{3, unknown}},
	{"tool call", delta(`"tool_calls":[{"index":0,"function":{"name":"f","arguments":""}}]`) + delta(`"tool_calls":[{"index":0,"function":{"arguments":"{\"a"}}]`), seen{1, unknown}},
	{"quoted JSON in the text", delta(`"role":"assistant","content":"","note":"\"content\":\"x\" \"usage\":{\"prompt_tokens\":5}"`), seen{0, unknown}},
	{"quoted JSON as content", delta(`"content":"\"usage\":{\"prompt_tokens\":5}"`), seen{1, unknown}},
	{"starts with a quote", delta(`"content":"\""`), seen{1, unknown}},
	{"logprobs are no content", data(`{"choices":[{"delta":{},"logprobs":{"content":[{"token":"a"}]}}]}`), seen{0, unknown}},
	{"other keys", delta(`"contents":"x","my_content":"y","discontent":"z"`), seen{0, unknown}},
	{"usage in the last chunk", delta(`"content":"a"`) + data(`{"choices":[],`+usageObj+`}`) + data("[DONE]"), seen{1, Usage{11, 16, -1}}},
	{"continuous usage", data(`{"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":11,"completion_tokens":1}}`) +
		data(`{"choices":[{"delta":{"content":"b"}}],"usage":{"prompt_tokens":11,"completion_tokens":2}}`), seen{2, Usage{11, 2, -1}}},
	{"v0.6.4 completions", completionEvent() + completionEvent() + data(`{"id":"cmpl-1","choices":[],`+usageObj+`}`), seen{2, Usage{11, 16, -1}}},
	{"usage null after usage", data(`{`+usageObj+`}`) + data(`{"choices":[],"usage":null}`), seen{0, Usage{11, 16, -1}}},
	{"cached tokens", data(`{"usage":{"prompt_tokens":11,"completion_tokens":16,"prompt_tokens_details":{"cached_tokens":8}}}`), seen{0, Usage{11, 16, 8}}},
	{"details first", data(`{"usage":{"prompt_tokens_details":{"cached_tokens":8},"prompt_tokens":11,"completion_tokens":16}}`), seen{0, Usage{11, 16, 8}}},
	{"no details", data(`{"usage":{"prompt_tokens":11,"completion_tokens":null,"prompt_tokens_details":null}}`), seen{0, Usage{11, -1, -1}}},
	{"responses API", "event: response.created\n" + data(`{"type":"response.created","response":{"text":{"format":{"type":"text"}}}}`) +
		"event: response.output_text.delta\n" + data(`{"type":"response.output_text.delta","delta":"Hel"}`) +
		"event: response.output_text.delta\n" + data(`{"type":"response.output_text.delta","delta":"lo"}`) +
		"event: response.output_text.done\n" + data(`{"type":"response.output_text.done","text":"Hello"}`) +
		"event: response.completed\n" + data(`{"response":{"output":[{"content":[{"text":"Hello"}]}],"usage":{"input_tokens":3,"input_tokens_details":{"cached_tokens":1},"output_tokens":2}}}`),
		seen{2, Usage{3, 2, 1}}},
	{"messages API", "event: message_start\n" + data(`{"type":"message_start","message":{"content":[],"usage":{"input_tokens":25,"output_tokens":0}}}`) +
		"event: content_block_start\n" + data(`{"content_block":{"type":"text","text":""}}`) +
		"event: content_block_delta\n" + data(`{"delta":{"type":"text_delta","text":"Hi"}}`) +
		"event: content_block_delta\r\n" + data(`{"delta":{"type":"input_json_delta","partial_json":"{"}}`) +
		"event: message_delta\n" + data(`{"delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":15}}`) +
		"event: message_stop\n" + data(`{"type":"message_stop"}`), seen{2, Usage{25, 15, -1}}},
	{"messages API, cached", "event: message_start\n" + data(`{"type":"message_start","message":{"content":[],"usage":{"input_tokens":25,"output_tokens":0}}}`) +
		"event: content_block_delta\n" + data(`{"delta":{"type":"thinking_delta","thinking":"Hm"}}`) +
		"event: content_block_delta\n" + data(`{"delta":{"type":"signature_delta","signature":"abc"}}`) +
		"event: message_delta\n" + data(`{"delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":9,"output_tokens":15,"cache_creation_input_tokens":0,"cache_read_input_tokens":16}}`) +
		"event: message_stop\n" + data(`{"type":"message_stop"}`), seen{1, Usage{25, 15, 16}}},
	{"messages API, written to a cache", data(`{"usage":{"cache_creation_input_tokens":4,"cache_read_input_tokens":null,"input_tokens":9,"cache_creation":{"ephemeral_5m_input_tokens":4},"output_tokens":1}}`),
		seen{0, Usage{13, 1, -1}}},
	{"type ends with its event", "event: ping\n\n" + delta(`"content":"a"`), seen{1, unknown}},
	{"1 MB line", data(`{"choices":[{"delta":{"content":"`+strings.Repeat("x", 1<<20)+`"}}]}`) + delta(`"content":"a"`), seen{1, unknown}},
	{"line of just the limit", "data:" + strings.Repeat(" ", maxLine-20) + `{"content":"x"}` + "\n" + delta(`"content":"a"`), seen{2, unknown}},
	{"line above the limit", "data:" + strings.Repeat(" ", maxLine-19) + `{"content":"x"}` + "\n" + delta(`"content":"a"`), seen{1, unknown}},
	{"colons", data(strings.Repeat(`":`, 100)) + data(`":"`) + data(`"content":"`) + data(`:`) + data(`"usage":{`), seen{0, unknown}},
}

func TestSniffEverySplit(t *testing.T) {
	for _, tt := range streams {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, sniffed(true, tt.in)); d != "" {
				t.Fatal(d)
			}
			if len(tt.in) > 10000 {
				for _, n := range []int{1, 3000, len(tt.in) / 2, len(tt.in) - 300, len(tt.in) - 1} {
					if d := cmp.Diff(tt.want, sniffed(true, cut(tt.in, n)...)); d != "" {
						t.Fatalf("split at %d: %s", n, d)
					}
				}
				return
			}
			everySplit(tt.in, func(parts []string) {
				if d := cmp.Diff(tt.want, sniffed(true, parts...)); d != "" {
					t.Fatalf("%q: %s", parts, d)
				}
			})
		})
	}
}

func TestSniffJSON(t *testing.T) {
	body := func(text, tail string) string {
		return `{"id":"chatcmpl-1","choices":[{"message":{"role":"assistant","content":"` + text + `"}}],` + usageObj + tail + `}`
	}
	for _, tt := range []struct {
		name, in string
		want     Usage
	}{
		{"small", body("Hello", ""), Usage{11, 16, -1}},
		{"keys behind", body("Hello", `,"prompt_logprobs":null,"kv_transfer_params":null`), Usage{11, 16, -1}},
		{"long text", body(strings.Repeat("x", 100<<10), ""), Usage{11, 16, -1}},
		{"indented", "{\n  \"usage\": {\n    \"prompt_tokens\": 11,\n    \"completion_tokens\":\t16\n  }\n}\n", Usage{11, 16, -1}},
		{"messages API", `{"id":"m","type":"message","content":[{"type":"text","text":"Hi"}],"usage":{"input_tokens":9,"output_tokens":15,"cache_read_input_tokens":16}}`, Usage{25, 15, 16}},
		{"usage in the text", `{"choices":[{"text":"\"usage\":{\"prompt_tokens\":5}"}]}`, unknown},
		{"usage null", `{"usage":null}`, unknown},
		{"usage too far from the end", body("", `,"x":"`+strings.Repeat("x", 8<<10)+`"`), unknown},
		{"not JSON", "\x00\xff{{{{", unknown},
		{"empty", "", unknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			check := func(parts ...string) {
				t.Helper()
				if got := sniffed(false, parts...); got.Usage != tt.want || got.Events != 0 {
					t.Fatalf("in %d parts: %+v; want %+v", len(parts), got, tt.want)
				}
			}
			check(tt.in)
			rng := rand.New(rand.NewPCG(7, 7))
			for range 50 {
				check(randomCut(rng, tt.in)...)
			}
			check(strings.Split(tt.in, "")...)
		})
	}
}

type gaps []float64

func (g *gaps) Observe(s float64) { *g = append(*g, s) }

func TestSniffTimes(t *testing.T) {
	var ttft, itl gaps
	var s Sniffer
	s.Reset(true, &itl)
	s.TTFT, s.Start = &ttft, epoch
	at := func(ms int, in string) { s.Feed([]byte(in), epoch.Add(time.Duration(ms)*time.Millisecond)) }
	at(250, delta(`"role":"assistant","content":""`))
	at(500, delta(`"content":"a"`)[:20])
	at(750, delta(`"content":"a"`)[20:])
	at(1000, delta(`"content":"b"`)+delta(`"content":"c"`))
	at(2000, data("[DONE]"))
	if d := cmp.Diff(gaps{0.75}, ttft); d != "" {
		t.Errorf("time to first token: %s", d)
	}
	if d := cmp.Diff(gaps{0.25, 0}, itl); d != "" {
		t.Errorf("inter-token latencies: %s", d)
	}
	if !s.First.Equal(epoch.Add(750*time.Millisecond)) || !s.Last.Equal(epoch.Add(time.Second)) || s.Events != 3 {
		t.Errorf("first %v, last %v, %d events", s.First, s.Last, s.Events)
	}
	s.Reset(true, nil)
	if !s.First.IsZero() || s.TTFT != nil || s.Events != 0 || s.Usage != unknown {
		t.Errorf("after Reset: %+v", s)
	}
}

func TestSniffForgetsHalfAnEvent(t *testing.T) {
	var s Sniffer
	s.Reset(true, nil)
	s.Feed([]byte("event: x.done\ndata: {\"content\":"), epoch)
	s.Reset(true, nil)
	s.Feed([]byte("\"x\"}\n\n"+delta(`"content":"a"`)), epoch)
	if s.Events != 1 {
		t.Errorf("%d events; want 1", s.Events)
	}
	s.Feed([]byte(strings.Repeat("x", maxLine+1)), epoch) // skipping
	s.Reset(true, nil)
	s.Feed([]byte(delta(`"content":"a"`)), epoch)
	if s.Events != 1 {
		t.Errorf("after a line that was too long: %d events; want 1", s.Events)
	}
}

func FuzzSniff(f *testing.F) {
	for i, s := range streams {
		if len(s.in) < 4096 {
			f.Add([]byte(s.in), uint64(i), true)
		}
	}
	f.Add([]byte(`{"usage":{"prompt_tokens":1}}`), uint64(1), false)
	f.Add([]byte(`"usage":{"prompt_tokens":99999999999999999999}`), uint64(1), false)
	f.Fuzz(func(t *testing.T, in []byte, seed uint64, sse bool) {
		want := sniffed(sse, string(in))
		if parts := randomCut(rand.New(rand.NewPCG(seed, seed)), string(in)); sniffed(sse, parts...) != want && (sse || len(in) <= tailSize) {
			t.Fatalf("%q: %+v; unsplit: %+v", parts, sniffed(sse, parts...), want)
		}
		if u := want.Usage; u.Prompt < -1 || u.Completion < -1 || u.Cached < -1 {
			t.Fatalf("usage %+v", u)
		}
		if want.Events > strings.Count(string(in), "data:") {
			t.Fatalf("%d events in %q", want.Events, in)
		}
	})
}

func ExampleSniffer() {
	var s Sniffer
	s.Reset(true, nil)
	s.Feed([]byte("data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\ndata: {\"choices\":[],"), time.Now())
	s.Feed([]byte("\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":1}}\n\n"), time.Now())
	s.End()
	fmt.Printf("%d event with content, %+v\n", s.Events, s.Usage)
	// Output: 1 event with content, {Prompt:11 Completion:1 Cached:-1}
}
