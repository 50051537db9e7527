package sim

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	fullBody    = `{"error":{"message":"The engine is currently busy and cannot accept new requests. Please try again later or on a different instance.","type":"Service Unavailable","param":null,"code":503}}`
	backlogBody = `{"error":{"message":"The engine has reached its prefill token backlog limit. Please try again later or on a different instance.","type":"Service Unavailable","param":null,"code":503}}`
	// AnthropicErrorResponse: the router makes an error of its own of every exception.
	fullMessage = `{"type":"error","error":{"type":"internal_error","message":"The engine is currently busy and cannot accept new requests. Please try again later or on a different instance."}}`
)

// occupied holds one request of a replica with room for n: it has its first token and
// goes on until the connection is closed.
func occupied(t *testing.T, change func(*Config)) (*Server, *raw) {
	t.Helper()
	s := started(t, func(c *Config) { slow(c); change(c) })
	r := dial(t, s)
	r.post("/v1/completions", `{"model":"`+llama+`","prompt":"Hello there","max_tokens":8000,"ignore_eos":true,"stream":true}`)
	r.head()
	r.chunk()
	return s, r
}

func TestQueueFull(t *testing.T) {
	s, r := occupied(t, func(c *Config) { c.MaxNumQueuedReqs = 1 })
	for _, c := range []struct {
		path, body string
		status     int
		want       string
	}{
		{"/v1/chat/completions", `{"model":%q,"messages":[{"role":"user","content":"Hi"}]}`, 503, fullBody},
		{"/v1/chat/completions", `{"model":%q,"messages":[{"role":"user","content":"Hi"}],"stream":true}`, 503, fullBody},
		{"/v1/completions", `{"model":%q,"prompt":"Hi","stream":true}`, 503, fullBody},
		{"/v1/responses", `{"model":%q,"input":"Hi"}`, 503, fullBody},
		{"/v1/embeddings", `{"model":%q,"input":"Hi"}`, 503, fullBody},
		{"/v1/messages", `{"model":%q,"max_tokens":4,"messages":[{"role":"user","content":"Hi"}]}`, 500, fullMessage},
		{"/v1/messages", `{"model":%q,"max_tokens":4,"messages":[{"role":"user","content":"Hi"}],"stream":true}`, 500, fullMessage},
		{"/v1/messages/count_tokens", `{"model":%q,"messages":[{"role":"user","content":"Hi"}]}`, 500, fullMessage},
	} {
		status, body := post(t, s.URL()+c.path, fmt.Sprintf(c.body, llama))
		if status != c.status || body != c.want {
			t.Errorf("%s: %d %s; want %d %s", c.path, status, body, c.status, c.want)
		}
	}
	for i, q := range s.Requests() {
		if q.Refused != (i > 0) {
			t.Errorf("request %d: refused %t", i, q.Refused)
		}
	}
	if st := s.Stats(); st.Refused != 8 || st.Started != 1 || st.Rejected != 0 {
		t.Errorf("%+v; want 8 refused and 1 started", st)
	}
	if status, _ := post(t, s.URL()+"/tokenize", `{"model":"`+llama+`","prompt":"Hi"}`); status != http.StatusOK {
		t.Errorf("/tokenize: %d; it takes no place", status)
	}
	r.nc.Close()
	eventually(t, "the place of a client that has left is free", func() bool {
		status, _ := post(t, s.URL()+"/v1/completions", `{"model":"`+llama+`","prompt":"Hi","max_tokens":1}`)
		return status == http.StatusOK
	})
}

// Every choice takes a place, and gives it back.
func TestQueueFullByChoices(t *testing.T) {
	s := started(t, func(c *Config) { c.MaxNumQueuedReqs = 3 })
	for range 3 {
		for n, want := range map[int]int{3: http.StatusOK, 4: http.StatusServiceUnavailable} {
			status, body := post(t, s.URL()+"/v1/completions", fmt.Sprintf(`{"model":%q,"prompt":"Hi","max_tokens":2,"n":%d}`, llama, n))
			if status != want {
				t.Errorf("n = %d: %d %s; want %d", n, status, body, want)
			}
		}
	}
}

