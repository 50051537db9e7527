// Command placement compares lbd's strategies with the rules of other projects over a grid of cells, and writes the table
// to bench/results/placement.md. A cell is a kind of traffic on a kind of fleet. For each cell, policy and seed it searches
// the load up to which enough requests are good (goodput capacity), all policies on the same arrivals.
//
// Every result is a line in a file (bench/results/placement.jsonl) as soon as it is there. What is in the file is not
// run again, so a grid may be made in pieces, and a new policy costs only its own runs. A line belongs to the revision of
// its cell; changing a cell means raising that.
//
//	go run ./bench/replay/placement -data DIR -budget 100s     # run what is missing for 100 s
//	go run ./bench/replay/placement -data DIR -policies least-cost,lmetric -cells 'mooncake.*' -seeds 5
//	go run ./bench/replay/placement -write                      # only write the table from what is there
//
// # Statistics
//
// A policy's capacity in a cell is the mean over seeds. Two policies are compared seed by seed: the interval given is that
// of the mean ratio, from a bootstrap over seeds (2,000 resamples, 95 %). With fewer than three seeds none is given.
package main
