// Soak churns an lbd for minutes and shows what is left of it: memory, goroutines,
// descriptors and own load over time, and every error a client saw with the fault
// that explains it.
//
// It starts simulated replicas (processes of lbd sim) and an lbd, sends streams and
// whole answers through it, with clients that leave, read slowly, say nothing, idle
// and pipeline, and meanwhile kills, hangs, resets, restarts, drains and reloads. A
// journal says from when to when each replica was disturbed and how.
//
// Each quarter of a run ends with a rest: the clients leave, the fleet is well again,
// lbd collects its garbage. What lives then is compared from rest to rest, so that a
// leak of some ten bytes a request shows in minutes. A lull at the end, in which only
// polls and probes go on, shows what lbd keeps of those until somebody asks. RSS,
// which is judged besides, is mostly garbage, of which the collector lets as much pile
// up as lives (GOGC=100), and the 64 MiB of the index of prompt prefixes, which is
// filled beforehand.
//
// Invariant: an error is explained only by a disturbance of a kind that can cause
// it, of the replica that answered, during the request; or by all replicas of the
// model being disturbed then. Everything else fails the run. Everything it started
// is stopped on every way out.
//
//	go run ./bench/soak -duration 60s
//
// The seed fixes what is drawn (each client's requests, the order of disturbances),
// not when the machine gets to it. The exit code is 3 when a check fails; go run
// makes 1 of it.
package main
