// Package replay runs traffic against strategies in virtual time: the shipped ones, with the code, the snapshots and the
// reservations the daemon uses, and the rules of other projects (package rivals) behind the same two seams. Replicas are
// the engines of bench/sim/engine. There is no network, no wall clock and no goroutine.
//
//	w, err := replay.Open(t)                       // t is a *trace.Trace
//	res, err := replay.Run(replay.Config{
//		Fleet: replay.Fleet{{Count: 16}}, Policy: replay.Shipped(entry), Poll: time.Second, Seed: 1,
//	}, w)
//
// Invariants: the same Config and the same workload give the same Result to the byte; what a strategy does never changes
// what is offered to it (arrivals, lengths, front-end delays are drawn per request from the seed), so two strategies are
// compared on common random numbers; every request ends exactly once, as completed or failed.
//
// # What happens to a request
//
// At its arrival one of the lbds picks a replica and reserves. The replica's API server takes engine.FrontEnd to
// tokenise; that time is not in its gauges. The engine then queues, computes and generates. First tokens, every block of
// tokens and the end of a step are told to the lbd at the step's end. A request that is not streamed tells nothing before
// its end. A replica that crashes resets its requests: those without a first token (and those that are not streamed) are
// sent again elsewhere, up to MaxTries; the others fail, as a truncated stream does.
//
// # Gauges
//
// What a poll reads is what vLLM publishes: the state at the end of the last step, without the requests that arrived
// while it ran. Each lbd polls all replicas in one tick; the ticks of several lbds are spread over the period.
//
// # What is left out
//
// Network time (below a millisecond), the 46 us of API server CPU per token, clients that leave. The gap a preemption
// tears into a stream is in TPOT and E2E, and missing from ITL. A request that is not streamed has the TTFT of the engine,
// which its client cannot see.
package replay
