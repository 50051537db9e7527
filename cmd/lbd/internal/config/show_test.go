package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

func TestPrint(t *testing.T) {
	c := input{
		file: "listen: \":8081\"\nmax_request_body_size: 2097152\nmodels:\n  - name: \"yes\"\n    replicas: [{url: http://a}]\n",
		env:  []string{"METRICS_POLL_INTERVAL=2", "LBD_REPLICA_API_KEY=hunter2"},
		args: []string{"--strategy", "cycle", "--endpoints", "http://b,http://c:9/x"},
	}.mustLoad(t)
	var b bytes.Buffer
	if err := c.Print(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/print.golden", b.Bytes())
}

// TestSecret looks for the secret in everything that shows a configuration.
func TestSecret(t *testing.T) {
	const secret = "hunter2"
	c := withReplica(input{env: []string{"LBD_REPLICA_API_KEY=" + secret}}).mustLoad(t)
	if got := c.ReplicaAPIKey.Reveal(); got != secret {
		t.Fatalf("Reveal() = %q", got)
	}
	var printed bytes.Buffer
	if err := c.Print(&printed); err != nil {
		t.Fatal(err)
	}
	marshalled, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	byValue, err := json.Marshal(c.ReplicaAPIKey)
	if err != nil {
		t.Fatal(err)
	}
	shown := []string{printed.String(), string(marshalled), string(byValue), fmt.Sprint(c.ReplicaAPIKey), fmt.Sprint(*c)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		shown = append(shown, fmt.Sprintf(verb, c), fmt.Sprintf(verb, c.ReplicaAPIKey))
	}
	for _, s := range shown {
		if strings.Contains(s, secret) || strings.Contains(s, fmt.Sprintf("%x", secret)) || strings.Contains(s, fmt.Sprintf("%X", secret)) {
			t.Errorf("secret in %s", s)
		}
	}
	if !strings.Contains(printed.String(), "replica_api_key: <redacted> # env LBD_REPLICA_API_KEY") {
		t.Errorf("printed\n%s", printed.String())
	}
	if s := withReplica(input{}).mustLoad(t).ReplicaAPIKey.String(); s != "" {
		t.Errorf("no secret shows as %q", s)
	}
}

// TestSecretsOfAccess: the keys and tokens of the other listeners and replicas are
// shown no more than that one, a replica's own included.
func TestSecretsOfAccess(t *testing.T) {
	const secret = "hunter2"
	c := input{
		file: "models: [{name: m, replicas: [{url: http://a, api_key_env: KEY_OF_A}]}]\n",
		env:  []string{"LBD_API_KEYS=alice " + secret, "LBD_ADMIN_TOKEN=" + secret, "LBD_UPSTREAM_API_KEY=" + secret, "KEY_OF_A=" + secret},
	}.mustLoad(t)
	for _, s := range []Secret{c.APIKeys, c.AdminToken, c.UpstreamAPIKey, c.Models[0].Replicas[0].Access.APIKey} {
		if !strings.HasSuffix(s.Reveal(), secret) {
			t.Fatalf("Reveal() = %q", s.Reveal())
		}
	}
	var printed bytes.Buffer
	if err := c.Print(&printed); err != nil {
		t.Fatal(err)
	}
	marshalled, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{printed.String(), string(marshalled), fmt.Sprintf("%+v", c), fmt.Sprintf("%#v", *c), fmt.Sprintf("%v", c.Models)} {
		if strings.Contains(s, secret) {
			t.Errorf("secret in %s", s)
		}
	}
}

// TestSecretInErrors: whatever is wrong with a secret, it is not quoted.
func TestSecretInErrors(t *testing.T) {
	for _, in := range []input{
		{file: "replica_api_key: [hunter2]\n"}, {file: "replica_api_key: {hunter2: x}\n"}, {file: "replica_api_key: \"hunter2\\n\"\nreplica_api_key: hunter2\n"},
		{file: "replica_api_key: \"hun\\nter2\"\n"}, {file: "replica_api_key: &x hunter2\nstrategy: *x\n"},
		{env: []string{"LBD_REPLICA_API_KEY=hun\x00ter2 hunter2"}}, {args: []string{"--endpoints=http://hunter2:hunter2@a"}},
		{file: "endpoints: [\"http://u:hunter2@a:8000\", \"u:hunter2@b\"]\n"},
		{file: "models: [{name: m, replicas: [{url: \"http://u:hunter2@a\"}]}]\n"},
	} {
		_, err := withReplica(in).load(t)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%+v: error %v; want one without the secret", in, err)
		}
	}
}

