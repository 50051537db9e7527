package sim

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"lbd/bench/sim/engine"
	"lbd/internal/loopback"
)

const llama = "meta-llama/Llama-3.1-8B-Instruct"

// patience bounds how long a test waits for something that must happen. Nothing is
// asserted about how soon it does.
const patience = 2 * time.Minute

// started runs a replica for one test: fast, seeded, without jitter.
func started(t *testing.T, change func(*Config)) *Server {
	t.Helper()
	cfg := Config{
		Model: llama, Profile: ProfileV019, Speed: 50, Seed: 7, APITime: -1, Unmerged: true,
		Engine: engine.Config{Jitter: -1, MaxModelLen: 8192},
	}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(loopback.Address()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

func old(c *Config)  { c.Profile = ProfileV064; c.AbortPoll = 20 * time.Millisecond }
func slow(c *Config) { c.Speed = 1 }

// bothProfiles runs a subtest per profile.
func bothProfiles(t *testing.T, fn func(t *testing.T, p Profile, change func(*Config))) {
	for _, p := range Profiles() {
		t.Run(string(p), func(t *testing.T) {
			fn(t, p, func(c *Config) {
				if p == ProfileV064 {
					old(c)
				}
			})
		})
	}
}

// client never reuses connections between tests.
func client(t *testing.T) *http.Client {
	tr := &http.Transport{DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	res, err := client(t).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func post(t *testing.T, url, body string) (int, string) {
	t.Helper()
	res, err := client(t).Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// raw is a connection on which a test sees the very bytes.
type raw struct {
	t  *testing.T
	nc net.Conn
	br *bufio.Reader
}

func dial(t *testing.T, s *Server) *raw {
	t.Helper()
	nc, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(patience))
	return &raw{t: t, nc: nc, br: bufio.NewReader(nc)}
}

func (r *raw) send(s string) {
	r.t.Helper()
	if _, err := io.WriteString(r.nc, s); err != nil {
		r.t.Fatal(err)
	}
}

func (r *raw) post(path, body string, headers ...string) {
	r.t.Helper()
	h := ""
	for _, l := range headers {
		h += l + "\r\n"
	}
	r.send(fmt.Sprintf("POST %s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n%scontent-length: %d\r\n\r\n%s", path, h, len(body), body))
}

// head reads up to and with the empty line.
func (r *raw) head() string {
	r.t.Helper()
	var b bytes.Buffer
	for {
		line, err := r.br.ReadString('\n')
		b.WriteString(line)
		if err != nil {
			r.t.Fatalf("head: %v after %q", err, b.String())
		}
		if line == "\r\n" {
			return b.String()
		}
	}
}

// chunk reads one HTTP chunk's payload; "" is the last one.
func (r *raw) chunk() string {
	r.t.Helper()
	line, err := r.br.ReadString('\n')
	if err != nil {
		r.t.Fatalf("chunk size: %v", err)
	}
	var n int
	if _, err := fmt.Sscanf(line, "%x\r\n", &n); err != nil {
		r.t.Fatalf("chunk size %q: %v", line, err)
	}
	b := make([]byte, n+2)
	if _, err := io.ReadFull(r.br, b); err != nil {
		r.t.Fatalf("chunk: %v", err)
	}
	return strings.TrimSuffix(string(b), "\r\n")
}

// rest reads to the end and returns the error that ended it, nil for FIN.
func (r *raw) rest() (string, error) {
	b, err := io.ReadAll(r.br)
	return string(b), err
}

// eventually waits for a condition that another goroutine brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}
