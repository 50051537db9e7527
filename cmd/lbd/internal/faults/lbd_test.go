package faults

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// process is an lbd of its own process.
type process struct {
	t     *testing.T
	flags []string
	env   []string
	cmd   *exec.Cmd
	log   *lines
	done  chan struct{}

	at    atomic.Pointer[string] // where it listens
	admin string
	http  *http.Client // without keep-alive: an idle connection would count
}

func (p *process) addr() string { return *p.at.Load() }

// started runs an lbd and waits until it listens.
func started(t *testing.T, env []string, flags ...string) *process {
	t.Helper()
	p := &process{
		t: t, flags: flags, env: env, log: &lines{},
		http: &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}},
	}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("log of lbd:\n%s", p.log.last(150))
		}
	})
	p.start()
	return p
}

func (p *process) start() {
	p.t.Helper()
	flags, err := json.Marshal(p.flags)
	if err != nil {
		p.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	p.cmd = exec.Command(self)
	p.cmd.Env = append([]string{flagsVar + "=" + string(flags), "PATH=" + os.Getenv("PATH")}, p.env...)
	p.cmd.Stderr = p.log
	before := p.log.count()
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	done := make(chan struct{})
	p.done = done
	go func() { p.cmd.Wait(); close(done) }()
	until(p.t, "lbd listens", func() bool {
		select {
		case <-p.done:
			p.t.Fatalf("lbd has ended:\n%s", p.log.last(20))
		default:
		}
		line := p.log.find("started", before)
		if addr, ok := line["listen"].(string); ok {
			p.at.Store(&addr)
		}
		p.admin, _ = line["admin"].(string)
		return p.admin != ""
	})
}

// kill is SIGKILL.
func (p *process) kill() {
	p.cmd.Process.Kill() // fails if it has ended
	<-p.done
}

// stop is SIGTERM; lbd must end by itself and well. A data race makes it end with
// another code.
func (p *process) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Errorf("lbd has ended before it was told to: %v", p.cmd.ProcessState)
		return
	}
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Errorf("lbd still runs %s after SIGTERM", patience)
		p.kill()
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		p.t.Errorf("lbd ended with code %d\n%s", code, p.log.last(60))
	}
}

func (p *process) get(url string) string { return p.ask("GET", url, "") }

func (p *process) ask(method, url, body string) string {
	p.t.Helper()
	req, err := http.NewRequest(method, "http://"+url, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	resp, err := p.http.Do(req)
	if err != nil {
		p.t.Fatalf("%s: %v", url, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatalf("%s: %v", url, err)
	}
	return string(b)
}

// fleet is what the admin page of that name says.
type fleet struct {
	Replicas []struct {
		ID        string
		State     string
		Reason    string
		Available bool
		Ejections int
		Models    []string
		Own       struct {
			InFlight int64 `json:"in_flight"`
			Pending  int64
		}
	}
}

func (p *process) fleet() (f fleet) {
	p.t.Helper()
	text := p.get(p.admin + "/fleet")
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		p.t.Fatalf("/fleet: %v: %s", err, text)
	}
	return f
}

// available waits until so many replicas get requests.
func (p *process) available(n int) {
	p.t.Helper()
	until(p.t, fmt.Sprintf("%d replicas in service", n), func() bool {
		have := 0
		for _, r := range p.fleet().Replicas {
			if r.Available && len(r.Models) > 0 {
				have++
			}
		}
		return have == n
	})
}

// out waits until the replica is out of service.
func (p *process) out(id string) {
	p.t.Helper()
	until(p.t, id+" out of service", func() bool {
		for _, r := range p.fleet().Replicas {
			if r.ID == id {
				return !r.Available
			}
		}
		return false
	})
}

// series returns the values of a metric by its labels.
func (p *process) series(name string) map[string]float64 {
	p.t.Helper()
	values := map[string]float64{}
	for line := range strings.Lines(p.get(p.admin + "/metrics")) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		// Label values hold no blanks: they are names of models, replicas, strategies.
		labels, text, _ := strings.Cut(strings.TrimSuffix(rest, "\n"), " ")
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			p.t.Fatalf("%s: %v", line, err)
		}
		values[labels] = v
	}
	return values
}

// footing is what lbd takes of the machine.
type footing struct {
	goroutines, descriptors int
	heap                    int // bytes, after a collection
}

// footing collects garbage twice, since pools let go of what they hold only at the
// second time.
func (p *process) footing() footing {
	p.t.Helper()
	for range 2 {
		p.get(p.admin + "/debug/pprof/heap?gc=1")
	}
	value := func(name string) int {
		for labels, v := range p.series(name) {
			if labels == "" {
				return int(v)
			}
		}
		p.t.Fatalf("no metric %s", name)
		return 0
	}
	return footing{value("go_goroutines"), value("process_open_fds"), value("go_memstats_heap_alloc_bytes")}
}

// lines collects what lbd writes.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
	all []string
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Write(p)
	for {
		line, err := l.buf.ReadString('\n')
		if err != nil {
			l.buf.WriteString(line)
			return len(p), nil
		}
		l.all = append(l.all, line)
	}
}

func (l *lines) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.all)
}

func (l *lines) last(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.all[max(0, len(l.all)-n):], "")
}

// find returns the first line with that message behind the first n, nil if there
// is none.
func (l *lines) find(message string, n int) map[string]any {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.all[n:] {
		var m map[string]any
		if json.Unmarshal([]byte(line), &m) == nil && m["message"] == message {
			return m
		}
	}
	return nil
}

// patience is how long until waits; only a test that fails takes so long.
const patience = time.Minute

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("did not happen within %s: %s", patience, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// terms says which term of a strategy still shows a request, "" if none does.
func (p *process) terms(models []string) string {
	p.t.Helper()
	for _, m := range models {
		text := p.ask("POST", p.admin+"/pick", fmt.Sprintf(`{"model":%q,"prompt":"x"}`, m))
		var v struct {
			Replicas []struct {
				ID       string
				Terms    map[string]any
				Strategy map[string]*float64 `json:"strategy_terms"`
			}
		}
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			p.t.Fatalf("/pick: %v: %s", err, text)
		}
		for _, r := range v.Replicas {
			for _, name := range []string{"in_flight", "pending"} {
				if n, _ := r.Terms[name].(float64); n != 0 {
					return fmt.Sprintf("%s of %s is %v", name, r.ID, n)
				}
			}
			// Of least-cost: work that it counts as there.
			for _, name := range []string{"requests", "prefill_tokens", "kv_tokens"} {
				if n := r.Strategy[name]; n != nil && *n != 0 {
					return fmt.Sprintf("%s of %s is %v", name, r.ID, *n)
				}
			}
		}
	}
	return ""
}
