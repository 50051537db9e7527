package sim

import (
	"math"
	"os"
	"slices"
	"sort"
	"strings"
	"syscall"
	"time"

	"lbd/bench/sim/engine"
)

// registerV1 lists vllm/v1/metrics/loggers.py@v0.19.0 in order of
// registration. Every child exists from the start.
func (m *meters) registerV1(eng engine.Config) {
	m.groups = make([][]*family, 1)
	labels := []label{{"engine", "0"}, {"model_name", m.model}}
	gauge := func(n, help string) *series { return m.instrument(0, gaugeKind, n, help, nil, labels...) }
	counter := func(n, help string) *series { return m.instrument(0, counterKind, n, help, nil, labels...) }
	hist := func(n, help string, b []float64) *series {
		return m.instrument(0, histogramKind, n, help, b, labels...)
	}
	m.running = gauge("vllm:num_requests_running", "Number of requests in model execution batches.")
	m.waiting = gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.")
	m.sleepFamily(labels)
	m.usage = gauge("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.")
	m.countersV1(counter, labels)
	m.successFamily(0, labels...)

	tokens := tokenBuckets(eng.MaxModelLen)
	times := with(timeBuckets, 120, 240, 480, 960, 1920, 7680)
	itl := with(itlBuckets, 5, 7.5, 10, 20, 40, 80)
	m.promptHist = hist("vllm:request_prompt_tokens", "Number of prefill tokens processed.", tokens)
	m.outputHist = hist("vllm:request_generation_tokens", "Number of generation tokens processed.", tokens)
	m.iteration = hist("vllm:iteration_tokens_total", "Histogram of number of tokens per engine_step.", with(iterBuckets, 8192, 16384))
	m.maxGenHist = hist("vllm:request_max_num_generation_tokens", "Histogram of maximum number of requested generation tokens.", tokens)
	m.nReq = hist("vllm:request_params_n", "Histogram of the n request parameter.", nBuckets)
	m.maxTokensHist = hist("vllm:request_params_max_tokens", "Histogram of the max_tokens request parameter.", tokens)
	m.ttft = hist("vllm:time_to_first_token_seconds", "Histogram of time to first token in seconds.", with(ttftBuckets, 20, 40, 80, 160, 640, 2560))
	m.itl = hist("vllm:inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", itl)
	m.perToken = hist("vllm:request_time_per_output_token_seconds", "Histogram of time_per_output_token_seconds per request.", itl)
	m.requestTimes(hist, times)
	m.computedHist = hist("vllm:request_prefill_kv_computed_tokens", "Histogram of new KV tokens computed during prefill (excluding cached tokens).", tokens)
	m.instrument(0, gaugeKind, "vllm:cache_config_info", "Information of the LLMEngine CacheConfig", nil,
		cacheConfigV1(eng)...).set(1)
}

func (m *meters) sleepFamily(labels []label) {
	f := &family{name: "vllm:engine_sleep_state", kind: gaugeKind, help: "Engine sleep state; awake = 0 means engine is sleeping; " +
		"awake = 1 means engine is awake; weights_offloaded = 1 means sleep level 1; discard_all = 1 means sleep level 2."}
	m.groups[0] = append(m.groups[0], f)
	for _, state := range []string{"awake", "weights_offloaded", "discard_all"} {
		m.sleep[state] = f.child(m.now(), append([]label{{"sleep_state", state}}, labels...)...)
		m.sleep[state].shown = true
	}
	m.sleep["awake"].set(1)
}

// asleep shows a /sleep or /wake_up in the sleep gauges; level 0 is awake.
func (m *meters) asleep(level int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.multi {
		return
	}
	for state, on := range map[string]bool{"awake": level == 0, "weights_offloaded": level == 1, "discard_all": level == 2} {
		m.sleep[state].set(0)
		if on {
			m.sleep[state].set(1)
		}
	}
}

