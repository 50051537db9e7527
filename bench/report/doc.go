// Package report reads result files of load generators, says whether one
// environment did better than another and how sure that is, and fills a page with
// it. It reads lbd bench, genai-perf, aiperf, guidellm and vllm bench serve.
//
//	runs, err := report.Find("results/baseline")
//	c, err := report.Compare([]report.Environment{{Name: "baseline", Runs: runs}, ...}, report.Options{})
//	err = c.Page().WriteHTML(file)
//
// Invariants: figures of different workloads are never set against each other
// ([WorkloadError] says how they differ); nothing is called better or worse unless
// its interval leaves out 0 and there is more than one repeat; percentiles are
// taken from requests, never averaged over workers of one run.
//
// # Evidence
//
// The figure of an environment is the mean over its repeats of the figure of each.
// The interval of a difference is the wider of two. One is a bootstrap in two
// stages: repeats are drawn with replacement and, within each, blocks of
// consecutive requests, because requests that queued together are not independent.
// Where both environments were sent the same requests, the draws are the same in
// both, so that what the requests have in common cancels out. The other is
// Student's interval over the repeats. Neither does alone. For made-up queues
// without any difference, 300 measurements of three pairs of repeats each, the
// bootstrap saw one in 1 to 11 % of them, and in 14 to 25 % where the machine made
// whole repeats 5 to 15 % faster or slower; the wider of the two in at most 5 %.
// Gap and throughput figures have Student's only.
package report
