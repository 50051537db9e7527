package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"lbd/balancer"
)

// Reasons that begin at 0 for every model and replica: a series that appears
// with its first event hides that event from rate() and increase().
var (
	retryReasons     = []string{"connect_refused", "connect_timeout", "reset", "loading", "stale_connection", "model_not_found", "response_not_found"}
	rejectionReasons = []string{"queue_full", "too_old", "deadline", "predicted_ttft"}
	failureReasons   = []balancer.Outcome{
		balancer.ServerError, balancer.ConnectRefused, balancer.ConnectTimeout, balancer.Reset, balancer.BadResponse, balancer.Timeout,
	}
	// errorRate is health.ErrorRate, an ejection without one outcome to blame.
	errorRate = "error_rate"
)

// joined makes the series that are labelled with the replica alone.
func (m *Metrics) joined(replica string) {
	m.replicas.get(replica, func() *struct{} {
		for _, o := range failureReasons {
			m.upstreamErrors.WithLabelValues(replica, o.String())
			m.ejections.WithLabelValues(replica, o.String())
		}
		m.ejections.WithLabelValues(replica, errorRate)
		return new(struct{})
	})
}

// Retain makes the labels those of the fleet: series of models and replicas that
// joined begin, series of those that left end, so that labels stay bounded over
// reloads and restarts. A request that still runs on a replica that left can bring
// its series back, so it is called again and again.
func (m *Metrics) Retain(models, replicas map[string]bool) {
	for name := range models {
		m.Model(name)
	}
	for id := range replicas {
		m.joined(id)
	}
	m.models.retain(func(name string, _ *Model) bool {
		return models[name] || name == Other || dropped(prometheus.Labels{"model": name}, m.modelVecs())
	})
	m.replicas.retain(func(id string, _ *struct{}) bool {
		return replicas[id] || dropped(prometheus.Labels{"replica": id}, []partialDeleter{m.upstreamErrors, m.ejections})
	})
	m.pairs.retain(func(k pairKey, p *Pair) bool {
		return models[k.model] && replicas[k.replica] || p.InFlight.n.Load() > 0 ||
			dropped(prometheus.Labels{"model": k.model, "replica": k.replica}, []partialDeleter{m.picks})
	})
}

type partialDeleter interface {
	DeletePartialMatch(prometheus.Labels) int
}

// dropped ends the series with these labels and returns false, as the answer to
// whether to keep them.
func dropped(l prometheus.Labels, vecs []partialDeleter) bool {
	for _, v := range vecs {
		v.DeletePartialMatch(l)
	}
	return false
}

func (m *Metrics) modelVecs() []partialDeleter {
	return []partialDeleter{
		m.requests, m.duration, m.ttft, m.itl, m.retries, m.clientDisconnects, m.admissionQueue,
		m.admissionWait, m.admissionRejected, m.promptTokens, m.completionTokens, m.cachedTokens,
	}
}

// inflightCollector adds up at the moment of a scrape what the pairs count: one
// model on one replica is several pairs after its strategy was changed.
type inflightCollector struct{ m *Metrics }

var descInflight = prometheus.NewDesc("lbd_inflight_requests", "Own load: requests sent to the replica and not done.",
	[]string{"model", "replica"}, nil)

// Describe implements prometheus.Collector.
func (c inflightCollector) Describe(ch chan<- *prometheus.Desc) { ch <- descInflight }

// Collect implements prometheus.Collector.
func (c inflightCollector) Collect(ch chan<- prometheus.Metric) {
	type key struct{ model, replica string }
	sums := map[key]int64{}
	for k, p := range c.m.pairs.copy() {
		sums[key{k.model, k.replica}] += p.InFlight.n.Load()
	}
	for k, n := range sums {
		ch <- prometheus.MustNewConstMetric(descInflight, prometheus.GaugeValue, float64(n), k.model, k.replica)
	}
}
