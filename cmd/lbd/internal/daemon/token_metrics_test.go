package daemon_test

import (
	"strings"
	"testing"

	"lbd/bench/sim"
)

// tokenSeries are what lbd reads from answers, as they are called on its page.
var tokenSeries = []string{
	`lbd_time_to_first_token_seconds_count{model="` + llama + `"}`,
	`lbd_inter_token_latency_seconds_count{model="` + llama + `"}`,
	`lbd_prompt_tokens_total{model="` + llama + `"}`,
	`lbd_completion_tokens_total{model="` + llama + `"}`,
}

// tokenMetrics are the values of tokenSeries; a series that is not there is 0.
func (p *proxied) tokenMetrics() (values []string) {
	for _, s := range tokenSeries {
		v := p.metric(s)
		if v == "" {
			v = "0"
		}
		values = append(values, v)
	}
	return values
}

// token_metrics false leaves answers unread and as they are; a reload switches it.
func TestTokenMetricsSwitch(t *testing.T) {
	r := replica(t, sim.Config{})
	p, file := configured(t, "token_metrics: false\n"+endpoints(r))
	p.available(llama, r)
	ask := func() {
		t.Helper()
		// Events that come in one read have no gaps: so many do not, however busy the machine is.
		a := p.post("/v1/chat/completions", chat(llama, true, 60, `"stream_options":{"include_usage":true}`))
		if a.status != 200 || a.err != nil || !strings.HasSuffix(a.body, "data: [DONE]\n\n") || !strings.Contains(a.body, `"completion_tokens":60`) {
			t.Fatalf("%d %v\n%s", a.status, a.err, a.body)
		}
		if a := p.post("/v1/chat/completions", chat(llama, false, 3)); a.status != 200 || !strings.Contains(a.body, `"completion_tokens":3`) {
			t.Fatalf("%d %v\n%s", a.status, a.err, a.body)
		}
	}
	ask()
	if got := strings.Join(p.tokenMetrics(), " "); got != "0 0 0 0" {
		t.Errorf("TTFTs, gaps, prompt and completion tokens are %s; want none", got)
	}
	p.counted(`lbd_requests_total{code="200",model="`+llama+`"}`, "2")
	write(t, file, "token_metrics: true\n"+endpoints(r))
	if err := p.Reload(); err != nil {
		t.Fatal(err)
	}
	ask()
	p.counted(tokenSeries[3], "63") // of both requests
	got := p.tokenMetrics()
	if got[0] != "1" || got[1] == "0" || got[2] == "0" || got[3] != "63" {
		t.Errorf("after a reload: TTFTs, gaps, prompt and completion tokens are %s; want 1, some, some and 63", got)
	}
}

// On the Messages API they are read as elsewhere, and so is own load.
func TestTokenMetricsOfMessages(t *testing.T) {
	r := replica(t, sim.Config{})
	p := lbd(t, urls(r))
	ask := func(stream string) {
		t.Helper()
		a := p.post("/v1/messages", `{"model":"`+llama+`","max_tokens":30,"messages":[{"role":"user","content":"Hello"}],"stream":`+stream+`}`)
		if a.status != 200 || a.err != nil || !strings.Contains(a.body, `"output_tokens":30`) {
			t.Fatalf("%d %v\n%s", a.status, a.err, a.body)
		}
	}
	ask("true")
	ask("false")
	p.counted(tokenSeries[3], "60")
	if got := p.tokenMetrics(); got[0] != "1" || got[1] == "0" || got[2] == "0" {
		t.Errorf("TTFTs, gaps and prompt tokens are %s; want 1, some and some", got[:3])
	}
	if a := p.post("/v1/messages/count_tokens", `{"model":"`+llama+`","messages":[{"role":"user","content":"Hello"}]}`); a.status != 200 {
		t.Errorf("count_tokens: %d %s", a.status, a.body)
	}
	p.counted(tokenSeries[3], "60")
	p.counted(`lbd_inflight_requests{model="`+llama+`",replica="`+r.Addr()+`"}`, "0")
}

// The account of an API key stays exact.
func TestTokenMetricsOffKeepsAccounts(t *testing.T) {
	r := replica(t, sim.Config{})
	p := lbd(t, urls(r), "token-metrics", "false", "api-keys-file", keyFile(t, [3]string{"alice", aliceKey, ""}))
	a := p.post("/v1/chat/completions", chat(llama, false, 100), bearer(aliceKey)...)
	if a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	p.until("100 tokens of alice and more", func() bool { return len(p.metric(`lbd_key_tokens_total{key="alice"}`)) >= 3 })
}
