package config

import (
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"lbd/balancer"
)

var testStrategies = []string{"cycle", "least-waiting", "least-cost"}

// input is one command line: file text (none = no file), variables, arguments.
type input struct {
	file string
	env  []string
	args []string
}

func (in input) load(t *testing.T) (*Config, error) {
	t.Helper()
	flags := pflag.NewFlagSet("lbd", pflag.ContinueOnError)
	Flags(flags)
	if err := flags.Parse(in.args); err != nil {
		t.Fatalf("parse %q: %s", in.args, err)
	}
	env := in.env
	if in.file != "" {
		env = append([]string{"LBD_CONFIG=lbd.yml"}, env...)
	}
	return Load(Options{Flags: flags, Environ: env, Strategies: testStrategies, ReadFile: func(path string) ([]byte, error) {
		if path != "lbd.yml" || in.file == "" {
			return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		}
		return []byte(in.file), nil
	}})
}

func (in input) mustLoad(t *testing.T) *Config {
	t.Helper()
	c, err := in.load(t)
	if err != nil {
		t.Fatalf("load: %s", err)
	}
	return c
}

// withReplica adds what every valid configuration needs.
func withReplica(in input) input {
	in.env = append([]string{"VLLM_ENDPOINTS=http://r.example.org:8000"}, in.env...)
	return in
}

// TestDefaults holds the defaults that users were promised, apart from the
// table that sets them.
func TestDefaults(t *testing.T) {
	got := withReplica(input{}).mustLoad(t)
	want := &Config{
		Listen: ":8080", AdminListen: "127.0.0.1:9901",
		Endpoints: []balancer.Endpoint{{Addr: "r.example.org:8000", Host: "r.example.org:8000"}},
		Strategy:  "least-waiting",

		MetricsAccess: "open", ForwardedHeaders: "set",

		MetricsPollInterval: time.Second, MetricsPollTimeout: time.Second, ModelsPollInterval: 5 * time.Second, DNSRefreshInterval: 5 * time.Second,
		MaxRequestBodySize: 64 << 20, MaxRequestHeaderSize: 32 << 10,

		ClientIdleTimeout: 75 * time.Second, ClientReadTimeout: 5 * time.Minute, ClientWriteTimeout: 5 * time.Minute,
		ConnectTimeout: 5 * time.Second, FirstByteTimeout: 15 * time.Minute, StreamIdleTimeout: 5 * time.Minute,
		UpstreamIdleTimeout: 3 * time.Second, DrainTimeout: 10 * time.Minute, DrainIdleTimeout: 5 * time.Second,

		MaxAttempts: 3, HealthPath: "/health", HealthInterval: 2 * time.Second, HealthTimeout: 5 * time.Second,
		UnhealthyThreshold: 3, EjectionTime: time.Second, MaxEjectionTime: time.Minute,
		Admission: true, AdmissionMaxWaiting: 16, AdmissionQueueLength: 4096, AdmissionQueueSize: 512 << 20, AdmissionMaxWait: 5 * time.Minute,
		AdmissionTimeoutHeaders: []string{"X-Request-Timeout", "X-Stainless-Read-Timeout", "X-Stainless-Timeout"},

		AffinityHome: "strategy", AffinityMaxLoad: 150, AffinityTTL: time.Hour, AffinityResponseTTL: 24 * time.Hour, AffinityEntries: 100_000,
		LogLevel: "info", LogFormat: "json", AccessLogSample: 1, ResponseHeaders: true, TokenMetrics: true,
	}
	got.origins = nil
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(Config{})); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
}

