package sim

import (
	"math/rand/v2"
	"time"

	"lbd/bench/sim/engine"
)

// Files of the multiprocess directory, one per metric mode. The collector
// globs them, so the order of the groups on the page is arbitrary.
const (
	v0Gauges = iota
	v0Counters
	v0Histograms
	v0Recent // livemostrecent
	v0Info   // mostrecent
	v0Files
)

// registerV0 lists vllm/engine/metrics.py@v0.6.4.post1. What needs speculative
// decoding or detailed traces never gets a child there, so it is not on the
// page at all and is left out here.
func (m *meters) registerV0(eng engine.Config, rng *rand.Rand) {
	m.groups = make([][]*family, v0Files)
	name := label{"model_name", m.model}
	gauge := func(n, help string) *series { return m.instrument(v0Gauges, gaugeKind, n, help, nil, name) }
	counter := func(n, help string) *series { return m.instrument(v0Counters, counterKind, n, help, nil, name) }
	hist := func(n, help string, b []float64) *series {
		return m.instrument(v0Histograms, histogramKind, n, help, b, name)
	}
	m.running = gauge("vllm:num_requests_running", "Number of requests currently running on GPU.")
	m.swapped = gauge("vllm:num_requests_swapped", "Number of requests swapped to CPU.")
	m.waiting = gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.")
	m.usage = gauge("vllm:gpu_cache_usage_perc", "GPU KV-cache usage. 1 means 100 percent usage.")
	m.cpuUsage = gauge("vllm:cpu_cache_usage_perc", "CPU KV-cache usage. 1 means 100 percent usage.")
	m.cpuHits = gauge("vllm:cpu_prefix_cache_hit_rate", "CPU prefix cache block hit rate.")
	m.hitRate = gauge("vllm:gpu_prefix_cache_hit_rate", "GPU prefix cache block hit rate.")
	m.throughput[0] = gauge("vllm:avg_prompt_throughput_toks_per_s", "Average prefill throughput in tokens/s.")
	m.throughput[1] = gauge("vllm:avg_generation_throughput_toks_per_s", "Average generation throughput in tokens/s.")

	m.counters = engineCounters{
		preempted:  counter("vllm:num_preemptions_total", "Cumulative number of preemption from the engine."),
		prompt:     counter("vllm:prompt_tokens_total", "Number of prefill tokens processed."),
		generation: counter("vllm:generation_tokens_total", "Number of generation tokens processed."),
		total:      counter("vllm:tokens_total", "Number of prefill plus generation tokens processed."),
	}
	m.successFamily(v0Counters, name)

	tokens := tokenBuckets(eng.MaxModelLen)
	// The last bound is 8096 in this release, not 8192.
	m.iteration = hist("vllm:iteration_tokens_total", "Histogram of number of tokens per engine_step.", with(iterBuckets, 8096))
	m.ttft = hist("vllm:time_to_first_token_seconds", "Histogram of time to first token in seconds.", ttftBuckets)
	m.itl = hist("vllm:time_per_output_token_seconds", "Histogram of time per output token in seconds.", itlBuckets)
	m.requestTimes(hist, timeBuckets)
	m.inQueue = hist("vllm:time_in_queue_requests", "Histogram of time the request spent in the queue in seconds.", timeBuckets)
	m.requestSizes(hist, tokens)

	m.lora = m.instrument(v0Recent, gaugeKind, "vllm:lora_requests_info", "Running stats on lora requests.", nil,
		label{"max_lora", "0"}, label{"running_lora_adapters", ""}, label{"waiting_lora_adapters", ""})
	m.instrument(v0Info, gaugeKind, "vllm:cache_config_info", "Information of the LLMEngine CacheConfig", nil,
		cacheConfigV0(eng)...).set(1)
	rng.Shuffle(len(m.groups), func(i, j int) { m.groups[i], m.groups[j] = m.groups[j], m.groups[i] })
}

