package sim

import "strings"

// orca is the load report a client of v0.19 can ask for with the request
// header endpoint-load-metrics-format (vllm/entrypoints/openai/orca_metrics.py,
// #24905). Only complete answers carry it.
func (a *reply) orca() []string {
	waiting, usage := a.r.meters.load()
	w, u := pythonFloat(waiting), pythonFloat(usage)
	switch strings.ToLower(a.x.req.Header.Get("Endpoint-Load-Metrics-Format")) {
	case "text":
		return []string{"endpoint-load-metrics: TEXT named_metrics.num_requests_waiting=" + w +
			", named_metrics.kv_cache_usage_perc=" + u}
	case "json":
		return []string{`endpoint-load-metrics: JSON {"named_metrics": {"num_requests_waiting": ` + w +
			`, "kv_cache_usage_perc": ` + u + `}}`}
	}
	return nil
}

// load is what the gauges show now.
func (m *meters) load() (waiting, usage float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.waiting.value, m.usage.value
}