// otherValues is a second valid value for every scalar key, as text.
var otherValues = map[string][3]string{
	"affinity_headers":        {"X-Session-ID", "X-A,X-B", "X-C"},
	"affinity_fields":         {"user", "prompt_cache_key", "prompt_cache_key,user"},
	"affinity_home":           {"hash", "strategy", "hash"},
	"affinity_max_load":       {"200", "300", "400"},
	"affinity_entries":        {"2000", "3000", "4000"},
	"listen":                  {":1001", ":1002", ":1003"},
	"admin_listen":            {":2001", "off", ":2003"},
	"endpoints":               {"http://f:1", "http://e:1,http://e:2", "http://g:1, http://g:2"},
	"strategy":                {"cycle", "least-cost", "least-waiting"},
	"replica_api_key":         {"0123", "sk-env", "sk-flag"},
	"max_request_body_size":   {"1MiB", "2048", "3KiB"},
	"max_request_header_size": {"8KiB", "2048", "3KiB"},
	"max_attempts":            {"5", "6", "7"},
	"health_path":             {"/a", "/b", "/c"},
	"unhealthy_threshold":     {"5", "6", "7"},
	"max_ejection_time":       {"2m", "3m", "240"},
	"log_level":               {"trace", "warn", "error"},
	"log_format":              {"console", "json", "console"},
	"access_log":              {"true", "0", "1"},
	"access_log_sample":       {"5", "6", "7"},
	"response_headers":        {"false", "true", "0"},
	"token_metrics":           {"false", "true", "0"},
	"access_log_prefixes":     {"true", "0", "1"},

	"max_connections":            {"5", "6", "7"},
	"max_connections_per_client": {"5", "6", "7"},
	"listen_reuseport":           {"true", "0", "1"},

	"tls_cert_file":            {"a.crt", "b.crt", "c.crt"},
	"tls_key_file":             {"a.key", "b.key", "c.key"},
	"tls_client_ca_file":       {"a.ca", "b.ca", "c.ca"},
	"admin_tls_cert_file":      {"a.crt", "b.crt", "c.crt"},
	"admin_tls_key_file":       {"a.key", "b.key", "c.key"},
	"admin_tls_client_ca_file": {"a.ca", "b.ca", "c.ca"},
	"admin_token":              {"0123", "token-env", "token-flag"},
	"admin_token_file":         {"a.token", "b.token", "c.token"},
	"api_keys_file":            {"a.keys", "b.keys", "c.keys"},
	"api_keys":                 {"a sha256:1", "b sha256:2", "c sha256:3"},
	"metrics_access":           {"key", "off", "open"},
	"cors_allowed_origins":     {"https://a.example.org", "none", "https://a.example.org, http://localhost:3000"},
	"forwarded_headers":        {"pass", "drop", "set"},
	"trusted_proxies":          {"10.0.0.0/8", "::1", "10.0.0.1,fd00::/8"},

	"upstream_api_key":                  {"0123", "sk-env", "sk-flag"},
	"upstream_api_key_file":             {"a.key", "b.key", "c.key"},
	"upstream_tls_ca_file":              {"a.ca", "b.ca", "c.ca"},
	"upstream_tls_cert_file":            {"a.crt", "b.crt", "c.crt"},
	"upstream_tls_key_file":             {"a.key", "b.key", "c.key"},
	"upstream_tls_server_name":          {"a", "b", "c"},
	"upstream_tls_insecure_skip_verify": {"true", "0", "1"},

	"admission":                 {"false", "1", "0"},
	"admission_max_waiting":     {"1", "20", "30"},
	"admission_max_in_flight":   {"1", "20", "30"},
	"admission_queue_length":    {"1", "20", "30"},
	"admission_queue_size":      {"1MiB", "2097152", "3MiB"},
	"admission_client_header":   {"X-A", "x-b", "X-C"},
	"admission_priority_header": {"X-A", "x-b", "X-C"},
	"admission_priorities":      {"a=high", "a=low,b=normal", "c=normal"},
	"admission_ttft_per_token":  {"1ms", "100us", "0.002"},
	"admission_timeout_headers": {"X-A", "x-b, X-C", "X-C"},
}

