package rivals

import (
	"slices"

	"lbd/bench/replay"
)

// Table lists every rule: first those with the settings their projects ship, then the tuned ones, then the oracles.
var Table = slices.Concat(shipped, tuned(), oracles)

var shipped = []replay.Policy{
	{Name: "naive-waiting-first", New: naiveWaitingFirst, What: "smallest polled queue, the first of equals"},
	{Name: "naive-waiting", New: naiveWaitingRandom, What: "smallest polled queue, any of equals"},
	{Name: "naive-running", New: naiveRunning, What: "smallest polled waiting + running"},
	{Name: "vllm-dp", New: newVLLMDP, Poll: vllmDPPoll, What: "vLLM's balancer of data-parallel engines, counts every 100 ms"},
	{Name: "polled-two-choices", New: newPolledTwo, Poll: polledTwoPoll, What: "vllm-project/router power_of_two: polled load of two, every 30 s"},
	{Name: "least-request", New: newLeastRequest, What: "AIBrix least-request: fewest own requests"},
	{Name: "prequal", New: newPrequal, What: "Prequal (NSDI'24) with exact probes; constants from memory"},
	{Name: "c3", New: newC3, What: "C3 (NSDI'15) without rate limiter; formula from memory"},
	{Name: "smg-least-load", New: smgLeastLoad, Poll: smgPoll, What: "SMG least_load, gRPC form, polls every 10 s"},
	{Name: "smg-least-load-fast", New: smgLeastLoad, What: "the same at the run's poll period"},
	{Name: "smg-two-choices", New: smgTwo, Poll: smgPoll, What: "SMG power_of_two: least_load's score of two"},
	{Name: "prefix-hash", New: newPrefixHash, What: "SGW prefix_hash: first block on a ring, bounded load 1.25"},
	{Name: "session-hash", New: newSessionRing, What: "production-stack session: consistent hashing, no bound; else fewest in a minute"},
	{Name: "ps-prefixaware", New: newPrefixAware, What: "production-stack prefixaware: longest match, load ignored"},
	{Name: "aibrix-prefix", New: newAIBrixPrefix, What: "AIBrix prefix-cache, defaults of its code"},
	{Name: "sglang-cache-aware", New: sglangCommandLine, What: "SGW cache_aware, command line's defaults (.3, 64, 1.5)"},
	{Name: "sglang-cache-aware-lib", New: sglangLibrary, What: "SGW cache_aware, library's defaults (.5, 32, 1.1, 10,000 characters)"},
	{Name: "smg-cache-aware", New: newSMGCacheAware, Poll: smgPoll, What: "SMG cache_aware of 2026, pressure on the chosen replica"},
	{Name: "smg-cache-aware-fast", New: newSMGCacheAware, What: "the same at the run's poll period"},
	{Name: "llmd-blend", New: newLLMDBlend, Poll: llmdPoll, What: "llm-d 3/2/2 (prefix, queue, KV), polls every 50 ms"},
	{Name: "llmd-blend-slow", New: newLLMDBlend, What: "the same at the run's poll period"},
	{Name: "llmd-sticky", New: llmdStickyDefault, What: "llm-d sticky until saturated, 15,928 tok/s, 18 s"},
	{Name: "preble", New: newPreble, What: "Preble E2 (ICLR'25), paper form, without rebalancing"},
	{Name: "skywalker", New: newSkyWalker, Poll: vllmDPPoll, What: "SkyWalker selective pushing (EuroSys'26), polls every 100 ms"},
	{Name: "dualmap", New: newDualMap, What: "DualMap (ICLR'26), own rule for the prefix length, no migration"},
	{Name: "smetric", New: newSmetric, What: "vllm-project/router smetric, example constants"},
	{Name: "dynamo-old", New: dynamoOlder, What: "Dynamo KV router up to 1.0, approximate index"},
	{Name: "dynamo", New: dynamoApproximate, What: "Dynamo KV router, approximate index (120 s)"},
	{Name: "dynamo-events", New: dynamoEvents, What: "Dynamo KV router, told by KV events"},
	{Name: "lmetric-gateway", New: lmetricGateway, What: "SGW lmetric: new work x (load + 1)"},
	{Name: "lmetric", New: lmetricPaper, What: "LMetric as in the paper: (outstanding + new work) x (load + 1)"},
}

var oracles = []replay.Policy{
	{Name: "oracle-ttft", New: newOracleTTFT, What: "not a rival: least TTFT predicted with everything known"},
	{Name: "oracle", New: newOracle, What: "not a rival: marginal cost with everything known"},
}

// Lookup finds a rule by its name.
func Lookup(name string) (replay.Policy, bool) {
	for _, p := range Table {
		if p.Name == name {
			return p, true
		}
	}
	return replay.Policy{}, false
}

// Names lists the names of the table.
func Names() []string {
	names := make([]string, len(Table))
	for i, p := range Table {
		names[i] = p.Name
	}
	return names
}
