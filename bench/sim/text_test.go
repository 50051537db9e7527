package sim

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTokenRule(t *testing.T) {
	for text, want := range map[string]int{"": 0, "a": 1, "abcd": 1, "abcde": 2, strings.Repeat("w ", 512): 256} {
		if got := TextTokens(text); got != want {
			t.Errorf("TextTokens(%q) = %d, want %d", text, got, want)
		}
		p := textPrompt(text)
		if p.tokens() != want || len(p.ids()) != want || detokenize(p.ids()) != text {
			t.Errorf("%q: %d tokens, %d ids, back %q", text, p.tokens(), len(p.ids()), detokenize(p.ids()))
		}
	}
}

func TestChatTokens(t *testing.T) {
	msgs := []message{{"system", "abc"}, {"user", "abcde"}, {"a role that is far too long", ""}}
	p := chatPrompt(msgs, true)
	if want := ChatTokens("abc", "abcde", ""); p.tokens() != want || want != 1+3*5+1+2+4 {
		t.Errorf("%d tokens, ChatTokens %d", p.tokens(), want)
	}
	if bare := chatPrompt(msgs, false); bare.tokens() != p.tokens()-headerTokens {
		t.Errorf("without generation prompt %d tokens", bare.tokens())
	}
}

func TestBlocksSharePrefixes(t *testing.T) {
	a, b := textPrompt(strings.Repeat("x", 64)+strings.Repeat("y", 64)), textPrompt(strings.Repeat("x", 64)+strings.Repeat("z", 100))
	ba, bb := a.blocks(16, ""), b.blocks(16, "")
	if len(ba) != 2 || len(bb) != 2 || ba[0] != bb[0] || ba[1] == bb[1] {
		t.Errorf("blocks %x and %x, want the first shared", ba, bb)
	}
	if salted := a.blocks(16, "salt"); salted[0] == ba[0] {
		t.Error("salt does not key the chain")
	}
	ids := tokenPrompt(a.ids())
	if d := cmp.Diff(ba, ids.blocks(16, "")); d != "" {
		t.Errorf("blocks of the token ids differ:\n%s", d)
	}
}

func TestStoryIsFourBytesAToken(t *testing.T) {
	s := story(42)
	text := string(s.appendWords(nil, 0, 100))
	if len(text) != 400 || TextTokens(text) != 100 {
		t.Errorf("%d bytes for 100 tokens", len(text))
	}
	if string(s.appendWords(nil, 0, 50))+string(s.appendWords(nil, 50, 100)) != text {
		t.Error("pieces do not add up")
	}
	var lengths []int
	for i := range 1001 {
		lengths = append(lengths, story(uint64(i)*7919).natural())
	}
	slices.Sort(lengths)
	if m := lengths[500]; m < 160 || m > 240 || lengths[0] < 2 {
		t.Errorf("median natural length %d, least %d", m, lengths[0])
	}
}

// answer is what tests read of a completion.
type answer struct {
	Choices []struct {
		Text    string
		Message struct{ Content string }
		Reason  string  `json:"finish_reason"`
		Stop    *string `json:"stop_reason"`
	}
	Usage struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
	}
}

func ask(t *testing.T, s *Server, path, body string) answer {
	t.Helper()
	code, got := post(t, s.URL()+path, body)
	var a answer
	if err := json.Unmarshal([]byte(got), &a); err != nil || code != 200 {
		t.Fatalf("%d %s", code, got)
	}
	return a
}

