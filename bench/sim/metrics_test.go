package sim

import (
	"io"
	"math"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"lbd/bench/sim/engine"
)

// scrape reads and parses a metrics page.
func scrape(t *testing.T, url string) map[string]*dto.MetricFamily {
	t.Helper()
	code, body := get(t, url)
	if code != http.StatusOK {
		t.Fatalf("%s: %d %s", url, code, body)
	}
	p := expfmt.NewTextParser(model.UTF8Validation)
	fams, err := p.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		t.Fatalf("%s: %v\n%s", url, err, body)
	}
	return fams
}

// gauge is the value of a family's only series; absent is NaN.
func gauge(fams map[string]*dto.MetricFamily, name string) float64 {
	f := fams[name]
	if f == nil {
		return math.NaN()
	}
	m := f.Metric[0]
	return m.GetGauge().GetValue() + m.GetCounter().GetValue()
}

// timed are the lines whose values depend on the clock or on this process.
var timed = regexp.MustCompile(`(?m)^(process_\w+|\S*_created(?:{.*})?|vllm:\w+_seconds(?:_sum|_bucket)(?:{.*})|vllm:time_in_queue_requests(?:_sum|_bucket)(?:{.*})|http_\w+_seconds(?:_sum|_bucket)(?:{.*})?|vllm:lora_requests_info(?:{.*})) .*$`)

func TestMetricsPage(t *testing.T) {
	bothProfiles(t, func(t *testing.T, p Profile, change func(*Config)) {
		s := started(t, change)
		if code, body := post(t, s.URL()+"/v1/completions", `{"model":"`+llama+`","prompt":"w w w w w w w w ","max_tokens":5,"min_tokens":5}`); code != 200 {
			t.Fatal(body)
		}
		eventually(t, "idle gauge", func() bool { return gauge(scrape(t, s.URL()+"/metrics"), "vllm:num_requests_running") == 0 })
		_, body := get(t, s.URL()+"/metrics")
		golden(t, string(p)+"_metrics.txt", timed.ReplaceAllString(body, "$1 TIME"))
		fams := scrape(t, s.URL()+"/metrics")
		for name, want := range map[string]float64{
			"vllm:prompt_tokens_total": 4, "vllm:generation_tokens_total": 5, "vllm:num_preemptions_total": 0,
			"vllm:num_requests_waiting": 0,
		} {
			if got := gauge(fams, name); got != want {
				t.Errorf("%s = %v, want %v", name, got, want)
			}
		}
		if got := fams["vllm:time_to_first_token_seconds"].Metric[0].GetHistogram().GetSampleCount(); got != 1 {
			t.Errorf("TTFT count %d, want 1", got)
		}
	})
}

// TestMetricsPaths pins who filters: v0.6.4's mount answers a filter with an
// empty page, v0.19 filters behind the slash only.
func TestMetricsPaths(t *testing.T) {
	const q = "?name[]=vllm:num_requests_running&name[]=vllm:prefix_cache_hits_total"
	v064, v019 := started(t, old), started(t, nil)
	for path, empty := range map[string]bool{"/metrics": false, "/metrics/": false, "/metrics" + q: true, "/metrics/" + q: true} {
		code, body := get(t, v064.URL()+path)
		if code != 200 || (body == "") != empty {
			t.Errorf("v0.6.4 %s: %d, %d bytes, want empty: %t", path, code, len(body), empty)
		}
	}
	if got := len(scrape(t, v019.URL()+"/metrics"+q)); got < 20 {
		t.Errorf("v0.19 /metrics with a filter: %d families, want the full page", got)
	}
	var names []string
	_, body := get(t, v019.URL()+"/metrics/"+q)
	for _, l := range strings.Split(body, "\n") {
		if l != "" && l[0] != '#' {
			names = append(names, l[:strings.IndexByte(l, '{')])
		}
	}
	want := []string{"vllm:num_requests_running", "vllm:prefix_cache_hits_total"}
	if d := cmp.Diff(want, names); d != "" {
		t.Errorf("v0.19 filtered (-want +got):\n%s", d)
	}
}

