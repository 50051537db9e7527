//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// models and how many replicas each has at home.
var homes = []string{
	"meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct",
	"Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct",
	"mistralai/Mixtral-8x7B-Instruct-v0.1", "mistralai/Mixtral-8x7B-Instruct-v0.1",
}

// pinned is the model that keeps its strategy over all reloads.
var pinned = homes[len(homes)-1]

// slot is the place of a replica: an address and the process behind it.
type slot struct {
	index   int
	addr    string
	home    string
	profile string
	process *process // owned by whoever disturbs the slot
	busy    bool     // somebody disturbs it; owned by the disturber's loop
}

// rig is an lbd with replicas behind it.
type rig struct {
	o       options
	dir     string
	addr    string // of lbd
	admin   string
	slots   []*slot
	journal *journal
	lbd     *process
	http    *http.Client // of the rig itself, not of what is measured

	mu      sync.Mutex // of the configuration
	config  string
	setting string // lines that change from reload to reload
	absent  map[int]bool
	every   time.Duration // polls and probes
}

// usually is how often replicas are polled and probed: a short interval, so that
// minutes hold many ejections.
const usually = 250 * time.Millisecond

// newRig starts everything and waits until all replicas are in service.
func newRig(ctx context.Context, o options, dir string) (r *rig, err error) {
	base, err := block(o.port, 20)
	if err != nil {
		return nil, err
	}
	at := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", base+i) }
	r = &rig{o: o, dir: dir, addr: at(0), admin: at(1), config: filepath.Join(dir, "lbd.yml"), absent: make(map[int]bool), every: usually,
		http: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}}
	defer func() {
		if err != nil {
			r.stop()
		}
	}()
	var ids []string
	for i, home := range homes {
		s := &slot{index: i, addr: at(2 + i), home: home, profile: []string{"v0.19", "v0.6.4"}[i%2]}
		r.slots, ids = append(r.slots, s), append(ids, s.addr)
		if err := r.launch(s, home); err != nil {
			return nil, err
		}
	}
	r.journal = newJournal(ids, homes)
	for _, s := range r.slots {
		if !r.up(ctx, s) {
			return nil, fmt.Errorf("replica %s does not come up; its log is %s", s.addr, s.process.log)
		}
	}
	if err := r.save(); err != nil {
		return nil, err
	}
	if r.lbd, err = start(filepath.Join(dir, "lbd.log"), o.lbd, "--config", r.config); err != nil {
		return nil, err
	}
	if !r.until(ctx, coming, r.serving) {
		b, _ := os.ReadFile(r.lbd.log)
		return nil, fmt.Errorf("lbd does not serve all replicas after %v\n%s", coming, b[max(0, len(b)-2000):])
	}
	return r, nil
}

// launch starts the process of a replica.
func (r *rig) launch(s *slot, model string) (err error) {
	s.process, err = start(filepath.Join(r.dir, fmt.Sprintf("replica-%d.log", s.index)), r.o.lbd, "sim", "--listen", s.addr,
		"--model", model, "--profile", s.profile, "--speed", fmt.Sprint(r.o.speed), "--seed", fmt.Sprint(r.o.seed+uint64(s.index)))
	return err
}

// coming is how long a process may take to be there: ten begin at once, on a machine that
// may have other work. It only ends a hang.
const coming = time.Minute

// up waits until a replica answers.
func (r *rig) up(ctx context.Context, s *slot) bool {
	return r.until(ctx, coming, func() bool {
		code, _, err := r.get("http://" + s.addr + "/health")
		return err == nil && code == 200
	})
}

// until asks again and again, and tells whether the answer was yes in the end.
func (r *rig) until(ctx context.Context, patience time.Duration, ok func() bool) bool {
	for end := time.Now().Add(patience); ; {
		if ok() {
			return true
		}
		if time.Now().After(end) || !sleep(ctx, 50*time.Millisecond) {
			return false
		}
	}
}

// serving tells whether lbd has every replica in service with its models.
func (r *rig) serving() bool {
	code, page, err := r.get("http://" + r.admin + "/fleet")
	return err == nil && code == 200 && strings.Count(strings.ReplaceAll(page, " ", ""), `"available":true`) == len(r.slots)
}

// save writes the configuration; who calls it holds mu, or is alone.
func (r *rig) save() error {
	var urls []string
	for _, s := range r.slots {
		if !r.absent[s.index] {
			urls = append(urls, "http://"+s.addr)
		}
	}
	// The timeouts leave a machine that is busy with other things five seconds.
	return os.WriteFile(r.config, []byte(fmt.Sprintf(`listen: %q
admin_listen: %q
endpoints: [%s]
metrics_poll_interval: %v
models_poll_interval: 500ms
health_interval: %v
health_timeout: 2s
ejection_time: 500ms
max_ejection_time: 2s
first_byte_timeout: 5s
stream_idle_timeout: 5s
client_idle_timeout: 20s
client_write_timeout: 20s
drain_timeout: 10s
affinity_headers: [X-Session-Id]
affinity_entries: 1000
models:
  - name: %s
    strategy: least-cost
%s`, r.addr, r.admin, strings.Join(urls, ", "), r.every, r.every, pinned, r.setting)), 0o644)
}

// reload has lbd read the configuration and waits until it shows.
func (r *rig) reload(ctx context.Context, what string, shows func() bool) error {
	if err := r.lbd.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		return err
	}
	if !r.until(ctx, 10*time.Second, shows) && ctx.Err() == nil {
		return fmt.Errorf("a reload of %s does not show 10 s after SIGHUP", what)
	}
	return nil
}

func (r *rig) get(url string) (code int, body string, err error) { return r.ask("GET", url, "") }

func (r *rig) ask(method, url, body string) (int, string, error) {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

func (r *rig) version() string {
	out, err := exec.Command(r.o.lbd, "version").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// end asks lbd to stop, as an operator does, and says how it went; "" is well.
func (r *rig) end() string {
	if !r.lbd.running() {
		return fmt.Sprintf("it had ended before: %v", r.lbd.err)
	}
	if err := r.lbd.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err.Error()
	}
	select {
	case <-r.lbd.done:
	case <-time.After(20 * time.Second):
		return "it still runs 20 s after SIGTERM, with no client left"
	}
	var exit *exec.ExitError
	if errors.As(r.lbd.err, &exit) {
		return r.lbd.err.Error()
	}
	return ""
}

// stop ends every process.
func (r *rig) stop() {
	if r.lbd != nil {
		r.lbd.kill()
	}
	for _, s := range slices.Backward(r.slots) {
		if s.process != nil {
			s.process.kill()
		}
	}
	r.http.CloseIdleConnections()
}