// The second look comes when a stream has begun. What was taken of a request by then is
// given back.
func TestQueueFullLate(t *testing.T) {
	s := started(t, func(c *Config) { c.MaxNumQueuedReqs = 1 })
	const body = `{"model":"` + llama + `","prompt":["Hello","Hello again"],"max_tokens":2,"stream":%t}`
	spaced := strings.NewReplacer(`":`, `": `, `,"`, `, "`).Replace(fullBody)
	for range 3 {
		status, got := post(t, s.URL()+"/v1/completions", fmt.Sprintf(body, true))
		if d := cmp.Diff("data: "+spaced+"\n\ndata: [DONE]\n\n", got); status != http.StatusOK || d != "" {
			t.Errorf("stream: %d (-want +got):\n%s", status, d)
		}
		if status, got := post(t, s.URL()+"/v1/completions", fmt.Sprintf(body, false)); status != 503 || got != fullBody {
			t.Errorf("%d %s; want 503 %s", status, got, fullBody)
		}
		if status, got := post(t, s.URL()+"/v1/completions", `{"model":"`+llama+`","prompt":"Hi","max_tokens":1}`); status != http.StatusOK {
			t.Errorf("%d %s; want the place that was given back", status, got)
		}
	}
	if st := s.Stats(); st.Refused != 6 || st.Started != 3 || st.InFlight != 0 {
		t.Errorf("%+v; want 6 refused, 3 started and none in flight", st)
	}
}

// Prompt tokens count until the first token is there; the limit is what may be waiting
// already, not what it may become.
func TestBacklog(t *testing.T) {
	a := newAdmission(Config{MaxNumQueuedTokens: 10})
	of := func(id uint64, tokens int) []*choice {
		return []*choice{{id: id, prompt: &prompt{data: make([]byte, tokens*tokenBytes), text: tokens * tokenBytes}}}
	}
	for _, step := range []struct {
		what string
		do   func() *apiError
		want *apiError
	}{
		{"beyond the limit when nothing waits", func() *apiError { return a.take(of(1, 30)) }, nil},
		{"behind it", func() *apiError { return a.take(of(2, 1)) }, errBacklog},
		{"when that has its first token", func() *apiError { a.computed(1); return a.take(of(2, 9)) }, nil},
		{"one below the limit", func() *apiError { return a.take(of(3, 1)) }, nil},
		{"at the limit", func() *apiError { return a.check(1) }, errBacklog},
		{"when one has left", func() *apiError { a.ended(2); a.ended(2); return a.check(1) }, nil},
	} {
		if got := step.do(); got != step.want {
			t.Errorf("%s: %v; want %v", step.what, got, step.want)
		}
	}
	a.maxReqs = 1
	a.take(of(4, 20))
	if e := a.check(1); e != errQueueFull {
		t.Errorf("%v; the limit of requests comes first", e)
	}
}

// What generates is no backlog; what waits behind it is.
func TestBacklogFull(t *testing.T) {
	s, _ := occupied(t, func(c *Config) { c.MaxNumQueuedTokens = 1; c.Engine.MaxNumSeqs = 1 })
	waits := dial(t, s)
	waits.post("/v1/completions", `{"model":"`+llama+`","prompt":"Hi"}`)
	eventually(t, "a request waits", func() bool { return s.Stats().Engine.Waiting == 1 })
	status, body := post(t, s.URL()+"/v1/completions", `{"model":"`+llama+`","prompt":"Hi"}`)
	if status != http.StatusServiceUnavailable || body != backlogBody {
		t.Errorf("%d %s; want 503 %s", status, body, backlogBody)
	}
}

func TestQueueLimitsOfProfiles(t *testing.T) {
	for _, c := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.MaxNumQueuedReqs = 1; c.Profile = ProfileV064 }, `sim: profile "v0.6.4" takes all requests; want "v0.19" for a limit of those queued`},
		{func(c *Config) { c.MaxNumQueuedTokens = -1 }, "sim: limits of 0 queued requests and -1 queued tokens: want 0 (none) or more"},
	} {
		cfg := Config{Model: llama}
		c.change(&cfg)
		if _, err := New(cfg); err == nil || err.Error() != c.want {
			t.Errorf("%v; want %s", err, c.want)
		}
	}
}