func (m *meters) countersV1(counter func(n, help string) *series, labels []label) {
	c := &m.counters
	c.queries = counter("vllm:prefix_cache_queries_total", "Prefix cache queries, in terms of number of queried tokens.")
	c.hits = counter("vllm:prefix_cache_hits_total", "Prefix cache hits, in terms of number of cached tokens.")
	const external = "cross-instance cache sharing, in terms of number of "
	counter("vllm:external_prefix_cache_queries_total", "External prefix cache queries from KV connector "+external+"queried tokens.")
	counter("vllm:external_prefix_cache_hits_total", "External prefix cache hits from KV connector "+external+"cached tokens.")
	counter("vllm:mm_cache_queries_total", "Multi-modal cache queries, in terms of number of queried items.")
	counter("vllm:mm_cache_hits_total", "Multi-modal cache hits, in terms of number of cached items.")
	c.preempted = counter("vllm:num_preemptions_total", "Cumulative number of preemption from the engine.")
	c.prompt = counter("vllm:prompt_tokens_total", "Number of prefill tokens processed.")
	f := &family{name: "vllm:prompt_tokens_by_source_total", help: "Number of prompt tokens by source.", kind: counterKind}
	m.groups[0] = append(m.groups[0], f)
	source := func(name string) *series {
		s := f.child(m.now(), append([]label{{"source", name}}, labels...)...)
		s.shown = true
		return s
	}
	c.computed, c.local = source("local_compute"), source("local_cache_hit")
	source("external_kv_transfer")
	c.cached = counter("vllm:prompt_tokens_cached_total", "Number of cached prompt tokens (local + external).")
	counter("vllm:prompt_tokens_recomputed_total", "Number of cached tokens recomputed for forward pass.")
	c.generation = counter("vllm:generation_tokens_total", "Number of generation tokens processed.")
}

// cacheConfigV1 is CacheConfig.__dict__ of vllm/config/cache.py@v0.19.0.
func cacheConfigV1(eng engine.Config) []label {
	return []label{
		{"block_size", itoa(eng.BlockSize)}, {"cache_dtype", "auto"}, {"calculate_kv_scales", "False"},
		{"cpu_kvcache_space_bytes", "None"}, {"enable_prefix_caching", pythonBool(eng.PrefixCaching)}, {"engine", "0"},
		{"gpu_memory_utilization", "0.9"}, {"is_attention_free", "False"}, {"kv_cache_memory_bytes", "None"},
		{"kv_offloading_backend", "native"}, {"kv_offloading_size", "None"}, {"kv_sharing_fast_prefill", "False"},
		{"mamba_block_size", "None"}, {"mamba_cache_dtype", "auto"}, {"mamba_cache_mode", "none"},
		{"mamba_page_size_padded", "None"}, {"mamba_ssm_cache_dtype", "auto"}, {"num_cpu_blocks", "None"},
		{"num_gpu_blocks", itoa(eng.NumBlocks)}, {"num_gpu_blocks_override", "None"},
		{"prefix_caching_hash_algo", "sha256"}, {"sliding_window", "None"},
	}
}

// httpMeters are the families of prometheus-fastapi-instrumentator; the
// meters' lock guards them.
type httpMeters struct {
	ready                                    bool
	requests, request, response, high, short family
	highAll                                  *series
}

func (h *httpMeters) init(now float64) {
	if h.ready {
		return
	}
	h.ready = true
	const size = " by handler. Only value of header is respected. Otherwise ignored. No percentile calculated. "
	h.requests = family{name: "http_requests_total", kind: counterKind, help: "Total number of requests by method, status and handler."}
	h.request = family{name: "http_request_size_bytes", kind: summaryKind, help: "Content length of incoming requests" + size}
	h.response = family{name: "http_response_size_bytes", kind: summaryKind, help: "Content length of outgoing responses" + size}
	h.high = family{name: "http_request_duration_highr_seconds", kind: histogramKind,
		help:   "Latency with many buckets but no API specific labels. Made for more accurate percentile calculations. ",
		bounds: []float64{.01, .025, .05, .075, .1, .25, .5, .75, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 7.5, 10, 30, 60}}
	h.short = family{name: "http_request_duration_seconds", kind: histogramKind, bounds: []float64{.1, .5, 1},
		help: "Latency with only few buckets by handler. Made to be only used if aggregation by handler is important. "}
	h.highAll = h.high.child(now)
	h.highAll.shown = true
}

