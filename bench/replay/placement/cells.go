package main

import (
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"lbd/bench/replay"
	"lbd/bench/trace"
)

// cell is a kind of traffic on a kind of fleet.
type cell struct {
	name string
	rev  int
	// tuned cells were looked at while parameters of lbd's own rules were chosen; the others only show what came of it.
	tuned bool
	// heavy cells are those in which the rule is meant to win: shared prefixes, mixed hardware.
	heavy   bool
	traffic func(d *data, seed uint64, load float64) (*replay.Workload, error)
	unit    string // of load
	config  replay.Config
	good    float64 // share of the requests that must be good
	count   int     // requests
	from    float64 // load to begin the search with
	whole   bool
}

// Limits of the kinds of traffic.
var (
	chat   = replay.Limits{TTFT: 2 * time.Second, TPOT: 50 * time.Millisecond}
	quick  = replay.Limits{TTFT: time.Second, TPOT: 50 * time.Millisecond}
	agents = replay.Limits{TTFT: 5 * time.Second, TTFTPerToken: 100 * time.Microsecond, TPOT: 100 * time.Millisecond}
)

const requests = 3000

// blocks of 64 tokens hit as those of 16 do in traces whose own blocks are larger, and are four times as fast.
const fast = 64

func fleet(n int) replay.Fleet { return replay.Fleet{{Count: n}} }

func mixed(n int) replay.Fleet { return replay.Fleet{{Count: n / 2}, {Count: n - n/2, Speed: .5}} }

var cells = makeCells()

func makeCells() []cell {
	base := func(n int) replay.Config {
		return replay.Config{Fleet: fleet(n), BlockSize: fast, Limits: chat}
	}
	with := func(n int, change func(*replay.Config)) replay.Config {
		c := base(n)
		change(&c)
		return c
	}
	moon := func(name string, c replay.Config, from float64) cell {
		return cell{name: name, heavy: true, traffic: mooncake(30 * time.Minute), unit: "x", config: c, good: .9, count: requests, from: from}
	}
	azureLimits := func(c *replay.Config) { c.Limits, c.BlockSize = quick, 16 }
	all := []cell{
		{name: "mooncake-first-half", tuned: true, heavy: true, traffic: mooncake(0), unit: "x", config: base(8), good: .9, count: requests, from: 3},
		moon("mooncake", base(8), 3),
		moon("mooncake-2-replicas", base(2), .7),
		moon("mooncake-16-replicas", base(16), 6),
		moon("mooncake-mixed", with(8, func(c *replay.Config) { c.Fleet = mixed(8) }), 2),
		moon("mooncake-4-lbds", with(8, func(c *replay.Config) { c.LBDs = 4 }), 2.5),
		moon("mooncake-poll-5s", with(8, func(c *replay.Config) { c.Poll = 5 * time.Second }), 3),
		moon("mooncake-half-streamed", with(8, func(c *replay.Config) { c.NonStreaming = .5 }), 3),
		moon("mooncake-step-error", with(8, func(c *replay.Config) { c.StepError = .25 }), 2.5),
		moon("mooncake-length-error", with(8, func(c *replay.Config) { c.PromptError = .3 }), 3),
		{name: "mooncake-quarter-kv", heavy: true, traffic: mooncakeUpTo(64000), unit: "x",
			config: with(8, func(c *replay.Config) { c.KVFactor = .25 }), good: .9, count: requests, from: 2},
		{name: "azure-first-half", tuned: true, traffic: azure(0), unit: "x", config: with(8, azureLimits), good: .95, count: 6000, from: 16},
		{name: "azure", traffic: azure(29 * time.Minute), unit: "x", config: with(8, azureLimits), good: .95, count: 6000, from: 16},
		{name: "azure-mixed", heavy: true, traffic: azure(29 * time.Minute), unit: "x", good: .95, count: 6000, from: 12,
			config: with(8, func(c *replay.Config) { azureLimits(c); c.Fleet = mixed(8) })},
		{name: "azure-4-lbds", traffic: azure(29 * time.Minute), unit: "x", good: .95, count: 6000, from: 16,
			config: with(8, func(c *replay.Config) { azureLimits(c); c.LBDs = 4 })},
		{name: "shared-prefix-small", tuned: true, heavy: true, traffic: shared(50, 3000), unit: "req/s", config: base(8), good: .9, count: requests, from: 60},
		{name: "shared-prefix", heavy: true, traffic: shared(150, 6016), unit: "req/s", config: base(8), good: .9, count: requests, from: 50},
		{name: "shared-prefix-mixed", heavy: true, traffic: shared(150, 6016), unit: "req/s", good: .9, count: requests, from: 30,
			config: with(8, func(c *replay.Config) { c.Fleet = mixed(8) })},
		{name: "bursty-code", traffic: bursty, unit: "req/s", good: .9, count: requests, from: 30,
			config: with(8, func(c *replay.Config) { c.Limits = quick })},
		{name: "agents", heavy: true, traffic: sessions, unit: "sessions", good: .9, count: requests, from: 40, whole: true,
			config: with(8, func(c *replay.Config) { c.Limits = agents })},
	}
	for i := range all {
		all[i].rev = 2
	}
	return all
}

