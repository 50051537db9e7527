//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// task is one run of the load process, sent to it as a line of JSON.
type task struct {
	Cell   cell
	Port   int    // where the client connects
	Proxy  int    // process to account for; 0 = none, the client talks to a replica
	Awake  []int  // processes that keep processors awake
	Head   string // further lines of each request's head
	Warm   float64
	Window float64 // seconds
}

// outcome is what one run measured, returned as a line of JSON.
type outcome struct {
	Seconds float64 `json:"seconds"` // length of the window
	Answers int64   `json:"answers"`
	Events  int64   `json:"events"`
	Bytes   int64   `json:"bytes"`

	CPU     int64 `json:"cpu_ns"`    // of the proxy in the window
	Waited  int64 `json:"waited_ns"` // of its threads for a CPU
	LoadCPU int64 `json:"load_cpu_ns"`
	Busy    int64 `json:"busy_ns"` // of the whole machine, this included

	P50       int64 `json:"p50_ns"`
	P99       int64 `json:"p99_ns"`
	Max       int64 `json:"max_ns"`
	FirstP50  int64 `json:"first_p50_ns"` // request to first byte while the connections open
	FirstP99  int64 `json:"first_p99_ns"`
	FullP50   int64 `json:"full_p50_ns"` // the same of further requests while all streams run
	FullP99   int64 `json:"full_p99_ns"`
	LateP99   int64 `json:"late_p99_ns"` // the replica's own lateness
	BaseKiB   int64 `json:"base_kib"`    // resident before the connections
	FullKiB   int64 `json:"full_kib"`    // and with them
	Connected int   `json:"connected"`

	LeaveMute   []float64 `json:"leave_mute_ms,omitempty"` // negative: not noticed
	LeaveStall  []float64 `json:"leave_stall_ms,omitempty"`
	LeaveStream []float64 `json:"leave_stream_ms,omitempty"`

	Errors map[string]int `json:"errors,omitempty"`
	Fatal  string         `json:"fatal,omitempty"`
}

// load is replica and client in one thread.
type load struct {
	*loop
	replica *replica
	client  *client
	out     *json.Encoder
}

// loadMain is the load process: it serves two replicas on the first two ports, speaks
// TLS to the fourth for who comes to the third, and does the tasks that come on standard
// input until that ends.
func loadMain(ports []int) error {
	if err := wrap(ports[2], ports[3]); err != nil {
		return err
	}
	ports = ports[:2]
	runtime.LockOSThread()
	// Steady state allocates nothing; a collection in the window would be seen as
	// latency of the proxy. It is collected between the runs.
	debug.SetGCPercent(-1)
	// Half a microsecond of slack instead of 50 for timers of this thread.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 500, 0, 0, 0)
	l, err := newLoop()
	if err != nil {
		return err
	}
	g := &load{loop: l, replica: newReplica(l), client: newClient(l), out: json.NewEncoder(os.Stdout)}
	g.replica.fault = g.client.fault
	for _, port := range ports {
		if err := l.listen(port, g.replica.accept); err != nil {
			return fmt.Errorf("replica on port %d: %w", port, err)
		}
	}
	in := &commands{g: g}
	if err := unix.SetNonblock(0, true); err != nil {
		return err
	}
	if err := l.add(0, in, unix.EPOLLIN); err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	if err := g.out.Encode("ready"); err != nil {
		return err
	}
	for !in.over {
		l.run(nanos()+int64(time.Hour), func() bool { return in.over || len(in.lines) > 0 })
		for len(in.lines) > 0 {
			line := in.lines[0]
			in.lines = in.lines[1:]
			if err := g.command(line); err != nil {
				return err
			}
		}
	}
	return nil
}

// commands reads lines from standard input within the loop.
type commands struct {
	g       *load
	partial string
	lines   []string
	over    bool
}

func (c *commands) ready(uint32) {
	n, errno := rawRead(0, c.g.buf)
	if errno == unix.EAGAIN {
		return
	}
	if errno != 0 || n == 0 {
		c.over = true
		_ = c.g.ctl(unix.EPOLL_CTL_DEL, 0, 0)
		return
	}
	parts := strings.Split(c.partial+string(c.g.buf[:n]), "\n")
	c.lines = append(c.lines, parts[:len(parts)-1]...)
	c.partial = parts[len(parts)-1]
}