// TestPrecedence goes through every scalar key and every set of layers that
// give it, and expects the value and the origin of the highest.
func TestPrecedence(t *testing.T) {
	for _, k := range keys {
		if !k.scalar() {
			continue
		}
		texts, ok := otherValues[k.name]
		if !ok {
			texts = [3]string{"5s", "6000ms", "7"}
		}
		origins := [4]Origin{{}, {FromFile, "lbd.yml", 1}, {Source: FromEnv, Name: k.env()}, {Source: FromFlag, Name: k.flag()}}
		for layers := range 8 {
			var in input
			top := 0
			if layers&1 != 0 {
				in.file, top = k.name+": "+texts[0]+"\n", 1
			}
			if layers&2 != 0 {
				in.env, top = []string{k.env() + "=" + texts[1]}, 2
			}
			if layers&4 != 0 {
				in.args, top = []string{"--" + k.flag() + "=" + texts[2]}, 3
			}
			if k.name == "endpoints" && top == 0 {
				continue // refused: TestErrors
			}
			t.Run(fmt.Sprintf("%s/%03b", k.name, layers), func(t *testing.T) {
				if k.name != "endpoints" {
					in = withReplica(in)
				}
				c := in.mustLoad(t)
				if got := c.Origin(k.name); got != origins[top] {
					t.Errorf("origin = %v; want %v", got, origins[top])
				}
				if top > 0 {
					checkValue(t, k, c, texts[top-1])
				}
			})
		}
	}
}

func checkValue(t *testing.T, k *key, c *Config, text string) {
	t.Helper()
	l := &loader{Options: Options{Strategies: testStrategies}, failed: map[string]bool{}, listed: map[string]Origin{}}
	want, ok := l.read(k, text, Origin{})
	if !ok {
		t.Fatalf("BUG in test: %s", l.errs)
	}
	if got := reflect.ValueOf(k.field(c)).Elem().Interface(); !reflect.DeepEqual(got, want) {
		t.Errorf("%s = %v; want %v", k.name, got, want)
	}
}

func TestPlainVariables(t *testing.T) {
	c := input{env: []string{"VLLM_ENDPOINTS=http://a,http://b:81/x/", "METRICS_POLL_INTERVAL=2.5"}}.mustLoad(t)
	want := []balancer.Endpoint{{Addr: "a:80", Host: "a"}, {Addr: "b:81", Host: "b:81", BasePath: "/x"}}
	if diff := cmp.Diff(want, c.Endpoints); diff != "" {
		t.Errorf("endpoints (-want +got):\n%s", diff)
	}
	if c.MetricsPollInterval != 2500*time.Millisecond || c.MetricsPollTimeout != 2500*time.Millisecond {
		t.Errorf("poll interval, timeout = %v, %v; want 2.5s both", c.MetricsPollInterval, c.MetricsPollTimeout)
	}
	if got := c.Origin("endpoints").String(); got != "env VLLM_ENDPOINTS" {
		t.Errorf("origin = %q", got)
	}

	// The LBD_ name wins whatever the order, and hides even a bad plain one,
	// which may be meant for another program.
	c = input{env: []string{"LBD_METRICS_POLL_INTERVAL=3s", "METRICS_POLL_INTERVAL=weekly", "LBD_ENDPOINTS=http://l", "VLLM_ENDPOINTS=http://v"}}.mustLoad(t)
	if c.MetricsPollInterval != 3*time.Second || c.Endpoints[0].Host != "l" {
		t.Errorf("got %v, %v; want the LBD_ values", c.MetricsPollInterval, c.Endpoints)
	}
	// An empty LBD_ name is unset and hides nothing.
	c = input{env: []string{"LBD_ENDPOINTS= ", "VLLM_ENDPOINTS=http://v", "LBD_STRATEGY=", "LBD_CONFIG="}}.mustLoad(t)
	if c.Endpoints[0].Host != "v" || c.Origin("strategy").Source != FromDefault {
		t.Errorf("got %v, %v; want the plain variable and the default", c.Endpoints, c.Origin("strategy"))
	}
}

