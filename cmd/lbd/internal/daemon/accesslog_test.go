package daemon_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lbd/bench/sim"
	"lbd/cmd/lbd/internal/daemon"
	"lbd/internal/loopback"
)

// The access log of an lbd as users run it: what is promised of its lines.
func TestAccessLog(t *testing.T) {
	binary := built(t)
	for name, scenario := range map[string]func(*testing.T, string){
		"slow reader": slowReader, "stopped with a full pipe": stoppedWhileFull, "cut with a full pipe": cutWhileFull, "full disk": fullDisk, "hand-over": linesOverHandOver,
		"reader gone": readerGone,
	} {
		t.Run(name, func(t *testing.T) { scenario(t, binary) })
	}
}

// piped is an lbd whose log is a pipe that is read when the test wants it.
type piped struct {
	*process
	pipe  *os.File
	log   *bufio.Reader
	lines []map[string]any // read so far, of requests
}

func behindPipe(t *testing.T, binary string, rs ...*sim.Server) *piped {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	defer w.Close()
	file := filepath.Join(t.TempDir(), "lbd.yml")
	write(t, file, quick+"access_log: true\n"+endpoints(rs...))
	p := &piped{process: &process{t: t, err: &syncLog{}, done: make(chan struct{})}, pipe: r, log: bufio.NewReader(r)}
	p.cmd = exec.Command(binary, "--config", file)
	p.cmd.Stderr = w
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(p.done); p.cmd.Wait() }()
	t.Cleanup(func() { p.cmd.Process.Kill(); <-p.done })
	for p.url == "" {
		if m := p.next(); m["message"] == "started" {
			p.url = "http://" + m["listen"].(string)
		}
	}
	until(t, "ready", func() bool { status, _ := p.get("/ready"); return status == 200 })
	return p
}

// next reads a line, nil at the end. Every line is one JSON object.
func (p *piped) next() map[string]any {
	p.t.Helper()
	b, err := p.log.ReadBytes('\n')
	if errors.Is(err, io.EOF) && len(b) == 0 {
		return nil
	}
	var m map[string]any
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		p.t.Fatalf("%q: %v", b, err)
	}
	if m["message"] == "request" {
		p.lines = append(p.lines, m)
	}
	return m
}

// herd are clients that ask as fast as they get answers.
type herd struct {
	g        sync.WaitGroup
	begun    atomic.Int64 // clients that have had an answer
	answered atomic.Int64
}

// asked starts the clients, with so many requests each.
func (p *piped) asked(clients, requests int) *herd {
	h := &herd{}
	o := &onlooker{t: p.t}
	for range clients {
		h.g.Go(func() {
			c, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
			if err != nil {
				p.t.Error(err)
				return
			}
			defer c.Close()
			r := bufio.NewReader(c)
			for i := range requests {
				last, err := o.ask(c, r)
				if err != nil {
					p.t.Error(err)
					return
				}
				if h.answered.Add(1); i == 0 {
					h.begun.Add(1)
				}
				if last {
					return
				}
			}
		})
	}
	return h
}

// stuck waits until no client gets an answer any more. All have had one before: there is
// room for more lines than clients.
func (h *herd) stuck(t *testing.T) (answered int64) {
	t.Helper()
	until(t, "no answers any more", func() bool {
		was := answered
		answered = h.answered.Load()
		time.Sleep(300 * time.Millisecond)
		return h.begun.Load() == loggedClients && answered == was
	})
	return answered
}

// Clients and requests of each, far more than lines that a pipe (64 KiB) and lbd (256
// KiB) hold, of 300 bytes and more.
const (
	loggedClients  = 32
	loggedRequests = 100
	mostUnread     = (64+256)<<10/300 + loggedClients
)

// Nobody reads the log for a while: requests wait for it, other things go on, and when it
// is read again every request is answered and has its line.
func slowReader(t *testing.T, binary string) {
	a := replica(t, sim.Config{Speed: 1})
	p := behindPipe(t, binary, a)
	stream := bufio.NewReader(p.streaming(100000).Body) // hours
	h := p.asked(loggedClients, loggedRequests)
	if n := h.stuck(t); n > mostUnread {
		t.Errorf("%d requests are answered while the log is not read; want at most %d", n, mostUnread)
	}
	if status, body := p.get("/health"); status != 200 {
		t.Errorf("/health answers %d %s while the log is not read", status, body)
	}
	for range 20 {
		if _, err := stream.ReadString('\n'); err != nil {
			t.Fatalf("a stream while the log is not read: %v", err)
		}
	}
	p.reads(h, loggedClients*loggedRequests)
	p.signal(syscall.SIGTERM)
	for m := p.next(); m["message"] != "draining"; m = p.next() {
	}
	p.signal(syscall.SIGTERM) // ends the stream
	for p.next() != nil {
	}
	p.exits(0)
	p.whole(loggedClients*loggedRequests + 1)
}

// reads reads the log until n requests are answered and have lines.
func (p *piped) reads(h *herd, n int) {
	p.t.Helper()
	for len(p.lines) < n && !p.t.Failed() {
		p.next()
	}
	h.g.Wait()
	if got := int(h.answered.Load()); got != n {
		p.t.Errorf("%d answers; want %d", got, n)
	}
}