func (g *load) command(line string) error {
	var t task
	if err := json.Unmarshal([]byte(line), &t); err != nil {
		return fmt.Errorf("task %.200q: %w", line, err)
	}
	o := &outcome{}
	if err := g.do(t, o); err != nil {
		o.Fatal = err.Error()
	}
	g.finish(o)
	return g.out.Encode(o)
}

// do runs a task.
func (g *load) do(t task, o *outcome) error {
	g.prepare(t)
	switch t.Cell.Kind {
	case posts, bulks:
		return g.closedLoop(t, o)
	case streams:
		return g.streaming(t, o)
	case idles:
		return g.idling(t, o)
	case leaves:
		return g.leaving(t, o)
	}
	return fmt.Errorf("kind of cell %q is unknown", t.Cell.Kind)
}

// prepare sets both halves up for a task.
func (g *load) prepare(t task) {
	r, k, c := g.replica, g.client, t.Cell
	r.interval, r.grid, r.events, r.bulk = int64(c.Interval), int64(c.Grid), c.Events, c.Reply
	r.whole = answer("application/json", completion(int(min(c.Reply, 1<<20))))
	r.manner = map[kind]manner{posts: whole, bulks: bulk, streams: stream, idles: whole}[c.Kind]
	r.late.reset()
	g.awake = c.awake()
	k.port = t.Port
	k.requests = k.requests[:0]
	for n := range sessions {
		if head := strings.ReplaceAll(t.Head, "$n", fmt.Sprintf("%02d", n)); n == 0 || head != t.Head {
			k.requests = append(k.requests, request(c.Ask, c.Kind == streams || c.Kind == leaves, head))
		}
	}
	k.again = c.Kind != idles && c.Kind != leaves
	k.perEnd, k.reply = c.Events, c.Reply
	if c.Kind == streams || c.Kind == leaves {
		k.reply = -1
	}
	k.errors = map[string]int{}
	k.clear()
}

// sessions is how many different requests there are where connections send their own.
const sessions = 64

// finish closes what is open and collects garbage.
func (g *load) finish(o *outcome) {
	k := g.client
	k.again = false
	g.awake = 0
	g.replica.manner = whole
	for c := range k.conns {
		c.drop()
	}
	g.run(nanos()+int64(50*time.Millisecond), nil)
	o.Errors = k.errors
	for c := range g.replica.conns {
		if c.post { // lbd's own polls go on
			c.close()
		}
	}
	g.timers = timers{}
	runtime.GC()
}

// openAll opens the connections of a cell, few at a time: the work is to have
// them, not to survive them all at once.
func (g *load) openAll(n int) error {
	k := g.client
	const atOnce = 32
	begin := nanos()
	failed := func() int {
		sum := 0
		for _, n := range k.errors {
			sum += n
		}
		return sum
	}
	for opened := 0; opened < n; {
		for opened < n && k.waiting < atOnce {
			k.open()
			opened++
		}
		if failed() > n/10+10 {
			return fmt.Errorf("%d of the first %d connections failed: %v", failed(), opened, k.errors)
		}
		if nanos()-begin > int64(60*time.Second) {
			return fmt.Errorf("only %d of %d connections were open after a minute", opened, n)
		}
		g.once(nanos() + int64(time.Millisecond))
	}
	if !g.run(nanos()+int64(10*time.Second), func() bool { return k.waiting == 0 }) {
		return fmt.Errorf("%d of %d connections have no first byte after 10 s", k.waiting, n)
	}
	return nil
}

// mark is the accounts at an edge of the window.
type mark struct {
	at, own, busy int64
	account
}

func (g *load) mark(t task) (m mark, err error) {
	if t.Proxy != 0 {
		if m.account, err = accountOf(family(t.Proxy)); err != nil {
			return m, err
		}
	}
	if m.busy, err = machineBusy(t.Awake); err != nil {
		return m, err
	}
	m.own, err = cpuOf(os.Getpid())
	m.at = nanos()
	return m, err
}

// window counts what happens in the measured time.
func (g *load) window(t task, o *outcome, turn func(until int64)) error {
	g.run(nanos()+seconds(t.Warm), nil)
	a, err := g.mark(t)
	if err != nil {
		return err
	}
	g.client.clear()
	g.replica.late.reset()
	turn(nanos() + seconds(t.Window))
	k := g.client
	b, err := g.mark(t)
	if err != nil {
		return err
	}
	o.Seconds = float64(b.at-a.at) / 1e9
	o.CPU, o.Waited, o.LoadCPU, o.Busy = b.cpu-a.cpu, b.waited-a.waited, b.own-a.own, b.busy-a.busy
	o.Answers, o.Events, o.Bytes = k.answers, k.events, k.bytes
	o.P50, o.P99, o.Max = k.latency.quantile(0.5), k.latency.quantile(0.99), k.latency.max
	o.LateP99 = g.replica.late.quantile(0.99)
	o.Connected = len(k.conns)
	return nil
}

