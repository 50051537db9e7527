package main

import (
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"lbd/bench/replay"
	"lbd/bench/trace"
)

// traffic makes what is offered at a load. The seed draws what there is to draw; the requests of a seed are the same at
// every load and for every policy.
type traffic func(d *data, seed uint64, load float64) (*replay.Workload, error)

const (
	mooncakeFile = "mooncake_fast25_conversation.jsonl.gz"
	azureFile    = "azure2023_conv.csv.gz"
	agentsFile   = "agentic_claudecode_kvtester.delta.jsonl.gz"
	context      = 131072

	azureRequests = 6000
	wideRequests  = 16000
	// coarse blocks of the agents' trace: 512 tokens of prompts that have 100,000.
	coarse = 8
)

// data reads or draws arrivals once, for all runs.
type data struct {
	dir    string
	mu     sync.Mutex
	known  map[string][]trace.Arrival
	agents []trace.Session
}

func newData(dir string) *data { return &data{dir: dir, known: map[string][]trace.Arrival{}} }

func (d *data) once(key string, make func() ([]trace.Arrival, error)) ([]trace.Arrival, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if all, ok := d.known[key]; ok {
		return all, nil
	}
	all, err := make()
	if err == nil {
		d.known[key] = all
	}
	return all, err
}

func (d *data) trace(file, format string, seed uint64, offset time.Duration, limit, count int) ([]trace.Arrival, error) {
	return d.once(fmt.Sprint(file, seed, offset, limit, count), func() ([]trace.Arrival, error) {
		t, err := trace.Open(filepath.Join(d.dir, file), format, seed)
		if err != nil {
			return nil, err
		}
		return t.Window(offset, 0).MaxTokens(limit, nil).First(count).Collect()
	})
}

func mooncake(offset time.Duration, limit int) traffic {
	return func(d *data, seed uint64, load float64) (*replay.Workload, error) {
		all, err := d.trace(mooncakeFile, trace.FormatMooncake, seed, offset, limit, requests)
		return replay.Open("mooncake", trace.Of(trace.MooncakeBlock, all...).SpeedUp(load)), err
	}
}

// azure seeds shift the window, since the trace itself has nothing to draw.
func azure(offset time.Duration) traffic {
	return func(d *data, seed uint64, load float64) (*replay.Workload, error) {
		at := offset + time.Duration(seed-1)*2*time.Minute
		all, err := d.trace(azureFile, trace.FormatAzure, 0, at, context, azureRequests)
		return replay.Open("azure", trace.Of(0, all...).SpeedUp(load)), err
	}
}

// synthetic is drawn at one request per second, so that the same ones come at every load.
func synthetic(d *data, name string, s trace.Synthetic, load float64) (*replay.Workload, error) {
	s.Rate = 1
	all, err := d.once(fmt.Sprint(name, s), func() ([]trace.Arrival, error) {
		t, err := s.Trace()
		if err != nil {
			return nil, err
		}
		return t.Collect()
	})
	return replay.Open(name, trace.Of(s.TenantBlock, all...).SpeedUp(load)), err
}

func shared(tenants, tokens, count int) traffic {
	return func(d *data, seed uint64, load float64) (*replay.Workload, error) {
		return synthetic(d, "shared-prefix", trace.Synthetic{
			Tenants: tenants, TenantTokens: tokens, TenantBlock: fast, Seed: seed, Requests: count,
			Prompt: trace.Lengths{Min: 100, Max: 2400}, Output: trace.Lengths{Min: 1, Max: 2000, Median: 200, Sigma: .7},
		}, load)
	}
}

func bursty(d *data, seed uint64, load float64) (*replay.Workload, error) {
	return synthetic(d, "bursty-code", trace.Synthetic{
		CV: 13, Seed: seed, Requests: requests,
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
	s := replay.Sessions{List: d.agents, Concurrent: int(load), Turns: requests, ThinkMax: time.Minute, Seed: seed, Coarse: coarse}
	return s.Workload("agents"), nil
}
