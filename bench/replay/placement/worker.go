package main

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"lbd/bench/replay"
)

// worker runs what is missing.
type worker struct {
	*options
	store    *store
	data     *data
	cells    []*cell
	policies []policy
	deadline time.Time

	mu   sync.Mutex
	busy map[job]bool
	err  error
}

// reference is the rule whose capacity is the load that others are compared at: it does not change, has no settings, and is
// among the best in most cells.
const reference = "lmetric"

// shares of the reference's capacity at which latencies are compared.
var shares = []float64{1, .8}

// nearby is the share of the best capacity of a cell from which on a rule is worth its further seeds first.
const nearby = .9

// task is a job with what it needs.
type task struct {
	c     *cell
	p     policy
	seed  uint64
	share float64
}

// fill does the most telling tasks first, so that a grid cut short has whole comparisons: the reference; in the main cells
// one seed of everything, then all seeds of what came within a tenth of the best; one seed of such rules in all cells; then
// latencies, further seeds, and the rest.
func (w *worker) fill() error {
	if w.tune {
		w.all(w.capacities(tuningSeeds, func(*cell, policy) bool { return true }))
		return w.err
	}
	reference := func(c *cell, p policy) bool { return c.main && p.Name == reference }
	inMain := func(c *cell, _ policy) bool { return c.main }
	nearInMain := func(c *cell, p policy) bool { return c.main && w.near(c, p) }
	anywhere := func(_ *cell, p policy) bool { return w.nearAnywhere(p) }
	everything := func(*cell, policy) bool { return true }
	w.all(w.capacities(w.seeds, reference))
	w.all(w.capacities(1, inMain))
	w.all(w.capacities(w.seeds, nearInMain))
	w.all(w.capacities(1, anywhere))
	w.all(w.latencies(nearInMain))
	w.all(w.capacities(w.seeds, w.near))
	w.all(w.latencies(w.near))
	w.all(w.capacities(w.seeds, everything))
	w.all(w.latencies(everything))
	return w.err
}

func (w *worker) capacities(seeds int, which func(*cell, policy) bool) (tasks []task) {
	for seed := range uint64(seeds) {
		for _, c := range w.cells {
			for _, p := range w.policies {
				if which(c, p) {
					tasks = append(tasks, task{c: c, p: p, seed: seed + 1})
				}
			}
		}
	}
	return tasks
}

func (w *worker) latencies(which func(*cell, policy) bool) (tasks []task) {
	rules := func(c *cell, p policy) bool { return p.limit == nil && which(c, p) }
	for _, t := range w.capacities(w.seeds, rules) {
		for _, t.share = range shares {
			tasks = append(tasks, t)
		}
	}
	return tasks
}

// near says that the first seed of a rule came close to the best first seed of the cell.
func (w *worker) near(c *cell, p policy) bool {
	if p.own {
		return true
	}
	best := 0.0
	for _, other := range allPolicies() {
		best = max(best, w.capacity(c, other, 1))
	}
	return w.capacity(c, p, 1) >= nearby*best
}

// nearAnywhere says that a rule came close in one of the main cells.
func (w *worker) nearAnywhere(p policy) bool {
	for _, c := range w.cells {
		if c.main && w.near(c, p) {
			return true
		}
	}
	return false
}

// capacity is what is known of it, 0 when nothing is.
func (w *worker) capacity(c *cell, p policy, seed uint64) float64 {
	o, _ := w.store.get(w.job(task{c: c, p: p, seed: seed}))
	return o.Capacity
}

func (w *worker) job(t task) job {
	j := job{cell: t.c.name, rev: t.c.rev, policy: t.p.key, seed: t.seed, share: t.share}
	if t.p.own {
		if j.policyRev = w.rev; j.policyRev == 0 {
			j.policyRev = max(1, w.store.newest(t.p.key))
		}
	}
	return j
}

// all does the tasks, some at a time.
func (w *worker) all(tasks []task) {
	var wg sync.WaitGroup
	next := make(chan task)
	for range w.parallel {
		wg.Go(func() {
			for t := range next {
				if err := w.one(t); err != nil {
					w.mu.Lock()
					w.err = errors.Join(w.err, err)
					w.mu.Unlock()
				}
			}
		})
	}
	for _, t := range tasks {
		if w.stopped() {
			break
		}
		if _, ok := w.store.get(w.job(t)); !ok {
			next <- t
		}
	}
	close(next)
	wg.Wait()
}

func (w *worker) stopped() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err != nil || time.Now().After(w.deadline)
}

