package config

import (
	"strings"
	"testing"
	"time"
)

// mistake is a message for the user, one for every rule. Messages of the file are in
// testdata/*.bad.yml.
type mistake struct {
	name string
	in   input
	want string
}

func byFlag(args ...string) input { return withReplica(input{args: args}) }
func byEnv(vars ...string) input  { return withReplica(input{env: vars}) }

// refused holds what is said of each.
func refused(t *testing.T, mistakes []mistake) {
	t.Helper()
	for _, m := range mistakes {
		t.Run(m.name, func(t *testing.T) {
			_, err := m.in.load(t)
			if err == nil || err.Error() != m.want {
				t.Errorf("error\n  %v\nwant\n  %s", err, m.want)
			}
		})
	}
}

// What is missing, and what nobody knows.
func TestErrorsOfSources(t *testing.T) {
	refused(t, []mistake{
		{"no replicas", input{},
			"no replicas; want --endpoints URL,URL or the variable LBD_ENDPOINTS (or VLLM_ENDPOINTS), or the key endpoints or models in a file given with --config"},
		{"bad replicas are not no replicas", input{args: []string{"--endpoints=x"}},
			`--endpoints: "x" is not an endpoint; want http://host:port[/prefix] or https://`},
		{"no such file", byFlag("--config=none.yml"),
			"--config: cannot read the configuration: open none.yml: file does not exist"},
		{"no such file by variable", byEnv("LBD_CONFIG=none.yml"),
			"LBD_CONFIG: cannot read the configuration: open none.yml: file does not exist"},
		{"empty path", byFlag("--config="), `--config: "" is not a path; want the path of a YAML file`},

		{"unknown variable", byEnv("LBD_STRATAGY=cycle"), "LBD_STRATAGY: unknown variable; did you mean LBD_STRATEGY?"},
		{"unknown variable, nothing near", byEnv("LBD_COFFEE=x"), "LBD_COFFEE: unknown variable"},
		{"unknown empty variable", byEnv("LBD_COFFEE="), "LBD_COFFEE: unknown variable"},
		{"models have no variable", byEnv("LBD_MODELS=x"), "LBD_MODELS: unknown variable"},
	})
}

// Durations, sizes and numbers, alone and beside one another.
func TestErrorsOfQuantities(t *testing.T) {
	refused(t, []mistake{
		{"duration", byEnv("METRICS_POLL_INTERVAL=fast"),
			`METRICS_POLL_INTERVAL: "fast" is not a duration; want a Go duration such as 500ms or a bare number of seconds`},
		{"duration unit", byFlag("--connect-timeout=5 sec"),
			`--connect-timeout: "5 sec" is not a duration; want a Go duration such as 500ms or a bare number of seconds`},
		{"duration quotes what was given", byFlag("--connect-timeout=5xs"),
			`--connect-timeout: "5xs" is not a duration; want a Go duration such as 500ms or a bare number of seconds`},
		{"duration infinite", byFlag("--connect-timeout=inf"),
			`--connect-timeout: "inf" is not a duration; want a Go duration such as 500ms or a bare number of seconds`},
		{"duration overflow", byFlag("--connect-timeout=99999999999"),
			`--connect-timeout: "99999999999" is not a duration; want a Go duration such as 500ms or a bare number of seconds`},
		{"duration short", byFlag("--metrics-poll-interval=49ms"),
			`--metrics-poll-interval: "49ms" is out of range; want between 50ms and 1h`},
		{"duration zero", byFlag("--first-byte-timeout=0"), `--first-byte-timeout: "0" is out of range; want between 1ms and 168h`},
		{"duration negative", byFlag("--drain-timeout=-1s"), `--drain-timeout: "-1s" is out of range; want 0 or between 1ms and 168h`},
		{"duration empty", byFlag("--drain-timeout="),
			`--drain-timeout: "" is not a duration; want a Go duration such as 500ms or a bare number of seconds`},

		{"size unit", byFlag("--max-request-body-size=64MB"),
			`--max-request-body-size: "64MB" is not a size; want bytes or a size such as 512KiB, 64MiB or 1GiB`},
		{"size negative", byFlag("--max-request-body-size=-1"), `--max-request-body-size: "-1" is out of range; want between 1KiB and 4GiB`},
		{"size overflow", byFlag("--max-request-body-size=9007199254740993GiB"),
			`--max-request-body-size: "9007199254740993GiB" is out of range; want between 1KiB and 4GiB`},
		{"size small", byEnv("LBD_MAX_REQUEST_HEADER_SIZE=100"), `LBD_MAX_REQUEST_HEADER_SIZE: "100" is out of range; want between 1KiB and 16MiB`},

		{"number", byFlag("--max-attempts=1.5"), `--max-attempts: "1.5" is not a whole number; want between 1 and 100`},
		{"number range", byFlag("--max-attempts=0"), `--max-attempts: "0" is out of range; want between 1 and 100`},

		{"ejection", byFlag("--ejection-time=2m"), `--ejection-time: "2m" is longer than max_ejection_time "60s"; want at most that`},
		{"longest ejection", byFlag("--max-ejection-time=10ms"), `--max-ejection-time: "10ms" is shorter than ejection_time "1s"; want at least that`},
	})
}

