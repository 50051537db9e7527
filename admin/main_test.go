package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"lbd/balancer"
	"lbd/balancer/fleet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// first is a strategy a test can foresee.
type first struct{}

func (first) Pick(_ *balancer.Request, rs []*balancer.Replica) *balancer.Replica {
	if len(rs) == 0 {
		return nil
	}
	return rs[0]
}

// newFleet returns a fleet in which model m is pinned to all urls and all are
// healthy.
func newFleet(t *testing.T, urls ...string) *fleet.Fleet {
	t.Helper()
	c := fleet.Config{Strategy: "first", Models: []fleet.ModelConfig{{Name: "m", Aliases: []string{"alias"}, Replicas: urls}}}
	return configured(t, c, urls...)
}

func configured(t *testing.T, c fleet.Config, urls ...string) *fleet.Fleet {
	t.Helper()
	f := fleet.New(fleet.Options{NewPicker: func(string) (balancer.Picker, error) { return first{}, nil }})
	for _, u := range urls {
		c.Replicas = append(c.Replicas, fleet.ReplicaConfig{URL: u, Device: "gpu0"})
	}
	if err := f.Configure(c); err != nil {
		t.Fatal(err)
	}
	for _, r := range f.Snapshot().Replicas {
		f.SetHealth(r.ID, balancer.Health{State: balancer.Healthy, Reason: "probe succeeded", Since: time.Unix(1700000000, 0).UTC()})
	}
	return f
}

// site is a running server and how to talk to it.
type site struct {
	*Server
	t   *testing.T
	log *logBuffer
}

func start(t *testing.T, o Options) *site {
	t.Helper()
	log := &logBuffer{}
	o.Log, o.Version = zerolog.New(log), "1.2.3"
	s := New(o)
	if err := s.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return &site{s, t, log}
}

// client keeps no connections, or they would look like leaks.
var client = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

type answer struct {
	status int
	header http.Header
	body   string
}

// do sends a request; headers are name, value, name, value.
func (s *site) do(method, path, body string, headers ...string) answer {
	s.t.Helper()
	req, err := http.NewRequest(method, "http://"+s.Addr().String()+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
	}
	resp, err := client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

func (s *site) get(path string, headers ...string) answer {
	s.t.Helper()
	return s.do("GET", path, "", headers...)
}

func decode[T any](t *testing.T, body string) (v T) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	return v
}

// wantError checks status and shape of an error and returns its message.
func wantError(t *testing.T, a answer, status int, code string) string {
	t.Helper()
	e := decode[errorBody](t, a.body).Error
	if a.status != status || e.Code != code || e.Type == "" || e.Message == "" || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("answer %d %q %s; want status %d, code %q", a.status, a.header.Get("Content-Type"), a.body, status, code)
	}
	return e.Message
}

func wantContains(t *testing.T, text string, wants ...string) {
	t.Helper()
	for _, w := range wants {
		if !strings.Contains(text, w) {
			t.Errorf("%q is missing in\n%s", w, text)
		}
	}
}

// logBuffer is written by handlers while the test reads.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// newReplica starts a replica and returns its URL and id.
func newReplica(t *testing.T, h http.HandlerFunc) (url, id string) {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL, strings.TrimPrefix(srv.URL, "http://")
}

// Where nobody listens. A port that was free a moment ago may be somebody's by now.
const (
	deadURL = "http://127.0.0.1:1"
	deadID  = "127.0.0.1:1"
)
