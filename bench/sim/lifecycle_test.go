package sim

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"lbd/internal/loopback"
)

const endless = `,"stream":true,"max_tokens":5000,"ignore_eos":true`

func TestKeepAlive(t *testing.T) {
	const ask = "GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
	var unused, used *raw
	for limit := 30 * time.Millisecond; ; limit *= 4 { // until this machine asks thrice in time
		s := started(t, func(c *Config) { c.KeepAlive = limit })
		unused, used = dial(t, s), dial(t, s)
		answers := 0
		for range 3 {
			io.WriteString(used.nc, ask) // fails when it came too late
			if line, _ := used.br.ReadString('\n'); strings.HasPrefix(line, "HTTP/1.1 200") {
				used.head() // what is left of it
				answers++
			}
		}
		if answers == 3 {
			break
		}
		if limit > patience {
			t.Fatalf("%d answers of 3 within %v", answers, limit)
		}
	}
	if _, err := used.rest(); err != nil {
		t.Errorf("idle connection ended with %v, want FIN", err)
	}
	// The idle one is gone by now; the one never used is not.
	unused.send(ask)
	if head := unused.head(); !strings.HasPrefix(head, "HTTP/1.1 200 OK") {
		t.Errorf("never-used connection: %s", head)
	}
}

func TestKeepAliveDoesNotCutAnswers(t *testing.T) {
	s := started(t, func(c *Config) { slow(c); c.KeepAlive = 10 * time.Millisecond })
	_, body, err := streamed(t, s)
	if err != nil || !strings.Contains(body, "[DONE]") {
		t.Errorf("%v\n%s", err, body)
	}
}

// TestClientLeaves: FIN, half-close and RST are the same to uvicorn.
func TestClientLeaves(t *testing.T) {
	ways := map[string]func(nc *net.TCPConn){
		"close":      func(nc *net.TCPConn) { nc.Close() },
		"half-close": func(nc *net.TCPConn) { nc.CloseWrite() },
		"reset":      func(nc *net.TCPConn) { nc.SetLinger(0); nc.Close() },
	}
	bodies := map[string]string{"stream": endless, "whole": `,"max_tokens":5000,"ignore_eos":true`}
	bothProfiles(t, func(t *testing.T, _ Profile, change func(*Config)) {
		for way, leave := range ways {
			for kind, body := range bodies {
				t.Run(way+" "+kind, func(t *testing.T) {
					s := started(t, func(c *Config) { change(c); slow(c) })
					r := dial(t, s)
					r.post("/v1/chat/completions", chatBody(body))
					eventually(t, "running", func() bool { return s.Stats().Engine.Running == 1 })
					leave(r.nc.(*net.TCPConn))
					eventually(t, "abort", func() bool {
						st := s.Stats()
						return st.Aborted == 1 && st.InFlight == 0 && st.Engine.Running == 0 && st.Engine.Aborted == 1
					})
					if way == "half-close" {
						if _, err := r.rest(); err != nil && !errors.Is(err, syscall.ECONNRESET) {
							t.Errorf("connection after a half-close: %v, want it closed", err)
						}
					}
				})
			}
		}
	})
}

// TestAbortIsPolledV0: the connection closes at once, the engine goes on until
// the next look.
func TestAbortIsPolledV0(t *testing.T) {
	s := started(t, func(c *Config) { old(c); slow(c); c.AbortPoll = time.Hour })
	r := dial(t, s)
	r.post("/v1/chat/completions", chatBody(endless))
	r.head()
	r.nc.(*net.TCPConn).CloseWrite()
	r.rest()
	was := s.Stats().Engine.GenerationTokens
	eventually(t, "engine still generating", func() bool { return s.Stats().Engine.GenerationTokens > was+3 })
	if got := s.Stats().Aborted; got != 0 {
		t.Errorf("aborted %d before the poll", got)
	}
}

func TestKill(t *testing.T) {
	s := started(t, slow)
	addr := s.Addr()
	r := dial(t, s)
	r.post("/v1/chat/completions", chatBody(endless))
	r.head()
	r.chunk()
	s.Kill()
	if _, err := r.rest(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("live stream ended with %v, want a reset", err)
	}
	if _, err := net.Dial("tcp", addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial after Kill: %v, want refused", err)
	}
	if got := s.Addr(); got != addr {
		t.Errorf("address %s after Kill, want %s", got, addr)
	}
	if err := s.Start(addr); err != nil {
		t.Fatal(err)
	}
	if code, _ := get(t, s.URL()+"/health"); code != 200 || s.Addr() != addr {
		t.Errorf("restarted at %s: %d", s.Addr(), code)
	}
	if st := s.Stats(); st.Started != 1 || st.Lost != 1 || st.Aborted != 0 || st.Engine.Steps != 0 {
		t.Errorf("stats %+v: want one request lost and the engine fresh", st)
	}
}

