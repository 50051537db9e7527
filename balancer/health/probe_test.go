package health

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"lbd/balancer"
	"lbd/internal/loopback"
)

func replicaAt(t *testing.T, url string) *balancer.Replica {
	t.Helper()
	e, err := balancer.ParseEndpoint(url)
	if err != nil {
		t.Fatal(err)
	}
	return balancer.NewReplica(e, "", 1)
}

// raw serves each connection with f.
func raw(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	l := loopback.Listen(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f(c)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return "http://" + l.Addr().String()
}

func readHead(c net.Conn) { _, _ = c.Read(make([]byte, 4096)) }

func TestProbeOutcomes(t *testing.T) {
	status := func(code int) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/base/health" || r.Method != http.MethodGet {
				t.Errorf("asked %s %s", r.Method, r.URL.Path)
			}
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(code)
		}))
		t.Cleanup(s.Close)
		return s.URL + "/base"
	}
	for _, tt := range []struct {
		name, url string
		want      balancer.Outcome
		detail    string
	}{
		{"well", status(200), balancer.Answered, ""},
		{"no content", status(204), balancer.Answered, ""},
		{"engine dead", status(500), balancer.ServerError, "status 500"},
		{"unavailable", status(503), balancer.ServerError, "status 503"},
		{"wrong path", status(404), balancer.BadResponse, "status 404"},
		{"redirect", status(307), balancer.BadResponse, "status 307"},
		{"nobody", "http://" + loopback.Free(t), balancer.ConnectRefused, "refused"},
		{"closes", raw(t, readHead), balancer.Reset, ""},
		{"resets", raw(t, func(c net.Conn) {
			readHead(c)
			_ = c.(*net.TCPConn).SetLinger(0)
		}), balancer.Reset, ""},
		{"not http", raw(t, func(c net.Conn) {
			readHead(c)
			_, _ = io.WriteString(c, "220 smtp.example ready\r\n")
		}), balancer.BadResponse, ""},
		{"short body", raw(t, func(c net.Conn) {
			readHead(c)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
		}), balancer.Reset, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := newHTTPProber(Options{}).Probe(t.Context(), replicaAt(t, tt.url), "/health")
			if got != tt.want || (err == nil) != (tt.want == balancer.Answered) {
				t.Fatalf("outcome %v, error %v, want %v", got, err, tt.want)
			}
			if err != nil && !strings.Contains(err.Error(), tt.detail) {
				t.Errorf("error %v, want one with %q", err, tt.detail)
			}
		})
	}
}

func TestProbeOfAHangingReplicaTimesOut(t *testing.T) {
	release := make(chan struct{})
	url := raw(t, func(net.Conn) { <-release })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	got, err := newHTTPProber(Options{}).Probe(ctx, replicaAt(t, url), "health")
	close(release)
	if got != balancer.Timeout || err == nil {
		t.Errorf("outcome %v, error %v, want timeout", got, err)
	}
}

// With real sockets: up, down by refusal reported from the proxy, and back.
func TestRealReplicaGoesAndComes(t *testing.T) {
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	s := httptest.NewServer(ok)
	f := &testFleet{}
	f.set(t, s.URL)
	events := make(chan Event, 16)
	c := New(Config{Interval: 10 * time.Millisecond, EjectionTime: time.Millisecond, MaxEjectionTime: time.Millisecond}, f,
		Options{OnEvent: func(e Event) { events <- e }})
	c.Start()
	defer c.Stop()
	if e := <-events; e.Kind != Up {
		t.Fatalf("%+v, want up", e)
	}
	addr := s.Listener.Addr().String()
	s.Close()
	c.Report(f.Snapshot().Replicas[0].Replica, balancer.ConnectRefused)
	if e := <-events; e.Kind != Ejected || e.Reason != "connect_refused" {
		t.Fatalf("%+v, want ejected for a refused connection", e)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Skipf("the port was taken meanwhile: %v", err)
	}
	s = httptest.NewUnstartedServer(ok)
	s.Listener.Close()
	s.Listener = l
	s.Start()
	defer s.Close()
	if e := <-events; e.Kind != Readmitted || !e.Restarted {
		t.Fatalf("%+v, want readmitted after a restart", e)
	}
}
