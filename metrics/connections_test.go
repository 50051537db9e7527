package metrics

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

func TestConnectionCollector(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(NewConnectionCollector(func() Connections {
		return Connections{
			Open: 7, Limit: 9, Reclaimed: 3, Refused: map[string]uint64{"max_connections": 5, "max_connections_per_client": 0},
			AcceptErrors: map[string]uint64{"descriptors": 2},
		}
	}))
	got := gather(t, reg)
	for name, want := range map[string]float64{
		"lbd_connections": 7, "lbd_connections_limit": 9, "lbd_connections_reclaimed_total": 3,
		"lbd_connections_refused_total": 5, "lbd_accept_errors_total": 2,
	} {
		f := got[name]
		if f == nil {
			t.Errorf("%s is missing", name)
			continue
		}
		sum := 0.0
		for _, m := range f.Metric {
			sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
		if sum != want {
			t.Errorf("%s is %v; want %v", name, sum, want)
		}
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if problems, err := promlint.NewWithMetricFamilies(families).Lint(); err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
}