func TestJSON(t *testing.T) {
	c := input{
		file: "models:\n  - name: m\n    aliases: [a]\n    replicas: [{url: http://a, device: gpu0}]\n",
		args: []string{"--metrics-poll-interval=1500ms", "--endpoints=http://b"},
	}.mustLoad(t)
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != len(keys) {
		t.Errorf("%d keys in JSON; want %d", len(got), len(keys))
	}
	want := map[string]any{
		"listen": ":8080", "metrics_poll_interval": "1.5s", "max_request_body_size": "64MiB", "max_attempts": 3.0,
		"access_log": false, "endpoints": []any{"http://b"}, "replica_api_key": "",
		"models": []any{map[string]any{
			"name": "m", "aliases": []any{"a"}, "strategy": "least-waiting",
			"replicas": []any{map[string]any{"url": "http://a", "device": "gpu0", "weight": 1.0}},
		}},
	}
	for name, value := range want {
		if diff := cmp.Diff(value, got[name]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if !bytes.HasPrefix(data, []byte(`{"listen":`)) {
		t.Errorf("JSON is not in the order of the table: %.60s", data)
	}
}

// TestChanged gives every key a new value and expects it, and it alone, in the
// list that the table says.
func TestChanged(t *testing.T) {
	old := withReplica(input{}).mustLoad(t)
	if applied, restart := Changed(old, withReplica(input{}).mustLoad(t)); applied != nil || restart != nil {
		t.Errorf("nothing changed, but got %v %v", applied, restart)
	}
	needRestart := map[string]bool{
		"listen": true, "admin_listen": true, "listen_reuseport": true, "log_format": true, "max_request_header_size": true,
		"tls_cert_file": true, "tls_key_file": true, "tls_client_ca_file": true,
		"admin_tls_cert_file": true, "admin_tls_key_file": true, "admin_tls_client_ca_file": true,
		"client_idle_timeout": true, "client_read_timeout": true, "client_write_timeout": true, "affinity_entries": true,
		"dns_refresh_interval": true,
	}
	for _, k := range keys {
		want := []string{k.name}
		in := withReplica(input{})
		switch texts, ok := otherValues[k.name]; {
		case !k.scalar():
			in.file = "models: [{name: m, replicas: [{url: http://m}]}]\n"
		case ok:
			in.args = []string{"--" + k.flag() + "=" + texts[0]}
		default:
			in.args = []string{"--" + k.flag() + "=7s"}
		}
		if k.name == "metrics_poll_interval" {
			want = append(want, "metrics_poll_timeout") // follows it
		}
		applied, restart := Changed(old, in.mustLoad(t))
		got, other := applied, restart
		if needRestart[k.name] {
			got, other = restart, applied
		}
		if diff := cmp.Diff(want, got); diff != "" || other != nil {
			t.Errorf("%s: applied %v, restart %v", k.name, applied, restart)
		}
		inForce := Reloaded(old, in.mustLoad(t))
		applied, restart = Changed(old, inForce)
		if restart != nil || (len(applied) > 0) == needRestart[k.name] {
			t.Errorf("%s: in force after a reload: applied %v, restart %v", k.name, applied, restart)
		}
		if needRestart[k.name] && inForce.Origin(k.name) != old.Origin(k.name) {
			t.Errorf("%s: comes from %v after a reload that does not apply it", k.name, inForce.Origin(k.name))
		}
	}
}

// TestFlags: every scalar key has a flag with its heading and its default.
func TestFlags(t *testing.T) {
	fs := pflag.NewFlagSet("lbd", pflag.ContinueOnError)
	Flags(fs)
	for _, k := range keys {
		f := fs.Lookup(k.flag())
		if f == nil != !k.scalar() {
			t.Errorf("--%s exists: %v; want %v", k.flag(), f != nil, k.scalar())
			continue
		}
		if f != nil && (f.DefValue != k.def || f.Usage != k.help || f.Annotations[GroupAnnotation][0] != k.group) {
			t.Errorf("--%s is %+v", k.flag(), f)
		}
	}
	if fs.Lookup("config") == nil {
		t.Error("no --config")
	}
}