func (h *httpMeters) write(p *page) {
	h.init(unixSeconds(time.Now()))
	for _, f := range []*family{&h.requests, &h.request, &h.response, &h.high, &h.short} {
		p.family(f)
	}
}

// excluded are the instrumentator's excluded_handlers, searched as patterns.
var excluded = []string{"/metrics", "/health", "/load", "/ping", "/version", "/server_info"}

// answered counts one HTTP exchange. handler is the route's template, "none"
// if none matched.
func (m *meters) answered(handler, method string, status int, in, out int64, took time.Duration) {
	if m.multi || slices.ContainsFunc(excluded, func(e string) bool { return strings.Contains(handler, e) }) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	h, now := &m.http, m.now()
	h.init(now)
	group := itoa(status/100) + "xx"
	h.requests.child(now, label{"handler", handler}, label{"method", method}, label{"status", group}).add(1)
	summarise(h.request.child(now, label{"handler", handler}), in)
	summarise(h.response.child(now, label{"handler", handler}), out)
	h.highAll.observe(took.Seconds())
	h.short.child(now, label{"handler", handler}, label{"method", method}).observe(took.Seconds())
}

func summarise(s *series, v int64) {
	s.hist.counts[0]++
	s.hist.sum += float64(v)
	s.shown = true
}

// pythonFamilies are the default collectors of client_python. Garbage
// collection figures are those of a young server; memory and CPU are this
// process's own.
func pythonFamilies(p *page, started time.Time) {
	for _, f := range []struct {
		name, help string
		v          [3]float64
	}{
		{"python_gc_objects_collected_total", "Objects collected during gc", [3]float64{10241, 1806, 972}},
		{"python_gc_objects_uncollectable_total", "Uncollectable objects found during GC", [3]float64{}},
		{"python_gc_collections_total", "Number of times this generation was collected", [3]float64{1312, 119, 9}},
	} {
		fam := family{name: f.name, help: f.help, kind: counterKind}
		for g, v := range f.v {
			fam.child(0, label{"generation", itoa(g)}).set(v)
		}
		uncreated(p, &fam)
	}
	single(p, gaugeKind, "python_info", "Python platform information", 1,
		label{"implementation", "CPython"}, label{"major", "3"}, label{"minor", "12"}, label{"patchlevel", "11"}, label{"version", "3.12.11"})
	var ru syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &ru) // zeroes on failure
	cpu := time.Duration(ru.Utime.Nano() + ru.Stime.Nano()).Seconds()
	single(p, gaugeKind, "process_virtual_memory_bytes", "Virtual memory size in bytes.", float64(ru.Maxrss)*1024*4)
	single(p, gaugeKind, "process_resident_memory_bytes", "Resident memory size in bytes.", float64(ru.Maxrss)*1024)
	single(p, gaugeKind, "process_start_time_seconds", "Start time of the process since unix epoch in seconds.",
		math.Round(unixSeconds(started)*100)/100)
	single(p, counterKind, "process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", math.Round(cpu*100)/100)
	fds, _ := os.ReadDir("/proc/self/fd")
	single(p, gaugeKind, "process_open_fds", "Number of open file descriptors.", float64(len(fds)))
	single(p, gaugeKind, "process_max_fds", "Maximum number of open file descriptors.", 1048576)
}

func single(p *page, kind, name, help string, v float64, labels ...label) {
	sort.Slice(labels, func(i, j int) bool { return labels[i].name < labels[j].name })
	uncreated(p, &family{name: name, help: help, kind: kind, series: []*series{{labels: labels, value: v, shown: true}}})
}

// uncreated writes a family of a custom collector: no creation times.
func uncreated(p *page, f *family) {
	if lines := p.samples(f); len(lines) > 0 {
		p.heading(f.name, f.help, f.kind)
		p.buf = append(p.buf, lines...)
	}
}
