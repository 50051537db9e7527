package metrics

import "github.com/prometheus/client_golang/prometheus"

// AffinityUsage is what became of requests whose state is at home on one replica.
type AffinityUsage struct {
	Kind      string            // session or response
	Results   map[string]uint64 // picks, by what became of them
	Entries   int
	Displaced uint64
}

// AffinityCollector reads at the moment of a scrape what affinity has counted.
type AffinityCollector struct{ usage func() []AffinityUsage }

// NewAffinityCollector returns a collector over what usage returns.
func NewAffinityCollector(usage func() []AffinityUsage) *AffinityCollector {
	return &AffinityCollector{usage}
}

var (
	descAffinityPicks = prometheus.NewDesc("lbd_affinity_picks_total",
		"Picks for requests of a session or about a stored response: hit, miss (no home known), or why the home was not picked.", []string{"kind", "result"}, nil)
	descAffinityEntries = prometheus.NewDesc("lbd_affinity_entries",
		"Sessions and stored responses whose replica is remembered.", []string{"kind"}, nil)
	descAffinityDisplaced = prometheus.NewDesc("lbd_affinity_displaced_total",
		"Sessions and stored responses forgotten before their time, because the table was full.", []string{"kind"}, nil)
)

// Describe implements prometheus.Collector.
func (c *AffinityCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- descAffinityPicks
	ch <- descAffinityEntries
	ch <- descAffinityDisplaced
}

// Collect implements prometheus.Collector.
func (c *AffinityCollector) Collect(ch chan<- prometheus.Metric) {
	for _, u := range c.usage() {
		for result, n := range u.Results {
			ch <- prometheus.MustNewConstMetric(descAffinityPicks, prometheus.CounterValue, float64(n), u.Kind, result)
		}
		ch <- prometheus.MustNewConstMetric(descAffinityEntries, prometheus.GaugeValue, float64(u.Entries), u.Kind)
		ch <- prometheus.MustNewConstMetric(descAffinityDisplaced, prometheus.CounterValue, float64(u.Displaced), u.Kind)
	}
}
