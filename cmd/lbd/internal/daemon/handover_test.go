package daemon_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lbd/bench/sim"
	"lbd/internal/loopback"
)

// lineage is an lbd and those that follow it, which write to one file: with a pipe
// the end of the first would be waited for until the last has closed it.
type lineage struct {
	t   *testing.T
	log string
	cmd *exec.Cmd
}

// founded runs lbd. extra variables are set after those of the test.
func founded(t *testing.T, extra []string, files []*os.File, argv ...string) *lineage {
	t.Helper()
	l := &lineage{t: t, log: filepath.Join(t.TempDir(), "log")}
	out, err := os.OpenFile(l.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	l.cmd = exec.Command(argv[0], argv[1:]...)
	l.cmd.Stderr, l.cmd.ExtraFiles = out, files
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "LBD_") && !strings.HasPrefix(v, "VLLM_") && !strings.HasPrefix(v, "METRICS_") {
			l.cmd.Env = append(l.cmd.Env, v)
		}
	}
	l.cmd.Env = append(l.cmd.Env, extra...)
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.extinct)
	return l
}

// extinct ends whoever is left.
func (l *lineage) extinct() {
	for _, pid := range append(l.successors(), l.cmd.Process.Pid) {
		if alive(pid) {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	l.cmd.Wait()
	if l.t.Failed() {
		b, _ := os.ReadFile(l.log)
		l.t.Logf("log:\n%s", b)
	}
}

// lines returns the log lines with that message.
func (l *lineage) lines(message string) (all []map[string]any) {
	b, err := os.ReadFile(l.log)
	if err != nil {
		l.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var m map[string]any
		if json.Unmarshal([]byte(line), &m) == nil && m["message"] == message {
			all = append(all, m)
		}
	}
	return all
}

// told waits until that message was logged n times.
func (l *lineage) told(message string, n int) []map[string]any {
	l.t.Helper()
	until(l.t, fmt.Sprintf("%q for the %dth time", message, n), func() bool { return len(l.lines(message)) >= n })
	return l.lines(message)
}

func (l *lineage) successors() (pids []int) {
	for _, m := range l.lines("handed over") {
		pids = append(pids, int(m["pid"].(float64)))
	}
	return pids
}

// handsOver makes the process give way to a new one.
func (l *lineage) handsOver(pid int) (next int) {
	l.t.Helper()
	n := len(l.successors())
	if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
		l.t.Fatal(err)
	}
	l.told("handed over", n+1)
	return l.successors()[n]
}

// gone waits for the end of a process that may be nobody's child.
func (l *lineage) gone(pid int) {
	l.t.Helper()
	until(l.t, fmt.Sprintf("the end of %d", pid), func() bool { return !alive(pid) })
}

func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z") // ended, and nobody has asked how
}

// onlooker counts what happens to clients while lbds come and go.
type onlooker struct {
	t    *testing.T
	addr string
	stop chan struct{}
	g    sync.WaitGroup
	news atomic.Int64 // requests on connections of their own
	kept atomic.Int64 // requests on connections that had carried one before
	ends atomic.Int64 // connections that an answer has ended
}

func watched(t *testing.T, addr string) *onlooker {
	o := &onlooker{t: t, addr: addr, stop: make(chan struct{})}
	for n := range 3 {
		o.g.Go(func() { o.strangers() })
		o.g.Go(func() { o.regular(uint64(n)) })
	}
	return o
}

// end stops the clients when enough of them have come to show something.
func (o *onlooker) end() {
	o.t.Helper()
	until(o.t, "requests of all kinds", func() bool { return o.news.Load() >= 20 && o.kept.Load() >= 20 || o.t.Failed() })
	close(o.stop)
	o.g.Wait()
	o.t.Logf("%d requests on new connections, %d on kept ones, %d ended by an answer", o.news.Load(), o.kept.Load(), o.ends.Load())
}

func (o *onlooker) over() bool {
	select {
	case <-o.stop:
		return true
	default:
		return false
	}
}

// strangers ask once each.
func (o *onlooker) strangers() {
	for !o.over() {
		c, err := net.Dial("tcp", o.addr)
		if err != nil {
			o.t.Errorf("refused: %v", err)
			return
		}
		if _, err := o.ask(c, bufio.NewReader(c)); err != nil {
			o.t.Errorf("on a new connection: %v", err)
		}
		c.Close()
		o.news.Add(1)
		time.Sleep(time.Millisecond)
	}
}