// TestFreshPageV0 pins that a V0 replica shows no gauges before its engine
// first reports: missing is not zero.
func TestFreshPageV0(t *testing.T) {
	s := started(t, func(c *Config) { old(c); c.StatsPoll = time.Hour })
	fams := scrape(t, s.URL()+"/metrics")
	if fams["vllm:num_requests_running"] != nil || fams["vllm:cache_config_info"] == nil {
		t.Errorf("families %d, want cache_config_info only", len(fams))
	}
	s = started(t, func(c *Config) { old(c); c.StatsPoll = time.Millisecond })
	eventually(t, "gauges after the idle poll", func() bool {
		return gauge(scrape(t, s.URL()+"/metrics"), "vllm:num_requests_running") == 0
	})
}

// TestStaleGaugesV0 pins the hole that V0 leaves after an abort: the gauges
// show the last step until the idle poll.
func TestStaleGaugesV0(t *testing.T) {
	s := started(t, func(c *Config) { old(c); slow(c); c.StatsPoll = time.Hour })
	r := dial(t, s)
	r.post("/v1/chat/completions", chatBody(`,"stream":true,"max_tokens":5000,"ignore_eos":true`))
	r.head()
	r.chunk()
	r.chunk()
	r.nc.Close()
	eventually(t, "abort", func() bool { st := s.Stats(); return st.Aborted == 1 && st.Engine.Running == 0 })
	if got := gauge(scrape(t, s.URL()+"/metrics"), "vllm:num_requests_running"); got != 1 {
		t.Errorf("running %v after an abort, want the stale 1", got)
	}
}

func TestFreshGaugesV1(t *testing.T) {
	s := started(t, slow)
	r := dial(t, s)
	r.post("/v1/chat/completions", chatBody(`,"stream":true,"max_tokens":5000,"ignore_eos":true`))
	r.head()
	r.chunk()
	eventually(t, "running", func() bool { return gauge(scrape(t, s.URL()+"/metrics"), "vllm:num_requests_running") == 1 })
	r.nc.Close()
	eventually(t, "abort in the gauges", func() bool { return gauge(scrape(t, s.URL()+"/metrics"), "vllm:num_requests_running") == 0 })
}

func TestPrefixCacheMetrics(t *testing.T) {
	s := started(t, nil)
	prompt := strings.Repeat("w w ", 64)
	for range 2 {
		post(t, s.URL()+"/v1/completions", `{"model":"`+llama+`","prompt":"`+prompt+`","max_tokens":1}`)
	}
	fams := scrape(t, s.URL()+"/metrics")
	// 64 tokens twice; of four full blocks three can hit, one token is always computed.
	if q, h := gauge(fams, "vllm:prefix_cache_queries_total"), gauge(fams, "vllm:prefix_cache_hits_total"); q != 128 || h != 48 {
		t.Errorf("queries %v hits %v, want 128 and 48", q, h)
	}
}

func TestPrefixHitRateV0(t *testing.T) {
	s := started(t, func(c *Config) {
		old(c)
		on := true
		c.Engine.PrefixCaching = &on
	})
	for range 2 {
		post(t, s.URL()+"/v1/completions", `{"model":"`+llama+`","prompt":"`+strings.Repeat("w w ", 64)+`","max_tokens":1}`)
	}
	if got := gauge(scrape(t, s.URL()+"/metrics"), "vllm:gpu_prefix_cache_hit_rate"); got != 48./128 {
		t.Errorf("hit rate %v, want 48 of 128 tokens", got)
	}
}

