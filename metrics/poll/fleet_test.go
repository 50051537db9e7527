package poll_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"lbd/balancer"
	"lbd/balancer/fleet"
	"lbd/balancer/health"
	"lbd/metrics/poll"
)

type firstPicker struct{}

func (firstPicker) Pick(_ *balancer.Request, rs []*balancer.Replica) *balancer.Replica {
	if len(rs) == 0 {
		return nil
	}
	return rs[0]
}

// serveModel is a replica that serves one model, on addr if that is not empty.
func serveModel(t *testing.T, addr, model string, start int, learnable *atomic.Bool) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/health":
		case "/v1/models":
			if !learnable.Load() {
				http.Error(w, "loading", http.StatusServiceUnavailable)
				return
			}
			fmt.Fprintf(w, `{"data":[{"id":%q}]}`, model)
		case "/metrics/":
			_, _ = io.WriteString(w, fmt.Sprintf("vllm:num_requests_running 0\nvllm:num_requests_waiting 0\nprocess_start_time_seconds %d\n", start))
		default:
			http.NotFound(w, r)
		}
	}))
	if addr != "" {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Skipf("the port was taken meanwhile: %v", err)
		}
		s.Listener.Close()
		s.Listener = l
	}
	s.Start()
	return s
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// The fleet, the checker and the poller together: a replica dies, comes back as
// another process with another model, and is not used for either before it has
// said which.
func TestReplicaComesBackWithAnotherModel(t *testing.T) {
	var learnable atomic.Bool
	learnable.Store(true)
	a, b := serveModel(t, "", "m", 1, &learnable), serveModel(t, "", "m", 1, &learnable)
	defer b.Close()
	f := fleet.New(fleet.Options{NewPicker: func(string) (balancer.Picker, error) { return firstPicker{}, nil }})
	if err := f.Configure(fleet.Config{Replicas: []fleet.ReplicaConfig{{URL: a.URL}, {URL: b.URL}}}); err != nil {
		t.Fatal(err)
	}
	checker := health.New(health.Config{Interval: 20 * time.Millisecond, EjectionTime: time.Millisecond, MaxEjectionTime: time.Millisecond}, f, health.Options{})
	poller := poll.New(poll.Config{Interval: 20 * time.Millisecond}, f, poll.Options{})
	checker.Start()
	defer checker.Stop()
	poller.Start()
	defer poller.Stop()
	counts := func(model string) (available, all int) {
		if m := f.Snapshot().Model([]byte(model)); m != nil {
			return len(m.Available), len(m.Replicas)
		}
		return 0, 0
	}
	until(t, "both replicas serve m", func() bool { n, _ := counts("m"); ready, _ := f.Ready(); return n == 2 && ready })

	first := f.Snapshot().Replicas[0].Replica
	held := first.Reserve()
	addr := a.Listener.Addr().String()
	a.CloseClientConnections()
	a.Close()
	checker.Report(first, balancer.ConnectRefused)
	until(t, "the dead replica is out", func() bool { n, all := counts("m"); return n == 1 && all == 2 })

	learnable.Store(false)
	a = serveModel(t, addr, "n", 2, &learnable)
	defer a.Close()
	until(t, "it is healthy again", func() bool { return f.Snapshot().Replicas[0].Health.State == balancer.Healthy })
	for range 50 {
		if n, all := counts("m"); n != 1 || all != 2 {
			t.Fatalf("m has %d of %d replicas while one has not said what it serves, want 1 of 2", n, all)
		}
		time.Sleep(time.Millisecond)
	}
	learnable.Store(true)
	until(t, "it serves n", func() bool { n, _ := counts("n"); return n == 1 })
	if n, all := counts("m"); n != 1 || all != 1 {
		t.Errorf("m has %d of %d replicas, want 1 of 1", n, all)
	}
	if r := f.Snapshot().Replicas[0]; r.Replica != first || r.InFlight() != 1 || r.Health.Ejections != 1 {
		t.Errorf("own load or identity was lost: %+v, %d in flight", r, r.InFlight())
	}
	held.Done()
}