func TestStopTwiceAndKillStop(t *testing.T) {
	s := started(t, slow)
	r := dial(t, s)
	r.post("/v1/chat/completions", chatBody(endless))
	r.head()
	s.Stop()
	s.Stop()
	s.Kill()
	if err := s.Start(loopback.Address()); err != nil {
		t.Fatal(err)
	}
	if err := s.Start(loopback.Address()); err == nil {
		t.Error("second Start succeeded")
	}
	s.Kill()
	s.Stop()
}

func TestStartOnTakenPort(t *testing.T) {
	a := started(t, nil)
	b, err := New(Config{Model: llama})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(a.Addr()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("Start: %v, want EADDRINUSE", err)
		b.Stop()
	}
}

func TestSetModel(t *testing.T) {
	s := started(t, nil)
	addr := s.Addr()
	if err := s.SetModel("Qwen/Qwen2.5-7B-Instruct", "qwen"); err != nil {
		t.Fatal(err)
	}
	if s.Addr() != addr {
		t.Errorf("address %s, want %s", s.Addr(), addr)
	}
	if _, body := get(t, s.URL()+"/v1/models"); strings.Contains(body, llama) || !strings.Contains(body, `"id":"qwen"`) {
		t.Errorf("models %s", body)
	}
	if got := s.Config().Engine.Preset; got != "qwen2.5-7b" {
		t.Errorf("preset %q, want the new model's", got)
	}
	if code, _ := post(t, s.URL()+"/v1/chat/completions", chatBody(`,"max_tokens":1`)); code != 404 {
		t.Errorf("old model: %d, want 404", code)
	}
}

func TestLoadTimeRefuses(t *testing.T) {
	var s *Server
	for load := 200 * time.Millisecond; ; load *= 4 { // until this machine is there before it is over
		s = started(t, func(c *Config) { c.LoadTime = load })
		nc, err := net.Dial("tcp", s.Addr())
		if errors.Is(err, syscall.ECONNREFUSED) {
			break
		}
		if err != nil || load > 20*time.Second {
			t.Fatalf("dial while loading: %v, want refused", err)
		}
		nc.Close()
		s.Stop()
	}
	eventually(t, "loaded", func() bool {
		nc, err := net.Dial("tcp", s.Addr())
		if err == nil {
			nc.Close()
		}
		return err == nil
	})
}

// TestWire pins what uvicorn does with single requests; each was measured
// against uvicorn 0.54 with FastAPI 0.165.
func TestWire(t *testing.T) {
	const host = "host: x\r\n"
	cases := []struct{ name, send, status, has, hasNot string }{
		{"get", "GET /health HTTP/1.1\r\n" + host + "\r\n", "200 OK", "\r\nserver: uvicorn\r\ncontent-length: 0\r\n\r\n", "content-type"},
		{"http/1.0", "GET /health HTTP/1.0\r\n\r\n", "200 OK", "\r\nconnection: close\r\n", ""},
		{"close", "GET /health HTTP/1.1\r\n" + host + "connection: close\r\n\r\n", "200 OK", "\r\nconnection: close\r\n", ""},
		{"head", "HEAD /health HTTP/1.1\r\n" + host + "\r\n", "405 Method Not Allowed", "\r\nallow: GET\r\ncontent-length: 31\r\n", "detail"},
		{"slash", "GET /v1/models/ HTTP/1.1\r\n" + host + "\r\n", "307 Temporary Redirect", "\r\ncontent-length: 0\r\nlocation: http://x/v1/models\r\n", ""},
		{"garbage", "garbage\r\n\r\n", "400 Bad Request", "\r\nconnection: close\r\n\r\nInvalid HTTP request received.", ""},
		{"chunked body", "POST /tokenize HTTP/1.1\r\n" + host + "content-type: application/json\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n" +
			"f\r\n{\"prompt\":\"abcd\r\n2\r\n\"}\r\n0\r\n\r\n", "200 OK", `{"count":1,`, ""},
		{"expect", "POST /tokenize HTTP/1.1\r\n" + host + "content-type: application/json\r\nexpect: 100-continue\r\ncontent-length: 17\r\nconnection: close\r\n\r\n" +
			`{"prompt":"abcd"}`, "100 Continue", "\r\n\r\nHTTP/1.1 200 OK\r\n", ""},
		{"pipelined", "GET /health HTTP/1.1\r\n" + host + "\r\nGET /version HTTP/1.1\r\n" + host + "connection: close\r\n\r\n", "200 OK", `{"version":"0.19.0"}`, ""},
	}
	s := started(t, nil)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := dial(t, s)
			r.send(c.send)
			got := r.head()
			if !strings.Contains(strings.ToLower(c.send), "close") && !strings.Contains(c.send, "1.0") && c.name != "garbage" {
				r.nc.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) // for a body, which none of these has
			}
			rest, _ := r.rest()
			got += rest
			if !strings.HasPrefix(got, "HTTP/1.1 "+c.status+"\r\n") || !strings.Contains(got, c.has) || c.hasNot != "" && strings.Contains(got, c.hasNot) {
				t.Errorf("got %q\nwant %q with %q without %q", got, c.status, c.has, c.hasNot)
			}
		})
	}
}

