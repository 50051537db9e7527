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

	requests *prometheus.CounterVec
	name     string
	codes    [600]atomic.Pointer[prometheus.Counter]
}

// Model returns the instruments of a model. The name must be a served one or
// Other.
func (m *Metrics) Model(name string) *Model {
	return m.models.get(name, func() *Model {
		m.admissionQueue.WithLabelValues(name).Set(0)
		return &Model{
			Duration: m.duration.WithLabelValues(name), TTFT: m.ttft.WithLabelValues(name), ITL: m.itl.WithLabelValues(name),
			Disconnects:      m.clientDisconnects.WithLabelValues(name),
			PromptTokens:     m.promptTokens.WithLabelValues(name),
			CompletionTokens: m.completionTokens.WithLabelValues(name),
			CachedTokens:     m.cachedTokens.WithLabelValues(name),
			requests:         m.requests, name: name,
		}
	})
}

// Answered counts one request with that status code, 100 to 599.
func (m *Model) Answered(code int) {
	p := m.codes[code].Load()
	if p == nil {
		c := m.requests.WithLabelValues(m.name, strconv.Itoa(code))
		p = &c
		m.codes[code].Store(p)
	}
	(*p).Inc()
}

type pairKey struct{ model, replica, strategy string }

// Pair is the set of instruments of a model on a replica.
type Pair struct {
	InFlight prometheus.Gauge
	Picks    prometheus.Counter
}

// Pair returns the instruments of a model on a replica.
func (m *Metrics) Pair(model, replica, strategy string) *Pair {
	return m.pairs.get(pairKey{model, replica, strategy}, func() *Pair {
		return &Pair{
			InFlight: m.inflight.WithLabelValues(model, replica),
			Picks:    m.picks.WithLabelValues(model, replica, strategy),
		}
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

func (h *handles[K, V]) retain(keep func(K) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	next := h.copy()
	maps.DeleteFunc(next, func(k K, _ *V) bool { return !keep(k) })
	h.m.Store(&next)
}

func (h *handles[K, V]) copy() map[K]*V {
	next := map[K]*V{}
	if m := h.m.Load(); m != nil {
		maps.Copy(next, *m)
	}
	return next
}