// data reads the traces once.
type data struct {
	dir      string
	mu       sync.Mutex
	arrivals map[string][]trace.Arrival
	agents   []trace.Session
}

func (d *data) trace(file, format string, seed uint64, offset time.Duration, limit, count int) ([]trace.Arrival, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := fmt.Sprint(file, seed, offset, limit, count)
	if all, ok := d.arrivals[key]; ok {
		return all, nil
	}
	t, err := trace.Open(filepath.Join(d.dir, file), format, seed)
	if err != nil {
		return nil, err
	}
	all, err := t.Window(offset, 0).MaxTokens(limit, nil).First(count).Collect()
	d.arrivals[key] = all
	return all, err
}

const (
	mooncakeFile = "mooncake_fast25_conversation.jsonl.gz"
	azureFile    = "azure2023_conv.csv.gz"
	agentsFile   = "agentic_claudecode_kvtester.delta.jsonl.gz"
	context      = 131072
)

type traffic func(d *data, seed uint64, load float64) (*replay.Workload, error)

func mooncake(offset time.Duration) traffic {
	return func(d *data, seed uint64, load float64) (*replay.Workload, error) {
		all, err := d.trace(mooncakeFile, trace.FormatMooncake, seed, offset, context, requests)
		return replay.Open("mooncake", trace.Of(trace.MooncakeBlock, all...).SpeedUp(load)), err
	}
}

func mooncakeUpTo(limit int) traffic {
	return func(d *data, seed uint64, load float64) (*replay.Workload, error) {
		all, err := d.trace(mooncakeFile, trace.FormatMooncake, seed, 30*time.Minute, limit, requests)
		return replay.Open("mooncake", trace.Of(trace.MooncakeBlock, all...).SpeedUp(load)), err
	}
}

// azure seeds shift the window, since the trace itself has nothing to draw.
func azure(offset time.Duration) traffic {
	return func(d *data, seed uint64, load float64) (*replay.Workload, error) {
		at := offset + time.Duration(seed-1)*2*time.Minute
		all, err := d.trace(azureFile, trace.FormatAzure, 0, at, context, 6000)
		return replay.Open("azure", trace.Of(0, all...).SpeedUp(load)), err
	}
}

func synthetic(name string, s trace.Synthetic, load float64) (*replay.Workload, error) {
	s.Rate, s.Requests = 1, requests // drawn at one per second, so that the same ones come at every load
	t, err := s.Trace()
	if err != nil {
		return nil, err
	}
	return replay.Open(name, t.SpeedUp(load)), nil
}

func shared(tenants, tokens int) traffic {
	return func(_ *data, seed uint64, load float64) (*replay.Workload, error) {
		return synthetic("shared-prefix", trace.Synthetic{
			Tenants: tenants, TenantTokens: tokens, TenantBlock: fast, Seed: seed,
			Prompt: trace.Lengths{Min: 100, Max: 2400}, Output: trace.Lengths{Min: 1, Max: 2000, Median: 200, Sigma: .7},
		}, load)
	}
}

func bursty(_ *data, seed uint64, load float64) (*replay.Workload, error) {
	return synthetic("bursty-code", trace.Synthetic{
		CV: 13, Seed: seed,
		Prompt: trace.Lengths{Min: 50, Max: 16000, Median: 1500, Sigma: 1}, Output: trace.Lengths{Min: 1, Max: 500, Median: 25, Sigma: .8},
	}, load)
}

func sessions(d *data, seed uint64, load float64) (*replay.Workload, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.agents == nil {
		all, err := trace.OpenSessions(filepath.Join(d.dir, agentsFile))
		if err != nil {
			return nil, err
		}
		for i := range all {
			all[i].MaxTokens(context)
		}
		d.agents = all
	}
	s := replay.Sessions{List: d.agents, Concurrent: int(load), Turns: requests, ThinkMax: time.Minute, Seed: seed}
	return s.Workload("agents"), nil
}
