package daemon_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lbd/bench/sim"
)

// write puts the lines into a file.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// configured starts an lbd with a configuration file and waits for nothing. The
// path is that of the file, which may be written to for a reload.
func configured(t *testing.T, yaml string, settings ...string) (p *proxied, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "lbd.yml")
	write(t, path, yaml)
	return lbdLater(t, nil, append([]string{"config", path}, settings...)...), path
}

// endpoints is the key endpoints of a configuration file.
func endpoints(rs ...*sim.Server) string {
	return "endpoints: [" + strings.Join(urls(rs...), ", ") + "]\n"
}

func urls(rs ...*sim.Server) (u []string) {
	for _, r := range rs {
		u = append(u, r.URL())
	}
	return u
}

// available waits until exactly these replicas get requests for the model.
func (p *proxied) available(model string, rs ...*sim.Server) {
	p.t.Helper()
	p.until(fmt.Sprintf("%s served by %d replicas", model, len(rs)), func() bool {
		m := p.Snapshot().Model([]byte(model))
		if m == nil || len(m.Available) != len(rs) {
			return m == nil && len(rs) == 0
		}
		for i, r := range m.Available {
			if r.ID != rs[i].Addr() {
				return false
			}
		}
		return true
	})
}

// ask sends a short chat request and returns who answered it.
func (p *proxied) ask(model string) (replica string, a answer) {
	p.t.Helper()
	a = p.post("/v1/chat/completions", chat(model, false, 1))
	if a.err != nil {
		p.t.Fatalf("%s: %v", model, a.err)
	}
	return a.header.Get("X-Lbd-Replica"), a
}

// spread sends n requests one after the other and counts who answered; all must
// be 200.
func (p *proxied) spread(model string, n int) map[string]int {
	p.t.Helper()
	count := map[string]int{}
	for range n {
		r, a := p.ask(model)
		if a.status != 200 {
			p.t.Fatalf("%s: %d %s", model, a.status, a.body)
		}
		count[r]++
	}
	return count
}

// running is a streamed request under way.
type running struct {
	t       *testing.T
	resp    *http.Response
	body    *bufio.Reader
	replica string
	at      *sim.Server // the replica, where begin has begun it
	last    string      // event before the newest
	newest  string
}

// stream begins a streamed request and returns after its first event.
func (p *proxied) stream(model string, tokens int) *running {
	p.t.Helper()
	resp, err := p.http.Post(p.url+"/v1/chat/completions", "application/json", strings.NewReader(chat(model, true, tokens, `"stream_options":{"include_usage":true}`)))
	if err != nil {
		p.t.Fatal(err)
	}
	if resp.StatusCode != 200 {
		p.t.Fatalf("stream: status %d", resp.StatusCode)
	}
	s := &running{t: p.t, resp: resp, body: bufio.NewReader(resp.Body), replica: resp.Header.Get("X-Lbd-Replica")}
	p.t.Cleanup(func() { resp.Body.Close() })
	s.event()
	return s
}

// event reads one event and returns false after [DONE].
func (s *running) event() bool {
	s.t.Helper()
	for {
		line, err := s.body.ReadString('\n')
		if err != nil {
			s.t.Fatalf("stream of %s ended without [DONE]: %v", s.replica, err)
		}
		if strings.HasPrefix(line, "data: ") {
			s.last, s.newest = s.newest, line
			return line != "data: [DONE]\n"
		}
	}
}

// finish reads the stream to its end and returns the tokens that its last event
// says were generated. Events are fewer: a replica whose client is slower than its
// steps puts several tokens into one.
func (s *running) finish() (tokens int) {
	s.t.Helper()
	for s.event() {
	}
	if _, err := s.body.ReadString(0); err != io.EOF {
		s.t.Errorf("stream of %s: after [DONE]: %v; want EOF", s.replica, err)
	}
	s.resp.Body.Close()
	var usage struct {
		Usage struct {
			Tokens int `json:"completion_tokens"`
		}
	}
	if err := json.Unmarshal([]byte(strings.TrimPrefix(s.last, "data: ")), &usage); err != nil {
		s.t.Fatalf("last event %q: %v", s.last, err)
	}
	return usage.Usage.Tokens
}

// inFlight is own load of a replica of the fleet.
func (p *proxied) inFlight(s *sim.Server) int64 {
	p.t.Helper()
	return p.state(s).InFlight()
}

// logged returns the log lines with that message, decoded.
func (l *syncLog) logged(message string) (lines []map[string]any) {
	for line := range strings.Lines(l.String()) {
		var m map[string]any
		if json.Unmarshal([]byte(line), &m) == nil && m["message"] == message {
			lines = append(lines, m)
		}
	}
	return lines
}

// onAdmin sends a request to the admin listener.
func (p *proxied) onAdmin(method, path, body string) answer {
	p.t.Helper()
	q := *p
	q.url = "http://" + p.AdminAddr().String()
	return q.do(method, path, body)
}
