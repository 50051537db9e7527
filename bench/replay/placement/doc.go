// Command placement compares lbd's strategies with the rules of other projects over a grid of cells, and writes the table
// to bench/results/placement.md. A cell is a kind of traffic on a kind of fleet. For each cell, policy and seed it searches
// the load up to which enough requests are good (goodput capacity), all policies on the same arrivals, and then runs all of
// them at one common load, the capacity of the reference rule, and at 80 % of it, for the latencies there.
//
// Every result is a line in a file (bench/results/placement.jsonl) as soon as it is there. What is in the file is not run
// again, so a grid may be made in pieces, and a new policy costs only its own runs. A line belongs to the revision of its
// cell; changing a cell means raising that. Lines of lbd's own strategies also have the revision they were run with; the
// table shows the newest of each.
//
//	go run ./bench/replay/placement -data DIR -budget 100s                   # run what is missing for 100 s
//	go run ./bench/replay/placement -data DIR -policies least-cost -rev 2    # least-cost has changed: do it again
//	go run ./bench/replay/placement -data DIR -policies lmetric -cells 'mooncake.*' -seeds 3
//	go run ./bench/replay/placement -data DIR -tune                          # the settings of rivals, on the tuning cells
//	go run ./bench/replay/placement -write                                   # only write the table from what is there
//
// The most telling runs come first: one seed of everything, then all seeds of what came within a tenth of the best of its
// cell, their latencies, and then the rest.
//
// # Yardsticks
//
// Two columns of the first table say how much room there is for any rule: what the fleet can carry for ever at most,
// whoever chooses, if every request is served (ceiling, replay.Ceiling), and what one replica in place of all carries in the
// same search (pooled, replay.Config.Pooled). They are run like rules (-policies ceiling,pooled). Where least-cost is above
// the ceiling, it is because runs end: with four times the requests it carries 78.0 req/s instead of 87.8 in
// shared-prefix-small (the ceiling is 83.8 then), and 437 instead of 522 with 64 replicas (478; seed 1 each).
//
// # Statistics
//
// The first tenth of the requests is not counted. A policy's capacity in a cell is the mean over seeds. Two policies are
// compared seed by seed: the interval given is that of the mean ratio, from a bootstrap over seeds (2,000 resamples, 95 %).
// With fewer than three seeds none is given; with five it is narrower than it should be, as bootstraps of few values are.
package main