// cacheConfigV0 is CacheConfig.__dict__ of vllm/config.py@v0.6.4.post1.
func cacheConfigV0(eng engine.Config) []label {
	return []label{
		{"block_size", itoa(eng.BlockSize)}, {"cache_dtype", "auto"}, {"cpu_offload_gb", "0"},
		{"enable_prefix_caching", pythonBool(eng.PrefixCaching)}, {"gpu_memory_utilization", "0.9"},
		{"is_attention_free", "False"}, {"num_cpu_blocks", "2048"}, {"num_gpu_blocks", itoa(eng.NumBlocks)},
		{"num_gpu_blocks_override", "None"}, {"sliding_window", "None"}, {"swap_space_bytes", "4294967296"},
	}
}

// gaugesV0 sets the gauges only V0 has; the caller holds the lock.
func (m *meters) gaugesV0(st engine.Stats) {
	m.swapped.set(float64(st.Swapped))
	m.cpuUsage.set(0)
	m.cpuHits.set(-1)
	rate := -1.0 // as CpuGpuBlockAllocator reports it with prefix caching off
	if st.PrefixQueries > 0 {
		rate = float64(st.PrefixHits) / float64(st.PrefixQueries)
	}
	m.hitRate.set(rate)
	now := time.Now()
	m.lora.set(unixSeconds(now))
	// StatLoggerBase.local_interval
	if took := now.Sub(m.throughputAt); took >= 5*time.Second {
		m.throughput[0].set(float64(st.PromptTokens-m.throughputFrom.PromptTokens) / took.Seconds())
		m.throughput[1].set(float64(st.GenerationTokens-m.throughputFrom.GenerationTokens) / took.Seconds())
		m.throughputAt, m.throughputFrom = now, st
	}
}

type histogramMaker func(name, help string, bounds []float64) *series

// requestTimes registers the five phases both generations report.
func (m *meters) requestTimes(hist histogramMaker, bounds []float64) {
	e2e := "Histogram of e2e request latency in seconds."
	if m.multi {
		e2e = "Histogram of end to end request latency in seconds."
	}
	m.e2e = hist("vllm:e2e_request_latency_seconds", e2e, bounds)
	m.queue = hist("vllm:request_queue_time_seconds", "Histogram of time spent in WAITING phase for request.", bounds)
	m.inference = hist("vllm:request_inference_time_seconds", "Histogram of time spent in RUNNING phase for request.", bounds)
	m.prefill = hist("vllm:request_prefill_time_seconds", "Histogram of time spent in PREFILL phase for request.", bounds)
	m.decode = hist("vllm:request_decode_time_seconds", "Histogram of time spent in DECODE phase for request.", bounds)
}

func (m *meters) requestSizes(hist histogramMaker, tokens []float64) {
	m.promptHist = hist("vllm:request_prompt_tokens", "Number of prefill tokens processed.", tokens)
	m.outputHist = hist("vllm:request_generation_tokens", "Number of generation tokens processed.", tokens)
	m.maxGenHist = hist("vllm:request_max_num_generation_tokens", "Histogram of maximum number of requested generation tokens.", tokens)
	m.nReq = hist("vllm:request_params_n", "Histogram of the n request parameter.", nBuckets)
	m.maxTokensHist = hist("vllm:request_params_max_tokens", "Histogram of the max_tokens request parameter.", tokens)
}

// successFamily registers request_success_total with a child per reason.
func (m *meters) successFamily(group int, labels ...label) {
	f := &family{name: "vllm:request_success_total", help: "Count of successfully processed requests.", kind: counterKind}
	m.groups[group] = append(m.groups[group], f)
	for _, reason := range []string{"stop", "length", "abort", "error", "repetition"} {
		s := f.child(m.now(), append([]label{{"finished_reason", reason}}, labels...)...)
		s.shown = !m.multi
		m.success[reason] = s
	}
}
