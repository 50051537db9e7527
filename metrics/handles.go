package metrics

import (
	"runtime"
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Model is the set of instruments of one model. Whoever is to count holds it from
// its beginning to its end: its series last as long as somebody does.
type Model struct {
	Duration, TTFT, ITL                          prometheus.Observer
	Disconnects                                  prometheus.Counter
	PromptTokens, CompletionTokens, CachedTokens prometheus.Counter
	// Of admission: how many are held back, and how long they were.
	Held    prometheus.Gauge
	HeldFor prometheus.Observer

	all   *Metrics
	name  string
	codes [600]atomic.Pointer[prometheus.Counter]
}

// Model returns the instruments of a model. The name must be a served one or
// Other.
func (m *Metrics) Model(name string) *Model {
	return m.models.get(name, func() *Model { return m.newModel(name) })
}

func (m *Metrics) newModel(name string) *Model {
	for _, reason := range retryReasons {
		m.retries.WithLabelValues(name, reason)
	}
	for _, reason := range rejectionReasons {
		m.admissionRejected.WithLabelValues(name, reason)
	}
	return &Model{
		Duration: m.duration.WithLabelValues(name), TTFT: m.ttft.WithLabelValues(name), ITL: m.itl.WithLabelValues(name),
		Disconnects:      m.clientDisconnects.WithLabelValues(name),
		PromptTokens:     m.promptTokens.WithLabelValues(name),
		CompletionTokens: m.completionTokens.WithLabelValues(name),
		CachedTokens:     m.cachedTokens.WithLabelValues(name),
		Held:             m.admissionQueue.WithLabelValues(name),
		HeldFor:          m.admissionWait.WithLabelValues(name),
		all:              m, name: name,
	}
}

// Answered counts one request with that status code, 100 to 599.
func (m *Model) Answered(code int) {
	p := m.codes[code].Load()
	if p == nil {
		c := m.all.requests.WithLabelValues(m.name, strconv.Itoa(code))
		p = &c
		m.codes[code].Store(p)
	}
	(*p).Inc()
	runtime.KeepAlive(m) // until it has counted
}

// Rejected counts one request that admission has refused.
func (m *Model) Rejected(reason string) {
	m.all.admissionRejected.WithLabelValues(m.name, reason).Inc()
	runtime.KeepAlive(m)
}

type pairKey struct{ model, replica, strategy string }

// Pair is the set of instruments of a model on a replica, held like a [Model].
type Pair struct {
	InFlight InFlight
	Picks    prometheus.Counter
}

// InFlight counts the requests under way. It is exported as long as there are
// any, also when the replica has left the fleet: they hold the Pair.
type InFlight struct{ n atomic.Int64 }

// Inc counts a request that was sent.
func (f *InFlight) Inc() { f.n.Add(1) }

// Dec takes a request off that is done.
func (f *InFlight) Dec() { f.n.Add(-1) }

// Pair returns the instruments of a model on a replica.
func (m *Metrics) Pair(model, replica, strategy string) *Pair {
	return m.pairs.get(pairKey{model, replica, strategy}, func() *Pair {
		return &Pair{Picks: m.picks.WithLabelValues(model, replica, strategy)}
	})
}
