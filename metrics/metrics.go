package metrics

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
)

// Other is the model label of requests for models nobody serves, and of those that
// name none of several.
const Other = "other"

// Buckets in seconds. Those of time to first token and of inter-token latency
// are vLLM's own (v0.19 vllm/v1/metrics/loggers.py), so that both sides of lbd
// can be laid over each other, with finer ones below for small models.
var (
	ttftBuckets = []float64{.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560}
	itlBuckets  = []float64{.001, .0025, .005, .01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80}
	e2eBuckets  = []float64{.005, .025, .1, .3, .5, .8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680}
	waitBuckets = []float64{.001, .005, .01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120}
)

// Metrics holds every instrument. Hot paths use the handles of Model, Pair and
// Replica, which look labels up once.
type Metrics struct {
	requests          *prometheus.CounterVec
	duration          *prometheus.HistogramVec
	ttft              *prometheus.HistogramVec
	itl               *prometheus.HistogramVec
	picks             *prometheus.CounterVec
	retries           *prometheus.CounterVec
	clientDisconnects *prometheus.CounterVec
	upstreamErrors    *prometheus.CounterVec
	ejections         *prometheus.CounterVec
	admissionQueue    *prometheus.GaugeVec
	admissionWait     *prometheus.HistogramVec
	admissionRejected *prometheus.CounterVec
	promptTokens      *prometheus.CounterVec
	completionTokens  *prometheus.CounterVec
	cachedTokens      *prometheus.CounterVec

	// ReloadSuccessful is 1 when the last (re)load of the configuration
	// succeeded.
	ReloadSuccessful prometheus.Gauge

	models   handles[string, Model]
	pairs    handles[pairKey, Pair]
	replicas handles[string, replicaSeries]
}

// New registers the catalogue with r.
func New(r prometheus.Registerer, version string) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lbd_" + name, Help: help}, labels)
		r.MustRegister(v)
		return v
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "lbd_" + name, Help: help}, labels)
		r.MustRegister(v)
		return v
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "lbd_" + name, Help: help, Buckets: buckets}, labels)
		r.MustRegister(v)
		return v
	}
	m := &Metrics{
		requests: counter("requests_total", "Requests answered, by status code (499: the client left first).", "model", "code"),
		duration: histogram("request_duration_seconds", "Time from the last request byte to the last response byte.", e2eBuckets, "model"),
		ttft:     histogram("time_to_first_token_seconds", "Time from the last request byte to the first streamed event with content.", ttftBuckets, "model"),
		itl:      histogram("inter_token_latency_seconds", "Time between two streamed events with content.", itlBuckets, "model"),
		picks:    counter("picks_total", "Decisions of the strategy.", "model", "replica", "strategy"),
		retries:  counter("retries_total", "Requests sent again, by the reason the first attempt failed.", "model", "reason"),
		clientDisconnects: counter("client_disconnects_total",
			"Requests whose client left before the response was complete.", "model"),
		upstreamErrors: counter("upstream_errors_total", "Failed attempts at a replica, by reason.", "replica", "reason"),
		ejections:      counter("ejections_total", "Times a replica was taken out of service, by reason.", "replica", "reason"),
		admissionQueue: gauge("admission_queue_length",
			"Requests held back because every replica of the model is saturated.", "model"),
		admissionWait: histogram("admission_wait_seconds", "Time requests were held back, of those that were.", waitBuckets, "model"),
		admissionRejected: counter("admission_rejected_total",
			"Requests refused with 429 because the queue was full or the wait, known or predicted, too long.", "model", "reason"),
		promptTokens:     counter("prompt_tokens_total", "Prompt tokens, as replicas reported them in usage.", "model"),
		completionTokens: counter("completion_tokens_total", "Generated tokens, as replicas reported them in usage.", "model"),
		cachedTokens:     counter("cached_tokens_total", "Prompt tokens served from a prefix cache, as replicas reported them in usage.", "model"),
		ReloadSuccessful: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "lbd_config_last_reload_successful", Help: "1 if the configuration was last loaded without error.",
		}),
	}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "lbd_build_info", Help: "1, labelled with what is running."},
		[]string{"version", "goversion"})
	build.WithLabelValues(version, runtime.Version()).Set(1)
	r.MustRegister(m.ReloadSuccessful, build, inflightCollector{m})
	m.ReloadSuccessful.Set(1)
	return m
}

// Ejected counts one ejection.
func (m *Metrics) Ejected(replica, reason string) {
	r := m.joined(replica)
	m.ejections.WithLabelValues(replica, reason).Inc()
	runtime.KeepAlive(r) // until it has counted
}

// UpstreamError counts one failed attempt.
func (m *Metrics) UpstreamError(replica, reason string) {
	r := m.joined(replica)
	m.upstreamErrors.WithLabelValues(replica, reason).Inc()
	runtime.KeepAlive(r)
}

// Retried counts one repeated attempt.
func (m *Metrics) Retried(model, reason string) {
	h := m.Model(model)
	m.retries.WithLabelValues(model, reason).Inc()
	runtime.KeepAlive(h)
}
