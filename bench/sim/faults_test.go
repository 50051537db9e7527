package sim

import (
	"errors"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const streaming = `,"stream":true,"max_tokens":8,"ignore_eos":true`

// suffer sets one fault over HTTP.
func suffer(t *testing.T, s *Server, faults string) {
	t.Helper()
	if code, body := post(t, s.URL()+"/sim/faults", faults); code != 200 {
		t.Fatalf("faults %s: %d %s", faults, code, body)
	}
}

// streamed sends a streaming chat and returns what came of it.
func streamed(t *testing.T, s *Server) (head, body string, err error) {
	t.Helper()
	r := dial(t, s)
	r.post("/v1/chat/completions", chatBody(streaming), "connection: close")
	for {
		line, e := r.br.ReadString('\n')
		head += line
		if e != nil {
			return head, "", e
		}
		if line == "\r\n" {
			break
		}
	}
	body, err = r.rest()
	return head, body, err
}

func events(body string) int { return strings.Count(body, "data: ") }

func TestStreamFaults(t *testing.T) {
	const whole = 1 + 8 + 1 // role, tokens, [DONE]
	cases := []struct {
		name, faults string
		events       int  // at least and at most
		reset        bool // ends with RST
		done, last   bool // [DONE], terminating chunk
	}{
		{"healthy", `{}`, whole, false, true, true},
		{"reset_stream", `{"reset_stream":{"events":3,"count":1}}`, 3, true, false, false},
		{"truncate_stream", `{"truncate_stream":{"events":3,"count":1}}`, 3, false, false, false},
		{"truncate at once", `{"truncate_stream":{"count":1}}`, 0, false, false, false},
		{"lost_done", `{"lost_done":{"count":1}}`, whole - 1, false, false, true},
		{"stream_error", `{"stream_error":{"events":3,"count":1}}`, 5, false, true, true},
		{"bad_chunks", `{"bad_chunks":{"events":2,"count":1}}`, 2, false, false, false},
	}
	bothProfiles(t, func(t *testing.T, _ Profile, change func(*Config)) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				// In real time a token is a chunk of its own, so events are countable.
				s := started(t, func(cfg *Config) { change(cfg); slow(cfg) })
				suffer(t, s, c.faults)
				_, body, err := streamed(t, s)
				if got := errors.Is(err, syscall.ECONNRESET); got != c.reset {
					t.Errorf("ended with %v, want reset: %t", err, c.reset)
				}
				if got := events(body); !c.reset && got != c.events {
					t.Errorf("%d events, want %d:\n%s", got, c.events, body)
				}
				if got := strings.Contains(body, "[DONE]"); got != c.done {
					t.Errorf("[DONE]: %t, want %t", got, c.done)
				}
				if got := strings.HasSuffix(body, "\r\n0\r\n\r\n"); got != c.last {
					t.Errorf("last chunk: %t, want %t", got, c.last)
				}
				if c.name == "bad_chunks" != strings.Contains(body, "zz\r\n") {
					t.Errorf("chunk framing:\n%s", body)
				}
				if _, body, err := streamed(t, s); err != nil || !strings.Contains(body, "[DONE]") {
					t.Errorf("the request after it: %v\n%s", err, body)
				}
				eventually(t, "nothing left in the engine", func() bool {
					st := s.Stats()
					return st.InFlight == 0 && st.Aborted == 0 && st.Engine.Running == 0
				})
			})
		}
	})
}

func TestAnswerFaults(t *testing.T) {
	s := started(t, nil)
	try := func(faults string) (int, string, error) {
		suffer(t, s, faults)
		res, err := client(t).Post(s.URL()+"/v1/chat/completions", "application/json", strings.NewReader(chatBody(`,"max_tokens":2`)))
		if err != nil {
			return 0, "", err
		}
		defer res.Body.Close()
		var b strings.Builder
		_, err = copyAll(&b, res)
		return res.StatusCode, b.String(), err
	}
	if _, _, err := try(`{"reset_before":{"count":1}}`); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("reset_before: %v, want a reset", err)
	}
	if _, _, err := try(`{"bad_head":{"count":1}}`); err == nil || !strings.Contains(err.Error(), "malformed HTTP") {
		t.Errorf("bad_head: %v, want a malformed answer", err)
	}
	if code, body, err := try(`{"bad_length":{"count":1}}`); code != 200 || err == nil || !strings.Contains(body, "choices") {
		t.Errorf("bad_length: %d %v, want a body that ends early", code, err)
	}
	if code, body, _ := try(`{"status":{"code":503,"count":1}}`); code != 503 || !strings.HasPrefix(body, `{"error":{`) {
		t.Errorf("status: %d %s", code, body)
	}
	if code, _, err := try(`{}`); code != 200 || err != nil {
		t.Errorf("cleared: %d %v", code, err)
	}
	if got := s.Stats().Faulted; got != 4 {
		t.Errorf("faulted %d, want 4", got)
	}
}

