package metrics

import (
	"maps"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Model is the set of instruments of one model.
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
	return m.models.get(name, func() *Model {
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
	})
}

// Answered counts one request with that status code, 100 to 599.
func (m *Model) Answered(code int) {
	p := m.codes[code].Load()
	if p == nil {
		c := m.all.requests.WithLabelValues(m.name, strconv.Itoa(code))
		p = &c
		m.codes[code].Store(p)
		m.all.Model(m.name) // Retain may have dropped m meanwhile and must know of the series
	}
	(*p).Inc()
}

// Rejected counts one request that admission has refused.
func (m *Model) Rejected(reason string) {
	m.all.admissionRejected.WithLabelValues(m.name, reason).Inc()
	m.all.Model(m.name)
}

type pairKey struct{ model, replica, strategy string }

// Pair is the set of instruments of a model on a replica.
type Pair struct {
	InFlight InFlight
	Picks    prometheus.Counter
}

// InFlight counts the requests under way. It is exported as long as there are
// any, also when the replica has left the fleet.
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

// handles is a map that is read without a lock and copied to be written: it
// changes a few times in the life of a fleet and is read for every request.
type handles[K comparable, V any] struct {
	mu sync.Mutex
	m  atomic.Pointer[map[K]*V]
}

func (h *handles[K, V]) get(k K, make func() *V) *V {
	if m := h.m.Load(); m != nil {
		if v := (*m)[k]; v != nil {
			return v
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	next := h.copy()
	v := next[k]
	if v == nil {
		v = make()
		next[k] = v
		h.m.Store(&next)
	}
	return v
}

func (h *handles[K, V]) retain(keep func(K, *V) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	next := h.copy()
	before := len(next)
	maps.DeleteFunc(next, func(k K, v *V) bool { return !keep(k, v) })
	if len(next) < before {
		h.m.Store(&next)
	}
}

func (h *handles[K, V]) copy() map[K]*V {
	next := map[K]*V{}
	if m := h.m.Load(); m != nil {
		maps.Copy(next, *m)
	}
	return next
}
