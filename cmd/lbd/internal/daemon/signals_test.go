package daemon_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"lbd/bench/sim"
)

// build makes the program once, for all tests that ask it.
var build = sync.OnceValues(func() (string, error) {
	path := filepath.Join(scratch, "lbd")
	if out, err := exec.Command("go", "build", "-o", path, "lbd/cmd/lbd").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// built returns lbd as users run it.
func built(t *testing.T) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// process is lbd in a process of its own.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	err  *syncLog
	done chan struct{}
	url  string
}

// started runs lbd and waits for nothing.
func started(t *testing.T, binary string, args ...string) *process {
	t.Helper()
	p := &process{t: t, err: &syncLog{}, done: make(chan struct{})}
	p.cmd = exec.Command(binary, args...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "LBD_") && !strings.HasPrefix(v, "VLLM_") && !strings.HasPrefix(v, "METRICS_") {
			p.cmd.Env = append(p.cmd.Env, v)
		}
	}
	p.cmd.Stderr = p.err
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		p.cmd.Wait()
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("standard error:\n%s", p.err)
		}
	})
	return p
}

// serving runs lbd with that file and waits until it serves the model.
func serving(t *testing.T, binary, file string) *process {
	t.Helper()
	p := started(t, binary, "--config", file)
	until(t, "started", func() bool {
		select {
		case <-p.done:
			t.Fatalf("ended:\n%s", p.err)
		default:
		}
		lines := p.err.logged("started")
		if len(lines) == 0 {
			return false
		}
		p.url = "http://" + lines[0]["listen"].(string)
		return true
	})
	until(t, "ready", func() bool { status, _ := p.get("/ready"); return status == 200 })
	return p
}

func (p *process) get(path string) (int, string) {
	p.t.Helper()
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get(p.url + path)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// says waits for the one line with that message: what a process writes is read later
// than what it does is seen.
func (p *process) says(message string) map[string]any {
	p.t.Helper()
	until(p.t, message, func() bool { return len(p.err.logged(message)) > 0 })
	lines := p.err.logged(message)
	if len(lines) != 1 {
		p.t.Fatalf("%d lines %q; want one", len(lines), message)
	}
	return lines[0]
}

// exits waits for the end of the process and holds its exit code.
func (p *process) exits(want int) {
	p.t.Helper()
	until(p.t, "exit", func() bool {
		select {
		case <-p.done:
			return true
		default:
			return false
		}
	})
	if got := p.cmd.ProcessState.ExitCode(); got != want {
		p.t.Errorf("exit code %d; want %d", got, want)
	}
}

// streaming begins a stream through lbd and returns it after its first bytes.
func (p *process) streaming(tokens int) *http.Response {
	p.t.Helper()
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).
		Post(p.url+"/v1/chat/completions", "application/json", strings.NewReader(chat(llama, true, tokens)))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { resp.Body.Close() })
	if _, err := io.ReadFull(resp.Body, make([]byte, 6)); err != nil {
		p.t.Fatal(err)
	}
	return resp
}

const quick = `
listen: 127.0.0.1:0
admin_listen: 127.0.0.1:0
health_interval: 50ms
models_poll_interval: 200ms
`

// lbd as a process: what an init system and an operator see of it.
func TestProcess(t *testing.T) {
	binary := built(t)
	for name, scenario := range map[string]func(*testing.T, string){
		"SIGHUP": hangUp, "SIGTERM": terminate, "second signal": terminateTwice, "idle client": terminateWithIdleClients,
		"taken port": takenPort, "taken admin port": takenAdminPort, "configuration mistake": mistaken, "secrets": secretive,
	} {
		t.Run(name, func(t *testing.T) { scenario(t, binary) })
	}
}

