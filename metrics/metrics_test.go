package metrics

import (
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"lbd/balancer"
)

// catalogue is the contract: users' dashboards and alerts rely on these names,
// types and labels.
var catalogue = map[string]string{
	"lbd_requests_total":                "COUNTER code,model",
	"lbd_request_duration_seconds":      "HISTOGRAM model",
	"lbd_time_to_first_token_seconds":   "HISTOGRAM model",
	"lbd_inter_token_latency_seconds":   "HISTOGRAM model",
	"lbd_inflight_requests":             "GAUGE model,replica",
	"lbd_picks_total":                   "COUNTER model,replica,strategy",
	"lbd_retries_total":                 "COUNTER model,reason",
	"lbd_client_disconnects_total":      "COUNTER model",
	"lbd_upstream_errors_total":         "COUNTER reason,replica",
	"lbd_ejections_total":               "COUNTER reason,replica",
	"lbd_replica_healthy":               "GAUGE replica",
	"lbd_replica_requests_waiting":      "GAUGE replica",
	"lbd_replica_requests_running":      "GAUGE replica",
	"lbd_replica_kv_cache_usage":        "GAUGE replica",
	"lbd_poll_age_seconds":              "GAUGE replica",
	"lbd_poll_failures_total":           "COUNTER replica",
	"lbd_admission_queue_length":        "GAUGE model",
	"lbd_admission_wait_seconds":        "HISTOGRAM model",
	"lbd_admission_rejected_total":      "COUNTER model,reason",
	"lbd_prompt_tokens_total":           "COUNTER model",
	"lbd_completion_tokens_total":       "COUNTER model",
	"lbd_cached_tokens_total":           "COUNTER model",
	"lbd_prefix_hit_ratio":              "GAUGE model",
	"lbd_build_info":                    "GAUGE goversion,version",
	"lbd_config_last_reload_successful": "GAUGE ",
}

// observed returns a catalogue over a fleet of one polled replica, after one
// request.
func observed(t *testing.T) (*Metrics, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	m := New(reg, "v1")
	snap := fleetOf(t, "a:80", balancer.Sample{
		Waiting: balancer.Known(2), Running: balancer.Known(3), KVUsage: balancer.Known(.5),
		PrefixQueries: balancer.Known(8), PrefixHits: balancer.Known(2),
	})
	reg.MustRegister(NewFleetCollector(func() *balancer.Snapshot { return snap }, func(string) uint64 { return 7 }))
	m.Retain(map[string]bool{"m": true}, map[string]bool{"a:80": true})
	m.Pair("m", "a:80", "cycle").Picks.Inc()
	m.Model("m").Answered(200)
	return m, reg
}

func fleetOf(t *testing.T, addr string, s balancer.Sample) *balancer.Snapshot {
	t.Helper()
	e, err := balancer.ParseEndpoint("http://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	r := balancer.NewReplica(e, "", 1)
	r.EndPoll(r.BeginPoll(), s, time.Now())
	return balancer.NewSnapshot(1,
		[]balancer.ReplicaState{{Replica: r, Health: balancer.Health{State: balancer.Healthy}}},
		[]*balancer.Model{{Name: "m", Replicas: []*balancer.Replica{r}}})
}

func gather(t *testing.T, reg *prometheus.Registry) map[string]*dto.MetricFamily {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]*dto.MetricFamily{}
	for _, f := range families {
		byName[f.GetName()] = f
	}
	return byName
}

// shape is the type of a family and the labels all its series carry.
func shape(t *testing.T, f *dto.MetricFamily) string {
	t.Helper()
	shapes := map[string]bool{}
	for _, m := range f.Metric {
		var labels []string
		for _, l := range m.Label {
			labels = append(labels, l.GetName())
		}
		sort.Strings(labels)
		shapes[f.GetType().String()+" "+strings.Join(labels, ",")] = true
	}
	if len(shapes) != 1 {
		t.Errorf("%s has series of %d shapes; want 1", f.GetName(), len(shapes))
	}
	for s := range shapes {
		return s
	}
	return ""
}

// series lists the series of a registry whose labels hold that value.
func series(t *testing.T, reg *prometheus.Registry, label string) (names []string) {
	t.Helper()
	for name, f := range gather(t, reg) {
		for _, m := range f.Metric {
			if slices.ContainsFunc(m.Label, func(l *dto.LabelPair) bool { return l.GetValue() == label }) {
				names = append(names, name)
			}
		}
	}
	return names
}

