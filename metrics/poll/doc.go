// Package poll reads what replicas say of themselves: /metrics for the polled
// part of their load, /v1/models for what they serve.
//
// # One tick for all
//
// All replicas are polled in one synchronised tick of a fixed period. Between
// polls lbd adds what it sent itself; with such updates synchronous periodic
// reports keep the waiting time bounded even when they are very sparse, while
// asynchronous ones at random instants let it grow without bound (van der Boor,
// Borst, van Leeuwaarden 2019, "Hyper-scalable JSQ with sparse feedback",
// arXiv 1903.02337). The tick never waits: a replica whose last poll is still
// under way is left out.
//
// # Invariants
//
// A missing or NaN metric is unknown, never zero. A poll that fails or is late
// changes the age of what is known and nothing else: it never ejects, and after
// three intervals the foreign part is dropped ([balancer.Replica.MarkStale]).
//
// # Phantom load
//
// Foreign load is what gauges show beyond our own requests, so gauges that stand
// still after the engine has become idle would show load that does not exist. V0
// refreshes its gauges only every 10 s when idle and not at all on an abort
// (vllm/engine/multiprocessing/engine.py, POLLING_TIMEOUT_MS); V1 of v0.9.1 to
// v0.10.1 leaves them until the next request when all requests abort (vLLM
// #22545, fixed by #22995, again in #29928). Therefore gauges that show requests
// while nothing of the replica moves and none of our own requests runs there
// count for 10 s at most: that covers V0's own refresh, and is longer than any
// step of a working engine. After that the replica is stale, so it gets requests
// by own load, and the first of them makes the gauges true again.
//
//	p := poll.New(poll.Config{Interval: time.Second}, fleet, poll.Options{OnEvent: log})
//	p.Start()
//	defer p.Stop()
package poll