// TestKubernetesServiceLinks: beside a Service called lbd every container gets
// these variables, lbd's own included.
func TestKubernetesServiceLinks(t *testing.T) {
	withReplica(input{env: []string{
		"LBD_SERVICE_HOST=10.0.0.11", "LBD_SERVICE_PORT=8080", "LBD_SERVICE_PORT_HTTP=8080", "LBD_PORT=tcp://10.0.0.11:8080",
		"LBD_PORT_8080_TCP=tcp://10.0.0.11:8080", "LBD_PORT_8080_TCP_PROTO=tcp", "LBD_PORT_8080_TCP_PORT=8080",
		"LBD_PORT_8080_TCP_ADDR=10.0.0.11", "LBD_ADMIN_SERVICE_HOST=10.0.0.12", "LBD_ADMIN_PORT_9901_TCP_ADDR=10.0.0.12",
	}}).mustLoad(t)
	for _, k := range keys {
		if serviceLink.MatchString(k.env()) {
			t.Errorf("%s looks like a service link and would be set by Kubernetes", k.env())
		}
	}
}

func TestOffAndEmpty(t *testing.T) {
	for _, in := range []input{
		{args: []string{"--admin-listen="}}, {args: []string{"--admin-listen=off"}},
		{env: []string{"LBD_ADMIN_LISTEN=off"}}, {file: `admin_listen: ""`}, {file: `admin_listen: off`},
	} {
		if c := withReplica(in).mustLoad(t); c.AdminListen != "" {
			t.Errorf("%+v: admin listener %q; want none", in, c.AdminListen)
		}
	}
}

func TestBooleanFlagAlone(t *testing.T) {
	if c := withReplica(input{args: []string{"--access-log"}}).mustLoad(t); !c.AccessLog {
		t.Error("--access-log did not turn the access log on")
	}
}

// TestOriginsIsACopy: nobody can write to a loaded Config through it.
func TestOriginsIsACopy(t *testing.T) {
	c := withReplica(input{}).mustLoad(t)
	c.Origins()["listen"] = Origin{Source: FromFlag}
	if got := c.Origin("listen"); got != (Origin{}) {
		t.Errorf("origin changed to %v", got)
	}
	if len(c.Origins()) != len(keys) {
		t.Errorf("%d origins; want one for each of %d keys", len(c.Origins()), len(keys))
	}
}

// TestTable holds what every row must have.
func TestTable(t *testing.T) {
	seen, fields := map[string]bool{}, map[any]string{}
	c := new(Config)
	for _, k := range keys {
		for _, name := range []string{k.name, k.flag(), k.env(), k.alias} {
			if name != "" && seen[name] && name != k.name {
				t.Errorf("%s: the name %s is taken", k.name, name)
			}
			seen[name] = true
		}
		if other := fields[k.field(c)]; other != "" {
			t.Errorf("%s and %s set the same field", k.name, other)
		}
		fields[k.field(c)] = k.name
		if k.help == "" || strings.HasSuffix(k.help, ".") || k.group == "" {
			t.Errorf("%s: want a group and a help text without a full stop", k.name)
		}
		switch k.field(c).(type) {
		case *int, *Size, *time.Duration:
			if k.max <= k.min || k.def == "" {
				t.Errorf("%s: want a default and limits", k.name)
			}
		}
	}
	exported := 0
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		if f.IsExported() {
			exported++
		}
	}
	if exported != len(keys)+1 { // File is no key
		t.Errorf("Config has %d fields for %d keys; want one each, and File", exported, len(keys))
	}
}

func TestErrorsType(t *testing.T) {
	_, err := input{args: []string{"--max-attempts=0", "--strategy=best"}}.load(t)
	var all Errors
	if !errors.As(err, &all) || len(all) != 3 {
		t.Fatalf("error %v; want Errors of 3", err)
	}
	if all[1].Key != "max_attempts" || all[1].Origin != (Origin{Source: FromFlag, Name: "max-attempts"}) {
		t.Errorf("second error is %+v", all[1])
	}
}
