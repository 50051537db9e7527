package config

var fleetKeys = []*key{
	{
		name: "endpoints", group: groupFleet, reload: true, alias: "VLLM_ENDPOINTS",
		help:  "base URLs of replicas; their models are learned from GET /v1/models",
		more:  "A comma-separated list where there is no YAML. The port defaults to 80; a path becomes a prefix of every request. A name with several addresses is one replica, unless dns+ stands in front (dns+http://vllm.default.svc:8000): then every address is one.",
		field: func(c *Config) any { return &c.Endpoints },
	},
	{
		name: "models", group: groupFleet, reload: true,
		help:  "models with aliases, a strategy or pinned replicas of their own",
		more:  "A model without replicas here is learned from endpoints. Endpoints and models may both be given, but each replica only in one of them.",
		field: func(c *Config) any { return &c.Models },
	},
	{
		name: "strategy", group: groupFleet, def: "least-waiting", reload: true,
		help:  "how a replica is picked; see lbd strategies",
		field: func(c *Config) any { return &c.Strategy },
	},
	{
		name: "replica_api_key", group: groupFleet, reload: true,
		help:  "key for lbd's own calls where replicas run with --api-key and clients bring theirs; default: upstream_api_key",
		more:  "Clients' Authorization headers are passed through as they are, unless upstream_api_key or api_keys is set. Better set as LBD_REPLICA_API_KEY: a flag shows in the process list.",
		field: func(c *Config) any { return &c.ReplicaAPIKey },
	},
}

var affinityKeys = []*key{
	{
		name: "affinity_headers", group: groupAffinity, reload: true,
		help:  "request headers that name a session, such as X-Session-ID; the first that is there counts",
		more:  "Requests of one session prefer the replica that had the last of them: their prompts' prefix is cached there. A header that is new with each request, as X-Request-Id is, makes every request a session. Empty, here and below: no sessions.",
		check: checkSessionHeader,
		field: func(c *Config) any { return &c.AffinityHeaders },
	},
	{
		name: "affinity_fields", group: groupAffinity, reload: true,
		help:  "fields of a body that name a session where no header does: prompt_cache_key, user",
		more:  "One user in all requests, as of an application that calls for its own users, makes one session of them: what its home cannot take then goes where the strategy says.",
		check: checkSessionField,
		field: func(c *Config) any { return &c.AffinityFields },
	},
	{
		name: "affinity_home", group: groupAffinity, def: "strategy", reload: true,
		help:  "where a new session's home is: where the strategy sends its first request, or by a hash",
		more:  "With hash all lbds in front of a fleet agree, also after a restart, if they call the replicas by the same URLs, and nothing is remembered. With strategy load and cached prefixes have a say; behind several lbds a session then has a home for each.",
		oneOf: []string{"strategy", "hash"},
		field: func(c *Config) any { return &c.AffinityHome },
	},
	{
		name: "affinity_max_load", group: groupAffinity, def: "150", reload: true,
		help: "a home yields when its requests are more than this percentage of the mean of all replicas",
		more: "Up to 8 requests never count as much, and a home that queues or whose KV cache is full while others are better off always yields.",
		min:  101, max: 10_000,
		field: func(c *Config) any { return &c.AffinityMaxLoad },
	},
	{
		name: "affinity_ttl", group: groupAffinity, def: "1h", reload: true,
		help: "how long a session's home is remembered after its last request",
		min:  sec, max: week,
		field: func(c *Config) any { return &c.AffinityTTL },
	},
	{
		name: "affinity_response_ttl", group: groupAffinity, def: "24h", reload: true,
		help: "how long the replica of a stored response (/v1/responses) is remembered after its last use",
		more: "What is not remembered is asked for, replica by replica.",
		min:  sec, max: 5 * week,
		field: func(c *Config) any { return &c.AffinityResponseTTL },
	},
	{
		name: "affinity_entries", group: groupAffinity, def: "100000",
		help: "how many sessions, and how many stored responses, are remembered",
		more: "24 bytes each, taken with the first one. The least recently used make room. Kept are hashes, not names.",
		min:  1000, max: 100_000_000,
		field: func(c *Config) any { return &c.AffinityEntries },
	},
}

var outwardKeys = []*key{
	{
		name: "upstream_api_key", group: groupOutward, reload: true,
		help:  "key that replicas get in place of whatever the client sent, and with lbd's own calls",
		more:  "Whoever reaches lbd then uses it, so set api_keys_file as well. Better set as LBD_UPSTREAM_API_KEY or as upstream_api_key_file: a flag shows in the process list.",
		field: func(c *Config) any { return &c.UpstreamAPIKey },
	},
	{
		name: "upstream_api_key_file", group: groupOutward, reload: true,
		help:  "file with that key; a pinned replica may have its own as api_key_file or api_key_env",
		field: func(c *Config) any { return &c.UpstreamAPIKeyFile },
	},
	{
		name: "upstream_tls_ca_file", group: groupOutward, reload: true,
		help:  "authorities (PEM) that vouch for replicas with an https URL; default: the system's",
		more:  "This and the keys below may also be given to a pinned replica, as tls_ca_file and so on. The files are read again within seconds after they change.",
		field: func(c *Config) any { return &c.UpstreamTLSCAFile },
	},
	{
		name: "upstream_tls_cert_file", group: groupOutward, reload: true,
		help:  "certificate chain (PEM) that lbd shows to replicas (mTLS)",
		field: func(c *Config) any { return &c.UpstreamTLSCertFile },
	},
	{
		name: "upstream_tls_key_file", group: groupOutward, reload: true,
		help:  "key (PEM) of upstream_tls_cert_file",
		field: func(c *Config) any { return &c.UpstreamTLSKeyFile },
	},
	{
		name: "upstream_tls_server_name", group: groupOutward, reload: true,
		help:  "name that the replicas' certificates must have; default: the host of each URL",
		field: func(c *Config) any { return &c.UpstreamTLSServerName },
	},
	{
		name: "upstream_tls_insecure_skip_verify", group: groupOutward, def: "false", reload: true,
		help:  "believe any certificate of a replica; whoever is between can then read and change everything",
		field: func(c *Config) any { return &c.UpstreamTLSInsecureSkipVerify },
	},
}

var pollKeys = []*key{
	{
		name: "metrics_poll_interval", group: groupPoll, def: "1s", reload: true, alias: "METRICS_POLL_INTERVAL",
		help: "how often each replica's /metrics is read",
		more: "Between polls lbd counts its own requests itself; the poll shows work that came another way.",
		min:  50 * ms, max: hour,
		field: func(c *Config) any { return &c.MetricsPollInterval },
	},
	{
		name: "metrics_poll_timeout", group: groupPoll, def: "0", reload: true, zero: true,
		help: "longest wait for one poll; 0 = the interval, but at least 1s",
		min:  10 * ms, max: hour,
		field: func(c *Config) any { return &c.MetricsPollTimeout },
	},
	{
		name: "dns_refresh_interval", group: groupPoll, def: "5s",
		help: "how often the host names of replicas are looked up",
		more: "A look-up is also made when none of a name's addresses takes a connection, and when an address of a dns+ name is taken out of service; one that fails changes nothing.",
		min:  50 * ms, max: hour,
		field: func(c *Config) any { return &c.DNSRefreshInterval },
	},
	{
		name: "models_poll_interval", group: groupPoll, def: "5s", reload: true,
		help: "how often each replica's /v1/models is read",
		more: "A replica that loads or unloads a LoRA adapter is noticed within this time.",
		min:  100 * ms, max: 24 * hour,
		field: func(c *Config) any { return &c.ModelsPollInterval },
	},
}
