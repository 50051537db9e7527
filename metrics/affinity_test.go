package metrics

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
)

func TestAffinityCollector(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(NewAffinityCollector(func() []AffinityUsage {
		return []AffinityUsage{
			{Kind: "session", Results: map[string]uint64{"hit": 5, "saturated": 2}, Entries: 3, Displaced: 1},
			{Kind: "response", Results: map[string]uint64{"miss": 4}},
		}
	}))
	families := gather(t, reg)
	got := map[string]float64{}
	var list []*dto.MetricFamily
	for name, f := range families {
		list = append(list, f)
		for _, m := range f.Metric {
			key := name
			for _, l := range m.Label {
				key += " " + l.GetValue()
			}
			got[key] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	want := map[string]float64{
		"lbd_affinity_picks_total session hit": 5, "lbd_affinity_picks_total session saturated": 2, "lbd_affinity_picks_total response miss": 4,
		"lbd_affinity_entries session": 3, "lbd_affinity_entries response": 0,
		"lbd_affinity_displaced_total session": 1, "lbd_affinity_displaced_total response": 0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if problems, err := promlint.NewWithMetricFamilies(list).Lint(); err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v %v", problems, err)
	}
}
