package metrics

import (
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

func keyFamilies(t *testing.T, usage ...KeyUsage) *prometheus.Registry {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(NewKeyCollector(func() []KeyUsage { return usage }))
	return reg
}

func TestKeyCollector(t *testing.T) {
	reg := keyFamilies(t,
		KeyUsage{Name: "alice", InFlight: 2, Admitted: 5, Tokens: 700, Refused: map[string]uint64{"max_in_flight": 3}},
		KeyUsage{Name: "none", Refused: map[string]uint64{"unknown_key": 4}})
	got := gather(t, reg)
	for name, want := range map[string]int{"lbd_key_requests_total": 1, "lbd_key_tokens_total": 1, "lbd_key_inflight_requests": 1, "lbd_key_rejected_total": 2} {
		if f := got[name]; f == nil || len(f.Metric) != want {
			t.Errorf("%s: %v; want %d series", name, f, want)
		}
	}
	if n := got["lbd_key_tokens_total"].Metric[0].Counter.GetValue(); n != 700 {
		t.Errorf("tokens: %v", n)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if problems, err := promlint.NewWithMetricFamilies(families).Lint(); err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
}

func TestNoKeysNoSeries(t *testing.T) {
	if got := gather(t, keyFamilies(t)); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

// However many clients there are, labels are bounded and nothing is lost.
func TestKeyLabelsAreBounded(t *testing.T) {
	var all []KeyUsage
	for i := range maxKeyLabels + 50 {
		all = append(all, KeyUsage{Name: fmt.Sprint("k", i), Admitted: 1, Refused: map[string]uint64{"tokens_per_minute": 1}})
	}
	all = append(all, KeyUsage{Name: nobody, Refused: map[string]uint64{"missing_key": 7}})
	f := gather(t, keyFamilies(t, all...))["lbd_key_requests_total"]
	sum, labels := 0.0, map[string]bool{}
	for _, m := range f.Metric {
		sum += m.Counter.GetValue()
		labels[m.Label[0].GetValue()] = true
	}
	if len(f.Metric) != maxKeyLabels+1 || sum != maxKeyLabels+50 || !labels[Other] {
		t.Errorf("%d series that add up to %v", len(f.Metric), sum)
	}
}
