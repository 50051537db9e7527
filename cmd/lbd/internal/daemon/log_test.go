package daemon_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"lbd/balancer"
	"lbd/bench/sim"
)

// Secrets and prompts of a request; none may appear in the log.
const (
	secretKey    = "sk-marker-of-the-key"
	secretPrompt = "marker of the prompt"
	secretQuery  = "marker-of-the-query"
	secretReply  = "marker-of-the-replica-key"
)

// troubled sends requests that go well and wrong in many ways, each with markers
// in it.
func troubled(t *testing.T, p *proxied, r *sim.Server) {
	t.Helper()
	auth := []string{"Authorization", "Bearer " + secretKey, "X-Api-Key", secretKey, "Cookie", "session=" + secretKey}
	prompt := func(model string, stream bool) string {
		return fmt.Sprintf(`{"model":%q,"stream":%t,"max_tokens":8,"messages":[{"role":"user","content":%q}]}`, model, stream, secretPrompt)
	}
	for _, f := range []sim.Faults{
		{}, {Status: &sim.Fault{}}, {ResetBefore: &sim.Fault{Count: 1}}, {BadHead: &sim.Fault{Count: 1}},
		{TruncateStream: &sim.Fault{Count: 1, Events: 1}}, {BadChunks: &sim.Fault{Count: 1, Events: 1}}, {BadLength: &sim.Fault{Count: 1}},
	} {
		fault(t, r, f)
		for _, stream := range []bool{false, true} {
			p.post("/v1/chat/completions?key="+secretQuery, prompt(llama, stream), auth...)
		}
	}
	fault(t, r, sim.Faults{})
	p.post("/v1/chat/completions", prompt("unknown", false), auth...)
	p.post("/v1/chat/completions", secretPrompt, auth...)
	p.post("/v1/chat/completions", prompt(llama, false)[:60], auth...)
	p.post("/nowhere?key="+secretQuery, prompt(llama, false), auth...)
	p.post("/sleep", prompt(llama, false), auth...)
	p.do("DELETE", "/health?key="+secretQuery, secretPrompt, auth...)
	malformed(p, "GET /health HTTP/1.1\r\nAuthorization "+secretKey+"\r\n\r\n")
	malformed(p, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: "+secretKey+"\r\n\r\n")
	malformed(p, secretPrompt+"\r\n\r\n")
	p.onAdmin("POST", "/pick", prompt(llama, false))
	p.onAdmin("POST", "/pick", prompt("unknown", false))
	p.onAdmin("POST", "/fleet/reset_prefix_cache?key="+secretQuery, secretPrompt)
	p.onAdmin("GET", "/config", "")
}

// malformed sends bytes that are no request.
func malformed(p *proxied, bytes string) {
	p.t.Helper()
	c := dial(p)
	defer c.Close()
	if _, err := c.Write([]byte(bytes)); err != nil {
		p.t.Fatal(err)
	}
	c.Read(make([]byte, 1)) // it answers or closes
}

// No key and no prompt is ever logged, at any level, whatever goes wrong.
func TestLogHoldsNoSecret(t *testing.T) {
	for _, level := range []string{"trace", "debug", "info"} {
		t.Run(level, func(t *testing.T) {
			r := replica(t, sim.Config{})
			p := lbd(t, urls(r), "log-level", level, "access-log", "true", "replica-api-key", secretReply)
			troubled(t, p, r)
			if err := p.Reload(); err != nil {
				t.Fatal(err)
			}
			log := p.log.String()
			for _, secret := range []string{secretKey, secretPrompt, secretQuery, secretReply} {
				if i := strings.Index(log, secret); i >= 0 {
					t.Errorf("%q is in the log: ...%s", secret, log[max(0, i-300):i+len(secret)])
				}
			}
			if len(p.log.logged("request")) == 0 {
				t.Error("no request was logged: this proves nothing")
			}
		})
	}
}

// Requests are logged at debug, or when access_log asks for them.
func TestRequestsInLog(t *testing.T) {
	r := replica(t, sim.Config{})
	for _, c := range []struct {
		level, access, sample string
		want                  int
	}{
		{"info", "false", "1", 0}, {"debug", "false", "1", 10}, {"info", "true", "1", 10}, {"info", "true", "5", 2}, {"debug", "true", "5", 2},
	} {
		p := lbd(t, urls(r), "log-level", c.level, "access-log", c.access, "access-log-sample", c.sample)
		if err := p.Reload(); err != nil { // the level is the process's, set by whoever was configured last
			t.Fatal(err)
		}
		p.spread(llama, 10)
		lines := p.log.logged("request")
		if len(lines) != c.want {
			t.Errorf("%+v: %d lines", c, len(lines))
		}
		for _, line := range lines {
			for _, field := range []string{"level", "method", "path", "status", "duration_ms", "request_id", "model", "replica", "strategy"} {
				if line[field] == nil {
					t.Errorf("%+v: no %q in %v", c, field, line)
				}
			}
		}
	}
}

// The line of a request for a model that nobody knows says which, as far as a client's
// text may go, and stays one line.
func TestUnknownModelInLog(t *testing.T) {
	p := lbd(t, urls(replica(t, sim.Config{})), "access-log", "true")
	for asked, want := range map[string]string{
		"nobody": "nobody", "a\n{\"level\":\"error\"}\x1b[2J": "a\n{\"level\":\"error\"}\x1b[2J", strings.Repeat("n", 10_000): strings.Repeat("n", 128),
	} {
		before := len(p.log.logged("request"))
		body, err := json.Marshal(map[string]string{"model": asked})
		if err != nil {
			t.Fatal(err)
		}
		if a := p.post("/v1/completions", string(body)); a.status != 404 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		p.until("the line is written", func() bool { return len(p.log.logged("request")) == before+1 })
		line := p.log.logged("request")[before]
		if line["model_asked"] != want || line["model"] != nil || line["request_id"] == nil {
			t.Errorf("%v; want %q asked for", line, want)
		}
	}
	p.get("/nowhere")
	p.until("the line is written", func() bool {
		lines := p.log.logged("request")
		last := lines[len(lines)-1]
		return last["refused"] == "unknown_path" && last["request_id"] != ""
	})
}

// A failing replica is a line when it fails and one when it is back, however
// many probes and requests find it so.
func TestOneLinePerChange(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{})
	p := lbd(t, urls(a, b))
	before := messages(p)
	a.Kill()
	p.becomes(a, balancer.Ejected)
	p.spread(llama, 20)
	polls := func() string { return p.metric(`lbd_poll_failures_total{replica="` + a.Addr() + `"}`) }
	p.until("more failed polls", func() bool { return len(polls()) > 1 }) // 10 and more
	if err := a.Start(""); err != nil {
		t.Fatal(err)
	}
	p.available(llama, a, b)
	p.until("polled again", func() bool { return len(p.log.logged("poll recovered")) == 1 })
	told := map[string]int{}
	for _, line := range messages(p)[len(before):] {
		told[line]++
	}
	for _, message := range []string{"replica ejected", "replica readmitted", "poll failed", "poll recovered"} {
		if told[message] != 1 {
			t.Errorf("%q is told %d times", message, told[message])
		}
	}
	for message, n := range told {
		if n > 2 {
			t.Errorf("%q is told %d times", message, n)
		}
	}
}

// messages lists the messages of the log, but those of requests.
func messages(p *proxied) (all []string) {
	for line := range strings.Lines(p.log.String()) {
		if _, m, ok := strings.Cut(line, `"message":"`); ok && !strings.HasPrefix(m, `request"`) {
			m, _, _ = strings.Cut(m, `"`)
			all = append(all, m)
		}
	}
	return all
}

// Replicas with an API key and an lbd without: nothing is served, and the log says
// what is wanted even though the first reading comes before the first good probe.
func TestMissingKeyIsWarnedOf(t *testing.T) {
	r := replica(t, sim.Config{APIKey: "k"})
	p := lbdLater(t, urls(r))
	p.until("told that a key is wanted", func() bool { return len(p.log.logged("models failed")) == 1 })
	line := p.log.logged("models failed")[0]
	if reason, _ := line["reason"].(string); line["level"] != "warn" || !strings.Contains(reason, "replica_api_key") {
		t.Errorf("%v; want a warning that names replica_api_key", line)
	}
}
