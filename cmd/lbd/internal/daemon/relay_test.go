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
			if got := p.metric(`lbd_completion_tokens_total{model="` + llama + `"}`); got != "5" {
				t.Errorf("lbd_completion_tokens_total is %q; want 5", got)
			}
			if got := p.metric(`lbd_requests_total{code="200",model="` + llama + `"}`); got != "1" {
				t.Errorf("lbd_requests_total is %q; want 1", got)
			}
		})
	}
}