// Words that are one of a few, and paths.
func TestErrorsOfWords(t *testing.T) {
	refused(t, []mistake{
		{"boolean", byFlag("--access-log=maybe"), `--access-log: "maybe" is not a boolean; want true or false`},
		{"level", byFlag("--log-level=loud"), `--log-level: "loud" is unknown; want trace, debug, info, warn or error`},
		{"format", byEnv("LBD_LOG_FORMAT=xml"), `LBD_LOG_FORMAT: "xml" is unknown; want json or console`},
		{"strategy", byFlag("--strategy=best"), `--strategy: "best" is unknown; want cycle, least-waiting or least-cost`},
		{"path", byFlag("--health-path=health"), `--health-path: "health" is not a path; want one such as /health, without a query`},
		{"path query", byFlag("--health-path=/h?x"), `--health-path: "/h?x" is not a path; want one such as /health, without a query`},
	})
}

// Where to listen, whom to ask and whom to trust.
func TestErrorsOfAddresses(t *testing.T) {
	refused(t, []mistake{
		{"listen port alone", byFlag("--listen=8080"),
			`--listen: "8080" is not a listen address; want HOST:PORT or :PORT, such as 127.0.0.1:8080`},
		{"listen service", byFlag("--listen=:http"),
			`--listen: ":http" is not a listen address; want HOST:PORT or :PORT, such as 127.0.0.1:8080`},
		{"listen port range", byFlag("--listen=:65536"),
			`--listen: ":65536" is not a listen address; want HOST:PORT or :PORT, such as 127.0.0.1:8080`},
		{"listen empty", byFlag("--listen="), `--listen: "" is not a listen address; want HOST:PORT or :PORT, such as 127.0.0.1:8080`},
		{"same socket, blames the flag", byFlag("--listen=:9901"),
			`--listen: ":9901" is taken by admin_listen "127.0.0.1:9901"; want another port, or admin_listen off`},
		{"same socket, blames admin", byFlag("--admin-listen=[::]:8080"),
			`--admin-listen: "[::]:8080" is taken by listen ":8080"; want another port, or empty for no admin listener`},

		{"origin with a path", byFlag("--cors-allowed-origins=https://a.example.org/,none"),
			`--cors-allowed-origins: "https://a.example.org/" is not an origin; want one as browsers send it, such as https://chat.example.org or http://localhost:3000, or * or none`},
		{"origin beside none", byFlag("--cors-allowed-origins=https://a.example.org,none"),
			`--cors-allowed-origins: "none" stands beside other origins; want it alone`},
		{"network", byFlag("--trusted-proxies=10.0.0.0/8, 10.1"),
			`--trusted-proxies: "10.1" is not a network; want one such as 10.0.0.0/8, fd00::/8 or 192.168.1.7`},
		{"variable of a replica's key", input{file: "models: [{name: m, replicas: [{url: https://a, api_key_env: NOBODYS}]}]\n"},
			`lbd.yml:1: models[0].replicas[0].api_key_env: the variable "NOBODYS" is not set; want it to hold the key of this replica`},
		{"endpoint password is not shown", byFlag("--endpoints=http://user:hunter2@a"),
			`--endpoints: "...@a" carries user info; want http://host:port, and replica_api_key for replicas that ask for a key`},
		{"endpoint query", byFlag("--endpoints=http://a?x=1"), `--endpoints: "http://a?x=1" carries a query or a fragment; want http://host:port[/prefix]`},
		{"endpoint empty fragment", byFlag("--endpoints=http://a#"), `--endpoints: "http://a#" carries a query or a fragment; want http://host:port[/prefix]`},
		{"endpoint scheme", byFlag("--endpoints=a:8000"), `--endpoints: "a:8000" is not an endpoint; want http://host:port[/prefix] or https://`},
		{"endpoint port", byFlag("--endpoints=http://a:65536"), `--endpoints: "http://a:65536" has no valid port; want a number between 1 and 65535`},
		{"endpoint port missing", byFlag("--endpoints=http://a:"), `--endpoints: "http://a:" has no valid port; want a number between 1 and 65535`},
		{"endpoint twice", byFlag("--endpoints=http://a,http://b,http://A:80/"), `--endpoints: "http://A:80/" is listed twice; want each replica once`},
	})
}

