package config

var limitsKeys = []*key{
	{
		name: "max_request_body_size", group: groupLimits, def: "64MiB",
		help: "largest request body; a larger one is answered 413",
		more: "A body is held in memory until the replica's answer begins, so that it can be sent again elsewhere. Bodies of more " +
			"than 64 KiB together take at most half of GOMEMLIMIT, or of the container's or machine's memory; beyond it 503.",
		min: 1 << 10, max: 4 << 30, reload: true,
		field: func(c *Config) any { return &c.MaxRequestBodySize },
	},
	{
		name: "max_request_header_size", group: groupLimits, def: "32KiB",
		help: "largest request head (request line and headers)",
		min:  1 << 10, max: 16 << 20,
		field: func(c *Config) any { return &c.MaxRequestHeaderSize },
	},
	{
		name: "max_connections", group: groupLimits, def: "0", reload: true,
		help: "most connections of clients; 0 = half of what RLIMIT_NOFILE leaves, which is also the most",
		more: "Each may need a second descriptor, to a replica. When there is no more room, the connection is closed that has waited longest for a request; if none waits, the newcomer is answered 503, or closed in TLS.",
		min:  0, max: 1 << 30,
		field: func(c *Config) any { return &c.MaxConnections },
	},
	{
		name: "max_connections_per_client", group: groupLimits, def: "0", reload: true,
		help: "most connections of one address, or of one /64 in IPv6; 0 = no limit",
		more: "trusted_proxies are exempt: their address stands for many. So are not clients that share an address behind a NAT.",
		min:  0, max: 1 << 30,
		field: func(c *Config) any { return &c.MaxConnectionsPerClient },
	},
}

var timeoutsKeys = []*key{
	{
		name: "client_idle_timeout", group: groupTimeouts, def: "75s",
		help: "how long a client's connection may wait for its next request",
		more: "75s is nginx's keepalive_timeout.",
		min:  ms, max: week,
		field: func(c *Config) any { return &c.ClientIdleTimeout },
	},
	{
		name: "client_read_timeout", group: groupTimeouts, def: "5m",
		help: "longest time to read one request, head and body",
		more: "A head has a minute at most, and of a body 500 bytes per second must come over each minute.",
		min:  ms, max: week,
		field: func(c *Config) any { return &c.ClientReadTimeout },
	},
	{
		name: "client_write_timeout", group: groupTimeouts, def: "5m",
		help: "a client that takes no byte for this long is dropped",
		min:  ms, max: week,
		field: func(c *Config) any { return &c.ClientWriteTimeout },
	},
	{
		name: "connect_timeout", group: groupTimeouts, def: "5s", reload: true,
		help: "longest time to connect to a replica, name look-up included",
		min:  ms, max: hour,
		field: func(c *Config) any { return &c.ConnectTimeout },
	},
	{
		name: "first_byte_timeout", group: groupTimeouts, def: "15m", reload: true,
		help: "longest wait for the first byte of a replica's answer",
		more: "A generation that is not streamed says nothing until it ends, so this bounds the whole of it.",
		min:  ms, max: week,
		field: func(c *Config) any { return &c.FirstByteTimeout },
	},
	{
		name: "stream_idle_timeout", group: groupTimeouts, def: "5m", reload: true,
		help: "longest silence of a replica within an answer that has begun",
		min:  ms, max: week,
		field: func(c *Config) any { return &c.StreamIdleTimeout },
	},
	{
		name: "upstream_idle_timeout", group: groupTimeouts, def: "3s", reload: true,
		help: "how long an idle connection to a replica is kept for reuse",
		more: "Keep it below the replica's own: uvicorn, which serves vLLM, closes after 5s, and a request sent into a closing connection is lost.",
		min:  ms, max: hour,
		field: func(c *Config) any { return &c.UpstreamIdleTimeout },
	},
	{
		name: "drain_timeout", group: groupTimeouts, def: "10m", reload: true, zero: true,
		help: "how long running requests may finish after SIGTERM; 0 = not at all",
		min:  ms, max: week,
		field: func(c *Config) any { return &c.DrainTimeout },
	},
	{
		name: "drain_idle_timeout", group: groupTimeouts, def: "5s", reload: true, zero: true,
		help: "how long a connection without a request stays open after SIGTERM or a hand-over; 0 = not at all",
		more: "A request that comes on it is answered, with Connection: close. Clients then never meet a connection that closes under their request, but for those that send their first one later than this.",
		min:  ms, max: week,
		field: func(c *Config) any { return &c.DrainIdleTimeout },
	},
}
