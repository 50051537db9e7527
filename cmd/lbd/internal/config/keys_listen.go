package config

var listenKeys = []*key{
	{
		name: "listen", group: groupListen, def: ":8080",
		help:  "address clients connect to",
		check: checkListen,
		field: func(c *Config) any { return &c.Listen },
	},
	{
		name: "admin_listen", group: groupListen, def: "127.0.0.1:9901",
		help:  "address of the admin listener; empty or off = none",
		more:  "It can drain replicas and put models to sleep. Other than on loopback, lbd refuses to start it without admin_token or admin_tls_client_ca_file.",
		check: checkAdminListen,
		field: func(c *Config) any { return &c.AdminListen },
	},
	{
		name: "listen_reuseport", group: groupListen, def: "false",
		help:  "open both listeners with SO_REUSEPORT, so that another lbd can start beside this one",
		more:  "Both need it. Clients whose connection this lbd has not accepted yet when it stops are reset; SIGUSR2 and socket activation lose none.",
		field: func(c *Config) any { return &c.ListenReuseport },
	},
	{
		name: "tls_cert_file", group: groupListen,
		help:  "certificate chain (PEM) of the main listener, which then speaks TLS",
		more:  "With tls_key_file. The files are read again within seconds after they change; other paths need a restart.",
		field: func(c *Config) any { return &c.TLSCertFile },
	},
	{
		name: "tls_key_file", group: groupListen,
		help:  "key (PEM) of tls_cert_file",
		field: func(c *Config) any { return &c.TLSKeyFile },
	},
	{
		name: "tls_client_ca_file", group: groupListen,
		help:  "authorities (PEM) of which clients must show a certificate (mTLS)",
		field: func(c *Config) any { return &c.TLSClientCAFile },
	},
	{
		name: "admin_tls_cert_file", group: groupListen,
		help:  "certificate chain (PEM) of the admin listener, which then speaks TLS",
		field: func(c *Config) any { return &c.AdminTLSCertFile },
	},
	{
		name: "admin_tls_key_file", group: groupListen,
		help:  "key (PEM) of admin_tls_cert_file",
		field: func(c *Config) any { return &c.AdminTLSKeyFile },
	},
	{
		name: "admin_tls_client_ca_file", group: groupListen,
		help:  "authorities (PEM) of which operators must show a certificate (mTLS)",
		field: func(c *Config) any { return &c.AdminTLSClientCAFile },
	},
	{
		name: "admin_token", group: groupListen, reload: true,
		help:  "token that the admin listener asks for, as Authorization: Bearer TOKEN",
		more:  "Better set as LBD_ADMIN_TOKEN or as admin_token_file: a flag shows in the process list.",
		field: func(c *Config) any { return &c.AdminToken },
	},
	{
		name: "admin_token_file", group: groupListen, reload: true,
		help:  "file with the token of the admin listener",
		field: func(c *Config) any { return &c.AdminTokenFile },
	},
}

var accessKeys = []*key{
	{
		name: "api_keys_file", group: groupAccess, reload: true,
		help:  "file with the hashes of clients' API keys, one line each; lbd key makes them",
		more:  "A line is NAME sha256:HASH and, where wanted, models=A,B max_in_flight=N requests_per_minute=N tokens_per_minute=N. With this or api_keys set, every request needs a key but /health, /ready and /version.",
		field: func(c *Config) any { return &c.APIKeysFile },
	},
	{
		name: "api_keys", group: groupAccess, reload: true,
		help:  "further keys: the same lines with ; between them",
		more:  "In LBD_API_KEYS, and only there, a line may hold the key itself in place of its hash.",
		field: func(c *Config) any { return &c.APIKeys },
	},
	{
		name: "metrics_access", group: groupAccess, def: "open", reload: true,
		help:  "who may read /metrics on the main listener: everybody, holders of an API key, nobody",
		oneOf: []string{"open", "key", "off"},
		field: func(c *Config) any { return &c.MetricsAccess },
	},
	{
		name: "cors_allowed_origins", group: groupAccess, reload: true,
		help:  "origins of web pages that may call lbd from a browser; * = all, none = none",
		more:  "Empty leaves it to the replicas, and vLLM allows all. With a value lbd answers preflights itself and drops what replicas say.",
		check: checkOrigin,
		field: func(c *Config) any { return &c.CORSAllowedOrigins },
	},
	{
		name: "forwarded_headers", group: groupAccess, def: "set", reload: true,
		help:  "X-Forwarded-For, -Proto and -Host towards replicas: set by lbd, passed on as clients sent them, or dropped",
		more:  "With set, a client's own are dropped unless it is one of trusted_proxies.",
		oneOf: []string{"set", "pass", "drop"},
		field: func(c *Config) any { return &c.ForwardedHeaders },
	},
	{
		name: "trusted_proxies", group: groupAccess, reload: true,
		help:  "addresses and networks of proxies whose X-Forwarded- headers are believed",
		check: checkNetwork,
		field: func(c *Config) any { return &c.TrustedProxies },
	},
}
