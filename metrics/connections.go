package metrics

import "github.com/prometheus/client_golang/prometheus"

// Connections is what is known of clients' connections.
type Connections struct {
	Open, Limit  int // Limit 0 = none
	Reclaimed    uint64
	Refused      map[string]uint64 // by reason
	AcceptErrors map[string]uint64 // by reason
}

// ConnectionCollector reads at the moment of a scrape what the listener has counted.
type ConnectionCollector struct{ read func() Connections }

// NewConnectionCollector returns a collector over what read returns.
func NewConnectionCollector(read func() Connections) *ConnectionCollector {
	return &ConnectionCollector{read}
}

var (
	descConns          = prometheus.NewDesc("lbd_connections", "Connections of clients that are open.", nil, nil)
	descConnsLimit     = prometheus.NewDesc("lbd_connections_limit", "Connections of clients there may be; 0 = no bound.", nil, nil)
	descConnsReclaimed = prometheus.NewDesc("lbd_connections_reclaimed_total", "Idle connections closed to let another client in.", nil, nil)
	descConnsRefused   = prometheus.NewDesc("lbd_connections_refused_total", "Clients turned away, by the limit they met.", []string{"reason"}, nil)
	descAcceptErrors   = prometheus.NewDesc("lbd_accept_errors_total", "Connections that could not be accepted, by reason.", []string{"reason"}, nil)
)

// Describe implements prometheus.Collector.
func (c *ConnectionCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descConns, descConnsLimit, descConnsReclaimed, descConnsRefused, descAcceptErrors} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *ConnectionCollector) Collect(ch chan<- prometheus.Metric) {
	now := c.read()
	ch <- prometheus.MustNewConstMetric(descConns, prometheus.GaugeValue, float64(now.Open))
	ch <- prometheus.MustNewConstMetric(descConnsLimit, prometheus.GaugeValue, float64(now.Limit))
	ch <- prometheus.MustNewConstMetric(descConnsReclaimed, prometheus.CounterValue, float64(now.Reclaimed))
	for reason, n := range now.Refused {
		ch <- prometheus.MustNewConstMetric(descConnsRefused, prometheus.CounterValue, float64(n), reason)
	}
	for reason, n := range now.AcceptErrors {
		ch <- prometheus.MustNewConstMetric(descAcceptErrors, prometheus.CounterValue, float64(n), reason)
	}
}