// regular asks again and again on one connection, at any moment, until an answer ends
// it: nothing else may.
func (o *onlooker) regular(seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	for !o.over() {
		c, err := net.Dial("tcp", o.addr)
		if err != nil {
			o.t.Errorf("refused: %v", err)
			return
		}
		for r, n := bufio.NewReader(c), 0; !o.over(); n++ {
			last, err := o.ask(c, r)
			if err != nil {
				o.t.Errorf("request %d on a kept connection: %v", n, err)
				break
			}
			o.kept.Add(1)
			if last {
				o.ends.Add(1)
				break
			}
			time.Sleep(time.Duration(rnd.Int64N(int64(20 * time.Millisecond))))
		}
		c.Close()
	}
}

func (o *onlooker) ask(c net.Conn, r *bufio.Reader) (last bool, err error) {
	c.SetDeadline(time.Now().Add(patience))
	body := chat(llama, false, 1)
	if _, err := fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
		return false, err
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return false, err
	}
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != 200 {
		err = fmt.Errorf("%s: %s", resp.Status, b)
	}
	return resp.Close, err
}

// flowing begins a stream and returns what waits for its end and holds that it is whole.
func flowing(t *testing.T, addr string, tokens int) (whole func()) {
	t.Helper()
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).
		Post("http://"+addr+"/v1/chat/completions", "application/json", strings.NewReader(chat(llama, true, tokens, `"stream_options":{"include_usage":true}`)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		defer resp.Body.Close()
		rest, err := io.ReadAll(resp.Body)
		if err != nil || !strings.HasSuffix(string(rest), "data: [DONE]\n\n") || !strings.Contains(string(rest), fmt.Sprintf(`"completion_tokens":%d`, tokens)) {
			t.Errorf("a stream that ran over a hand-over: %v, %d bytes", err, len(rest))
		}
	}
}

// Listening sockets pass from process to process under load.
func TestHandOver(t *testing.T) {
	binary := built(t)
	for name, scenario := range map[string]func(*testing.T, string){
		"three generations": handOverThrice, "mistakes": handOverFails, "other address": handOverElsewhere,
		"drained": handOverKeepsDrained, "stopped at once": handOverThenStop, "activation": activated, "reuseport": sharedPort,
	} {
		t.Run(name, func(t *testing.T) { scenario(t, binary) })
	}
}

// begun waits for the lbd to serve and returns its address and that of its admin
// listener.
func (l *lineage) begun(n int) (addr, admin string) {
	l.t.Helper()
	m := l.told("started", n)[n-1]
	admin, _ = m["admin"].(string)
	return m["listen"].(string), admin
}

func ready(t *testing.T, addr string) {
	t.Helper()
	p := &process{t: t, url: "http://" + addr}
	until(t, "ready", func() bool { status, _ := p.get("/ready"); return status == 200 })
}

// foundedBefore starts an lbd with a file of its own before the replicas.
func foundedBefore(t *testing.T, binary string, rs ...*sim.Server) (l *lineage, file, addr, admin string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "lbd.yml")
	write(t, file, quick+endpoints(rs...))
	l = founded(t, nil, nil, binary, "--config", file)
	addr, admin = l.begun(1)
	ready(t, addr)
	return l, file, addr, admin
}

func handOverThrice(t *testing.T, binary string) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{})
	l, _, addr, admin := foundedBefore(t, binary, a, b)
	o := watched(t, addr)
	pid := l.cmd.Process.Pid
	var wholes []func()
	var old []int
	for n := range 3 {
		wholes = append(wholes, flowing(t, addr, longStream))
		old, pid = append(old, pid), l.handsOver(pid)
		if nextAddr, nextAdmin := l.begun(n + 2); nextAddr != addr || nextAdmin != admin {
			t.Errorf("the next one listens on %s and %s; want %s and %s", nextAddr, nextAdmin, addr, admin)
		}
		p := &process{t: t, url: "http://" + admin}
		if status, _ := p.get("/fleet"); status != 200 {
			t.Errorf("the admin listener answers %d", status)
		}
	}
	for _, whole := range wholes {
		whole()
	}
	for _, pid := range old {
		l.gone(pid)
	}
	o.end()
	if o.ends.Load() == 0 {
		t.Error("no kept connection was ended by an answer: the test shows nothing")
	}
	if n := len(l.lines("stopped")); n != 3 {
		t.Errorf("%d have stopped; want 3", n)
	}
	syscall.Kill(pid, syscall.SIGTERM)
	l.gone(pid)
	for _, r := range []*sim.Server{a, b} {
		until(t, "the replicas free", func() bool { return r.Stats().InFlight == 0 })
	}
}

