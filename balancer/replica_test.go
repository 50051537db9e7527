package balancer

import (
	"testing"
	"time"
)

func TestWithSharesTheLoad(t *testing.T) {
	e, err := ParseEndpoint("http://a:8000/x")
	if err != nil {
		t.Fatal(err)
	}
	old := NewReplica(e, "gpu0", 1)
	held := old.Reserve()
	next := old.With("gpu1", 3)
	if next == old || next.ID != old.ID || next.Endpoint != old.Endpoint || next.Device != "gpu1" || next.Weight != 3 {
		t.Fatalf("With: %+v of %+v", next, old)
	}
	if old.Device != "gpu0" || old.Weight != 1 {
		t.Errorf("With changed the original: %+v", old)
	}
	later := next.Reserve()
	if old.InFlight() != 2 || next.InFlight() != 2 || old.Pending() != 2 {
		t.Errorf("in flight: %d and %d, want 2 and 2", old.InFlight(), next.InFlight())
	}
	next.EndPoll(next.BeginPoll(), Sample{Running: Known(5), Waiting: Known(0)}, time.Unix(1, 0))
	if p := old.Polled(); p == nil || p.Foreign != 3 {
		t.Errorf("the poll of one is not seen by the other: %+v", p)
	}
	held.Done()
	later.Done()
	if old.InFlight() != 0 || next.InFlight() != 0 {
		t.Errorf("in flight after done: %d and %d, want 0", old.InFlight(), next.InFlight())
	}
	if w := old.With("", 0).Weight; w != 1 {
		t.Errorf("weight 0 became %d, want 1", w)
	}
}
