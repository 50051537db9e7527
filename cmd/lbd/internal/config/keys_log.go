package config

var logKeys = []*key{
	{
		name: "log_level", group: groupLog, def: "info", reload: true,
		help:  "least severe level that is logged",
		oneOf: []string{"trace", "debug", "info", "warn", "error"},
		field: func(c *Config) any { return &c.LogLevel },
	},
	{
		name: "log_format", group: groupLog, def: "json",
		help:  "form of the log on standard error",
		oneOf: []string{"json", "console"},
		field: func(c *Config) any { return &c.LogFormat },
	},
	{
		name: "access_log", group: groupLog, def: "false", reload: true,
		help:  "log one line per request",
		more:  "The lines are of level info; at log_level debug they are there without this key.",
		field: func(c *Config) any { return &c.AccessLog },
	},
	{
		name: "access_log_sample", group: groupLog, def: "1", reload: true,
		help: "with access_log, log one request in this many",
		min:  1, max: 1_000_000_000,
		field: func(c *Config) any { return &c.AccessLogSample },
	},
	{
		name: "access_log_prefixes", group: groupLog, def: "false", reload: true,
		help:  "with access_log, add hashes of the prompt's leading blocks to each line",
		more:  "lbd replay reads them: what would another strategy have done with this traffic? They say which prompts began alike, not what they said, and mean nothing beside those of another process.",
		field: func(c *Config) any { return &c.AccessLogPrefixes },
	},
	{
		name: "response_headers", group: groupLog, def: "true", reload: true,
		help:  "add X-Lbd-Replica and X-Lbd-Strategy to responses",
		field: func(c *Config) any { return &c.ResponseHeaders },
	},
	{
		name: "token_metrics", group: groupLog, def: "true", reload: true,
		help:  "read answers, streamed or whole, for first tokens, gaps and usage",
		more:  "Without it lbd_time_to_first_token_seconds, lbd_inter_token_latency_seconds and the token counters get nothing, the access log has no tokens, and least-cost does not learn. Answers under an API key are read all the same, for its account.",
		field: func(c *Config) any { return &c.TokenMetrics },
	},
}
