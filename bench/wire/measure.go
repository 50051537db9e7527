//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// sample is one run of one peer.
type sample struct {
	Cell    string   `json:"cell"`
	Peer    string   `json:"peer"`
	Round   int      `json:"round"`
	Others  float64  `json:"others"` // share of the machine that was neither proxy nor load
	Repeats int      `json:"repeats,omitempty"`
	Noisy   bool     `json:"noisy,omitempty"` // still disturbed after the repeats
	Failed  string   `json:"failed,omitempty"`
	Outcome *outcome `json:"outcome,omitempty"`
}

// rig is what is up while it measures.
type rig struct {
	o     options
	dir   string
	files int // descriptors a process may have
	load  *proc
	awake []*proc
	in    io.WriteCloser
	out   *bufio.Reader
	paths map[string]string // of each peer's program
}

func build(ctx context.Context, path string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, "lbd/cmd/lbd")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build lbd: %w", err)
	}
	return nil
}

// measure does all cells and prints what it found.
func measure(ctx context.Context, o options, dir string) error {
	limit, err := raiseFiles()
	if err != nil {
		return fmt.Errorf("raise the limit of open files: %w", err)
	}
	if o.port, err = freePorts(o.port); err != nil {
		return err
	}
	g := &rig{o: o, dir: dir, files: limit, paths: map[string]string{}}
	rep := &report{Machine: machine(), Versions: map[string]string{}}
	command, tree := "go run ./bench/wire "+strings.Join(os.Args[1:], " "), commit()
	for _, p := range o.peers {
		path, version, err := p.find()
		if err != nil {
			rep.Skipped = append(rep.Skipped, fmt.Sprintf("%s (%s: %v)", p.name, p.binary, err))
			fmt.Printf("skipped: %s (%s: %v)\n", p.name, p.binary, err)
			continue
		}
		g.paths[p.name], rep.Versions[p.name] = path, version
		rep.Peers = append(rep.Peers, party{p.name, p.lbd})
	}
	if o.name == "features" {
		if err := prepareFeatures(dir); err != nil {
			return err
		}
	}
	if err := g.startLoad(); err != nil {
		return err
	}
	defer g.stopLoad()
	if !o.sleep {
		if err := g.stayAwake(); err != nil {
			return err
		}
		defer g.letSleep()
	}
	// Who waits for the end of a task, of half a minute perhaps, is not kept by it.
	defer context.AfterFunc(ctx, g.load.stop)()
	rng := rand.New(rand.NewPCG(o.seed, 0))
	for i := range o.cells {
		o.cells[i] = o.cells[i].within(limit)
	}
	for group, rest := []cell(nil), o.cells; len(rest) > 0; {
		group, rest = together(rest)
		var added []measured
		for _, c := range group {
			added = append(added, rep.add(c, o, command, tree))
		}
		if err := g.cells(ctx, group, rng, rep); err != nil {
			// What was measured before an interrupt is kept.
			return errors.Join(err, rep.write(o.out, o.name))
		}
		for _, m := range added {
			rep.print(os.Stdout, m)
		}
	}
	return rep.write(o.out, o.name)
}

// together is the first cell with those that a bar compares with it: they share their
// rounds, since the machine is another one minutes later.
func together(cells []cell) (group, rest []cell) {
	group = cells[:1:1]
	for _, c := range cells[1:] {
		with := func(b bar) bool {
			return b.cell == c.Name && slices.ContainsFunc(group, func(c cell) bool { return c.Name == b.base })
		}
		if slices.ContainsFunc(bars, with) {
			group = append(group, c)
		} else {
			rest = append(rest, c)
		}
	}
	return group, rest
}

// cells runs the rounds of cells, each round all of them.
func (g *rig) cells(ctx context.Context, cells []cell, rng *rand.Rand, rep *report) error {
	for round := range g.o.rounds {
		for _, c := range cells {
			if err := g.round(ctx, c, round, rng, rep); err != nil {
				return err
			}
		}
	}
	return nil
}

// round runs every peer once.
func (g *rig) round(ctx context.Context, c cell, round int, rng *rand.Rand, rep *report) error {
	for _, i := range rng.Perm(len(g.o.peers)) {
		p := g.o.peers[i]
		if _, ok := g.paths[p.name]; !ok || p.name == direct && c.Kind == leaves {
			continue
		}
		s, err := g.sample(ctx, c, p, round)
		if err != nil {
			return err
		}
		if s.Failed != "" {
			fmt.Printf("%s, %s, round %d: %s\n", c.Name, p.name, round+1, s.Failed)
		}
		rep.Samples = append(rep.Samples, s)
	}
	return nil
}

// sample runs a peer once; again, twice at most, when others disturbed it.
func (g *rig) sample(ctx context.Context, c cell, p peer, round int) (s sample, err error) {
	s = sample{Cell: c.Name, Peer: p.name, Round: round + 1}
	for ; ; s.Repeats++ {
		if err := g.quiet(ctx); err != nil {
			return s, err
		}
		o, err := g.once(ctx, c, p)
		if ctx.Err() != nil {
			return s, ctx.Err()
		}
		if errors.Is(err, errLoad) {
			return s, err
		}
		if err != nil {
			s.Failed = err.Error()
			return s, nil
		}
		s.Outcome = o
		if all := o.Seconds * 1e9 * float64(cpus()); all > 0 {
			s.Others = max(0, float64(o.Busy-o.CPU-o.LoadCPU)/all)
		}
		if s.Noisy = s.Others > g.o.quiet; !s.Noisy || s.Repeats == 2 {
			return s, nil
		}
	}
}