func copyAll(b *strings.Builder, res *http.Response) (int64, error) {
	buf, total := make([]byte, 4096), int64(0)
	for {
		n, err := res.Body.Read(buf)
		b.Write(buf[:n])
		total += int64(n)
		if err != nil {
			if err.Error() == "EOF" {
				err = nil
			}
			return total, err
		}
	}
}

func TestStatusRateIsSeeded(t *testing.T) {
	codes := func() (codes []int) {
		s := started(t, nil)
		suffer(t, s, `{"status":{"rate":0.5}}`)
		for range 40 {
			code, _ := post(t, s.URL()+"/v1/completions", `{"model":"`+llama+`","prompt":"a","max_tokens":1}`)
			codes = append(codes, code)
		}
		return codes
	}
	first := codes()
	if d := cmp.Diff(first, codes()); d != "" {
		t.Errorf("two runs of one seed differ:\n%s", d)
	}
	hit := 0
	for _, c := range first {
		if c == 500 {
			hit++
		}
	}
	if hit < 8 || hit > 32 {
		t.Errorf("%d of 40 struck at rate 0.5", hit)
	}
}

func TestHang(t *testing.T) {
	s := started(t, nil)
	suffer(t, s, `{"hang":{"count":2}}`)
	a, b := dial(t, s), dial(t, s)
	a.send("GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
	b.send("GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
	eventually(t, "both hang", func() bool { return s.Stats().Faulted == 2 })
	if code, _ := get(t, s.URL()+"/health"); code != 200 {
		t.Errorf("third request: %d, want 200", code)
	}
	a.nc.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := a.br.Read(make([]byte, 1)); n != 0 || !errors.Is(err, errTimeout(err)) {
		t.Errorf("read %d bytes, %v from a hung request, want nothing", n, err)
	}
}

// errTimeout is err if it is a timeout.
func errTimeout(err error) error {
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return err
	}
	return errors.New("no timeout")
}

func TestHangStream(t *testing.T) {
	s := started(t, slow)
	suffer(t, s, `{"hang_stream":{"events":2,"count":1}}`)
	r := dial(t, s)
	r.post("/v1/chat/completions", chatBody(streaming))
	r.head()
	r.chunk()
	r.chunk()
	eventually(t, "engine done", func() bool { return s.Stats().Engine.Finished == 1 })
	if st := s.Stats(); st.Finished != 0 || st.InFlight != 1 {
		t.Errorf("finished %d in flight %d, want the stream open", st.Finished, st.InFlight)
	}
	r.nc.Close()
	eventually(t, "client gone noticed", func() bool { return s.Stats().Aborted == 1 })
}

func TestLoadingAndMetricsFaults(t *testing.T) {
	s := started(t, nil)
	suffer(t, s, `{"loading":{}}`)
	for path, want := range map[string]int{"/health": 503, "/v1/models": 503, "/version": 200} {
		if code, _ := get(t, s.URL()+path); code != want {
			t.Errorf("loading: %s %d, want %d", path, code, want)
		}
	}
	suffer(t, s, `{"no_metrics":{}}`)
	if code, _ := get(t, s.URL()+"/metrics"); code != 404 {
		t.Errorf("no_metrics: %d", code)
	}
	suffer(t, s, `{"broken_metrics":{"count":1}}`)
	if code, body := get(t, s.URL()+"/metrics"); code != 200 || strings.Contains(body, "# TYPE") {
		t.Errorf("broken_metrics: %d %s", code, body)
	}
	suffer(t, s, `{"disable_log_stats":{}}`)
	if code, body := get(t, s.URL()+"/metrics"); code != 200 || strings.Contains(body, "vllm:") || !strings.Contains(body, "process_") {
		t.Errorf("disable_log_stats: %d %s", code, body)
	}
	old := started(t, old)
	suffer(t, old, `{"disable_log_stats":{}}`)
	if code, body := get(t, old.URL()+"/metrics"); code != 200 || body != "" {
		t.Errorf("disable_log_stats v0.6.4: %d %q, want an empty page", code, body)
	}
}

func TestUnhealthy(t *testing.T) {
	for p, want := range map[Profile]int{ProfileV064: 500, ProfileV019: 503} {
		s := started(t, func(c *Config) { c.Profile = p })
		suffer(t, s, `{"unhealthy":{}}`)
		if code, body := get(t, s.URL()+"/health"); code != want || body != "" {
			t.Errorf("%s: %d %q, want %d and nothing", p, code, body, want)
		}
		if code, _ := post(t, s.URL()+"/v1/chat/completions", chatBody(`,"max_tokens":1`)); code != 200 {
			t.Errorf("%s: chat %d", p, code)
		}
	}
}

func TestStuckGauges(t *testing.T) {
	s := started(t, slow)
	r := dial(t, s)
	r.post("/v1/chat/completions", chatBody(`,"stream":true,"max_tokens":5000,"ignore_eos":true`))
	r.head()
	r.chunk()
	eventually(t, "running", func() bool { return gauge(scrape(t, s.URL()+"/metrics"), "vllm:num_requests_running") == 1 })
	suffer(t, s, `{"stuck_gauges":{}}`)
	r.nc.Close()
	eventually(t, "engine empty", func() bool { return s.Stats().Engine.Running == 0 })
	if got := gauge(scrape(t, s.URL()+"/metrics"), "vllm:num_requests_running"); got != 1 {
		t.Errorf("running %v, want stuck at 1", got)
	}
}

func TestRefuse(t *testing.T) {
	s := started(t, nil)
	live := dial(t, s)
	live.send("GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
	live.head()
	if err := s.SetFaults(Faults{Refuse: &Fault{}}); err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("tcp", s.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial: %v, want refused", err)
	}
	live.send("DELETE /sim/faults HTTP/1.1\r\nhost: x\r\n\r\n") // the live connection still works
	if head := live.head(); !strings.HasPrefix(head, "HTTP/1.1 200") {
		t.Errorf("live connection: %s", head)
	}
	eventually(t, "accepting again", func() bool {
		nc, err := net.Dial("tcp", s.Addr())
		if err == nil {
			nc.Close()
		}
		return err == nil
	})
}

func TestRefuseEndsByItself(t *testing.T) {
	s := started(t, nil)
	suffer(t, s, `{"refuse":{"seconds":0.05}}`)
	eventually(t, "accepting again", func() bool {
		nc, err := net.Dial("tcp", s.Addr())
		if err == nil {
			nc.Close()
		}
		return err == nil && s.Faults().Refuse == nil
	})
}

func TestSlowStretchesSteps(t *testing.T) {
	f := newFaultSet(1)
	if got := f.slowdown(); got != 1 {
		t.Errorf("slowdown %v without a fault", got)
	}
	f.set(Faults{Slow: &Fault{Factor: 3}})
	if got := f.slowdown(); got != 3 {
		t.Errorf("slowdown %v, want 3", got)
	}
}

func TestCloseIdleNow(t *testing.T) {
	s := started(t, nil)
	r := dial(t, s)
	r.send("GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
	r.head()
	eventually(t, "idle connection closed", func() bool {
		suffer(t, s, `{"close_idle_now":{}}`)
		r.nc.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, err := r.br.ReadByte()
		return err != nil && !errors.Is(err, errTimeout(err))
	})
}

func TestParseFaultsNamesTheField(t *testing.T) {
	for in, want := range map[string]string{
		`{"hangs":{}}`:                  `"hangs"`,
		`{"status":{"code":200}}`:       "status.code: 200, want 500 to 599",
		`{"status":{"rate":2}}`:         "status.rate: 2",
		`{"hang":{"events":1}}`:         "hang.events: not a field",
		`{"slow":{"factor":-1}}`:        "slow.factor: -1",
		`{"hang":{"count":-1}}`:         "hang.count: -1",
		`{"refuse":{"path":"/x"}}`:      "refuse.path: not a field",
		`{"hang":{"seconds":-1}}`:       "hang.seconds: -1",
		`{"hang":{}} x`:                 "one JSON object",
		`[]`:                            "cannot unmarshal",
		`{"reset_stream":{"factor":2}}`: "reset_stream.factor: not a field",
	} {
		if _, err := ParseFaults([]byte(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", in, err, want)
		}
	}
	s := started(t, nil)
	if code, body := post(t, s.URL()+"/sim/faults", `{"status":{"code":200}}`); code != 400 || !strings.Contains(body, "status.code") {
		t.Errorf("%d %s", code, body)
	}
}

func TestFaultPath(t *testing.T) {
	s := started(t, nil)
	suffer(t, s, `{"status":{"count":1,"path":"/v1/completions"}}`)
	if code, _ := post(t, s.URL()+"/v1/chat/completions", chatBody(`,"max_tokens":1`)); code != 200 {
		t.Errorf("other path: %d", code)
	}
	if code, _ := post(t, s.URL()+"/v1/completions", `{"prompt":"a","max_tokens":1}`); code != 500 {
		t.Errorf("path: %d, want 500", code)
	}
}

func TestFaultCountsDown(t *testing.T) {
	f := newFaultSet(1)
	f.set(Faults{Hang: &Fault{Count: 2}})
	pick := func(f *Faults) **Fault { return &f.Hang }
	for i, want := range []bool{true, true, false} {
		if got := f.strike("/", pick) != nil; got != want {
			t.Errorf("strike %d: %t, want %t", i, got, want)
		}
	}
	if f.get().Hang != nil {
		t.Error("spent fault still in force")
	}
}

func FuzzParseFaults(f *testing.F) {
	f.Add(`{"hang":{"count":1}}`)
	f.Add(`{"status":{"code":503,"rate":0.1},"slow":{"factor":2}}`)
	f.Add(`{"hang":null}`)
	f.Fuzz(func(t *testing.T, in string) {
		faults, err := ParseFaults([]byte(in))
		if err == nil && faults.validate() != nil {
			t.Errorf("%q: accepted and invalid", in)
		}
	})
}
