package load

import (
	"sync"
	"sync/atomic"
	"time"
)

// windowSlots is the length of the sliding window in progress intervals.
const windowSlots = 10

// Quantiles describe a latency so far; 0 where nothing was measured.
type Quantiles struct {
	Count    uint64
	P50, P99 time.Duration
}

// Snapshot is a picture of a run under way. TTFT counts from the scheduled time.
type Snapshot struct {
	Elapsed time.Duration
	// Done counts ended requests, Errors and Cancelled among them; warm-up included.
	Done, InFlight, Errors, Cancelled int64
	// Events counts content events; with one token per event these are the tokens.
	Events int64
	// Since the start, and over the last ten seconds.
	TTFT, ITL             Quantiles
	RecentTTFT, RecentITL Quantiles
	// RecentDone, RecentErrors and RecentEvents are per second of the same window.
	RecentDone, RecentErrors, RecentEvents float64
}

// live collects what a Snapshot shows. The requests add to atomics; the window
// costs them nothing, it is the difference to a copy made ten seconds ago.
type live struct {
	done, inFlight, errors, cancelled, events atomic.Int64
	peak                                      atomic.Int64
	ttft, itl                                 histogram

	mu     sync.Mutex // guards what follows
	start  time.Time
	window []mark // oldest first
}

// mark is the state of the counters at one time.
type mark struct {
	at                   time.Time
	done, errors, events int64
	ttft, itl            counts
}

func newLive() *live { return &live{} }

func (l *live) begin(start time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.start = start
	l.window = append(l.window, mark{at: start})
}

func (l *live) started() {
	n := l.inFlight.Add(1)
	for {
		old := l.peak.Load()
		if n <= old || l.peak.CompareAndSwap(old, n) {
			return
		}
	}
}

func (l *live) ended(rec *Record) {
	l.inFlight.Add(-1)
	switch rec.Cause {
	case "":
	case CauseCancelled:
		l.cancelled.Add(1)
	default:
		l.errors.Add(1)
	}
	l.done.Add(1)
}

// read fills m with the counters of now.
func (l *live) read(m *mark) {
	m.at = time.Now()
	m.done, m.errors, m.events = l.done.Load(), l.errors.Load(), l.events.Load()
	l.ttft.load(&m.ttft)
	l.itl.load(&m.itl)
}

// roll moves the window on by one slot.
func (l *live) roll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.window) == windowSlots {
		copy(l.window, l.window[1:])
		l.window = l.window[:windowSlots-1]
	}
	l.window = append(l.window, mark{})
	l.read(&l.window[len(l.window)-1])
}

func (l *live) snapshot() Snapshot {
	var now mark
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.window) == 0 {
		return Snapshot{}
	}
	l.read(&now)
	s := Snapshot{
		Elapsed:   now.at.Sub(l.start),
		Done:      now.done,
		InFlight:  l.inFlight.Load(),
		Errors:    now.errors,
		Cancelled: l.cancelled.Load(),
		Events:    now.events,
		TTFT:      quantilesOf(&now.ttft),
		ITL:       quantilesOf(&now.itl),
	}
	old := &l.window[0]
	now.ttft.subtract(&old.ttft)
	now.itl.subtract(&old.itl)
	s.RecentTTFT, s.RecentITL = quantilesOf(&now.ttft), quantilesOf(&now.itl)
	if seconds := now.at.Sub(old.at).Seconds(); seconds > 0 {
		s.RecentDone = float64(now.done-old.done) / seconds
		s.RecentErrors = float64(now.errors-old.errors) / seconds
		s.RecentEvents = float64(now.events-old.events) / seconds
	}
	return s
}

func quantilesOf(c *counts) Quantiles {
	return Quantiles{Count: c.total(), P50: c.quantile(.5), P99: c.quantile(.99)}
}
