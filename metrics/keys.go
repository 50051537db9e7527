package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
)

// KeyUsage is what the clients of one name have used, or, under the name "none",
// those without a valid key.
type KeyUsage struct {
	Name     string
	InFlight int64
	Admitted uint64
	Tokens   uint64
	Refused  map[string]uint64 // by reason
}

// KeyCollector reads at the moment of a scrape what access control has counted.
// There are no series while no key is asked for.
type KeyCollector struct{ usage func() []KeyUsage }

// NewKeyCollector returns a collector over what usage returns: the clients of the
// configuration, and never what a client calls itself.
func NewKeyCollector(usage func() []KeyUsage) *KeyCollector { return &KeyCollector{usage} }

// maxKeyLabels bounds the names that become labels; the clients behind them are
// added up as Other.
const maxKeyLabels = 1000

var (
	descKeyRequests = prometheus.NewDesc("lbd_key_requests_total", "Requests let in, by the name of the client's API key.", []string{"key"}, nil)
	descKeyTokens   = prometheus.NewDesc("lbd_key_tokens_total",
		"Prompt and generated tokens charged to the client, estimated where a replica reported none.", []string{"key"}, nil)
	descKeyInflight = prometheus.NewDesc("lbd_key_inflight_requests", "Requests of the client that run.", []string{"key"}, nil)
	descKeyRejected = prometheus.NewDesc("lbd_key_rejected_total",
		"Requests refused, by client (none: no valid key was sent) and reason.", []string{"key", "reason"}, nil)
)

// Describe implements prometheus.Collector.
func (c *KeyCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descKeyRequests, descKeyTokens, descKeyInflight, descKeyRejected} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *KeyCollector) Collect(ch chan<- prometheus.Metric) {
	for _, u := range bounded(c.usage()) {
		for reason, n := range u.Refused {
			ch <- prometheus.MustNewConstMetric(descKeyRejected, prometheus.CounterValue, float64(n), u.Name, reason)
		}
		if u.Name == nobody {
			continue
		}
		ch <- prometheus.MustNewConstMetric(descKeyRequests, prometheus.CounterValue, float64(u.Admitted), u.Name)
		ch <- prometheus.MustNewConstMetric(descKeyTokens, prometheus.CounterValue, float64(u.Tokens), u.Name)
		ch <- prometheus.MustNewConstMetric(descKeyInflight, prometheus.GaugeValue, float64(u.InFlight), u.Name)
	}
}

// nobody is the name of those without a valid key.
const nobody = "none"

func bounded(all []KeyUsage) []KeyUsage {
	if len(all) <= maxKeyLabels+1 {
		return all
	}
	var kept []KeyUsage
	rest := KeyUsage{Name: Other, Refused: map[string]uint64{}}
	for _, u := range all {
		if len(kept) < maxKeyLabels || u.Name == nobody {
			kept = append(kept, u)
			continue
		}
		rest.InFlight += u.InFlight
		rest.Admitted += u.Admitted
		rest.Tokens += u.Tokens
		for reason, n := range u.Refused {
			rest.Refused[reason] += n
		}
	}
	return append(kept, rest)
}