// quiet waits until nobody else uses the machine, half a minute at most.
func (g *rig) quiet(ctx context.Context) error {
	const pause, tries, tell = 200 * time.Millisecond, 150, 5
	if err := g.stillAwake(); err != nil {
		return err
	}
	before := look()
	for try := range tries {
		share, err := g.busyShare(ctx, pause)
		if err != nil {
			return err
		}
		if share <= g.o.quiet {
			return nil
		}
		if try == 0 {
			// What others wrote is flushed now rather than during the run.
			unix.Sync()
		}
		if try == tell {
			p := look().greediest(before)
			fmt.Printf("waiting: others use %.0f %% of the machine, most of it %s (%.0f %%)\n", share*100, p.command,
				float64(p.ticks)/userHZ/((tell+1)*pause.Seconds())/float64(cpus())*100)
		}
	}
	fmt.Println("the machine does not become quiet; going on")
	return nil
}

// busyShare is the share of the machine that is in use over a time.
func (g *rig) busyShare(ctx context.Context, over time.Duration) (float64, error) {
	a, err := machineBusy(g.awakePIDs())
	if err != nil {
		return 0, err
	}
	began := time.Now()
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(over):
	}
	b, err := machineBusy(g.awakePIDs())
	return float64(b-a) / float64(time.Since(began)) / float64(cpus()), err
}

// once starts a peer, runs a cell through it and stops it.
func (g *rig) once(ctx context.Context, c cell, p peer) (*outcome, error) {
	t := task{Cell: c, Port: g.o.port, Awake: g.awakePIDs(), Warm: g.o.warm, Window: g.o.seconds}
	if c.Seconds > 0 {
		t.Window = c.Seconds
	}
	if g.paths[p.name] == "" {
		return g.task(t)
	}
	where := place{dir: g.dir, port: g.o.port + 10, admin: g.o.port + 11, replicas: g.replicas(), cores: c.Cores, files: g.files}
	args, err := p.command(where)
	if err != nil {
		return nil, err
	}
	cpu := strconv.Itoa(g.o.proxyCPU)
	if c.Cores > 1 {
		cpu += "," + strconv.Itoa(g.o.loadCPU)
	}
	proxy, err := start(p.name, cpu, g.dir, nil, nil, append([]string{g.paths[p.name]}, args...)...)
	if err != nil {
		return nil, err
	}
	defer proxy.stop()
	t.Port, t.Proxy, t.Head = where.port, proxy.cmd.Process.Pid, p.head
	if p.tls {
		t.Port = g.wrapper()
	}
	if err := proxy.ready(ctx, t.Port, request(300, false, "")); err != nil {
		return nil, err
	}
	profiled := make(chan error, 1)
	go func() { profiled <- g.takeProfiles(ctx, where.admin, c, p) }()
	o, err := g.task(t)
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, proxy.tail())
	}
	return o, <-profiled
}

// takeProfiles profiles lbd for the warm-up and the window.
func (g *rig) takeProfiles(ctx context.Context, admin int, c cell, p peer) error {
	if !p.lbd {
		return nil
	}
	var (
		both sync.WaitGroup
		errs [2]error
	)
	for i, of := range [...]struct{ kind, file string }{{"profile", g.o.profile}, {"mutex", g.o.mutex}} {
		if of.file != "" {
			ext := filepath.Ext(of.file)
			path := strings.TrimSuffix(of.file, ext) + "." + c.Name + "." + p.name + ext
			both.Go(func() { errs[i] = g.takeProfile(ctx, admin, of.kind, path) })
		}
	}
	both.Wait()
	return errors.Join(errs[:]...)
}

func (g *rig) takeProfile(ctx context.Context, admin int, kind, path string) error {
	whole := max(1, int(g.o.seconds+g.o.warm))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/debug/pprof/%s?seconds=%d", admin, kind, whole), nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: lbd answers %s: %.200s", kind, res.Status, b)
	}
	return os.WriteFile(path, b, 0o644)
}

// wrapper is where the load process takes plain connections and speaks TLS to the proxy.
func (g *rig) wrapper() int { return g.o.port + 12 }

func (g *rig) replicas() []int { return []int{g.o.port, g.o.port + 1} }

// errLoad says that the load process is gone: nothing can be measured any more.
var errLoad = errors.New("the load process failed")

func (g *rig) startLoad() error {
	self, err := self()
	if err != nil {
		return err
	}
	inR, inW, err := os.Pipe()
	if err != nil {
		return err
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		return err
	}
	argv := []string{self, "load"}
	for _, r := range g.replicas() {
		argv = append(argv, strconv.Itoa(r))
	}
	argv = append(argv, strconv.Itoa(g.wrapper()), strconv.Itoa(g.o.port+10))
	if g.load, err = start("load", strconv.Itoa(g.o.loadCPU), g.dir, inR, outW, argv...); err != nil {
		return err
	}
	_, _ = inR.Close(), outW.Close()
	g.in, g.out = inW, bufio.NewReader(outR)
	if _, err := g.out.ReadString('\n'); err != nil {
		return fmt.Errorf("%w: %s", errLoad, g.load.tail())
	}
	return nil
}

func (g *rig) stopLoad() {
	_ = g.in.Close()
	g.load.stop()
}

// task has the load process do something.
func (g *rig) task(t task) (*outcome, error) {
	b, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	if _, err := g.in.Write(append(b, '\n')); err != nil {
		return nil, fmt.Errorf("%w: %w: %s", errLoad, err, g.load.tail())
	}
	line, err := g.out.ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("%w: %w: %s", errLoad, err, g.load.tail())
	}
	var o outcome
	if err := json.Unmarshal(line, &o); err != nil {
		return nil, fmt.Errorf("%w: %w", errLoad, err)
	}
	if o.Fatal != "" {
		return nil, errors.New(o.Fatal)
	}
	return &o, nil
}
