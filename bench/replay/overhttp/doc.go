// Command overhttp checks that the ranking of strategies in bench/replay is that of the real daemon: it sends a short slice
// of the Mooncake trace, in real time, with the client of lbd bench through an lbd process to simulated replicas over HTTP,
// gives the same slice to the same strategies in replay, and writes both beside each other to bench/results/overhttp.md.
//
//	go run ./bench/replay/overhttp -data DIR            # one round of all strategies at once, about two minutes
//	go run ./bench/replay/overhttp -data DIR -rounds 2  # a second one, added to the first
//	go run ./bench/replay/overhttp -write               # only the table
//
// All strategies are measured at the same time, each with its own lbd and replicas, so that noise of the machine meets all of
// them. What a round measured is in bench/results/overhttp.json and is not measured again.
//
// # What is compared
//
// Of two strategies one is better in a medium when the interval of the difference of their mean TTFT, request by request,
// lies on one side of 0 (95 %, bootstrap over blocks of consecutive requests, since what one meets its neighbours meet too).
// Replay and HTTP contradict each other where both decide and say the opposite.
package main
