// Wire measures what a proxy costs: CPU per small request and per SSE event,
// added latency, memory per connection, for lbd and its peers on the same work.
//
// One table of cells (work.go) describes the work. From it the rig starts
// everything: a load process, which is replica and client in one thread, and in
// turn each proxy between the two halves of it. The proxy has a core of its own.
// Its CPU time comes from the kernel's clock of the process, in nanoseconds, so
// the figure holds also where the load is what limits throughput. Processors are kept
// from sleeping (awake.go).
//
// Invariant: a figure of one proxy is compared with another's of the same round
// only; rounds are shuffled, and a round that other processes disturbed is
// repeated or marked.
//
//	go run ./bench/wire -cells post,sse256 -peers lbd,nginx -rounds 5
//	go run ./bench/wire -lbd old=/tmp/lbd.old -lbd new=/tmp/lbd.new -cells post
package main
