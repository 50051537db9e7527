package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strings"
	"time"

	"lbd/balancer/strategy"
	"lbd/bench/replay"
	"lbd/bench/replay/rivals"
)

type options struct {
	dir, store, table, only, policies string
	profile                           string
	seeds, rev, parallel              int
	budget                            time.Duration
	write, tune                       bool
}

// memoryLimit is what the tool keeps to, in bytes: some 30 runs with what they leave behind.
const memoryLimit = 4 << 30

func main() {
	var o options
	flag.StringVar(&o.dir, "data", "", "`directory` of the traces")
	flag.StringVar(&o.store, "store", "bench/results/placement.jsonl", "`file` of outcomes")
	flag.StringVar(&o.table, "table", "bench/results/placement.md", "`file` to write the table to")
	flag.StringVar(&o.only, "cells", ".*", "`regexp` of the cells to run")
	flag.StringVar(&o.policies, "policies", "", "`names` to run (default: all)")
	flag.IntVar(&o.seeds, "seeds", 5, "seeds of each")
	flag.IntVar(&o.rev, "rev", 0, "revision of lbd's own rules that are run; outcomes of an older one do not count any more (default: the newest there is)")
	flag.IntVar(&o.parallel, "parallel", runtime.GOMAXPROCS(0), "runs at a time")
	flag.DurationVar(&o.budget, "budget", time.Hour, "begin nothing after this time")
	flag.BoolVar(&o.write, "write", false, "run nothing, only write the table")
	flag.BoolVar(&o.tune, "tune", false, "try the settings of rivals on the tuning cells instead")
	flag.StringVar(&o.profile, "cpuprofile", "", "write a profile of the simulator to this `file`")
	flag.Parse()
	// Runs are short and leave much behind. The pools of each keep an index of 64 MiB alive for one collection more: with
	// 400 % alone every collection would come after four times as many runs as the one before.
	debug.SetGCPercent(400)
	debug.SetMemoryLimit(memoryLimit)
	if err := o.run(); err != nil {
		fmt.Fprintln(os.Stderr, "placement:", err)
		os.Exit(1)
	}
}

func (o *options) run() error {
	s, err := openStore(o.store)
	if err != nil {
		return err
	}
	if !o.write {
		w, err := o.work(s)
		if err != nil {
			return err
		}
		if err := profiled(o.profile, w.fill); err != nil {
			return err
		}
	}
	return os.WriteFile(o.table, []byte(report(s)), 0o644)
}

// profiled does what it does under the eyes of pprof when there is a file to write to.
func profiled(path string, do func() error) error {
	if path == "" {
		return do()
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return err
	}
	err = do()
	pprof.StopCPUProfile()
	return errors.Join(err, f.Close())
}

// work is what the options ask for.
func (o *options) work(s *store) (*worker, error) {
	only, err := regexp.Compile("^(?:" + o.only + ")$")
	if err != nil {
		return nil, fmt.Errorf("-cells: %w", err)
	}
	w := &worker{
		options: o, store: s, data: newData(o.dir), deadline: time.Now().Add(o.budget),
		busy: map[job]bool{},
	}
	for i := range cells {
		if c := &cells[i]; only.MatchString(c.name) && (c.tuned || !o.tune) {
			w.cells = append(w.cells, c)
		}
	}
	if w.policies, err = o.named(); err != nil {
		return nil, err
	}
	if o.tune {
		w.policies = settings()
	}
	return w, nil
}

// policy is one of lbd's own or a rival.
type policy struct {
	replay.Policy
	own bool
	// key names its outcomes: for a tuned rule the setting that was taken, so that another choice leaves no stale ones.
	key string
	// refuses has it refuse what is predicted to miss limits of the cell; nil refuses nothing.
	refuses *refusal
	// limit is nil for what can be run: how a yardstick finds its capacity.
	limit func(*worker, task) (float64, int, error)
}

func allPolicies() (all []policy) {
	for _, e := range strategy.Table {
		all = append(all, policy{Policy: replay.Shipped(e), own: true, key: e.Name})
	}
	for _, p := range rivals.Table {
		all = append(all, policy{Policy: p, key: rivals.Setup(p.Name)})
	}
	return all
}

// settings are all that are tried of rivals.
func settings() (all []policy) {
	for i := range rivals.Tunables {
		t := &rivals.Tunables[i]
		for k := range t.Tried {
			all = append(all, policy{Policy: t.Policy(k), key: t.Policy(k).Name})
		}
	}
	return all
}

func (o *options) named() ([]policy, error) {
	all := slices.Concat(allPolicies(), yardsticks, refusing())
	if o.policies == "" {
		return all, nil
	}
	var some []policy
	for name := range strings.SplitSeq(o.policies, ",") {
		found := false
		for _, p := range all {
			if p.Name == name {
				some, found = append(some, p), true
			}
		}
		if !found {
			return nil, fmt.Errorf("-policies: %q is unknown", name)
		}
	}
	return some, nil
}
