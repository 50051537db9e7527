package strategy

import (
	"math/rand/v2"

	"lbd/balancer"
	"lbd/balancer/prefix"
)

// Options is what strategies are made with.
type Options struct {
	// Uint64 is the source of randomness, safe for concurrent use. The default, math/rand/v2's top-level function, keeps its
	// state per processor: picks on different cores share nothing. Tests and replays give a seeded one.
	Uint64 func() uint64
	// Prefixes is the index of prompt prefixes, for all models one; nil makes one per model.
	Prefixes *prefix.Index
	// LeastCost are knobs for experiments.
	LeastCost LeastCostOptions
}

func (o Options) uint64() func() uint64 {
	if o.Uint64 == nil {
		return rand.Uint64
	}
	return o.Uint64
}

// Entry is one strategy of the table.
type Entry struct {
	// Name is what the configuration calls it.
	Name string
	// Summary says what it does, and Inputs what it looks at, as in README.md.
	Summary, Inputs string
	// New makes the picker of one model.
	New func(Options) balancer.Picker
}

// Table lists every strategy, from the plainest to the best informed.
var Table = []Entry{
	{"cycle", "takes turns, in proportion to weight", "weight", newCycle},
	{"random", "picks at random, in proportion to weight", "weight", newRandom},
	{"two-choices", "picks the less loaded of two random replicas", "weight, own and foreign load", newTwoChoices},
	{"least-inflight", "picks the replica with the fewest requests in flight from here", "weight, own load", newLeastInflight},
	{"least-waiting", "picks the replica with the fewest requests waiting, then the fewest running",
		"weight, own and foreign load, `vllm:num_requests_waiting`, `vllm:num_requests_running`", newLeastWaiting},
	{"least-cost", "picks the replica where the request costs least time, its own and that of others",
		"lengths, prompt prefixes, own and foreign load, weight, `vllm:num_requests_waiting`, `vllm:num_requests_running`, `vllm:kv_cache_usage_perc`, `vllm:cache_config_info`, `vllm:prefix_cache_{queries,hits}_total`", newLeastCost},
}

// Lookup finds a strategy by its name.
func Lookup(name string) (Entry, bool) {
	for _, e := range Table {
		if e.Name == name {
			return e, true
		}
	}
	return Entry{}, false
}

// Names lists the names of the table, in its order.
func Names() []string {
	names := make([]string, len(Table))
	for i, e := range Table {
		names[i] = e.Name
	}
	return names
}