// whole holds that there are n lines of requests, each of another one.
func (p *piped) whole(n int) {
	p.t.Helper()
	ids := map[any]bool{}
	for _, m := range p.lines {
		ids[m["request_id"]] = true
	}
	if len(p.lines) != n || len(ids) != n {
		p.t.Errorf("%d lines of %d requests; want %d", len(p.lines), len(ids), n)
	}
}

// An lbd that is told to stop while its log is full writes all of it before it ends.
func stoppedWhileFull(t *testing.T, binary string) {
	p := behindPipe(t, binary, replica(t, sim.Config{}))
	h := p.asked(loggedClients, loggedRequests)
	h.stuck(t)
	p.signal(syscall.SIGTERM)
	for p.next() != nil {
	}
	p.exits(0)
	h.g.Wait()
	p.whole(int(h.answered.Load()))
}

// An lbd whose log is not read heeds signals all the same: it is not ready any more, and the
// second one cuts what runs and ends it, though its log never takes what is left.
func cutWhileFull(t *testing.T, binary string) {
	p := behindPipe(t, binary, replica(t, sim.Config{Speed: 1}))
	stream := bufio.NewReader(p.streaming(100000).Body) // hours
	h, o := &herd{}, &onlooker{t: t}
	for range loggedClients {
		h.g.Go(func() { // until it is cut
			c, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			r := bufio.NewReader(c)
			for n := 0; err == nil; n++ {
				if _, err = o.ask(c, r); err == nil && n == 0 {
					h.begun.Add(1)
				}
				h.answered.Add(1)
			}
		})
	}
	h.stuck(t)
	p.signal(syscall.SIGTERM)
	until(t, "the listener is closed", func() bool {
		c, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	if _, err := stream.ReadString('\n'); err != nil {
		t.Errorf("a stream after the first signal: %v", err)
	}
	p.signal(syscall.SIGTERM)
	if _, err := io.Copy(io.Discard, stream); err == nil {
		t.Error("a stream that was cut ends as if it were whole")
	}
	p.exits(0)
	h.g.Wait()
}

// A log whose reader dies costs no request, and not the lbd.
func readerGone(t *testing.T, binary string) {
	p := behindPipe(t, binary, replica(t, sim.Config{}))
	p.pipe.Close()
	h := p.asked(4, 300)
	h.g.Wait()
	if n := h.answered.Load(); n != 4*300 {
		t.Errorf("%d answers; want %d", n, 4*300)
	}
	p.signal(syscall.SIGTERM)
	p.exits(0)
}

// A log that cannot be written costs no request.
func fullDisk(t *testing.T, binary string) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	addr := loopback.Free(t) // which the log cannot tell
	p := &piped{process: &process{t: t, err: &syncLog{}, done: make(chan struct{}), url: "http://" + addr}}
	p.cmd = exec.Command(binary, "--listen", addr, "--admin-listen", "", "--access-log", "--endpoints", replica(t, sim.Config{}).URL())
	p.cmd.Stderr = full
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(p.done); p.cmd.Wait() }()
	t.Cleanup(func() { p.cmd.Process.Kill(); <-p.done })
	until(t, "ready", func() bool { status, _ := p.get("/ready"); return status == 200 })
	h := p.asked(4, 300)
	h.g.Wait()
	p.signal(syscall.SIGTERM)
	p.exits(0)
}

// Two lbds write to one log while one hands over to the other: each answer has its line.
func linesOverHandOver(t *testing.T, binary string) {
	file := filepath.Join(t.TempDir(), "lbd.yml")
	write(t, file, quick+"access_log: true\n"+endpoints(replica(t, sim.Config{}), replica(t, sim.Config{})))
	l := founded(t, nil, nil, binary, "--config", file)
	addr, _ := l.begun(1)
	ready(t, addr)
	o := watched(t, addr)
	pid := l.cmd.Process.Pid
	for range 2 {
		old := pid
		pid = l.handsOver(pid)
		l.gone(old)
	}
	o.end()
	syscall.Kill(pid, syscall.SIGTERM)
	l.gone(pid)
	if got, want := len(l.lines("request")), int(o.news.Load()+o.kept.Load()); got != want {
		t.Errorf("%d lines of %d requests", got, want)
	}
}

// failing is a place for a log that fails when it is told to.
type failing struct {
	syncLog
	on atomic.Bool
}

func (f *failing) Write(p []byte) (int, error) {
	if f.on.Load() {
		return 0, syscall.ENOSPC
	}
	return f.syncLog.Write(p)
}

// Lines that were lost are told of when others can be written, at the level of a warning.
func TestLostLinesAreToldOf(t *testing.T) {
	var out failing
	log, w := daemon.NewLogger(&out, load(t, []string{"http://127.0.0.1:1"}))
	defer w.Close()
	put := func(n int) {
		for range n {
			w.Wait()
			w.Put([]byte("{}\n"))
		}
		w.Write(nil)
	}
	log.Info().Msg("before")
	out.on.Store(true)
	put(7)
	out.on.Store(false)
	put(1)
	until(t, "told", func() bool { return len(out.logged("lines of requests were lost")) == 1 })
	if m := out.logged("lines of requests were lost")[0]; m["lines"] != 7.0 || m["level"] != "warn" || m["error"] != "no space left on device" {
		t.Errorf("%v", m)
	}
}
