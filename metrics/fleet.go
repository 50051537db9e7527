package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lbd/balancer"
)

// FleetCollector reads the gauges of the fleet's state at the moment of a
// scrape, so that nobody has to keep them up to date.
type FleetCollector struct {
	snapshot     func() *balancer.Snapshot
	pollFailures func(replica string) uint64
}

// NewFleetCollector returns a collector over what snapshot returns and over the
// poller's count of failed polls.
func NewFleetCollector(snapshot func() *balancer.Snapshot, pollFailures func(replica string) uint64) *FleetCollector {
	return &FleetCollector{snapshot: snapshot, pollFailures: pollFailures}
}

func replicaDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("lbd_"+name, help, []string{"replica"}, nil)
}

var (
	descHealthy = replicaDesc("replica_healthy", "1 if the replica gets requests as far as its health is concerned.")
	descWaiting = replicaDesc("replica_requests_waiting", "Last polled vllm:num_requests_waiting; absent when unknown.")
	descRunning = replicaDesc("replica_requests_running", "Last polled vllm:num_requests_running; absent when unknown.")
	descKV      = replicaDesc("replica_kv_cache_usage", "Last polled use of the KV cache, 0 to 1; absent when unknown.")
	descPollAge = replicaDesc("poll_age_seconds", "Time since the replica last answered a poll; absent before the first answer.")
	descFailed  = replicaDesc("poll_failures_total", "Polls of the replica's metrics and models pages that failed.")
	descPrefix  = prometheus.NewDesc("lbd_prefix_hit_ratio",
		"Prompt tokens found in prefix caches since the replicas started, 0 to 1, as replicas count them; absent when unknown.",
		[]string{"model"}, nil)
)

// Describe implements prometheus.Collector.
func (c *FleetCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descHealthy, descWaiting, descRunning, descKV, descPollAge, descFailed, descPrefix} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *FleetCollector) Collect(ch chan<- prometheus.Metric) {
	snap, now := c.snapshot(), time.Now()
	for i := range snap.Replicas {
		c.collectReplica(ch, &snap.Replicas[i], now)
	}
	for _, m := range snap.Models {
		var hits, queries float64
		for _, r := range m.Replicas {
			if p := r.Polled(); p != nil && p.PrefixHits.Known && p.PrefixQueries.Known {
				hits += p.PrefixHits.Value
				queries += p.PrefixQueries.Value
			}
		}
		if queries > 0 {
			ch <- prometheus.MustNewConstMetric(descPrefix, prometheus.GaugeValue, hits/queries, m.Name)
		}
	}
}

func (c *FleetCollector) collectReplica(ch chan<- prometheus.Metric, r *balancer.ReplicaState, now time.Time) {
	gauge := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, r.ID)
	}
	healthy := 0.0
	if r.Health.State == balancer.Healthy {
		healthy = 1
	}
	gauge(descHealthy, healthy)
	ch <- prometheus.MustNewConstMetric(descFailed, prometheus.CounterValue, float64(c.pollFailures(r.ID)), r.ID)
	p := r.Polled()
	if p == nil {
		return
	}
	gauge(descPollAge, now.Sub(p.At).Seconds())
	for _, m := range []struct {
		desc   *prometheus.Desc
		metric balancer.Metric
	}{{descWaiting, p.Waiting}, {descRunning, p.Running}, {descKV, p.KVUsage}} {
		if m.metric.Known {
			gauge(m.desc, m.metric.Value)
		}
	}
}
