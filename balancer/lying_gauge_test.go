package balancer

import (
	"testing"
	"time"
)

// A gauge that no counter of requests can have must not make a replica look idle.
func TestGaugeBeyondInt(t *testing.T) {
	for _, v := range []float64{1e19, 1e300, -1e19} {
		r := NewReplica(Endpoint{Addr: "a:80"}, "", 1)
		r.EndPoll(r.BeginPoll(), Sample{Waiting: Known(v), Running: Known(v)}, time.Now())
		if n, ok := r.Waiting(); ok && n < 0 {
			t.Errorf("gauge %g: %d waiting", v, n)
		}
		if n := r.Requests(); n < 0 {
			t.Errorf("gauge %g: %d requests", v, n)
		}
	}
}
