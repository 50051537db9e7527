package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"lbd/access/keys"
)

// What lbd key prints is what lbd takes, and the key itself is not in it.
func TestKeyCommand(t *testing.T) {
	got := lbd(t, "key", "alice", "--models", "llama-8b,qwen/*", "--max-in-flight", "8", "--tokens-per-minute", "200000")
	key := strings.TrimSpace(got.stderr)
	if got.code != 0 || strings.Contains(got.stdout, key) || !strings.HasPrefix(key, keys.Prefix) || strings.Count(got.stdout, "\n") != 1 {
		t.Fatalf("%+v", got)
	}
	entries, err := keys.ParseFile(got.stdout)
	if err != nil || len(entries) != 1 {
		t.Fatal(entries, err)
	}
	e := entries[0]
	if e.Name != "alice" || e.Digest != keys.DigestOf(key) || len(e.Models) != 2 || e.MaxInFlight != 8 || e.TokensPerMinute != 200000 || e.RequestsPerMinute != 0 {
		t.Errorf("%+v", e)
	}
	if again := lbd(t, "key", "alice"); again.stderr == got.stderr {
		t.Error("the same key twice")
	}
}

func TestKeyFromStandardInput(t *testing.T) {
	const key = "a-key-from-somewhere-else-0123456789"
	line, _, err := makeKey("bob", keys.Limits{}, true, strings.NewReader(key+"\nmore\n"))
	if err != nil || line != "bob "+keys.DigestOf(key).String() {
		t.Errorf("%q %v", line, err)
	}
	if _, _, err := makeKey("bob", keys.Limits{}, true, strings.NewReader("hunter2-short\n")); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a short key: %v", err)
	}
}

func TestKeysThatCannotBe(t *testing.T) {
	for _, args := range [][]string{{"key"}, {"key", "a b"}, {"key", "none"}, {"key", "a", "--max-in-flight=-1"}, {"key", "a", "--tokens-per-minute=0"}, {"key", "a", "--models="}, {"key", "a", "--models=b,,c"}, {"key", "a", "--models=a*b"}, {"key", "a", "--requests-per-minute=9999999999"}} {
		if got := lbd(t, args...); got.code != exitUsage || got.stdout != "" {
			t.Errorf("%q: %+v", args, got)
		}
	}
}

// What is wrong with a name is told with the name, unless that may be a key.
func TestKeyNamesThatCannotBe(t *testing.T) {
	if got := lbd(t, "key", "a b"); !strings.HasPrefix(got.stderr, `lbd: "a b" has no valid name; want up to 64`) {
		t.Errorf("%+v", got)
	}
	const key = "/a+key/in+place/of/the/name"
	if got := lbd(t, "key", key); !strings.HasPrefix(got.stderr, "lbd: the command line has no valid name") || strings.Contains(got.stderr, key) {
		t.Errorf("%+v", got)
	}
}

// A key whose line cannot be written is not shown: it would let nobody in.
func TestKeyWithoutItsLine(t *testing.T) {
	var errs strings.Builder
	code := run(t.Context(), []string{"key", "alice"}, full{}, &errs)
	if code != exitUsage || strings.Contains(errs.String(), keys.Prefix) || !strings.Contains(errs.String(), "no space left") {
		t.Errorf("exit %d, %q", code, errs.String())
	}
}

// full is a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// lbd check reads the files that a configuration names, and says which key is wrong.
func TestCheckReadsFiles(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const plain = "a-key-in-plain-text-0123456789"
	bad := put("keys.txt", "# keys\nalice "+plain+"\n")
	for text, want := range map[string]string{
		"api_keys_file: " + bad:                    "api_keys_file (file CONF:2): " + bad + ": line 2: has no sha256:HASH",
		"api_keys_file: " + dir + "/none":          "api_keys_file (file CONF:2): open " + dir + "/none",
		"api_keys: alice " + plain:                 "api_keys (file CONF:2): entry 1: has no sha256:HASH",
		"admin_listen: :9901":                      "admin_listen (file CONF:2): \":9901\" is reachable from other machines; want admin_token",
		"tls_cert_file: " + bad:                    "tls_cert_file (file CONF:2): a certificate without a key",
		"upstream_tls_ca_file: " + bad:             "upstream_tls_ca_file (file CONF:2): " + bad + " holds no certificate",
		"metrics_access: key":                      `metrics_access (file CONF:2): is "key" without any key`,
		"admin_token: x\nadmin_token_file: " + bad: "admin_token and admin_token_file are both set; want one",
		"upstream_api_key_file: " + bad:            "does not hold one line of text",
	} {
		conf := write(t, "endpoints: [http://a.example.org:8000]\n"+text+"\n")
		got := lbd(t, "check", "--config", conf)
		if got.code != exitUsage || !strings.Contains(got.stderr, strings.ReplaceAll(want, "CONF", conf)) || strings.Contains(got.stderr, plain) {
			t.Errorf("%s:\n%+v\nwant %s", text, got, want)
		}
	}
	good := put("good.txt", "alice "+keys.DigestOf(plain).String()+"\n")
	conf := write(t, "endpoints: [https://a.example.org]\nadmin_listen: 0.0.0.0:9901\nadmin_token: t\nmetrics_access: key\napi_keys_file: "+good+"\n")
	if got := lbd(t, "check", "--config", conf); got.code != 0 {
		t.Errorf("%+v", got)
	}
}