// TestDeviceShows: of two replicas on one GPU, the idle one's usage rises with
// the busy one's, as soon as its engine reports.
func TestDeviceShows(t *testing.T) {
	d := NewDevice(40 << 30)
	onDevice := func(c *Config) { c.Device = d; slow(c) }
	a, b := started(t, onDevice), started(t, onDevice)
	usage := func() float64 {
		post(t, a.URL()+"/v1/completions", `{"model":"`+llama+`","prompt":"w ","max_tokens":1}`)
		return gauge(scrape(t, a.URL()+"/metrics"), "vllm:kv_cache_usage_perc")
	}
	alone := usage()
	if alone <= 0 {
		t.Errorf("usage %v at idle, want the weights in it", alone)
	}
	r := dial(t, b)
	r.post("/v1/completions", `{"model":"`+llama+`","prompt":"`+strings.Repeat("w w ", 4000)+`","max_tokens":4000,"ignore_eos":true,"stream":true}`)
	r.head()
	r.chunk()
	b.SetFaults(Faults{Slow: &Fault{Factor: 1e6}}) // its prompt stays resident
	if got := usage(); got <= alone {
		t.Errorf("usage %v with a busy neighbour, want more than %v", got, alone)
	}
}

func TestProcessRestartShows(t *testing.T) {
	s := started(t, nil)
	post(t, s.URL()+"/v1/completions", `{"model":"`+llama+`","prompt":"w w ","max_tokens":1}`)
	before := scrape(t, s.URL()+"/metrics")
	s.Kill()
	time.Sleep(20 * time.Millisecond) // the start time has a resolution of 10 ms
	if err := s.Start(""); err != nil {
		t.Fatal(err)
	}
	after := scrape(t, s.URL()+"/metrics")
	if gauge(after, "process_start_time_seconds") <= gauge(before, "process_start_time_seconds") {
		t.Error("process_start_time_seconds did not move")
	}
	if got := gauge(after, "vllm:prompt_tokens_total"); got != 0 {
		t.Errorf("prompt_tokens_total %v after a restart, want 0", got)
	}
}

func TestFormatFloat(t *testing.T) {
	// Values of client_python's floatToGoString.
	for want, v := range map[string]float64{
		"0.0": 0, "1.0": 1, "12.0": 12, "0.4312": .4312, "999999.0": 999999, "1e+06": 1e6, "1.234567e+06": 1234567,
		"1.7952818623667703e+09": 1795281862.3667703, "0.001": .001, "1e-05": 1e-5, "-1.0": -1, "+Inf": math.Inf(1),
		"-Inf": math.Inf(-1), "NaN": math.NaN(), "1e+16": 1e16, "-1234567.0": -1234567, "2.5e+010": 2.5e10,
	} {
		if got := formatFloat(v); got != want {
			t.Errorf("formatFloat(%v) = %q, want %q", v, got, want)
		}
	}
}

func TestDeviceCouplesUsage(t *testing.T) {
	d := NewDevice(100 << 30)
	const blockBytes = 2 << 20
	a, b := d.attach(16<<30, blockBytes), d.attach(16<<30, blockBytes)
	idle := a.usage(engine.Stats{NumBlocks: 40000})
	if idle <= 0 || idle >= 1 {
		t.Fatalf("idle usage %v, want between 0 and 1: the weights count", idle)
	}
	b.usage(engine.Stats{NumBlocks: 40000, UsedBlocks: 20000})
	if got := a.usage(engine.Stats{NumBlocks: 40000}); got <= idle {
		t.Errorf("usage %v while the neighbour holds 20000 blocks, want more than %v", got, idle)
	}
	b.detach()
	if got := a.usage(engine.Stats{NumBlocks: 40000}); got >= idle {
		t.Errorf("usage %v after the neighbour left, want less than %v", got, idle)
	}
	if got := (*share)(nil).usage(engine.Stats{NumBlocks: 10, KVUsage: .5}); got != .5 {
		t.Errorf("usage %v without a device, want the engine's", got)
	}
}

func TestContentTypeOfMetrics(t *testing.T) {
	res, err := client(t).Get(started(t, nil).URL() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	io.Copy(io.Discard, res.Body)
	if got := res.Header.Get("Content-Type"); got != "text/plain; version=0.0.4; charset=utf-8" {
		t.Errorf("content type %q", got)
	}
}