// A new lbd that cannot start changes nothing, and the old one says why.
func handOverFails(t *testing.T, binary string) {
	a := replica(t, sim.Config{})
	dir := t.TempDir()
	file, name := filepath.Join(dir, "lbd.yml"), filepath.Join(dir, "lbd")
	write(t, file, quick+endpoints(a))
	if err := os.Symlink(binary, name); err != nil {
		t.Fatal(err)
	}
	l := founded(t, nil, nil, name, "--config", file)
	addr, _ := l.begun(1)
	ready(t, addr)
	o := watched(t, addr)
	pid := l.cmd.Process.Pid
	fails := func(n int, want string) {
		t.Helper()
		syscall.Kill(pid, syscall.SIGUSR2)
		if got := fmt.Sprint(l.told("not handed over, this lbd goes on", n)[n-1]["error"]); !strings.Contains(got, want) {
			t.Errorf("the reason is %q; want %q in it", got, want)
		}
	}
	write(t, file, quick+"strategy: best\n"+endpoints(a))
	fails(1, file+":6: strategy")
	write(t, file, quick+endpoints(a))

	replace := func(target string) {
		t.Helper()
		if err := errors.Join(os.Remove(name), os.Symlink(target, name)); err != nil {
			t.Fatal(err)
		}
	}
	replace("/bin/false") // a release that does not work
	fails(2, "ended before it was ready")
	replace(filepath.Join(dir, "nothing"))
	fails(3, "no such file")
	replace(binary)
	whole := flowing(t, addr, longStream)
	next := l.handsOver(pid)
	whole()
	l.gone(pid)
	o.end()
	syscall.Kill(next, syscall.SIGTERM)
	l.gone(next)
}

// A new address in the file is where the new lbd listens.
func handOverElsewhere(t *testing.T, binary string) {
	a := replica(t, sim.Config{})
	l, file, addr, _ := foundedBefore(t, binary, a)
	other := loopback.Free(t)
	write(t, file, strings.Replace(quick, "listen: 127.0.0.1:0", "listen: "+other, 1)+endpoints(a))
	next := l.handsOver(l.cmd.Process.Pid)
	if got, _ := l.begun(2); got != other {
		t.Errorf("listens on %s; want %s", got, other)
	}
	ready(t, other)
	l.gone(l.cmd.Process.Pid)
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Error("somebody listens on the old address")
	}
	syscall.Kill(next, syscall.SIGTERM)
	l.gone(next)
}

// What an operator has taken out stays out.
func handOverKeepsDrained(t *testing.T, binary string) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{})
	l, _, addr, admin := foundedBefore(t, binary, a, b)
	resp, err := http.Post("http://"+admin+"/replicas/"+a.Addr()+"/drain", "", nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("drain: %v %v", resp, err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	next := l.handsOver(l.cmd.Process.Pid)
	l.gone(l.cmd.Process.Pid)
	before := a.Stats()
	o := &onlooker{t: t, addr: addr}
	for range 10 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.ask(c, bufio.NewReader(c)); err != nil {
			t.Error(err)
		}
		c.Close()
	}
	if after := a.Stats(); after.Started != before.Started {
		t.Errorf("%d requests went to the drained replica", after.Started-before.Started)
	}
	syscall.Kill(next, syscall.SIGTERM)
	l.gone(next)
}

// A service manager that stops a service signals old and new; the old one's streams
// are not cut for it.
func handOverThenStop(t *testing.T, binary string) {
	a := replica(t, sim.Config{})
	l, _, addr, _ := foundedBefore(t, binary, a)
	hold(t, a)
	whole := flowing(t, addr, longStream)
	next := l.handsOver(l.cmd.Process.Pid)
	l.told("draining", 1)
	for _, pid := range []int{next, l.cmd.Process.Pid} {
		syscall.Kill(pid, syscall.SIGTERM)
	}
	l.told("draining already, another signal ends at once", 1)
	letGo(t, a)
	whole()
	l.gone(next)
	l.gone(l.cmd.Process.Pid)
}