func TestLengths(t *testing.T) {
	s := started(t, func(c *Config) { c.Speed = 500 })
	free := ask(t, s, "/v1/chat/completions", chatBody(""))
	natural := free.Usage.Completion
	if c := free.Choices[0]; c.Reason != "stop" || len(c.Message.Content) != 4*(natural-1) {
		t.Fatalf("unlimited: %d tokens, %d bytes, %s", natural, len(c.Message.Content), c.Reason)
	}
	cases := []struct {
		extra  string
		tokens int
		reason string
	}{
		{fmt.Sprintf(`,"max_tokens":%d`, natural), natural, "stop"},
		{fmt.Sprintf(`,"max_tokens":%d`, natural-1), natural - 1, "length"},
		{`,"max_completion_tokens":3`, 3, "length"},
		{`,"max_tokens":9,"max_completion_tokens":3`, 3, "length"},
		{fmt.Sprintf(`,"max_tokens":%d,"ignore_eos":true`, natural+50), natural + 50, "length"},
		{fmt.Sprintf(`,"max_tokens":%d,"min_tokens":%d`, natural+50, natural+50), natural + 50, "length"},
		{fmt.Sprintf(`,"max_tokens":%d,"min_tokens":%d`, natural+50, natural+9), natural + 10, "stop"},
	}
	for _, c := range cases {
		a := ask(t, s, "/v1/chat/completions", chatBody(c.extra))
		if a.Usage.Completion != c.tokens || a.Choices[0].Reason != c.reason {
			t.Errorf("%s: %d tokens, %s, want %d, %s", c.extra, a.Usage.Completion, a.Choices[0].Reason, c.tokens, c.reason)
		}
		if !strings.HasPrefix(a.Choices[0].Message.Content, free.Choices[0].Message.Content[:8]) {
			t.Errorf("%s: text %q does not begin as the unlimited one", c.extra, a.Choices[0].Message.Content)
		}
	}
	if a := ask(t, s, "/v1/completions", `{"model":"`+llama+`","prompt":"a"}`); a.Usage.Completion > 16 {
		t.Errorf("completion without max_tokens: %d tokens, want at most 16", a.Usage.Completion)
	}
}

func TestContextCapsOutput(t *testing.T) {
	s := started(t, func(c *Config) { c.Engine.MaxModelLen = 64; c.Speed = 500 })
	a := ask(t, s, "/v1/chat/completions", chatBody(`,"ignore_eos":true`))
	if a.Usage.Prompt+a.Usage.Completion != 64 || a.Choices[0].Reason != "length" {
		t.Errorf("%d + %d tokens, %s, want 64 in all", a.Usage.Prompt, a.Usage.Completion, a.Choices[0].Reason)
	}
}

func TestStopString(t *testing.T) {
	s := started(t, nil)
	whole := ask(t, s, "/v1/chat/completions", chatBody(`,"max_tokens":20,"ignore_eos":true`)).Choices[0].Message.Content
	stop := whole[17:23] // across two words
	a := ask(t, s, "/v1/chat/completions", chatBody(`,"max_tokens":20,"ignore_eos":true,"stop":["`+stop+`"]`))
	at := strings.Index(whole, stop)
	if c := a.Choices[0]; c.Message.Content != whole[:at] || c.Reason != "stop" || c.Stop == nil || *c.Stop != stop {
		t.Errorf("stopped: %+v, want %q", c, whole[:at])
	}
	if want := (at + len(stop) + 3) / 4; a.Usage.Completion != want {
		t.Errorf("%d tokens, want %d", a.Usage.Completion, want)
	}
	kept := ask(t, s, "/v1/chat/completions", chatBody(`,"max_tokens":20,"ignore_eos":true,"include_stop_str_in_output":true,"stop":"`+stop+`"`))
	if got := kept.Choices[0].Message.Content; got != whole[:at+len(stop)] {
		t.Errorf("kept: %q", got)
	}
}