func seconds(s float64) int64 { return int64(s * 1e9) }

func (g *load) turn(until int64) { g.run(until, nil) }

// closedLoop keeps one request per connection on its way.
func (g *load) closedLoop(t task, o *outcome) error {
	if err := g.openAll(t.Cell.Conns); err != nil {
		return err
	}
	return g.window(t, o, g.turn)
}

// settle lets one request through, so that what a proxy allocates once does not
// count for its connections.
func (g *load) settle() error {
	k := g.client
	c := k.open()
	if c == nil || !g.run(nanos()+int64(5*time.Second), func() bool { return k.bytes > 0 || c.gone }) || c.gone {
		return fmt.Errorf("the first request got no answer: %v", k.errors)
	}
	c.drop()
	g.run(nanos()+int64(100*time.Millisecond), nil)
	k.clear()
	return nil
}

func (g *load) resident(proxy int) int64 {
	if proxy == 0 {
		return 0
	}
	return residentSum(family(proxy))
}

func (g *load) streaming(t task, o *outcome) error {
	if err := g.settle(); err != nil {
		return err
	}
	o.BaseKiB = g.resident(t.Proxy)
	if err := g.openAll(t.Cell.Conns); err != nil {
		return err
	}
	o.FirstP50, o.FirstP99 = g.client.first.quantile(0.5), g.client.first.quantile(0.99)
	turn := g.turn
	if t.Cell.Probes {
		turn = g.probing
	}
	if err := g.window(t, o, turn); err != nil {
		return err
	}
	o.FullP50, o.FullP99 = g.client.first.quantile(0.5), g.client.first.quantile(0.99)
	o.FullKiB = g.resident(t.Proxy)
	return nil
}

// probing opens a further stream every 20 ms and leaves it at its first byte.
func (g *load) probing(until int64) {
	for nanos() < until {
		next := nanos() + int64(20*time.Millisecond)
		c := g.client.open()
		if c == nil {
			return
		}
		g.run(next, nil)
		if !c.gone && c.waiting {
			g.run(next+int64(2*time.Second), func() bool { return c.gone || !c.waiting })
		}
		c.drop()
	}
}

func (g *load) idling(t task, o *outcome) error {
	if err := g.settle(); err != nil {
		return err
	}
	o.BaseKiB = g.resident(t.Proxy)
	if err := g.openAll(t.Cell.Conns); err != nil {
		return err
	}
	if err := g.window(t, o, g.turn); err != nil {
		return err
	}
	o.FullKiB = g.resident(t.Proxy)
	return nil
}

// leaving measures for each state of a request how long after the client's FIN
// the replica's connection ends.
func (g *load) leaving(t task, o *outcome) (err error) {
	const tries = 12
	for _, s := range []struct {
		m   manner
		out *[]float64
	}{{mute, &o.LeaveMute}, {stall, &o.LeaveStall}, {stream, &o.LeaveStream}} {
		g.replica.manner = s.m
		for range tries {
			ms, err := g.leave()
			if err != nil {
				return fmt.Errorf("client leaves a %s answer: %w", s.m, err)
			}
			*s.out = append(*s.out, ms)
			if ms < 0 && len(*s.out) == 3 {
				break // three waits of a second are enough to call it never
			}
		}
		slices.Sort(*s.out)
	}
	return nil
}

func (g *load) leave() (ms float64, err error) {
	r, k := g.replica, g.client
	r.last = nil
	c := k.open()
	if c == nil {
		return 0, fmt.Errorf("no connection: %v", k.errors)
	}
	arrived := func() bool { return c.gone || r.last != nil && (r.manner == mute || c.events > 0) }
	if !g.run(nanos()+int64(5*time.Second), arrived) || c.gone {
		return 0, fmt.Errorf("the request did not arrive: %v", k.errors)
	}
	g.run(nanos()+int64(30*time.Millisecond), nil)
	at := nanos()
	c.end(g.loop.close)
	last := r.last
	if !g.run(at+int64(time.Second), func() bool { return last.gone }) {
		last.close()
		return -1, nil
	}
	return float64(last.goneAt-at) / 1e6, nil
}
