package daemon

import (
	"strings"

	"lbd/admin"
	"lbd/admission"
	"lbd/balancer"
	"lbd/balancer/health"
	"lbd/cmd/lbd/internal/config"
	"lbd/metrics/poll"
	"lbd/proxy"
)

// The functions below hand each package its part of the configuration.

func healthConfig(c *config.Config) health.Config {
	return health.Config{
		Interval: c.HealthInterval, Timeout: c.HealthTimeout, Path: c.HealthPath, UnhealthyThreshold: c.UnhealthyThreshold,
		EjectionTime: c.EjectionTime, MaxEjectionTime: c.MaxEjectionTime,
	}
}

func (d *Daemon) pollConfig(c *config.Config, a *access) poll.Config {
	key, byID := d.pollKeys(c, a.outward)
	return poll.Config{
		Interval: c.MetricsPollInterval, Timeout: c.MetricsPollTimeout, ModelsInterval: c.ModelsPollInterval,
		APIKey: key, APIKeys: byID, KeyOnMetrics: d.outward.Replaces(),
	}
}

// held is what the admin listener shows of a model's queue.
func (d *Daemon) held(model string) admin.Held {
	s := d.proxy.AdmissionStats(model)
	return admin.Held{Waiting: s.Waiting, Clients: s.Clients, Bytes: s.Bytes, Oldest: s.Oldest, Tokens: s.Tokens, TokensPerSecond: s.PerSecond}
}

func admissionConfig(c *config.Config) proxy.Admission {
	a := proxy.Admission{
		Config: admission.Config{
			On: c.Admission, MaxWaiting: c.AdmissionMaxWaiting, MaxInFlight: c.AdmissionMaxInFlight,
			MaxLength: c.AdmissionQueueLength, MaxBytes: int64(c.AdmissionQueueSize), MaxWait: c.AdmissionMaxWait,
			Limits: balancer.Limits{TTFT: c.AdmissionMaxTTFT, TTFTPerToken: c.AdmissionTTFTPerToken, TPOT: c.AdmissionMaxTPOT},
		},
		ClientHeader: strings.ToLower(c.AdmissionClientHeader), PriorityHeader: strings.ToLower(c.AdmissionPriorityHeader),
		Priorities: map[string]admission.Class{},
	}
	for _, name := range c.AdmissionTimeoutHeaders {
		a.TimeoutHeaders = append(a.TimeoutHeaders, strings.ToLower(name))
	}
	for _, p := range c.AdmissionPriorities {
		name, class, _ := strings.Cut(p, "=")
		a.Priorities[name], _ = admission.ParseClass(class) // config has parsed it
	}
	return a
}

func (d *Daemon) proxyConfig(c *config.Config, a *access) proxy.Config {
	return proxy.Config{
		MaxBody: int(c.MaxRequestBodySize), MaxHeader: int(c.MaxRequestHeaderSize),
		Connections: proxy.Connections{Max: d.maxConnections(c), MaxPerClient: c.MaxConnectionsPerClient, DrainIdle: c.DrainIdleTimeout},
		ClientIdle:  c.ClientIdleTimeout, ClientRead: c.ClientReadTimeout, ClientWrite: c.ClientWriteTimeout,
		Connect: c.ConnectTimeout, FirstByte: c.FirstByteTimeout, Silence: c.StreamIdleTimeout, UpstreamIdle: c.UpstreamIdleTimeout,
		MaxAttempts: c.MaxAttempts, ResponseHeaders: c.ResponseHeaders,
		AccessLog: c.AccessLog, AccessLogSample: c.AccessLogSample, AccessLogPrefixes: c.AccessLogPrefixes, NoTokenMetrics: !c.TokenMetrics,
		Admission: admissionConfig(c), MetricsAccess: c.MetricsAccess, CORS: a.cors, Forwarded: a.forwarded,
	}
}