// TestHeadBeforeFirstToken pins that the response head does not wait for the
// engine: StreamingResponse sends it before the generator runs.
func TestHeadBeforeFirstToken(t *testing.T) {
	s := started(t, func(c *Config) { c.Speed = 1e-6 }) // the first step takes hours
	r := dial(t, s)
	r.post("/v1/chat/completions", chatBody(endless))
	if head := r.head(); !strings.Contains(head, "text/event-stream") {
		t.Error(head)
	}
	r.nc.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
	if n, err := r.br.Read(make([]byte, 1)); n != 0 || !errors.Is(err, errTimeout(err)) {
		t.Errorf("read %d bytes, %v before the first token", n, err)
	}
}

func TestRequestsAreRecorded(t *testing.T) {
	s := started(t, func(c *Config) { c.RecordBodyBytes = 10 })
	body := chatBody(`,"max_tokens":1`)
	req, _ := http.NewRequest("POST", s.URL()+"/v1/chat/completions?a=b", strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Request-Id", "id-1")
	do(t, req)
	get(t, s.URL()+"/health")
	post(t, s.URL()+"/reset_prefix_cache", "")
	log := s.Requests()
	if len(log) != 2 {
		t.Fatalf("%d requests recorded, want 2: health is not", len(log))
	}
	got := log[0]
	if got.Path != "/v1/chat/completions?a=b" || got.RequestID != "id-1" || got.BodyBytes != len(body) || string(got.Body) != body[:10] || got.Header.Get("Content-Type") == "" {
		t.Errorf("recorded %+v", got)
	}
	st := s.Stats()
	if st.ByPath["/reset_prefix_cache"] != 1 || st.ByPath["/health"] != 1 || st.Received != 1 || st.Finished != 1 {
		t.Errorf("stats %+v", st)
	}
}

func TestRecordIsBounded(t *testing.T) {
	s := started(t, nil)
	r := dial(t, s)
	for i := range recorded + 5 {
		r.send(fmt.Sprintf("GET /p%d HTTP/1.1\r\nhost: x\r\n\r\n", i))
		r.head()
		io.CopyN(io.Discard, r.br, 22)
	}
	log, st := s.Requests(), s.Stats()
	if len(log) != recorded || log[0].Path != "/p5" || log[recorded-1].Path != fmt.Sprintf("/p%d", recorded+4) {
		t.Errorf("%d records from %s to %s", len(log), log[0].Path, log[len(log)-1].Path)
	}
	if len(st.ByPath) != maxPaths+1 || st.ByPath["other"] != recorded+5-maxPaths {
		t.Errorf("%d paths, %d others", len(st.ByPath), st.ByPath["other"])
	}
}

// TestManyAtOnce is for the race detector: streams, whole answers, aborts,
// scrapes and faults side by side, after which everything adds up.
func TestManyAtOnce(t *testing.T) {
	bothProfiles(t, func(t *testing.T, _ Profile, change func(*Config)) {
		// Whoever leaves does so in the middle, however late: what they ask for takes a minute.
		s := started(t, func(c *Config) { change(c); c.Unmerged, c.Engine.MaxModelLen = false, 400_000 })
		c := client(t)
		send := func(body string, read bool) {
			res, err := c.Post(s.URL()+"/v1/chat/completions", "application/json", strings.NewReader(chatBody(body)))
			if err != nil {
				t.Error(err)
				return
			}
			if read {
				b, _ := io.ReadAll(res.Body)
				if !strings.Contains(string(b), `"completion_tokens":20`) {
					t.Errorf("answer %s", b)
				}
			}
			res.Body.Close()
		}
		var wg sync.WaitGroup
		for i := range 48 {
			wg.Go(func() {
				switch i % 4 {
				case 0:
					send(`,"max_tokens":20,"ignore_eos":true`, true)
				case 1, 2:
					send(`,"max_tokens":20,"ignore_eos":true,"stream":true,"stream_options":{}`, true)
				default:
					send(`,"max_tokens":390000,"ignore_eos":true,"stream":true`, false)
				}
			})
		}
		wg.Go(func() {
			for range 20 {
				if res, err := c.Get(s.URL() + "/metrics"); err != nil {
					t.Error(err)
				} else {
					io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
				s.Stats()
				s.Requests()
				s.SetFaults(Faults{Slow: &Fault{Factor: 1.5, Seconds: .01}})
			}
		})
		wg.Wait()
		eventually(t, "all accounted for", func() bool {
			st := s.Stats()
			return st.Received == 48 && st.Started == 48 && st.Finished == 36 && st.Aborted == 12 && st.Engine.Running+st.Engine.Waiting == 0
		})
	})
}