// What is wrong with a secret is told without it.
func TestErrorsOfSecrets(t *testing.T) {
	refused(t, []mistake{
		{"key placeholder", byFlag("--replica-api-key=<redacted>"),
			"--replica-api-key: is the placeholder that lbd config prints; want the secret itself"},
		{"key header injection", byEnv("LBD_REPLICA_API_KEY=hunter2\r\nX: y"),
			"LBD_REPLICA_API_KEY: contains a control character; want one line of text"},
	})
}

// TestErrorsAllLayers: every mistake is reported, in the order of the layers,
// those that a later layer hides included.
func TestErrorsAllLayers(t *testing.T) {
	_, err := input{
		file: "strategy: best\nlog_level: loud\nmax_attempts: many\n",
		env:  []string{"LBD_LOG_LEVEL=louder", "LBD_WHAT=x"},
		args: []string{"--log-level=loudest", "--max-attempts=2"},
	}.load(t)
	want := strings.Join([]string{
		`lbd.yml:1: strategy: "best" is unknown; want cycle, least-waiting or least-cost`,
		`lbd.yml:2: log_level: "loud" is unknown; want trace, debug, info, warn or error`,
		`lbd.yml:3: max_attempts: "many" is not a whole number; want between 1 and 100`,
		`LBD_LOG_LEVEL: "louder" is unknown; want trace, debug, info, warn or error`,
		`LBD_WHAT: unknown variable`,
		`--log-level: "loudest" is unknown; want trace, debug, info, warn or error`,
		`lbd.yml: no replicas; want --endpoints URL,URL or the variable LBD_ENDPOINTS (or VLLM_ENDPOINTS), or the key endpoints or models in a file given with --config`,
	}, "\n")
	if err == nil || err.Error() != want {
		t.Errorf("errors\n%v\nwant\n%s", err, want)
	}
}

// TestNoStrategyList: without a list of strategies any name passes.
func TestNoStrategyList(t *testing.T) {
	c, err := Load(Options{Environ: []string{"LBD_ENDPOINTS=http://a", "LBD_STRATEGY=mine"}})
	if err != nil || c.Strategy != "mine" {
		t.Errorf("got %v, %v", c, err)
	}
	if _, err := Load(Options{Environ: []string{"LBD_ENDPOINTS=http://a"}, Strategies: []string{"mine"}}); err == nil ||
		err.Error() != `strategy: "least-waiting" is unknown; want mine` {
		t.Errorf("error %v; want the default refused", err)
	}
}

func TestSameSocket(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{":80", ":80", true}, {":80", "127.0.0.1:80", true}, {"127.0.0.1:80", "0.0.0.0:80", true}, {"[::]:80", "10.0.0.1:80", true},
		{"127.0.0.1:80", "127.0.0.1:80", true}, {"127.0.0.1:80", "127.0.0.2:80", false}, {":80", ":81", false}, {":0", ":0", false}, {":80", "", false},
	} {
		if got := sameSocket(c.a, c.b); got != c.want {
			t.Errorf("sameSocket(%q, %q) = %v", c.a, c.b, got)
		}
	}
}

func TestNearest(t *testing.T) {
	for name, want := range map[string]string{
		"listn": "listen", "LISTEN": "listen", "admin-listen": "admin_listen", "endpoint": "endpoints", "metric_poll_interval": "metrics_poll_interval",
		"xyzzy": "", "": "", strings.Repeat("a", 1000): "",
	} {
		if got := Nearest(name, keyNames); got != want {
			t.Errorf("Nearest(%.20q) = %q; want %q", name, got, want)
		}
	}
}

func TestSizeAndDurationText(t *testing.T) {
	size := &key{name: "s", min: 0, max: 1 << 62, field: func(c *Config) any { return &c.MaxRequestBodySize }}
	for text, want := range map[string]string{
		"0": "0", "1000": "1000", "1000B": "1000", "1024": "1KiB", "64mib": "64MiB", "2 GiB": "2GiB", "1536KiB": "1536KiB",
	} {
		got, err := size.parse(text)
		if err != nil || got.(Size).String() != want {
			t.Errorf("size %q = %v, %v; want %s", text, got, err, want)
		}
	}
	duration := &key{name: "d", min: 0, max: 1 << 62, field: func(c *Config) any { return &c.DrainTimeout }}
	for text, want := range map[string]string{
		"0": "0", "1": "1s", "1.5": "1.5s", ".5": "500ms", "2.": "2s", "90": "90s", "1m": "60s", "2m": "2m", "3600": "1h", "1h30m": "1h30m", "61m1s": "1h1m1s",
	} {
		got, err := duration.parse(text)
		if err != nil {
			t.Errorf("duration %q: %s", text, err)
		} else if s := formatDuration(got.(time.Duration)); s != want {
			t.Errorf("duration %q = %v; want %s", text, s, want)
		}
	}
}
