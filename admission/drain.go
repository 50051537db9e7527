package admission

import (
	"math"
	"time"
)

// drain measures how fast a queue empties, in tokens per second of the time in which
// it is not empty.
type drain struct {
	sum   float64 // tokens, fading
	n     int
	began time.Time // when measuring began, moved on by the pauses since
	last  time.Time // when sum was up to date, likewise
	idle  time.Time // when the queue was last seen empty; zero while it is not
}

const (
	// drainSpan is the time constant of the moving average.
	drainSpan = 10 * time.Second
	// drainForget is a pause after which another pace is to be expected.
	drainForget = time.Minute
	// drainSure is how many requests make a pace, and drainLeast in how much time at
	// least: one poll or one step of a replica frees several places at once. Until
	// then nobody is refused for a wait that is predicted.
	drainSure, drainLeast = 4, 100 * time.Millisecond
)

// resume is for a queue that becomes non-empty.
func (d *drain) resume(now time.Time) {
	pause := now.Sub(d.idle)
	if d.idle.IsZero() || pause > drainForget {
		*d = drain{began: now, last: now}
		return
	}
	d.began, d.last, d.idle = d.began.Add(pause), d.last.Add(pause), time.Time{}
}

// pause is for a queue that has become empty.
func (d *drain) pause(now time.Time) { d.idle = now }

// clock is now without the pause that lasts.
func (d *drain) clock(now time.Time) time.Time {
	if !d.idle.IsZero() {
		return d.idle
	}
	return now
}

// busy is how long the queue has not been empty, without the pauses; 0 when that is
// forgotten.
func (d *drain) busy(now time.Time) time.Duration {
	if d.began.IsZero() || now.Sub(d.clock(now)) > drainForget {
		return 0
	}
	return d.clock(now).Sub(d.began)
}

// took notes a request that was placed.
func (d *drain) took(tokens float64, now time.Time) {
	d.fade(now)
	d.sum += tokens
	d.n++
}

func (d *drain) fade(now time.Time) {
	if dt := now.Sub(d.last); dt > 0 {
		d.sum *= math.Exp(-float64(dt) / float64(drainSpan))
		d.last = now
	}
}

// rate is the pace, during a pause that of before; ok is false while too little was
// seen. A moving average that began T ago has seen 1-exp(-T/span) of its weight.
func (d *drain) rate(now time.Time) (tokensPerSecond float64, ok bool) {
	t := d.busy(now)
	if d.n < drainSure || t < drainLeast {
		return 0, false
	}
	d.fade(d.clock(now))
	seen := 1 - math.Exp(-float64(t)/float64(drainSpan))
	return d.sum / (drainSpan.Seconds() * seen), d.sum > 0
}
