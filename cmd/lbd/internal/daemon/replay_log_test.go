package daemon_test

import (
	"fmt"
	"strings"
	"testing"

	"lbd/bench/sim"
	"lbd/bench/trace"
)

// The access log can be replayed: it has the lengths and, as hashes, which prompts
// began alike, and nothing that was said.
func TestAccessLogIsATrace(t *testing.T) {
	r := replica(t, sim.Config{})
	p := lbd(t, []string{r.URL()}, "access-log", "true", "access-log-prefixes", "true")
	shared := strings.Repeat("what all of them begin with. ", 400)
	for i := range 4 {
		start := shared
		if i == 3 {
			start = strings.Repeat("the last one does not. ", 500)
		}
		body := fmt.Sprintf(`{"model":%q,"stream":true,"stream_options":{"include_usage":true},"max_tokens":5,"ignore_eos":true,"messages":[{"role":"user","content":%q}]}`,
			llama, start+fmt.Sprint("question ", i))
		w := p.dial()
		w.sendPost("/v1/chat/completions", body)
		if a := w.answer("POST"); a.StatusCode != 200 || a.err != nil {
			t.Fatalf("%s %v", a.Status, a.err)
		}
	}
	p.until("four lines", func() bool { return strings.Count(p.log.String(), `"prefix":[`) == 4 })
	if strings.Contains(p.log.String(), "begin with") {
		t.Error("the log holds text of a prompt")
	}
	var blocks [][]uint64
	for a, err := range trace.AccessLog(strings.NewReader(p.log.String())).Arrivals {
		if err != nil {
			t.Fatal(err)
		}
		if a.Model != llama || a.PromptTokens < 2000 || a.OutputTokens != 5 {
			t.Errorf("%+v; want five tokens for a prompt of over 2,000", a)
		}
		blocks = append(blocks, a.Blocks)
	}
	if len(blocks) != 4 {
		t.Fatalf("%d arrivals; want 4", len(blocks))
	}
	alike := func(a, b []uint64) (n int) {
		for n < len(a) && n < len(b) && a[n] == b[n] {
			n++
		}
		return n
	}
	pairs := map[bool]int{}
	for i := range blocks {
		for j := range i {
			n := alike(blocks[i], blocks[j])
			if n > 0 && n < 100 {
				t.Errorf("two prompts share %d blocks; want none or over 100", n)
			}
			pairs[n > 0]++
		}
	}
	if pairs[true] != 3 { // of six: three prompts begin alike, the fourth does not
		t.Errorf("%d pairs of prompts begin alike; want 3", pairs[true])
	}
}
