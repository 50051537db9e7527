package config

import (
	"maps"
	"time"

	"lbd/balancer"
)

// Config is the effective configuration. The table of keys documents every
// field: meaning, unit, default and whether a reload applies it. Load fills
// every field; a Config is never written to afterwards.
type Config struct {
	// File is the path given with --config or LBD_CONFIG; empty without one.
	File string

	Listen          string
	AdminListen     string // empty = no admin listener
	ListenReuseport bool

	// TLS of the two listeners; empty paths = plain HTTP, empty CA = no client
	// certificate wanted.
	TLSCertFile, TLSKeyFile, TLSClientCAFile                string
	AdminTLSCertFile, AdminTLSKeyFile, AdminTLSClientCAFile string
	AdminToken                                              Secret
	AdminTokenFile                                          string

	APIKeys            Secret // entries, see lbd/access/keys
	APIKeysFile        string
	MetricsAccess      string // open, key or off: of /metrics on the main listener
	CORSAllowedOrigins []string
	ForwardedHeaders   string // a forwarded.Mode
	TrustedProxies     []string

	Endpoints     []balancer.Endpoint // models learned from /v1/models
	Models        []Model             // models described in the file
	Strategy      string
	ReplicaAPIKey Secret

	AffinityHeaders     []string
	AffinityFields      []string // of a body
	AffinityHome        string   // an affinity.Config.Home
	AffinityMaxLoad     int      // percent
	AffinityTTL         time.Duration
	AffinityResponseTTL time.Duration
	AffinityEntries     int

	UpstreamAPIKey                Secret
	UpstreamAPIKeyFile            string
	UpstreamTLSCAFile             string
	UpstreamTLSCertFile           string
	UpstreamTLSKeyFile            string
	UpstreamTLSServerName         string
	UpstreamTLSInsecureSkipVerify bool

	MetricsPollInterval time.Duration
	// MetricsPollTimeout is never 0: the 0 a user may write is replaced by
	// the larger of one second and MetricsPollInterval.
	MetricsPollTimeout time.Duration
	ModelsPollInterval time.Duration
	DNSRefreshInterval time.Duration

	MaxRequestBodySize   Size
	MaxRequestHeaderSize Size

	MaxConnections          int // 0 = what descriptors allow
	MaxConnectionsPerClient int // 0 = no limit

	ClientIdleTimeout   time.Duration
	ClientReadTimeout   time.Duration
	ClientWriteTimeout  time.Duration
	ConnectTimeout      time.Duration
	FirstByteTimeout    time.Duration
	StreamIdleTimeout   time.Duration
	UpstreamIdleTimeout time.Duration
	DrainTimeout        time.Duration // 0 = running requests are cut at once
	DrainIdleTimeout    time.Duration

	MaxAttempts        int
	HealthPath         string
	HealthInterval     time.Duration
	HealthTimeout      time.Duration
	UnhealthyThreshold int
	EjectionTime       time.Duration
	MaxEjectionTime    time.Duration

	Admission               bool
	AdmissionMaxWaiting     int
	AdmissionMaxInFlight    int // 0 = by AdmissionMaxWaiting
	AdmissionQueueLength    int
	AdmissionQueueSize      Size
	AdmissionMaxWait        time.Duration // 0 = no limit
	AdmissionMaxTTFT        time.Duration // 0 = no limit
	AdmissionTTFTPerToken   time.Duration // 0 = the limit does not grow with the prompt
	AdmissionMaxTPOT        time.Duration // 0 = no limit
	AdmissionClientHeader   string
	AdmissionPriorityHeader string
	AdmissionPriorities     []string // NAME=CLASS
	AdmissionTimeoutHeaders []string

	LogLevel          string
	LogFormat         string
	AccessLog         bool
	AccessLogSample   int
	AccessLogPrefixes bool
	ResponseHeaders   bool
	TokenMetrics      bool

	origins map[string]Origin
}

// ReplicaAccess is what one replica is shown instead of what all are. Empty fields
// are as for all.
type ReplicaAccess struct {
	APIKeyFile string
	APIKeyEnv  string // the name of a variable
	APIKey     Secret // its value

	TLSCAFile               string
	TLSCertFile, TLSKeyFile string
	TLSServerName           string
	// TLSSkipVerify is "true" or "false", or "" where the replica does not say.
	TLSSkipVerify string
}

// Model is one entry of the key models.
type Model struct {
	Name    string
	Aliases []string
	// Strategy is never empty: Config.Strategy where the file says nothing.
	Strategy string
	// CacheTokens is that of the replicas that name none; see Replica.
	CacheTokens int
	// Replicas are pinned; empty means that the model is learned from Endpoints
	// and only its aliases and strategy are set here.
	Replicas []Replica
}

// Replica is one replica of a pinned model.
type Replica struct {
	Endpoint balancer.Endpoint
	// Device names the accelerator; replicas with the same non-empty device
	// share it.
	Device string
	Weight int // relative capacity, at least 1
	// CacheTokens is how many tokens of prompts the replica keeps beyond those in
	// use; 0 leaves it to its metrics.
	CacheTokens int
	Access      ReplicaAccess
}

// Origins returns where the value of each key came from, by key.
func (c *Config) Origins() map[string]Origin { return maps.Clone(c.origins) }

// Origin returns where the value of one key came from.
func (c *Config) Origin(key string) Origin { return c.origins[key] }
