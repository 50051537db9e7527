package daemon_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/pflag"
	"go.uber.org/goleak"

	"lbd/balancer"
	"lbd/balancer/strategy"
	"lbd/bench/sim"
	"lbd/cmd/lbd/internal/config"
	"lbd/cmd/lbd/internal/daemon"
	"lbd/cmd/lbd/internal/lines"
)

// scratch is a directory for what all tests use.
var scratch string

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "daemon"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m,
		goleak.Cleanup(func(code int) {
			os.RemoveAll(scratch)
			os.Exit(code)
		}),
		// fasthttp keeps one goroutine per process for the Date header, and one per
		// stopped server that sleeps out its MaxIdleWorkerDuration.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"))
}

const (
	llama = "meta-llama/Llama-3.1-8B-Instruct"
	qwen  = "Qwen/Qwen2.5-7B-Instruct"
)

// testSpeed is how much faster than real time the simulated replicas run.
const testSpeed = 20

// replica starts a simulated replica, with defaults fit for a test.
func replica(t *testing.T, c sim.Config) *sim.Server {
	t.Helper()
	if c.Model == "" {
		c.Model = llama
	}
	if c.Speed == 0 {
		c.Speed = testSpeed
	}
	if c.APITime == 0 {
		c.APITime = -1
	}
	s, err := sim.New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Kill()
		s.Stop() // gives up the address, and its descriptor, that Kill keeps
	})
	return s
}

// proxied is an lbd under test.
type proxied struct {
	*daemon.Daemon
	t    *testing.T
	url  string
	log  *syncLog
	http *http.Client
}

// lbd starts an lbd in front of the endpoints and waits until it serves all of
// them. Settings are flags and their values; quick polling and probing are set
// unless they say otherwise. When the test ends, own load must be zero.
func lbd(t *testing.T, endpoints []string, settings ...string) *proxied {
	t.Helper()
	p := lbdLater(t, endpoints, settings...)
	p.until("every replica in service", func() bool {
		for _, r := range p.Snapshot().Replicas {
			if !r.Available() {
				return false
			}
		}
		return true
	})
	return p
}

// lbdLater is lbd without the wait.
func lbdLater(t *testing.T, endpoints []string, settings ...string) *proxied {
	t.Helper()
	return lbdFrom(t, func() (*config.Config, error) { return tryLoad(endpoints, settings...) })
}

// lbdFrom starts an lbd with a configuration that load returns, now and at each
// reload.
func lbdFrom(t *testing.T, load func() (*config.Config, error)) *proxied {
	t.Helper()
	return lbdAsking(t, nil, load)
}