func (w *worker) one(t task) error {
	j, began := w.job(t), time.Now()
	o := outcome{Cell: j.cell, Rev: j.rev, Policy: j.policy, PolicyRev: j.policyRev, Seed: j.seed, Share: j.share}
	var err error
	var text string
	if t.share > 0 {
		text, err = w.latency(t, &o)
	} else {
		text, err = w.search(t, &o)
	}
	if err != nil {
		return fmt.Errorf("%s, %s, seed %d: %w", t.c.name, t.p.Name, t.seed, err)
	}
	if text == "" {
		return nil
	}
	fmt.Fprintf(os.Stderr, "%-24s %-24s seed %d: %s, %.1f s\n", t.c.name, t.p.Name, t.seed, text, time.Since(began).Seconds())
	return w.store.add(o)
}

func (w *worker) search(t task, o *outcome) (string, error) {
	if _, err := t.c.traffic(w.data, t.seed, t.c.from); err != nil {
		return "", err
	}
	cfg := t.config()
	find := func(w *worker, t task) (float64, int, error) { return w.grid(t, cfg) }
	if t.p.limit != nil {
		find = t.p.limit
	}
	var err error
	if o.Capacity, o.Runs, err = find(w, t); err != nil || o.Capacity == 0 && t.p.limit != nil {
		return "", err
	}
	if o.Runs > 0 {
		o.From, _ = w.guess(t)
	}
	return fmt.Sprintf("%8.3f %s in %d runs", o.Capacity, t.c.unit, o.Runs), nil
}

// config is that of the cell, with the task's policy.
func (t task) config() replay.Config {
	cfg := t.c.config
	cfg.Policy, cfg.Seed = t.p.Policy, t.seed
	if t.p.refuses != nil {
		cfg.Admission = t.p.refuses.by(cfg.Limits)
	}
	return cfg
}

// grid searches the highest load that is carried.
func (w *worker) grid(t task, cfg replay.Config) (capacity float64, runs int, err error) {
	s := replay.Search{Config: cfg, Requests: t.c.count, Skip: t.c.count / warmup, Good: t.c.good, Whole: t.c.whole, Workload: w.workload(t)}
	s.From, s.Stride = w.guess(t)
	return s.Capacity()
}

// warmup: the first tenth of the requests is not counted.
const warmup = 10

func (w *worker) workload(t task) func(load float64) *replay.Workload {
	return func(load float64) *replay.Workload {
		wl, err := t.c.traffic(w.data, t.seed, load)
		if err != nil {
			panic("BUG: traffic that was there is gone: " + err.Error())
		}
		return wl
	}
}

// guess is where to begin a search, and how far to go first: near what an earlier seed had, as the reference's capacity
// moved from that seed to this one; else at what the rule had beside the reference in other cells.
func (w *worker) guess(t task) (from float64, stride int) {
	ref := policy{key: reference}
	here := w.capacity(t.c, ref, t.seed)
	for seed := t.seed - 1; seed > 0; seed-- {
		before, was := w.capacity(t.c, ref, seed), w.capacity(t.c, t.p, seed)
		switch {
		case was == 0:
		case here == 0 || before == 0:
			return was, 2
		default:
			return was * here / before, 2
		}
	}
	if here == 0 {
		return t.c.from, 8
	}
	sum, n := 0.0, 0.0
	for i := range cells {
		if theirs := w.capacity(&cells[i], ref, 1); theirs > 0 {
			if was := w.capacity(&cells[i], t.p, 1); was > 0 {
				sum, n = sum+was/theirs, n+1
			}
		}
	}
	if n == 0 {
		return here, 6
	}
	return here * sum / n, 4
}

// latency runs at a share of the reference's capacity, once that is known.
func (w *worker) latency(t task, o *outcome) (string, error) {
	load := w.capacity(t.c, policy{key: reference}, t.seed) * t.share
	if load == 0 {
		return "", nil
	}
	if t.c.whole {
		load = max(1, float64(int(load+.5)))
	}
	cfg := t.config()
	cfg.Warmup = 1. / warmup
	if _, err := t.c.traffic(w.data, t.seed, load); err != nil {
		return "", err
	}
	r, err := replay.Run(cfg, w.workload(t)(load))
	if err != nil {
		return "", err
	}
	o.Figures = &figures{
		Load: load, Good: r.Good, TTFT50: r.TTFT.P50, TTFT99: r.TTFT.P99, TPOT99: r.TPOT.P99, E2E99: r.E2E.P99,
		HitRate: r.HitRate, CoV: r.BusyCoV, Refused: r.LateShare,
	}
	return fmt.Sprintf("at %.0f %%: TTFT p99 %.0f ms, %.1f %% good", 100*t.share, r.TTFT.P99, 100*r.Good), nil
}
