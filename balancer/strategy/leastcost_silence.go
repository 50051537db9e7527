package strategy

import (
	"sync/atomic"
	"time"
)

// silence is how long a replica has shown nothing of what it has been asked for. A
// first token that is late says that a replica is slow before it comes, and one that
// never comes says it too.
type silence struct {
	asked atomic.Int64 // requests
	since atomic.Int64 // Unix nanoseconds; 0 is unknown
}

func (x *silence) begin(now int64) {
	if x.asked.Add(1) == 1 {
		x.since.Store(now)
	}
}

func (x *silence) end(now time.Time) {
	x.asked.Add(-1)
	if !now.IsZero() {
		x.since.Store(now.UnixNano())
	}
}

// awaited is since when, in Unix nanoseconds; 0 when nothing is awaited or nobody
// knows since when.
func (x *silence) awaited() int64 {
	if x.asked.Load() == 0 {
		return 0
	}
	return x.since.Load()
}

// silent is for how many ms something is awaited.
func silent(since, now int64) float64 {
	if since == 0 || now == 0 {
		return 0
	}
	return float64(now-since) / 1e6
}

// A first token is late after lateFirst times what one would take there, an answer
// that does not stream after lateEnd times that: nobody knows how long it will be. Less
// than four made several lbds, which do not see each other's queues, leave a busy
// replica all at once.
const lateFirst, lateEnd = 4, 8

// overdue is for how long something has been due, in ms.
func (s *costSight) overdue(now int64, first, own float64) (late float64) {
	if d := silent(s.firstSince, now) - lateFirst*first; d > 0 {
		late = d
	}
	if d := silent(s.endSince, now) - lateEnd*(first+own); d > late {
		late = d
	}
	return late
}

// late is from when on something may be overdue, in Unix nanoseconds, if no first token
// there takes less than so many ms.
func (s *costSight) late(first float64) int64 {
	since := int64(never)
	if s.firstSince != 0 {
		since = s.firstSince
	}
	if s.endSince != 0 {
		since = min(since, s.endSince)
	}
	if since == never {
		return never
	}
	return since + int64(lateFirst*1e6*first) - 1 // which is rounded
}

// shows ends the wait for what the request shows first.
func (t *costTicket) shows(now time.Time) {
	if t.awaited {
		t.awaited = false
		t.awaits().end(now)
	}
}

// awaits is the silence that the request ends.
func (t *costTicket) awaits() *silence {
	if t.stream {
		return &t.st.firsts
	}
	return &t.st.ends
}