// lbdAsking is lbdFrom with a resolver of its own.
func lbdAsking(t *testing.T, r *net.Resolver, load func() (*config.Config, error)) *proxied {
	t.Helper()
	cfg, err := load()
	if err != nil {
		t.Fatal(err)
	}
	log := &syncLog{}
	log.lines = lines.New(log, nil)
	t.Cleanup(func() { log.lines.Close() })        // after the end of lbd
	level, err := zerolog.ParseLevel(cfg.LogLevel) // not that of all tests at once
	if err != nil {
		t.Fatal(err)
	}
	d, err := daemon.New(cfg, daemon.Options{
		Log: zerolog.New(log.lines).Level(level).With().Timestamp().Logger(), Lines: log.lines, Version: "test", Load: load, Lookup: r.LookupNetIP,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	p := &proxied{Daemon: d, t: t, url: "http://" + d.Addr().String(), log: log, http: &http.Client{Transport: &http.Transport{}}}
	t.Cleanup(p.end)
	return p
}

func load(t *testing.T, endpoints []string, settings ...string) *config.Config {
	t.Helper()
	cfg, err := tryLoad(endpoints, settings...)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func tryLoad(endpoints []string, settings ...string) (*config.Config, error) {
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	config.Flags(fs)
	all := append([]string{
		"listen", "127.0.0.1:0", "admin-listen", "127.0.0.1:0", "metrics-poll-interval", "50ms", "metrics-poll-timeout", "2s", "models-poll-interval", "200ms",
		"health-interval", "50ms", "health-timeout", "2s", "ejection-time", "100ms", "drain-timeout", "5s", "drain-idle-timeout", "0", "log-level", logLevel, "access-log", accessLog,
	}, settings...)
	if len(endpoints) > 0 {
		all = append(all, "endpoints", strings.Join(endpoints, ","))
	}
	for i := 0; i < len(all); i += 2 {
		if err := fs.Set(all[i], all[i+1]); err != nil {
			return nil, fmt.Errorf("--%s %s: %w", all[i], all[i+1], err)
		}
	}
	return config.Load(config.Options{Flags: fs, Strategies: strategy.Names(), ReadFile: os.ReadFile})
}

// end stops lbd and holds the invariant of own load.
func (p *proxied) end() {
	p.http.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := p.Stop(ctx); err != nil {
		p.t.Errorf("stop: %v", err)
	}
	for _, r := range p.Snapshot().Replicas {
		if n := r.InFlight(); n != 0 {
			p.t.Errorf("own load of %s is %d after the end; want 0", r.ID, n)
		}
		if n := r.Pending(); n != 0 {
			p.t.Errorf("pending load of %s is %d after the end; want 0", r.ID, n)
		}
	}
	if p.t.Failed() {
		p.t.Logf("log of lbd:\n%s", p.log)
	}
}

// patience is how long until waits; only a test that fails takes so long.
const patience = time.Minute

func (p *proxied) until(what string, ok func() bool) {
	p.t.Helper()
	until(p.t, what, ok)
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("did not happen within %s: %s", patience, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// state returns what lbd knows of a replica.
func (p *proxied) state(s *sim.Server) *balancer.ReplicaState {
	p.t.Helper()
	r := p.Snapshot().Replica(s.Addr())
	if r == nil {
		p.t.Fatalf("replica %s is not in the fleet", s.Addr())
	}
	return r
}

// answer is a response read whole.
type answer struct {
	status int
	header http.Header
	body   string
	err    error // of reading the body: a truncated answer
}

// post sends a JSON body and reads the whole answer.
func (p *proxied) post(path, body string, header ...string) answer {
	p.t.Helper()
	return p.do("POST", path, body, append([]string{"Content-Type", "application/json"}, header...)...)
}

func (p *proxied) get(path string, header ...string) answer {
	p.t.Helper()
	return p.do("GET", path, "", header...)
}

func (p *proxied) do(method, path, body string, header ...string) answer {
	p.t.Helper()
	req, err := http.NewRequest(method, p.url+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(b), err}
}

// chat is the body of a chat request; fields are further members.
func chat(model string, stream bool, tokens int, fields ...string) string {
	return fmt.Sprintf(`{"model":%q,"stream":%t,"max_tokens":%d,"ignore_eos":true,"messages":[{"role":"user","content":"Hello"}]%s}`,
		model, stream, tokens, strings.Join(append([]string{""}, fields...), ","))
}

// metric returns the value of one series of lbd's own metrics, "" if absent.
func (p *proxied) metric(series string) string {
	p.t.Helper()
	for line := range strings.Lines(p.get("/metrics").body) {
		if v, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// counted waits until a series has that value: who is answered by a goroutine has its answer
// before it is counted.
func (p *proxied) counted(series, want string) {
	p.t.Helper()
	got := ""
	defer func() {
		if got != want {
			p.t.Logf("%s is %q; want %s", series, got, want)
		}
	}()
	p.until(series+" "+want, func() bool { got = p.metric(series); return got == want })
}

// syncLog collects what lbd logs.
type syncLog struct {
	lines *lines.Writer // in front of it; nil = of another process
	mu    sync.Mutex
	b     strings.Builder
}

func (l *syncLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String returns the log, with the lines of all requests whose answers have come.
func (l *syncLog) String() string {
	if l.lines != nil {
		l.lines.Write(nil)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
