package daemon

import (
	"time"

	"lbd/affinity"
	"lbd/cmd/lbd/internal/config"
	"lbd/metrics"
)

func affinityConfig(c *config.Config) affinity.Config {
	return affinity.Config{
		Headers: c.AffinityHeaders, Fields: c.AffinityFields, Home: c.AffinityHome, MaxLoad: c.AffinityMaxLoad,
		TTL: c.AffinityTTL, ResponseTTL: c.AffinityResponseTTL, Entries: c.AffinityEntries,
	}
}

func (d *Daemon) affinityUsage() (all []metrics.AffinityUsage) {
	for _, s := range d.affinity.Stats(time.Now()) {
		u := metrics.AffinityUsage{Kind: s.Kind.String(), Results: map[string]uint64{}, Entries: s.Live, Displaced: s.Displaced}
		for r, n := range s.Results {
			u.Results[r.String()] = n
		}
		all = append(all, u)
	}
	return all
}
