package openai

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// jsonCase is a body and what is to be read from it.
type jsonCase struct {
	name, body string
	model      string // "-" is none
	dup        bool
	stream     bool
	limit      int // 0 in the table stands for -1, unknown
	prompt     string
}

var jsonCases = []jsonCase{
	{name: "chat", body: `{"model":"llama","messages":[{"role":"user","content":"hi"}],"stream":true,"max_tokens":7}`,
		model: "llama", stream: true, limit: 7, prompt: `[{"role":"user","content":"hi"}]`},
	{name: "model last", body: `{"prompt":"say \"model\": x","model":"llama"}`, model: "llama", prompt: `"say \"model\": x"`},
	{name: "embeddings", body: "{\"input\" : [ \"a\" , \"b\" ] ,\r\n\t\"model\" :\t\"e5\" }\n", model: "e5", prompt: `[ "a" , "b" ]`},
	{name: "no model", body: `{"prompt":[1,22,333]}`, model: "-", prompt: `[1,22,333]`},
	{name: "empty object", body: `{}`, model: "-"},
	{name: "empty object in space", body: " { } ", model: "-"},
	{name: "empty model", body: `{"model":""}`, model: ""},
	{name: "duplicate, last wins", body: `{"model":"a","model":"b"}`, model: "b", dup: true},
	{name: "duplicate, same", body: `{"model":"a","x":1,"model":"a"}`, model: "a", dup: true},
	{name: "duplicate, last by an escaped key", body: `{"model":"a","mod\u0065l":"b"}`, model: "b", dup: true},
	{name: "duplicate, first is no string", body: `{"model":7,"model":"b"}`, model: "b", dup: true},
	{name: "model null", body: `{"model":null}`, model: "-"},
	{name: "duplicate, last is null", body: `{"model":"a","model":null,"stream":true}`, model: "-", dup: true, stream: true},
	{name: "escaped key", body: `{"\u006D\u006fdel":"x"}`, model: "x"},
	{name: "wholly escaped keys", body: `{"` + escapeAll("model") + `":"x","` + escapeAll("max_completion_tokens") + `":3}`, model: "x", limit: 3},
	{name: "escaped solidus", body: `{"model":"a\u002fb\/c"}`, model: "a/b/c"},
	{name: "escapes of all kinds", body: `{"model":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00"}`, model: "\"\\/\b\f\n\r\té😀"},
	{name: "model ends in backslashes", body: `{"model":"a\\\\","x":"\\"}`, model: `a\\`},
	{name: "utf-8 model", body: `{"model":"模型"}`, model: "模型"},
	{name: "other case", body: `{"MODEL":"x","Model":"y"}`, model: "-"},
	{name: "longer and shorter keys", body: `{"models":"x","mode":"y","model ":"z","":"w","\u006dodels":"v"}`, model: "-"},
	{name: "key with a nul", body: `{"model\u0000":"x"}`, model: "-"},
	{name: "key beyond ascii", body: `{"mod\u0435l":"x","modеl":"y"}`, model: "-"},
	{name: "nested", body: `{"a":{"model":"x"},"b":[{"model":"y"}]}`, model: "-"},
	{name: "in a string", body: `{"prompt":"\",\"model\":\"x\",\""}`, model: "-", prompt: `"\",\"model\":\"x\",\""`},
	{name: "nan", body: `{"temperature":NaN,"a":-Infinity,"b":[Infinity],"model":"x"}`, model: "x"},
	{name: "numbers", body: `{"a":[0,-0,1.5,-10e3,2E+7,0.0e-0,123456789012345678901234567890],"model":"x"}`, model: "x"},
	{name: "literals", body: `{"a":[true,false,null,[],{}],"model":"x"}`, model: "x"},
	{name: "stream twice", body: `{"stream":true,"stream":false}`, model: "-"},
	{name: "stream null", body: `{"stream":null}`, model: "-"},
	{name: "stream as text", body: `{"stream":"True"}`, model: "-", stream: true},
	{name: "stream as number", body: `{"stream":1}`, model: "-", stream: true},
	{name: "limits", body: `{"max_tokens":5,"max_output_tokens":6,"max_completion_tokens":4}`, model: "-", limit: 4},
	{name: "limit null", body: `{"max_completion_tokens":null,"max_tokens":5.0}`, model: "-", limit: 5},
	{name: "limit of responses", body: `{"max_output_tokens":"6"}`, model: "-", limit: 6},
	{name: "limit beyond int", body: `{"max_tokens":99999999999999999999999999}`, model: "-", limit: 1<<31 - 1},
	{name: "limit negative", body: `{"max_tokens":-5}`, model: "-"},
	{name: "limit twice", body: `{"max_tokens":5,"max_tokens":null}`, model: "-"},
	{name: "prompts", body: `{"input":"c","prompt":"b","messages":["a"]}`, model: "-", prompt: `["a"]`},
	{name: "prompt null", body: `{"messages":null,"prompt":"b"}`, model: "-", prompt: `"b"`},
	{name: "prompt twice", body: `{"prompt":"a","prompt":"b"}`, model: "-", prompt: `"b"`},
	{name: "20k arrays", body: `{"a":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `,"model":"x"}`, model: "x"},
	{name: "20k objects", body: `{"a":` + strings.Repeat(`{"model":`, 20000) + `"y"` + strings.Repeat("}", 20000) + `,"model":"x"}`, model: "x"},
	{name: "mixed brackets around one word", body: `{"a":` + strings.Repeat(`[{"b":`, 40) + `[]` + strings.Repeat("}]", 40) + `,"model":"x"}`, model: "x"},
	{name: "as deep as allowed", body: `{"a":` + strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth) + `,"model":"x"}`, model: "x"},
}

func escapeAll(s string) string {
	var b strings.Builder
	for _, c := range s {
		fmt.Fprintf(&b, `\u%04x`, c)
	}
	return b.String()
}

// peekJSON is ReadJSON into a new Peek.
func peekJSON(body []byte) (p Peek, err error) {
	err = p.ReadJSON(body)
	return p, err
}

func TestPeekJSON(t *testing.T) {
	for _, c := range jsonCases {
		t.Run(c.name, func(t *testing.T) {
			p, err := peekJSON([]byte(c.body))
			if err != nil {
				t.Fatal(err)
			}
			if got := readJSON(c.name, c.body, p); got != c {
				t.Errorf("got  %+v\nwant %+v", got, c)
			}
		})
	}
}

func readJSON(name, body string, p Peek) jsonCase {
	c := jsonCase{name: name, body: body, model: "-", dup: p.Duplicate, stream: p.Stream, limit: p.MaxTokens,
		prompt: body[p.PromptStart:p.PromptEnd]}
	if p.HasModel {
		c.model = string(p.ModelBytes([]byte(body)))
	}
	if p.MaxTokens == -1 {
		c.limit = 0
	}
	return c
}

// badJSON are bodies that are refused, and the message the client gets.
var badJSON = []struct{ name, body, want string }{
	{"empty", "", "body is empty"},
	{"space only", " \n", "body is cut short at byte 2: not JSON, want an object"},
	{"array", `[{"model":"x"}]`, "body is not a JSON object"},
	{"string", `"model"`, "body is not a JSON object"},
	{"word", `hello`, "body is not a JSON object"},
	{"bom", "\xEF\xBB\xBF{}", ErrEncoding.Error()},
	{"utf-16 le with mark", "\xFF\xFE{\x00}\x00", ErrEncoding.Error()},
	{"utf-16 be with mark", "\xFE\xFF\x00{\x00}", ErrEncoding.Error()},
	{"utf-16 le", "{\x00}\x00", ErrEncoding.Error()},
	{"utf-16 be", "\x00{\x00}", ErrEncoding.Error()},
	{"utf-32 le", "{\x00\x00\x00}\x00\x00\x00", ErrEncoding.Error()},
	{"want a value", `{"model":"x","a":}`, "body is not JSON at byte 17: want a value"},
	{"truncated in a key", `{"mod`, "body is cut short at byte 5: not JSON, want the end of a string"},
	{"truncated at the end", `{"model":"x"`, "body is cut short at byte 12: not JSON, want a comma or }"},
	{"truncated in an escape", `{"model":"x\"`, "body is cut short at byte 13: not JSON, want the end of a string"},
	{"truncated in an array", `{"a":[1,`, "body is cut short at byte 8: not JSON, want a value"},
	{"truncated in a word", `{"a":tru`, "body is cut short at byte 8: not JSON, want true"},
	{"truncated in a number", `{"a":-`, "body is cut short at byte 6: not JSON, want a digit"},
	{"garbage behind", `{"model":"x"}}`, "body is not JSON at byte 13: want the end of the body"},
	{"second body", `{"model":"x"}{"model":"y"}`, "body is not JSON at byte 13: want the end of the body"},
	{"nul behind", "{}\x00", "body is not JSON at byte 2: want the end of the body"},
	{"comma behind the last member", `{"model":"x",}`, "body is not JSON at byte 13: want a key in quotes"},
	{"comma only", `{,}`, "body is not JSON at byte 1: want a key in quotes"},
	{"no comma", `{"a":1 "model":"x"}`, "body is not JSON at byte 7: want a comma or }"},
	{"no colon", `{"a" 1}`, "body is not JSON at byte 5: want a colon"},
	{"key without quotes", `{model:"x"}`, "body is not JSON at byte 1: want a key in quotes"},
	{"single quotes", `{'model':"x"}`, "body is not JSON at byte 1: want a key in quotes"},
	{"comment", `{/**/"model":"x"}`, "body is not JSON at byte 1: want a key in quotes"},
	{"other brackets", `{"a":[}]}`, "body is not JSON at byte 6: want a value"},
	{"other closing bracket", `{"a":[1}}`, "body is not JSON at byte 7: want a comma or ]"},
	{"comma in a nested array", `{"a":[1,]}`, "body is not JSON at byte 8: want a value"},
	{"comma in a nested object", `{"a":{"b":1,}}`, "body is not JSON at byte 12: want a key in quotes"},
	{"nested key without colon", `{"a":{"b"}}`, "body is not JSON at byte 9: want a colon"},
	{"nested number as key", `{"a":{1:2}}`, "body is not JSON at byte 6: want a key in quotes"},
	{"leading zero", `{"a":01}`, "body is not JSON at byte 6: want a comma or }"},
	{"leading plus", `{"a":+1}`, "body is not JSON at byte 5: want a value"},
	{"no fraction", `{"a":1.}`, "body is not JSON at byte 7: want a digit"},
	{"no exponent", `{"a":1e}`, "body is not JSON at byte 7: want a digit"},
	{"hex", `{"a":0x1}`, "body is not JSON at byte 6: want a comma or }"},
	{"minus nan", `{"a":-NaN}`, "body is not JSON at byte 6: want a digit"},
	{"python's words", `{"a":True}`, "body is not JSON at byte 5: want a value"},
	{"form feed", "{\f}", "body is not JSON at byte 1: want a key in quotes"},
	{"mismatch beyond one word", `{"a":` + strings.Repeat(`[{"b":`, 40) + `[]` + strings.Repeat("}]", 39) + `]}`,
		"body is not JSON at byte 325: want a comma or }"},
	{"too deep", `{"a":` + strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1) + `}`,
		"body is not JSON at byte 65541: want brackets nested less deep"},
}

func TestBadJSON(t *testing.T) {
	for _, c := range badJSON {
		t.Run(c.name, func(t *testing.T) {
			p, err := peekJSON([]byte(c.body))
			if err == nil || err.Error() != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if p != (Peek{MaxTokens: -1}) {
				t.Errorf("got %+v with an error", p)
			}
			if strings.Contains(c.want, "cut short") != errors.Is(err, ErrTruncated) {
				t.Errorf("ErrTruncated is %v for %q", errors.Is(err, ErrTruncated), err)
			}
		})
	}
}

// badModel are bodies that are JSON but have no usable model; all else in them is read.
var badModel = []struct {
	name, model string
	want        error
}{
	{"number", `1`, ErrModelNotString},
	{"bool", `true`, ErrModelNotString},
	{"array", `["x"]`, ErrModelNotString},
	{"object", `{"model":"x"}`, ErrModelNotString},
	{"nan", `NaN`, ErrModelNotString},
	{"bad utf-8", "\"a\xff\"", ErrModelText},
	{"surrogate in utf-8", "\"\xed\xa0\x80\"", ErrModelText},
	{"overlong", "\"\xc0\xaf\"", ErrModelText},
	{"control character", "\"a\nb\"", ErrModelText},
	{"nul", "\"a\x00\"", ErrModelText},
	{"bad escape", `"\q"`, ErrModelText},
	{"short escape", `"\u12"`, ErrModelText},
	{"bad digits", `"\u12g4"`, ErrModelText},
	{"high surrogate", `"\ud83d"`, ErrModelText},
	{"high surrogate and text", `"\ud83dabcdef"`, ErrModelText},
	{"low surrogate", `"\ude00\ud83d"`, ErrModelText},
}

func TestBadModel(t *testing.T) {
	for _, c := range badModel {
		t.Run(c.name, func(t *testing.T) {
			body := `{"model":"a","stream":true,"max_tokens":3,"prompt":"p","model":` + c.model + `}`
			p, err := peekJSON([]byte(body))
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			want := Peek{Stream: true, MaxTokens: 3, Duplicate: true, PromptStart: p.PromptStart, PromptEnd: p.PromptEnd}
			if p != want || body[p.PromptStart:p.PromptEnd] != `"p"` {
				t.Errorf("got %+v, want %+v", p, want)
			}
		})
	}
}

// A body cut at any byte is refused, and seen to be cut.
func TestTruncatedJSON(t *testing.T) {
	for _, c := range jsonCases {
		body := strings.TrimRight(c.body, " \n")
		step := max(1, len(body)/100)
		for n := 1; n < len(body); n += step {
			if _, err := peekJSON([]byte(body[:n])); !errors.Is(err, ErrTruncated) {
				t.Fatalf("%s cut at byte %d: got %v, want ErrTruncated", c.name, n, err)
			}
		}
	}
}