// systemd keeps the sockets: nobody is refused while there is no lbd, and it is told
// what happens.
func activated(t *testing.T, binary string) {
	a := replica(t, sim.Config{})
	file := filepath.Join(t.TempDir(), "lbd.yml")
	// The addresses of the file do not count.
	write(t, file, strings.ReplaceAll(quick, "127.0.0.1:0", "127.0.0.1:1")+"log_level: debug\n"+endpoints(a))
	write(t, file, strings.Replace(readFile(t, file), "admin_listen: 127.0.0.1:1", "admin_listen: 127.0.0.1:2", 1))
	var files []*os.File
	var addrs []string
	for range 2 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		f, err := ln.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files, addrs = append(files, f), append(addrs, ln.Addr().String())
	}
	bus := newBus(t)
	start := func() *lineage {
		return founded(t, []string{"NOTIFY_SOCKET=" + bus.path, "LISTEN_FDS=2", "LISTEN_FDNAMES=admin_listen:listen"}, files,
			"/bin/sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh", binary, "--config", file)
	}
	o := watched(t, addrs[1]) // before anybody accepts
	l := start()
	if addr, admin := l.begun(1); addr != addrs[1] || admin != addrs[0] {
		t.Errorf("listens on %s and %s; want %v by name", addr, admin, addrs)
	}
	bus.hears("READY=1")
	p := &process{t: t, url: "http://" + addrs[0]}
	if status, _ := p.get("/fleet"); status != 200 {
		t.Errorf("the admin listener answers %d", status)
	}
	syscall.Kill(l.cmd.Process.Pid, syscall.SIGHUP)
	bus.hears("RELOADING=1\nMONOTONIC_USEC=")
	bus.hears("READY=1")
	next := l.handsOver(l.cmd.Process.Pid)
	bus.hears("MAINPID=" + strconv.Itoa(next))
	l.gone(l.cmd.Process.Pid)
	syscall.Kill(next, syscall.SIGTERM)
	bus.hears("STOPPING=1")
	l.gone(next)
	l = start() // a restart
	l.begun(1)
	bus.hears("READY=1")
	o.end()
	syscall.Kill(l.cmd.Process.Pid, syscall.SIGTERM)
	l.gone(l.cmd.Process.Pid)
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// bus is the service manager's end of sd_notify.
type bus struct {
	t    *testing.T
	path string
	c    *net.UnixConn
}

func newBus(t *testing.T) *bus {
	t.Helper()
	dir, err := os.MkdirTemp("", "bus") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &bus{t: t, path: filepath.Join(dir, "notify")}
	if b.c, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: b.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.c.Close() })
	return b
}

// hears waits for the next message and holds how it begins.
func (b *bus) hears(want string) {
	b.t.Helper()
	b.c.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 1024)
	n, err := b.c.Read(buf)
	if err != nil || !strings.HasPrefix(string(buf[:n]), want) {
		b.t.Fatalf("the service manager hears %q, %v; want %q", buf[:n], err, want)
	}
}

// Two lbds on one port, and then one. Clients that come while the first one closes its
// socket can be reset, so nobody comes then.
func sharedPort(t *testing.T, binary string) {
	a := replica(t, sim.Config{})
	file := filepath.Join(t.TempDir(), "lbd.yml")
	addr := loopback.Free(t)
	write(t, file, strings.Replace(quick, "listen: 127.0.0.1:0", "listen: "+addr, 1)+"listen_reuseport: true\n"+endpoints(a))
	first := founded(t, nil, nil, binary, "--config", file)
	first.begun(1)
	ready(t, addr)
	second := founded(t, nil, nil, binary, "--config", file)
	_, admin := second.begun(1)
	p := &process{t: t, url: "http://" + admin}
	until(t, "the second one ready, too", func() bool { _, page := p.get("/fleet"); return strings.Contains(page, `"available": true`) })
	whole := flowing(t, addr, longStream)
	syscall.Kill(first.cmd.Process.Pid, syscall.SIGTERM)
	first.told("draining", 1)
	whole()
	first.gone(first.cmd.Process.Pid)
	o := &onlooker{t: t, addr: addr}
	for range 50 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.ask(c, bufio.NewReader(c)); err != nil {
			t.Error(err)
		}
		c.Close()
	}
	syscall.Kill(second.cmd.Process.Pid, syscall.SIGTERM)
	second.gone(second.cmd.Process.Pid)
	if slices.ContainsFunc(second.lines("started"), func(m map[string]any) bool { return m["listen"] != addr }) {
		t.Error("the second one listens elsewhere")
	}
}
