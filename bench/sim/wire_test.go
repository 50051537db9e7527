package sim

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite testdata")

// unsteady is what differs from run to run.

var unsteady = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`"created":\d+`), `"created":1731628800`},
	{regexp.MustCompile(`(?m)^date: .*\r$`), "date: Fri, 15 Nov 2024 00:00:00 GMT\r"},
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	for _, u := range unsteady {
		got = u.re.ReplaceAllString(got, u.to)
	}
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s differs (-want +got):\n%s", path, d)
	}
}

// TestStreamBytes pins every byte of a stream: head, chunk framing, events.
func TestStreamBytes(t *testing.T) {
	cases := []struct{ name, path, body string }{
		{"chat", "/v1/chat/completions", `{"model":"` + llama + `","messages":[{"role":"user","content":"Say hello to the world"}],"max_tokens":3,"stream":true}`},
		{"chat_usage", "/v1/chat/completions", `{"model":"` + llama + `","messages":[{"role":"user","content":"Say hello to the world"}],"max_tokens":2,"ignore_eos":true,"stream":true,"stream_options":{}}`},
		{"chat_continuous", "/v1/chat/completions", `{"model":"` + llama + `","messages":[{"role":"user","content":"Hi"}],"max_tokens":2,"stream":true,"n":1,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}`},
		{"completion", "/v1/completions", `{"model":"` + llama + `","prompt":"w w w w ","max_tokens":2,"stream":true}`},
		{"completion_usage", "/v1/completions", `{"model":"` + llama + `","prompt":"w w w w ","max_tokens":2,"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}`},
	}
	bothProfiles(t, func(t *testing.T, p Profile, change func(*Config)) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				r := dial(t, started(t, func(cfg *Config) { change(cfg); slow(cfg) }))
				r.post(c.path, c.body, "x-request-id: req-1", "connection: close")
				got, err := r.rest()
				if err != nil {
					t.Fatal(err)
				}
				golden(t, string(p)+"_"+c.name+".http", got)
			})
		}
	})
}

// TestAnswerBytes pins complete answers.
func TestAnswerBytes(t *testing.T) {
	cases := []struct{ name, path, body string }{
		{"chat_full", "/v1/chat/completions", `{"model":"` + llama + `","messages":[{"role":"user","content":"Hi"}],"max_tokens":4,"n":2}`},
		{"completion_full", "/v1/completions", `{"model":"` + llama + `","prompt":["one","two"],"max_tokens":4}`},
		{"tokenize", "/tokenize", `{"model":"` + llama + `","prompt":"Hello world"}`},
		{"detokenize", "/detokenize", `{"model":"` + llama + `","tokens":[1214606444,1864400754,1818492928]}`},
		{"models", "/v1/models", ""},
	}
	bothProfiles(t, func(t *testing.T, p Profile, change func(*Config)) {
		s := started(t, func(c *Config) { change(c); c.Aliases = []string{"llama-8b"} })
		for _, c := range cases {
			r := dial(t, s)
			if c.body == "" {
				r.send("GET " + c.path + " HTTP/1.1\r\nhost: x\r\nx-request-id: req-1\r\nconnection: close\r\n\r\n")
			} else {
				r.post(c.path, c.body, "x-request-id: req-1", "connection: close")
			}
			got, err := r.rest()
			if err != nil {
				t.Fatal(err)
			}
			golden(t, string(p)+"_"+c.name+".http", got)
		}
	})
}

func chatBody(extra string) string {
	return `{"model":"` + llama + `","messages":[{"role":"user","content":"Tell me something"}]` + extra + `}`
}
