package config

import (
	"strings"
	"time"

	"lbd/balancer"
)

// key is one row of the table: all that is known about one configuration key.
type key struct {
	name   string
	group  string // heading in lbd --help and in the example file
	def    string // default, as a user would write it
	help   string // one line, for the flag
	more   string // what else a reader of the example file should know
	reload bool   // a reload applies a new value; else a restart is needed
	alias  string // a second variable, which the LBD_ one beats
	oneOf  []string
	zero   bool  // 0 is allowed although below min
	min    int64 // smallest value: ns, bytes or a count
	max    int64
	check  func(string) (string, error)
	field  func(*Config) any // pointer to the field; its type is the type of the key
}

func (k *key) flag() string { return strings.ReplaceAll(k.name, "_", "-") }
func (k *key) env() string  { return envPrefix + strings.ToUpper(k.name) }

// blank is the Config that the types of keys are read from. A new one for each look
// would be 3 MB of garbage a reload, since every variable of the environment is held
// against every key.
var blank Config

// scalar tells whether the key has a flag and a variable. Models alone is too
// deep for either.
func (k *key) scalar() bool {
	_, isModels := k.field(&blank).(*[]Model)
	return !isModels
}

// secret tells whether the value must not be shown.
func (k *key) secret() bool {
	_, is := k.field(&blank).(*Secret)
	return is
}

// kind is the word for the type of the value in --help.
func (k *key) kind() string {
	switch k.field(&blank).(type) {
	case *bool:
		return "bool"
	case *int:
		return "number"
	case *Size:
		return "size"
	case *time.Duration:
		return "duration"
	case *[]balancer.Endpoint:
		return "URL,..."
	case *[]string:
		return "NAME,..."
	case *[]Model:
		return "list"
	case *Secret:
		return "secret"
	default:
		if k.oneOf != nil {
			return strings.Join(k.oneOf, "|")
		}
		return "string"
	}
}

// Headings of the table, in the order of the table.
const (
	groupListen   = "Listeners"
	groupAccess   = "Clients' keys and what is said of clients"
	groupFleet    = "Replicas, models and strategy"
	groupAffinity = "Sessions"
	groupOutward  = "Keys and TLS towards replicas"
	groupPoll     = "Polling"
	groupLimits   = "Limits"
	groupTimeouts = "Timeouts"
	groupHealth   = "Retries and health"
	groupWaiting  = "Admission: waiting in front of a saturated model"
	groupLog      = "Logging, token metrics and response headers"
)

const (
	ms   = int64(time.Millisecond)
	sec  = int64(time.Second)
	hour = int64(time.Hour)
	week = 7 * 24 * hour
)

// keyNames lists the keys of the file in the order of the table.
var keyNames = func() (names []string) {
	for _, k := range keys {
		names = append(names, k.name)
	}
	return names
}()

func keyByName(name string) *key {
	for _, k := range keys {
		if k.name == name {
			return k
		}
	}
	return nil
}

// configFlag names the file; it is no key of the file itself.
const (
	configFlag = "config"
	configEnv  = envPrefix + "CONFIG"
	envPrefix  = "LBD_"
)

// keys is the table. A new key is one row here and one field in Config.
//
// A key is marked reload where the owner of the value can take a new one while
// requests run. Sockets, the limits of the server on them (fasthttp reads its own
// without a lock) and the writer of the log are made once.
var keys = []*key{
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

	{
		name: "endpoints", group: groupFleet, reload: true, alias: "VLLM_ENDPOINTS",
		help:  "base URLs of replicas; their models are learned from GET /v1/models",
		more:  "A comma-separated list where there is no YAML. The port defaults to 80; a path becomes a prefix of every request.",
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
		min:  int64(time.Second), max: week,
		field: func(c *Config) any { return &c.AffinityTTL },
	},
	{
		name: "affinity_response_ttl", group: groupAffinity, def: "24h", reload: true,
		help: "how long the replica of a stored response (/v1/responses) is remembered after its last use",
		more: "What is not remembered is asked for, replica by replica.",
		min:  int64(time.Second), max: 5 * week,
		field: func(c *Config) any { return &c.AffinityResponseTTL },
	},
	{
		name: "affinity_entries", group: groupAffinity, def: "100000",
		help: "how many sessions, and how many stored responses, are remembered",
		more: "24 bytes each, taken with the first one. The least recently used make room. Kept are hashes, not names.",
		min:  1000, max: 100_000_000,
		field: func(c *Config) any { return &c.AffinityEntries },
	},

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
		more: "A look-up is also made when none of a name's addresses takes a connection; one that fails changes nothing.",
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

	{
		name: "max_attempts", group: groupHealth, def: "3", reload: true,
		help: "replicas tried for one request before its first answer byte; 1 = no retry",
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
		more: "The wait here, at the pace at which requests are taken up, and the time at the replica, which only least-cost predicts. Every request is then priced twice.",
		min:  ms, max: week,
		field: func(c *Config) any { return &c.AdmissionMaxTTFT },
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
