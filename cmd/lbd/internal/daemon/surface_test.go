package daemon_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	dto "github.com/prometheus/client_model/go"

	"lbd/balancer"
	"lbd/bench/sim"
)

// same compares two JSON texts as values: names, nesting and types, not order.
func same(t *testing.T, what, got, want string) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		t.Fatalf("%s: %v in %s", what, err, got)
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(w, g); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// /health has this shape and no other: load balancers in front of lbd and
// dashboards read it.
func TestHealthPage(t *testing.T) {
	a, b, c := replica(t, sim.Config{}), replica(t, sim.Config{}), replica(t, sim.Config{Model: qwen})
	p := lbd(t, urls(a, b, c))
	page := func(wantStatus int, status string, healthy, llamas, qwens int) {
		t.Helper()
		got := p.get("/health")
		if got.status != wantStatus || got.header.Get("Content-Type") != "application/json" {
			t.Errorf("%d %q; want %d as JSON", got.status, got.header.Get("Content-Type"), wantStatus)
		}
		same(t, "/health "+status, got.body, fmt.Sprintf(
			`{"status":%q,"replicas":3,"healthy_replicas":%d,"models":{%q:{"replicas":2,"healthy":%d},%q:{"replicas":1,"healthy":%d}}}`,
			status, healthy, llama, llamas, qwen, qwens))
	}
	page(200, "healthy", 3, 2, 1)
	a.Kill()
	p.becomes(a, balancer.Ejected)
	page(200, "degraded", 2, 1, 1)
	b.Kill()
	c.Kill()
	p.becomes(b, balancer.Ejected)
	p.becomes(c, balancer.Ejected)
	page(503, "unhealthy", 0, 0, 0)
	if err := a.Start(""); err != nil {
		t.Fatal(err)
	}
	p.available(llama, a)
	page(200, "degraded", 1, 1, 0)
}

// Before anything is known /health says so, and /ready holds clients back.
func TestNotReadyBeforeModelsAreKnown(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{Model: qwen})
	fault(t, a, sim.Faults{Loading: &sim.Fault{}})
	p := lbdLater(t, nil, "endpoints", a.URL())
	if got := p.get("/health"); got.status != 503 {
		t.Errorf("/health: %d %s; want 503", got.status, got.body)
	}
	if got := p.get("/ready"); got.status != 503 || !strings.Contains(got.body, a.Addr()) {
		t.Errorf("/ready: %d %s; want 503 and who is waited for", got.status, got.body)
	}
	fault(t, a, sim.Faults{})
	p.until("ready", func() bool { return p.get("/ready").status == 200 })

	// Configured models count even when no replica was ever seen to serve them.
	q, _ := configured(t, "models:\n  - {name: "+qwen+", replicas: [{url: "+b.URL()+"}]}\n  - {name: "+mixtral+"}\n"+endpoints(a))
	q.available(llama, a)
	q.available(qwen, b)
	if got := q.get("/ready"); got.status != 503 || !strings.Contains(got.body, mixtral) {
		t.Errorf("/ready: %d %s; want 503 and %s", got.status, got.body, mixtral)
	}
}

// A model whose replicas are all gone makes lbd unready, and ready again when
// one is back.
func TestReadyFollowsModels(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{Model: qwen})
	p := lbd(t, urls(a, b))
	p.until("ready", func() bool { return p.get("/ready").status == 200 })
	b.Kill()
	p.becomes(b, balancer.Ejected)
	if got := p.get("/ready"); got.status != 503 || !strings.Contains(got.body, qwen) {
		t.Errorf("/ready: %d %s; want 503 and %s", got.status, got.body, qwen)
	}
	if err := b.Start(""); err != nil {
		t.Fatal(err)
	}
	p.until("ready again", func() bool { return p.get("/ready").status == 200 })
}

func TestOwnPages(t *testing.T) {
	r := replica(t, sim.Config{})
	p := lbd(t, urls(r))
	same(t, "/version", p.get("/version").body, `{"version":"test"}`)
	for _, path := range []string{"/health", "/ready", "/version", "/metrics", "/v1/models", "/v1/models/" + llama} {
		if got := p.do("HEAD", path, ""); got.status != 200 || got.body != "" {
			t.Errorf("HEAD %s: %d %q", path, got.status, got.body)
		}
		if got := p.post(path, "{}"); got.status != 405 || got.header.Get("Allow") == "" {
			t.Errorf("POST %s: %d, Allow %q", path, got.status, got.header.Get("Allow"))
		}
	}
	if n := r.Stats().Received; n != 0 {
		t.Errorf("the replica got %d requests", n)
	}
	for _, path := range []string{"/sleep", "/wake_up", "/start_profile", "/stop_profile", "/reset_prefix_cache", "/v1/load_lora_adapter", "/metrics/"} {
		if got := p.post(path, "{}"); got.status != 403 {
			t.Errorf("POST %s: %d; want 403", path, got.status)
		}
	}
}

