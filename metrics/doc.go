// Package metrics is the catalogue of everything lbd exports under the prefix
// lbd_: names, help texts, labels and buckets stand here and nowhere else.
//
// Invariants: labels are bounded. A model label is a served name or "other"; a
// replica label is a replica of the fleet; series of models and replicas that
// have left are dropped by [Metrics.Retain]. And what is counted is kept: no series
// is dropped while its model or replica is served or a request holds its handle.
//
//	m := metrics.New(prometheus.NewRegistry())
//	m.Model("llama").TTFT.Observe(0.21)
package metrics
