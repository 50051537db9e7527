package proxy

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lbd/balancer"
	"lbd/internal/loopback"
)

// two is a fleet of which the first replica came into service at some time.
type two struct {
	*one
	second *balancer.Replica
	since  atomic.Pointer[time.Time]
}

func (f *two) Snapshot() *balancer.Snapshot {
	both := []*balancer.Replica{f.replica, f.second}
	well := balancer.Health{State: balancer.Healthy, Since: *f.since.Load()}
	m := &balancer.Model{Name: "m", Picker: f, Replicas: both, Available: both}
	return balancer.NewSnapshot(1, []balancer.ReplicaState{{Replica: both[0], Health: well}, {Replica: both[1], Health: well}}, []*balancer.Model{m})
}

// A replica has served since it came into service, and then ends a request that was sent to
// it before. What it answers 503 to after that may have run.
func TestServedStaysServed(t *testing.T) {
	came, ends := make(chan struct{}), make(chan struct{})
	ln := loopback.Listen(t)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		switch r.Header.Get("X-Which") {
		case "first":
			came <- struct{}{}
			<-ends
		case "third":
			w.WriteHeader(503)
		}
	})}
	var served sync.WaitGroup
	served.Go(func() { srv.Serve(ln) })
	t.Cleanup(func() { srv.Close(); served.Wait() })
	f, start := &two{}, time.Now()
	f.since.Store(&start)
	l := withAccessLog(t, Config{MaxAttempts: 2}, func(o *Options) {
		f.one, f.second = o.Fleet.(*one), o.Fleet.(*one).replica
		f.one.replica = balancer.NewReplica(balancer.Endpoint{Addr: ln.Addr().String(), Host: "a"}, "", 1)
		o.Fleet = f
	})
	ask := func(c *client, which string) {
		fmt.Fprintf(c, "POST /v1/completions HTTP/1.1\r\nHost: a\r\nX-Which: %s\r\nContent-Length: 2\r\n\r\n{}", which)
	}
	first, others := l.dial(), l.dial()
	ask(first, "first")
	<-came
	back := time.Now() // it was out of service, and is back
	f.since.Store(&back)
	ask(others, "second")
	others.answer(200)
	close(ends)
	first.answer(200)
	ask(others, "third")
	others.answer(503)
	if n := l.asked.Load(); n != 0 {
		t.Errorf("the request was sent again, %d times", n)
	}
}

// What counts is when a request was sent to the replica, and not how long it has waited for one.
func TestServedAfterAWait(t *testing.T) {
	l, now := withAccessLog(t, Config{}), time.Now()
	x := &exchange{s: l.Server, replica: l.one.replica, start: now, entered: now.Add(2 * time.Second)}
	if x.servedSince(now.Add(-time.Second)) {
		t.Error("a replica has served before its first request")
	}
	x.noteServed()
	for after, want := range map[time.Duration]bool{time.Second: true, 3 * time.Second: false} {
		if x.servedSince(now.Add(after)) != want {
			t.Errorf("served since %s after the request came is %t", after, !want)
		}
	}
}
