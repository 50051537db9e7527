package daemon_test

import (
	"strings"
	"testing"

	"lbd/bench/sim"
)

// A streamed answer reaches the client as the replica sent it.
func TestStream(t *testing.T) {
	for _, profile := range sim.Profiles() {
		t.Run(string(profile), func(t *testing.T) {
			r := replica(t, sim.Config{Profile: profile})
			p := lbd(t, []string{r.URL()})
			a := p.post("/v1/chat/completions", chat(llama, true, 5, `"stream_options":{"include_usage":true}`))
			if a.status != 200 || a.err != nil || !strings.HasSuffix(a.body, "data: [DONE]\n\n") {
				t.Fatalf("%d %v\n%s", a.status, a.err, a.body)
			}
			p.counted(`lbd_completion_tokens_total{model="`+llama+`"}`, "5")
			p.counted(`lbd_requests_total{code="200",model="`+llama+`"}`, "1")
		})
	}
}
