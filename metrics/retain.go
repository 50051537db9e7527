package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"lbd/balancer"
)

// Reasons that begin at 0 for every model and replica: a series that appears
// with its first event hides that event from rate() and increase().
var (
	retryReasons     = []string{"connect_refused", "connect_timeout", "reset", "loading", "replica_full", "stale_connection", "model_not_found", "response_not_found"}
	rejectionReasons = []string{"queue_full", "too_old", "deadline", "predicted_ttft", "predicted_tpot"}
	failureReasons   = []balancer.Outcome{
		balancer.ServerError, balancer.ConnectRefused, balancer.ConnectTimeout, balancer.Reset, balancer.BadResponse, balancer.Timeout,
	}
	// errorRate is health.ErrorRate, an ejection without one outcome to blame.
	errorRate = "error_rate"
)

// replicaSeries stands for the series that are labelled with the replica alone. It
// has a size, since pointers to what has none are all the same.
type replicaSeries struct{ id string }

// joined makes these series.
func (m *Metrics) joined(replica string) *replicaSeries {
	return m.replicas.get(replica, func() *replicaSeries {
		for _, o := range failureReasons {
			m.upstreamErrors.WithLabelValues(replica, o.String())
			m.ejections.WithLabelValues(replica, o.String())
		}
		m.ejections.WithLabelValues(replica, errorRate)
		return &replicaSeries{replica}
	})
}

// Retain makes the labels those of the fleet: series of models and replicas that
// joined begin, and series of those that left end once nobody holds their handles,
// so that labels stay bounded over reloads and restarts. It is called again and
// again, by one goroutine that reads the fleet anew for each call. What it read may
// be old by the time of the call, and a request may have come and gone that saw a
// newer one; so the first call that misses something only lets go of it, and its
// series end in a later one that misses it too.
func (m *Metrics) Retain(models, replicas map[string]bool) {
	m.models.join(models, m.newModel)
	for id := range replicas {
		m.joined(id)
	}
	m.models.retain(func(name string) bool { return models[name] || name == Other },
		func(name string) { drop(prometheus.Labels{"model": name}, m.modelVecs()...) })
	m.replicas.retain(func(id string) bool { return replicas[id] },
		func(id string) { drop(prometheus.Labels{"replica": id}, m.upstreamErrors, m.ejections) })
	m.pairs.retain(func(k pairKey) bool { return (models[k.model] || k.model == Other) && replicas[k.replica] },
		func(k pairKey) {
			drop(prometheus.Labels{"model": k.model, "replica": k.replica, "strategy": k.strategy}, m.picks)
		})
}

type partialDeleter interface {
	DeletePartialMatch(prometheus.Labels) int
}

// drop ends the series with these labels.
func drop(l prometheus.Labels, vecs ...partialDeleter) {
	for _, v := range vecs {
		v.DeletePartialMatch(l)
	}
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
	for k, p := range c.m.pairs.current() {
		sums[key{k.model, k.replica}] += p.InFlight.n.Load()
	}
	for k, p := range c.m.pairs.stillHeld() {
		if n := p.InFlight.n.Load(); n > 0 {
			sums[key{k.model, k.replica}] += n
		}
	}
	for k, n := range sums {
		ch <- prometheus.MustNewConstMetric(descInflight, prometheus.GaugeValue, float64(n), k.model, k.replica)
	}
}