func TestPromptForms(t *testing.T) {
	s := started(t, nil)
	for body, want := range map[string][2]int{ // prompt tokens, choices
		`"prompt":"abcdefgh"`:               {2, 1},
		`"prompt":["abcd","abcdefgh"]`:      {3, 2},
		`"prompt":[1,2,3]`:                  {3, 1},
		`"prompt":[[1,2,3],[4,5]]`:          {5, 2},
		`"prompt":"abcd","n":3`:             {1, 3},
		`"prompt":["abcd","abcde"],"n":2`:   {3, 4},
		`"prompt":"abcd","echo":true,"n":2`: {1, 2},
	} {
		a := ask(t, s, "/v1/completions", `{"model":"`+llama+`","max_tokens":2,"ignore_eos":true,`+body+`}`)
		if got := [2]int{a.Usage.Prompt, len(a.Choices)}; got != want || a.Usage.Completion != 2*want[1] {
			t.Errorf("%s: %v, %d tokens out", body, got, a.Usage.Completion)
		}
		if strings.Contains(body, "echo") && !strings.HasPrefix(a.Choices[1].Text, "abcd") {
			t.Errorf("echo: %q", a.Choices[1].Text)
		}
	}
}

func TestTokenizeAgreesWithUsage(t *testing.T) {
	bothProfiles(t, func(t *testing.T, _ Profile, change func(*Config)) {
		s := started(t, change)
		for path, body := range map[string]string{
			"/v1/completions":      `"prompt":"Räksmörgås and so on"`,
			"/v1/chat/completions": `"messages":[{"role":"system","content":"be brief"},{"role":"user","content":[{"type":"text","text":"one"},{"type":"text","text":"two"}]}]`,
		} {
			_, tok := post(t, s.URL()+"/tokenize", `{"model":"`+llama+`",`+body+`}`)
			var count struct {
				Count  int
				Tokens []uint32
			}
			if err := json.Unmarshal([]byte(tok), &count); err != nil {
				t.Fatal(err)
			}
			a := ask(t, s, path, `{"model":"`+llama+`","max_tokens":1,`+body+`}`)
			if count.Count != a.Usage.Prompt || len(count.Tokens) != count.Count {
				t.Errorf("%s: tokenize %d, %d ids, usage %d", path, count.Count, len(count.Tokens), a.Usage.Prompt)
			}
		}
	})
}

func TestSameSeedSameText(t *testing.T) {
	body := chatBody(`,"max_tokens":10`)
	a := ask(t, started(t, nil), "/v1/chat/completions", body)
	b := ask(t, started(t, nil), "/v1/chat/completions", body)
	c := ask(t, started(t, func(c *Config) { c.Seed = 8 }), "/v1/chat/completions", body)
	if a.Choices[0].Message.Content != b.Choices[0].Message.Content || a.Choices[0].Message.Content == c.Choices[0].Message.Content {
		t.Errorf("%q, %q with one seed, %q with another", a.Choices[0].Message.Content, b.Choices[0].Message.Content, c.Choices[0].Message.Content)
	}
}

func TestPromptTokensDetails(t *testing.T) {
	bothProfiles(t, func(t *testing.T, _ Profile, change func(*Config)) {
		s := started(t, func(c *Config) {
			change(c)
			on := true
			c.Engine.PrefixCaching, c.PromptTokensDetails = &on, true
		})
		body := `"prompt":"` + strings.Repeat("w w ", 64) + `","max_tokens":1`
		if _, got := post(t, s.URL()+"/v1/completions", `{"model":"`+llama+`",`+body+`}`); !strings.Contains(got, `"prompt_tokens_details":null`) {
			t.Errorf("nothing cached: %s", got)
		}
		const want = `"prompt_tokens_details":{"cached_tokens":48}`
		if _, got := post(t, s.URL()+"/v1/completions", `{"model":"`+llama+`",`+body+`}`); !strings.Contains(got, want) {
			t.Errorf("whole: %s", got)
		}
		if _, got := post(t, s.URL()+"/v1/completions", `{"model":"`+llama+`",`+body+`,"stream":true,"stream_options":{"include_usage":true}}`); !strings.Contains(got, `"choices":[],"usage":{"prompt_tokens":64,"total_tokens":65,"completion_tokens":1,`+want+`}}`) {
			t.Errorf("stream: %s", got)
		}
	})
}
