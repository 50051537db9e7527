package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"lbd/balancer/strategy"
	"lbd/bench/replay"
	"lbd/bench/replay/rivals"
	"lbd/bench/trace"
)

type options struct {
	dir, store, table, only, policies string
	seeds, rev                        int
	budget                            time.Duration
	write                             bool
}

func main() {
	var o options
	flag.StringVar(&o.dir, "data", "", "`directory` of the traces")
	flag.StringVar(&o.store, "store", "bench/results/placement.jsonl", "`file` of outcomes")
	flag.StringVar(&o.table, "table", "bench/results/placement.md", "`file` to write the table to")
	flag.StringVar(&o.only, "cells", ".", "`regexp` of the cells to run")
	flag.StringVar(&o.policies, "policies", "", "`names` to run (default: all)")
	flag.IntVar(&o.seeds, "seeds", 5, "seeds of each")
	flag.IntVar(&o.rev, "rev", 1, "revision of lbd's own rules: outcomes of another one are run again")
	flag.DurationVar(&o.budget, "budget", time.Hour, "begin nothing after this time")
	flag.BoolVar(&o.write, "write", false, "run nothing, only write the table")
	flag.Parse()
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
	all, err := o.named()
	if err != nil {
		return err
	}
	if !o.write {
		if err := o.fill(s, all); err != nil {
			return err
		}
	}
	return os.WriteFile(o.table, []byte(report(s, o.rev)), 0o644)
}

// policy is one of lbd's own or a rival.
type policy struct {
	replay.Policy
	own bool
}

func allPolicies() (all []policy) {
	for _, e := range strategy.Table {
		all = append(all, policy{replay.Shipped(e), true})
	}
	for _, p := range rivals.Table {
		all = append(all, policy{p, false})
	}
	return all
}

func (o *options) named() ([]policy, error) {
	all := allPolicies()
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

// fill runs what is missing, seed by seed, so that a grid cut short has whole comparisons.
func (o *options) fill(s *store, all []policy) error {
	only, err := regexp.Compile("^(?:" + o.only + ")")
	if err != nil {
		return fmt.Errorf("-cells: %w", err)
	}
	d := &data{dir: o.dir, arrivals: map[string][]trace.Arrival{}}
	began := time.Now()
	for seed := range uint64(o.seeds) {
		for i := range cells {
			if !only.MatchString(cells[i].name) {
				continue
			}
			for _, p := range all {
				if time.Since(began) > o.budget {
					return nil
				}
				if err := o.one(s, d, &cells[i], p, seed+1); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (o *options) one(s *store, d *data, c *cell, p policy, seed uint64) error {
	res := outcome{Cell: c.name, Rev: c.rev, Policy: p.Name, Seed: seed}
	if p.own {
		res.PolicyRev = o.rev
	}
	if _, ok := s.done[res.job()]; ok {
		return nil
	}
	began := time.Now()
	var err error
	if res.Capacity, res.Runs, err = c.capacity(d, p.Policy, seed); err != nil {
		return fmt.Errorf("%s, %s, seed %d: %w", c.name, p.Name, seed, err)
	}
	fmt.Fprintf(os.Stderr, "%-24s %-24s seed %d: %8.3f %s in %d runs, %.1f s\n", c.name, p.Name, seed, res.Capacity, c.unit, res.Runs, time.Since(began).Seconds())
	return s.add(res)
}

func (c *cell) capacity(d *data, p replay.Policy, seed uint64) (float64, int, error) {
	cfg := c.config
	cfg.Policy, cfg.Seed = p, seed
	if _, err := c.traffic(d, seed, c.from); err != nil {
		return 0, 0, err
	}
	return replay.Search{
		Config: cfg, Requests: c.count, Good: c.good, From: c.from, Whole: c.whole,
		Workload: func(load float64) *replay.Workload {
			w, err := c.traffic(d, seed, load)
			if err != nil {
				panic("BUG: traffic that was there is gone: " + err.Error())
			}
			return w
		},
	}.Capacity()
}