// contract is the list of metrics that users rely on, as the design gives it.
const contract = `
lbd_requests_total{model,code} lbd_request_duration_seconds{model} lbd_time_to_first_token_seconds{model}
lbd_inter_token_latency_seconds{model} lbd_inflight_requests{model,replica} lbd_picks_total{model,replica,strategy}
lbd_retries_total{model,reason} lbd_client_disconnects_total{model} lbd_upstream_errors_total{replica,reason}
lbd_ejections_total{replica,reason} lbd_replica_healthy{replica} lbd_replica_requests_waiting{replica}
lbd_replica_requests_running{replica} lbd_replica_kv_cache_usage{replica} lbd_poll_age_seconds{replica}
lbd_poll_failures_total{replica} lbd_admission_queue_length{model} lbd_admission_wait_seconds{model}
lbd_admission_rejected_total{model,reason} lbd_prompt_tokens_total{model} lbd_completion_tokens_total{model}
lbd_cached_tokens_total{model} lbd_prefix_hit_ratio{model} lbd_build_info lbd_config_last_reload_successful`

// families parses a page of metrics.
func families(t *testing.T, page string) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	f, err := parser.TextToMetricFamilies(strings.NewReader(page))
	if err != nil {
		t.Fatalf("metrics page: %v", err)
	}
	return f
}

// Every metric of the contract is there after a little traffic, with its labels
// and a clean bill of promlint.
func TestMetricsPage(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{})
	p := lbd(t, urls(a, b))
	p.spread(llama, 4)
	p.stream(llama, 20).finish()
	p.ask("nobody's")
	p.until("prefix counters polled", func() bool { return p.metric(`lbd_prefix_hit_ratio{model="`+llama+`"}`) != "" })
	page := p.get("/metrics")
	if ct := page.header.Get("Content-Type"); !strings.HasPrefix(ct, "text/plain; version=0.0.4") {
		t.Errorf("Content-Type %q; want Prometheus text", ct)
	}
	got := families(t, page.body)
	for _, want := range strings.Fields(contract) {
		name, labels, _ := strings.Cut(strings.TrimSuffix(want, "}"), "{")
		f := got[name]
		if f == nil {
			t.Errorf("%s is not on the page", name)
			continue
		}
		for _, m := range f.Metric {
			have := map[string]bool{}
			for _, l := range m.Label {
				have[l.GetName()] = true
			}
			for _, l := range strings.FieldsFunc(labels, func(r rune) bool { return r == ',' }) {
				if !have[l] {
					t.Errorf("%s has a series without label %q: %v", name, l, m.Label)
				}
			}
		}
	}
	problems, err := promlint.New(strings.NewReader(page.body)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems {
		if strings.HasPrefix(problem.Metric, "lbd_") {
			t.Errorf("promlint: %s: %s", problem.Metric, problem.Text)
		}
	}
	for series, want := range map[string]string{
		`lbd_requests_total{code="200",model="` + llama + `"}`:                    "5",
		`lbd_requests_total{code="404",model="other"}`:                            "1",
		`lbd_completion_tokens_total{model="` + llama + `"}`:                      "24",
		`lbd_time_to_first_token_seconds_count{model="` + llama + `"}`:            "1",
		`lbd_request_duration_seconds_count{model="` + llama + `"}`:               "5",
		`lbd_replica_healthy{replica="` + a.Addr() + `"}`:                         "1",
		`lbd_config_last_reload_successful`:                                       "1",
		`lbd_client_disconnects_total{model="` + llama + `"}`:                     "0",
		`lbd_inflight_requests{model="` + llama + `",replica="` + a.Addr() + `"}`: "0",
	} {
		p.counted(series, want)
	}
}

// Whatever a scraper says it likes best, type and body agree.
func TestMetricsNegotiation(t *testing.T) {
	r := replica(t, sim.Config{})
	p := lbd(t, urls(r))
	p.spread(llama, 1)
	for _, accept := range []string{
		"", "*/*", "text/plain", "application/openmetrics-text; version=1.0.0",
		"application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1", // Prometheus 2
		"application/json",
	} {
		got := p.get("/metrics", "Accept", accept)
		ct := got.header.Get("Content-Type")
		switch {
		case got.status != 200:
			t.Errorf("Accept %q: %d", accept, got.status)
		case strings.HasPrefix(ct, "text/plain"):
			families(t, got.body)
		case strings.HasPrefix(ct, "application/openmetrics-text"):
			if !strings.HasSuffix(got.body, "# EOF\n") {
				t.Errorf("Accept %q: %q without # EOF", accept, ct)
			}
		default:
			t.Errorf("Accept %q: Content-Type %q", accept, ct)
		}
	}
}

// Names that clients make up do not become labels.
func TestUnknownModelsAreOneLabel(t *testing.T) {
	r := replica(t, sim.Config{})
	p := lbd(t, urls(r))
	for i := range 1000 {
		if _, a := p.ask(fmt.Sprintf("made-up-%d", i)); a.status != 404 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	page := p.get("/metrics").body
	if strings.Contains(page, "made-up") {
		t.Error("a made-up name is on the page")
	}
	p.counted(`lbd_requests_total{code="404",model="other"}`, "1000")
}

// What leaves by a reload leaves the page; what stays keeps counting.
func TestSeriesVanishWithTheirReplica(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{Model: qwen})
	p, file := configured(t, endpoints(a, b))
	p.available(llama, a)
	p.available(qwen, b)
	p.spread(llama, 3)
	p.spread(qwen, 3)
	write(t, file, endpoints(a))
	if err := p.Reload(); err != nil {
		t.Fatal(err)
	}
	p.until("series of the removed replica and model gone", func() bool {
		page := p.get("/metrics").body
		return !strings.Contains(page, qwen) && !strings.Contains(page, b.Addr())
	})
	p.counted(`lbd_requests_total{code="200",model="`+llama+`"}`, "3")
}
