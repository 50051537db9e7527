package balancer

import (
	"testing"
	"time"
	"unsafe"
)

// A watch stands until something happens that it is for, also to a copy of the replica.
func TestWatch(t *testing.T) {
	r := newTestReplica(t)
	v, p := r.Reserve(), &told{}
	var placed Reservation
	for _, c := range []struct {
		name  string
		do    func()
		stand bool
	}{
		{"nothing", func() {}, true},
		{"a reservation", func() { w := r.Reserve(); w.Done() }, false},
		{"a first byte", func() { v.FirstByte() }, true},
		{"an end", func() { v.Done() }, false},
		{"a second end", func() { v.Done() }, true},
		{"a placement", func() { placed = r.Place(Work{Prompt: 10, Uncached: 5}, &p.Placement, p) }, false},
		{"a first token", func() { placed.FirstToken(time.Time{}) }, false},
		{"the end of no prefill", func() { p.EndPrefill() }, true},
		{"tokens", func() { placed.Tokens(tokenBatch, time.Time{}) }, false},
		{"the end of a placement", func() { placed.Done() }, false},
		{"the beginning of a poll", func() { r.BeginPoll() }, true},
		{"a poll", func() { r.EndPoll(r.BeginPoll(), Sample{}, time.Time{}) }, false},
		{"a poll that is stale", func() { r.MarkStale() }, false},
		{"a poll that is still stale", func() { r.MarkStale() }, true},
		{"another process", func() { r.Restarted() }, false},
		{"neighbours", func() { ShareDevices([]*Replica{r}) }, false},
		{"a reservation under another weight", func() { r.With("gpu0", 2).Reserve() }, false},
	} {
		w := r.Watch()
		if c.do(); w.Stands() != c.stand {
			t.Errorf("after %s the watch stands: %v, want %v", c.name, w.Stands(), c.stand)
		}
	}
}

// What every pick reads of a replica's load is one cache line, as far as the allocator keeps to them.
func TestLoadIsOneLine(t *testing.T) {
	var l load
	if from, to := unsafe.Offsetof(l.changes), unsafe.Offsetof(l.number); from%64 != 0 || to/64 != from/64 || unsafe.Sizeof(l) != 256 {
		t.Errorf("bytes %d to %d of %d", from, to+8, unsafe.Sizeof(l))
	}
}