func hangUp(t *testing.T, binary string) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{Model: qwen})
	file := filepath.Join(t.TempDir(), "lbd.yml")
	write(t, file, quick+"strategy: cycle\n"+endpoints(a))
	p := serving(t, binary, file)
	stream := p.streaming(longStream)

	write(t, file, quick+"log_format: console\nstrategy: random\n"+endpoints(a, b))
	p.signal(syscall.SIGHUP)
	until(t, "second model", func() bool { _, body := p.get("/v1/models"); return strings.Contains(body, qwen) })
	line, err := json.Marshal(p.says("configuration reloaded"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"applied":["endpoints","strategy"]`, `"needs_restart":["log_format"]`} {
		if !bytes.Contains(line, []byte(want)) {
			t.Errorf("%s; want %s", line, want)
		}
	}

	write(t, file, quick+"strategy: best\n"+endpoints(a))
	p.signal(syscall.SIGHUP)
	until(t, "reload refused", func() bool {
		_, body := p.get("/metrics")
		return strings.Contains(body, "lbd_config_last_reload_successful 0\n")
	})
	refused := p.says("configuration not reloaded, the old one stays")
	if text, _ := refused["error"].(string); !strings.Contains(text, file+":6") {
		t.Errorf("%v; want %s:6", refused, file)
	}
	if _, body := p.get("/v1/models"); !strings.Contains(body, qwen) {
		t.Error("a refused file took a replica away")
	}

	rest, err := io.ReadAll(stream.Body)
	if err != nil || !strings.HasSuffix(string(rest), "data: [DONE]\n\n") {
		t.Errorf("the stream that ran over two reloads: %v, %d bytes", err, len(rest))
	}
	p.signal(syscall.SIGTERM)
	p.exits(0)
}

// SIGTERM: not ready, no new connections, but what runs finishes.
func terminate(t *testing.T, binary string) {
	a := replica(t, sim.Config{})
	file := filepath.Join(t.TempDir(), "lbd.yml")
	write(t, file, quick+endpoints(a))
	p := serving(t, binary, file)
	stream := p.streaming(longStream)
	p.signal(syscall.SIGTERM)
	until(t, "draining told", func() bool { return len(p.err.logged("draining")) == 1 })
	until(t, "new connections refused", func() bool { status, _ := p.get("/ready"); return status != 200 })
	rest, err := io.ReadAll(stream.Body)
	if err != nil || !strings.HasSuffix(string(rest), "data: [DONE]\n\n") {
		t.Errorf("the stream under way: %v, %d bytes", err, len(rest))
	}
	p.exits(0)
	if len(p.err.logged("stopped")) != 1 {
		t.Error("the end is not told")
	}
}

func terminateTwice(t *testing.T, binary string) {
	a := replica(t, sim.Config{Speed: 1})
	file := filepath.Join(t.TempDir(), "lbd.yml")
	write(t, file, quick+endpoints(a))
	p := serving(t, binary, file)
	stream := p.streaming(100000) // hours
	p.signal(syscall.SIGTERM)
	until(t, "draining told", func() bool { return len(p.err.logged("draining")) == 1 })
	p.signal(syscall.SIGINT)
	p.exits(0)
	if rest, err := io.ReadAll(stream.Body); err == nil || bytes.Contains(rest, []byte("[DONE]")) {
		t.Errorf("the stream that was cut ended with %v; want an error the client can see", err)
	}
}

// Clients that keep a connection open without a request do not hold the end up.
func terminateWithIdleClients(t *testing.T, binary string) {
	a := replica(t, sim.Config{})
	file := filepath.Join(t.TempDir(), "lbd.yml")
	write(t, file, quick+endpoints(a))
	p := serving(t, binary, file)
	for _, sent := range []string{"", "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"} {
		c, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if sent != "" {
			if _, err := io.WriteString(c, sent); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, make([]byte, 12)); err != nil {
				t.Fatal(err)
			}
		}
	}
	p.signal(syscall.SIGTERM)
	p.exits(0)
}

func occupied(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.Addr().String()
}

func takenPort(t *testing.T, binary string) {
	addr := occupied(t)
	p := started(t, binary, "--listen", addr, "--admin-listen", "", "--endpoints", "http://127.0.0.1:1")
	p.exits(2)
	if got := p.err.String(); !strings.Contains(got, "--listen") || !strings.Contains(got, addr) || !strings.Contains(got, "in use") {
		t.Errorf("want what to change and why")
	}
}

func takenAdminPort(t *testing.T, binary string) {
	addr := occupied(t)
	p := started(t, binary, "--listen", "127.0.0.1:0", "--admin-listen", addr, "--endpoints", "http://127.0.0.1:1")
	p.exits(2)
	if got := p.err.String(); !strings.Contains(got, "--admin-listen") || !strings.Contains(got, addr) {
		t.Errorf("want what to change and why")
	}
}

func mistaken(t *testing.T, binary string) {
	file := filepath.Join(t.TempDir(), "lbd.yml")
	write(t, file, "endpoints: [http://x:1]\nstratagy: cycle\n")
	p := started(t, binary, "--config", file)
	p.exits(1)
	if !strings.HasPrefix(p.err.String(), file+":2: ") {
		t.Errorf("want %s:2 in front", file)
	}
	q := started(t, binary, "--no-such-flag")
	q.exits(1)
}

// The start logs what is in effect, but no key, at the most talkative level.
func secretive(t *testing.T, binary string) {
	a := replica(t, sim.Config{APIKey: secretReply})
	file := filepath.Join(t.TempDir(), "lbd.yml")
	write(t, file, quick+"log_level: trace\nreplica_api_key: "+secretReply+"\n"+endpoints(a))
	p := serving(t, binary, file)
	told := p.err.logged("configuration")
	if len(told) != 1 {
		t.Fatalf("%d lines for the configuration", len(told))
	}
	effective, _ := told[0]["config"].(map[string]any)
	if effective["strategy"] != "least-waiting" || effective["replica_api_key"] == "" {
		t.Errorf("%v; want what is in effect", effective)
	}
	p.signal(syscall.SIGHUP)
	until(t, "reloaded", func() bool { return len(p.err.logged("configuration reloaded")) == 1 })
	p.signal(syscall.SIGTERM)
	p.exits(0)
	if strings.Contains(p.err.String(), secretReply) {
		t.Error("the key is in the log")
	}
}