// value returns the value of the one series of a family with those labels.
func value(t *testing.T, reg *prometheus.Registry, name string, labels ...string) float64 {
	t.Helper()
	for _, m := range gather(t, reg)[name].GetMetric() {
		var have []string
		for _, l := range m.Label {
			have = append(have, l.GetValue())
		}
		if cmp.Equal(have, labels) {
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	t.Fatalf("%s has no series %q", name, labels)
	return 0
}

func TestCatalogue(t *testing.T) {
	_, reg := observed(t)
	got := map[string]string{}
	for name, f := range gather(t, reg) {
		got[name] = shape(t, f)
		if help := f.GetHelp(); help == "" || !strings.HasSuffix(help, ".") {
			t.Errorf("%s: help %q; want a sentence", name, help)
		}
	}
	if diff := cmp.Diff(catalogue, got); diff != "" {
		t.Errorf("catalogue (-want +got):\n%s", diff)
	}
}

func TestPromlint(t *testing.T) {
	_, reg := observed(t)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// Buckets must grow, and their largest must exceed what the unit can bring: a
// generation may take hours.
func TestBuckets(t *testing.T) {
	for name, buckets := range map[string][]float64{"ttft": ttftBuckets, "itl": itlBuckets, "e2e": e2eBuckets, "wait": waitBuckets} {
		if !slices.IsSorted(buckets) || len(slices.Compact(slices.Clone(buckets))) != len(buckets) {
			t.Errorf("%s: %v does not grow", name, buckets)
		}
	}
}

func TestFleetGauges(t *testing.T) {
	_, reg := observed(t)
	for name, want := range map[string]float64{
		"lbd_replica_healthy": 1, "lbd_replica_requests_waiting": 2, "lbd_replica_requests_running": 3,
		"lbd_replica_kv_cache_usage": .5, "lbd_poll_failures_total": 7,
	} {
		if got := value(t, reg, name, "a:80"); got != want {
			t.Errorf("%s is %v; want %v", name, got, want)
		}
	}
	if got := value(t, reg, "lbd_prefix_hit_ratio", "m"); got != .25 {
		t.Errorf("lbd_prefix_hit_ratio is %v; want 0.25", got)
	}
}

// What a replica does not export is unknown; a 0 would claim that it is idle.
func TestUnknownIsAbsent(t *testing.T) {
	reg := prometheus.NewRegistry()
	snap := fleetOf(t, "a:80", balancer.Sample{})
	reg.MustRegister(NewFleetCollector(func() *balancer.Snapshot { return snap }, func(string) uint64 { return 0 }))
	families := gather(t, reg)
	for _, name := range []string{
		"lbd_replica_requests_waiting", "lbd_replica_requests_running", "lbd_replica_kv_cache_usage", "lbd_prefix_hit_ratio",
	} {
		if families[name] != nil {
			t.Errorf("%s is exported though unknown", name)
		}
	}
	if families["lbd_poll_age_seconds"] == nil {
		t.Error("lbd_poll_age_seconds is absent though the replica answered")
	}
}

func TestAnswered(t *testing.T) {
	m, reg := observed(t)
	for range 3 {
		m.Model(Other).Answered(404)
	}
	m.Model("m").Answered(599)
	if got := value(t, reg, "lbd_requests_total", "404", Other); got != 3 {
		t.Errorf("404 of other: %v; want 3", got)
	}
	if got := value(t, reg, "lbd_requests_total", "599", "m"); got != 1 {
		t.Errorf("599 of m: %v; want 1", got)
	}
}

// A series that begins with its first event hides it from rate().
func TestReasonsBeginAtZero(t *testing.T) {
	m, reg := observed(t)
	if got := value(t, reg, "lbd_ejections_total", "error_rate", "a:80"); got != 0 {
		t.Errorf("ejections begin at %v", got)
	}
	if got := value(t, reg, "lbd_retries_total", "m", "model_not_found"); got != 0 {
		t.Errorf("retries begin at %v", got)
	}
	m.Ejected("a:80", "error_rate")
	m.UpstreamError("a:80", "reset")
	m.Retried("m", "connect_refused")
	for _, c := range [][3]string{
		{"lbd_ejections_total", "error_rate", "a:80"}, {"lbd_upstream_errors_total", "reset", "a:80"}, {"lbd_retries_total", "m", "connect_refused"},
	} {
		if got := value(t, reg, c[0], c[1:]...); got != 1 {
			t.Errorf("%s is %v; want 1", c[0], got)
		}
	}
}

// After a change of strategy one model on one replica counts in two pairs but is
// one series.
func TestInflightOverStrategies(t *testing.T) {
	m, reg := observed(t)
	m.Pair("m", "a:80", "cycle").InFlight.Inc()
	m.Pair("m", "a:80", "random").InFlight.Inc()
	if got := value(t, reg, "lbd_inflight_requests", "m", "a:80"); got != 2 {
		t.Errorf("in flight under two strategies: %v; want 2", got)
	}
}

// Every request looks its handles up.
func TestHandlesAllocateNothing(t *testing.T) {
	m, _ := observed(t)
	n := testing.AllocsPerRun(100, func() {
		m.Model("m").Answered(200)
		p := m.Pair("m", "a:80", "cycle")
		p.InFlight.Inc()
		p.Picks.Inc()
		p.InFlight.Dec()
	})
	if n != 0 {
		t.Errorf("%v allocations per request; want 0", n)
	}
}
