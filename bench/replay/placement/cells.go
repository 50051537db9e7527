package main

import (
	"slices"
	"time"

	"lbd/bench/replay"
)

// cell is a kind of traffic on a kind of fleet.
type cell struct {
	name string
	rev  int
	// tuned cells were looked at while parameters of lbd's own rules and of rivals were chosen; the others only show what
	// came of it.
	tuned bool
	// main cells are those in which every rule is run first.
	main bool
	// heavy cells are those in which the rule is meant to win: shared prefixes, mixed hardware.
	heavy bool
	// like names the cell that this one is with the model of the replicas changed: their ranking should be the same.
	like    string
	traffic traffic
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

// mixed is half a fleet of the usual replicas and half of them at half the speed; mixedGPU has two kinds of replicas, of
// one and of two devices.
func mixed(n int) replay.Fleet { return replay.Fleet{{Count: n / 2}, {Count: n - n/2, Speed: .5}} }

var mixedGPU = replay.Fleet{{Count: 4, Preset: "llama-3.1-8b"}, {Count: 2, Preset: "llama-3.1-8b-tp2"}}

var cells = makeCells()

// revision of all cells; changing one means raising it.
const revision = 3

// mainCells are one of each kind: prefixes, mixed hardware, several lbds, none of these, bursts, conversations.
var mainCells = []string{
	"mooncake", "mooncake-mixed", "mooncake-4-lbds", "azure", "azure-mixed", "shared-prefix", "bursty-code", "agents",
}

func makeCells() []cell {
	all := append(mooncakeCells(), otherCells()...)
	for i := range all {
		all[i].rev = revision
		all[i].main = slices.Contains(mainCells, all[i].name)
	}
	return all
}

// on is the usual fleet with a change.
func on(n int, change func(*replay.Config)) replay.Config {
	c := replay.Config{Fleet: fleet(n), BlockSize: fast, Limits: chat}
	if change != nil {
		change(&c)
	}
	return c
}

// mooncakeCells vary everything, on the second half of the Mooncake trace.
func mooncakeCells() []cell {
	moon := func(name string, n int, from float64, change func(*replay.Config)) cell {
		return cell{
			name: "mooncake" + name, heavy: true, traffic: mooncake(30*time.Minute, context), unit: "x", config: on(n, change),
			good: .9, count: requests, from: from,
		}
	}
	like := func(c cell) cell {
		c.like = "mooncake"
		return c
	}
	first := moon("-first-half", 8, 3, nil)
	first.tuned, first.traffic = true, mooncake(0, context)
	quarter := moon("-quarter-kv", 8, 2, func(c *replay.Config) { c.KVFactor = .25 })
	quarter.traffic = mooncake(30*time.Minute, 64000)
	return []cell{
		first,
		moon("", 8, 3, nil),
		moon("-mixed", 8, 2, func(c *replay.Config) { c.Fleet = mixed(8) }),
		moon("-4-lbds", 8, 2.5, func(c *replay.Config) { c.LBDs = 4 }),
		like(moon("-step-error", 8, 2.5, func(c *replay.Config) { c.StepError = .25 })),
		like(moon("-steps-slower", 8, 2.2, func(c *replay.Config) { c.StepFactor = 1.25 })),
		like(moon("-steps-faster", 8, 4, func(c *replay.Config) { c.StepFactor = .75 })),
		like(moon("-coefficient-error", 8, 3, func(c *replay.Config) { c.CoefficientError = .3 })),
		like(moon("-length-error", 8, 3, func(c *replay.Config) { c.PromptError = .3 })),
		moon("-poll-5s", 8, 3, func(c *replay.Config) { c.Poll = 5 * time.Second }),
		moon("-half-streamed", 8, 3, func(c *replay.Config) { c.NonStreaming = .5 }),
		quarter,
		moon("-2-replicas", 2, .6, nil),
		moon("-16-replicas", 16, 6, nil),
		moon("-mixed-gpu", 6, 3, func(c *replay.Config) { c.Fleet = mixedGPU }),
		moon("-crash", 8, 2.8, func(c *replay.Config) {
			c.Faults = []replay.Fault{{Replica: 3, At: time.Minute, For: 30 * time.Second}}
		}),
		moon("-slow-replica", 8, 2.8, func(c *replay.Config) {
			c.Faults = []replay.Fault{{Replica: 3, At: 30 * time.Second, Factor: 2.5}}
		}),
	}
}

func otherCells() []cell {
	azureOn := func(name string, n int, from float64, change func(*replay.Config)) cell {
		c := on(n, change)
		c.Limits, c.BlockSize = quick, 16
		return cell{name: "azure" + name, traffic: azure(29 * time.Minute), unit: "x", config: c, good: .95, count: azureRequests, from: from}
	}
	sharedOn := func(name string, n int, from float64, change func(*replay.Config)) cell {
		return cell{
			name: "shared-prefix" + name, heavy: true, traffic: shared(150, 6016, requests), unit: "req/s", config: on(n, change), good: .9,
			count: requests, from: from,
		}
	}
	azureFirst := azureOn("-first-half", 8, 24, nil)
	azureFirst.tuned, azureFirst.traffic = true, azure(0)
	azureMixed := azureOn("-mixed", 8, 16, func(c *replay.Config) { c.Fleet = mixed(8) })
	azureMixed.heavy = true
	sharedSmall := sharedOn("-small", 8, 80, nil)
	sharedSmall.tuned, sharedSmall.traffic = true, shared(50, 3008, requests)
	sharedError := sharedOn("-step-error", 8, 50, func(c *replay.Config) { c.StepError = .25 })
	sharedError.like = "shared-prefix"
	wide := sharedOn("-64-replicas", 64, 400, nil)
	wide.traffic, wide.count = shared(150, 6016, wideRequests), wideRequests
	return []cell{
		azureFirst,
		azureOn("", 8, 24, nil),
		azureMixed,
		azureOn("-4-lbds", 8, 24, func(c *replay.Config) { c.LBDs = 4 }),
		sharedSmall,
		sharedOn("", 8, 50, nil),
		sharedOn("-mixed", 8, 32, func(c *replay.Config) { c.Fleet = mixed(8) }),
		sharedError,
		{name: "bursty-code", traffic: bursty, unit: "req/s", good: .9, count: requests, from: 60, config: on(8, func(c *replay.Config) { c.Limits = quick })},
		{name: "agents", heavy: true, traffic: sessions, unit: "sessions", good: .9, count: requests, from: 60, whole: true,
			config: on(8, func(c *replay.Config) { c.Limits, c.BlockSize = agents, 2*fast })},
		wide,
	}
}
