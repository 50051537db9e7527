package daemon_test

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"lbd/balancer"
	"lbd/bench/sim"
)

// deaf is a replica that leaves some paths unanswered while it is asked to, as a
// front end whose event loop is busy with tokenizing does.
type deaf struct {
	*httptest.Server
	to     atomic.Value // a path
	missed atomic.Int64 // requests left unanswered
}

func newDeaf(t *testing.T, s *sim.Server) *deaf {
	t.Helper()
	target, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	through := httputil.NewSingleHostReverseProxy(target)
	through.Transport = transport
	through.ErrorLog = log.New(io.Discard, "", 0) // probes that give up are what the tests are about
	d := &deaf{}
	d.to.Store("")
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path := d.to.Load().(string); path != "" && strings.HasPrefix(r.URL.Path, path) {
			<-r.Context().Done()
			d.missed.Add(1)
			return
		}
		through.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		d.Close()
		transport.CloseIdleConnections()
	})
	return d
}

// A replica that answers requests is not sick because its /health comes late;
// once requests stop as well, nothing speaks for it.
func TestLateHealthOfABusyReplica(t *testing.T) {
	d, other := newDeaf(t, replica(t, sim.Config{})), replica(t, sim.Config{})
	p := lbd(t, []string{d.URL, other.URL()}, "strategy", "cycle",
		"health-timeout", "50ms", "health-interval", "50ms", "unhealthy-threshold", "10") // a second without an answer
	health := func() balancer.Health { return p.Snapshot().Replicas[0].Health }
	d.to.Store("/health")
	p.until("many probes unanswered", func() bool {
		p.spread(llama, 4)
		return d.missed.Load() > 20
	})
	if h := health(); h.State != balancer.Healthy || h.Ejections != 0 {
		t.Errorf("%+v; want in service all the time", h)
	}
	p.until("out once nothing speaks for it", func() bool { return health().State == balancer.Ejected })
	d.to.Store("")
	p.until("back", func() bool { return health().State == balancer.Healthy })
}

// A poll that times out says nothing of the replica either (vLLM's front end
// answers late under load): own load goes on, the failure is counted.
func TestLateMetricsDoNotEject(t *testing.T) {
	d, other := newDeaf(t, replica(t, sim.Config{})), replica(t, sim.Config{})
	p := lbd(t, []string{d.URL, other.URL()}, "strategy", "cycle", "metrics-poll-timeout", "50ms")
	id := p.Snapshot().Replicas[0].ID
	d.to.Store("/metrics")
	p.until("failed polls counted", func() bool {
		n := p.metric(`lbd_poll_failures_total{replica="` + id + `"}`)
		return n != "" && n != "0" && n != "1"
	})
	p.spread(llama, 4)
	if h := p.Snapshot().Replicas[0].Health; h.State != balancer.Healthy || h.Ejections != 0 {
		t.Errorf("%+v; want in service", h)
	}
	p.until("load stale, the last values kept for operators", func() bool {
		polled := p.Snapshot().Replicas[0].Polled()
		return polled != nil && polled.Stale
	})
	d.to.Store("")
	p.until("load fresh", func() bool { return !p.Snapshot().Replicas[0].Polled().Stale })
}

// /v1/models that hangs or fails keeps what was learned.
func TestLateModelsKeepWhatWasLearned(t *testing.T) {
	d := newDeaf(t, replica(t, sim.Config{}))
	p := lbd(t, []string{d.URL}, "metrics-poll-timeout", "500ms", "models-poll-interval", "100ms")
	d.to.Store("/v1/models")
	p.until("told that models fail", func() bool { return len(p.log.logged("models failed")) == 1 })
	p.spread(llama, 4)
	d.to.Store("")
	p.until("told that models are back", func() bool { return len(p.log.logged("models recovered")) == 1 })
}
