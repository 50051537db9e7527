package config

var healthKeys = []*key{
	{
		name: "max_attempts", group: groupHealth, def: "3", reload: true,
		help: "replicas tried for one request before its first answer byte; 1 = no retry",
		more: "A request is sent again only if it certainly did not run. When no replica in service is left, those that are out of service are tried, the likeliest to answer first; replicas that drain, hang or cannot be reached are not.",
		min:  1, max: 100,
		field: func(c *Config) any { return &c.MaxAttempts },
	},
	{
		name: "health_path", group: groupHealth, def: "/health", reload: true,
		help:  "path of the active health probe on a replica",
		check: checkPath,
		field: func(c *Config) any { return &c.HealthPath },
	},
	{
		name: "health_interval", group: groupHealth, def: "2s", reload: true,
		help: "how often each replica is probed",
		min:  50 * ms, max: hour,
		field: func(c *Config) any { return &c.HealthInterval },
	},
	{
		name: "health_timeout", group: groupHealth, def: "5s", reload: true,
		help: "longest wait for the answer to a probe",
		min:  ms, max: hour,
		field: func(c *Config) any { return &c.HealthTimeout },
	},
	{
		name: "unhealthy_threshold", group: groupHealth, def: "3", reload: true,
		help: "failed probes in a row after which a replica is ejected",
		min:  1, max: 1000,
		field: func(c *Config) any { return &c.UnhealthyThreshold },
	},
	{
		name: "ejection_time", group: groupHealth, def: "1s", reload: true,
		help: "how long a first ejection lasts; each further one lasts twice as long",
		min:  ms, max: 24 * hour,
		field: func(c *Config) any { return &c.EjectionTime },
	},
	{
		name: "max_ejection_time", group: groupHealth, def: "60s", reload: true,
		help: "longest ejection; at least ejection_time",
		min:  ms, max: 24 * hour,
		field: func(c *Config) any { return &c.MaxEjectionTime },
	},
}

var waitingKeys = []*key{
	{
		name: "admission", group: groupWaiting, def: "true", reload: true,
		help:  "hold requests back while every replica of their model is saturated",
		more:  "vLLM never refuses: what it cannot run waits in its own queue, first come, first served. With this, no more than admission_max_waiting requests wait at a replica, and the others here: fairly between clients, by priority, and within limits behind which the answer is 429 with Retry-After. Below saturation nothing is held back.",
		field: func(c *Config) any { return &c.Admission },
	},
	{
		name: "admission_max_waiting", group: groupWaiting, def: "16", reload: true,
		help: "requests that may wait at a replica itself before it counts as saturated",
		more: "By its gauge vllm:num_requests_waiting and by what was sent and has begun since; a quarter of the requests it runs if that is more. A replica whose gauge is unknown or stale is never saturated.",
		min:  1, max: 1_000_000,
		field: func(c *Config) any { return &c.AdmissionMaxWaiting },
	},
	{
		name: "admission_max_in_flight", group: groupWaiting, def: "0", reload: true,
		help: "requests a replica gets at a time, times its weight, in place of admission_max_waiting; 0 = as many as it runs",
		more: "Own and foreign ones. For replicas that do not tell, or to keep decoding fast by smaller batches.",
		min:  0, max: 1_000_000,
		field: func(c *Config) any { return &c.AdmissionMaxInFlight },
	},
	{
		name: "admission_queue_length", group: groupWaiting, def: "4096", reload: true,
		help: "requests held back per model; when there are more, of the lowest priority the client with most work waiting loses its newest",
		min:  1, max: 10_000_000,
		field: func(c *Config) any { return &c.AdmissionQueueLength },
	},
	{
		name: "admission_queue_size", group: groupWaiting, def: "512MiB", reload: true,
		help: "bytes of request bodies held back per model, likewise",
		min:  1 << 10, max: 1 << 40,
		field: func(c *Config) any { return &c.AdmissionQueueSize },
	},
	{
		name: "admission_max_wait", group: groupWaiting, def: "5m", reload: true, zero: true,
		help: "longest time a request is held back; then, or when it is clear before, it is answered 429; 0 = no limit",
		min:  ms, max: week,
		field: func(c *Config) any { return &c.AdmissionMaxWait },
	},
	{
		name: "admission_max_ttft", group: groupWaiting, def: "0", reload: true, zero: true,
		help: "answer 429 at once when the first token is predicted for later than this; 0 = no limit",
		more: "The wait here, at the pace at which requests are taken up, and the time at the replica it would go to, which only least-cost predicts. Every request is then priced twice. A prompt that takes longer by itself is refused by an idle fleet too: see admission_ttft_per_token. How much more a fleet carries within its limits for it: bench/results/placement.md; for yours: lbd replay --admission-max-ttft.",
		min:  ms, max: week,
		field: func(c *Config) any { return &c.AdmissionMaxTTFT },
	},
	{
		name: "admission_ttft_per_token", group: groupWaiting, def: "0", reload: true, zero: true,
		help: "what admission_max_ttft grows by for each token of the prompt, so that long prompts may take longer; 0 = nothing",
		more: "It does nothing without admission_max_ttft. Tokens are estimated, four bytes each. 100us allows a prompt of 50,000 tokens 5 s more.",
		min:  ms / 1000, max: 1000 * ms,
		field: func(c *Config) any { return &c.AdmissionTTFTPerToken },
	},
	{
		name: "admission_max_tpot", group: groupWaiting, def: "0", reload: true, zero: true,
		help: "answer 429 at once when the output tokens of a stream are predicted to take longer than this, each, after the first; 0 = no limit",
		more: "Only least-cost predicts it: a decode step at the replica the request would go to, stretched by the prompts that are sent there. It is an average over the answer to come, and worth least where a few very long prompts make the difference. Requests that do not stream are not refused for it. For yours: lbd replay --admission-max-tpot.",
		min:  ms, max: 10_000 * ms,
		field: func(c *Config) any { return &c.AdmissionMaxTPOT },
	},
	{
		name: "admission_client_header", group: groupWaiting, reload: true,
		help:  "header that names the client, between whom the wait is fair; without it, or without the header, the address does",
		more:  "The name of an API key beats it. Set it only where something in front of lbd sets the header: who may choose a name for each request gets as many shares. Behind trusted_proxies the address is the last one in X-Forwarded-For.",
		check: checkHeaderName,
		field: func(c *Config) any { return &c.AdmissionClientHeader },
	},
	{
		name: "admission_priority_header", group: groupWaiting, reload: true,
		help:  "header with the priority of a request: high, normal or low; strict, a lower one waits while a higher one does",
		more:  "A client of admission_priorities can only lower its own by it. Others can raise theirs, so set it only where clients are trusted.",
		check: checkHeaderName,
		field: func(c *Config) any { return &c.AdmissionPriorityHeader },
	},
	{
		name: "admission_priorities", group: groupWaiting, reload: true,
		help:  "priorities of clients by their name, as NAME=high, NAME=normal or NAME=low; others are normal",
		check: checkPriority,
		field: func(c *Config) any { return &c.AdmissionPriorities },
	},
	{
		name: "admission_timeout_headers", group: groupWaiting, def: "X-Request-Timeout,X-Stainless-Read-Timeout,X-Stainless-Timeout", reload: true,
		help:  "headers in which a client says how long it waits for an answer: seconds, or a duration such as 500ms",
		more:  "The first one that is there counts. OpenAI's clients send the other two. A request is not held back longer, and refused at once when that is clear.",
		check: checkHeaderName,
		field: func(c *Config) any { return &c.AdmissionTimeoutHeaders },
	},
}
