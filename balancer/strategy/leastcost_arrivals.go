package strategy

import (
	"math"
	"sync/atomic"
	"time"
)

// arrivals is how much prefill has been sent to a replica of late, in ms: what is to be
// expected to come between the tokens of an answer that begins there.
type arrivals struct {
	sum number // fading, as of at
	at  atomic.Int64
}

const (
	// arrivalSpan is the time constant by which arrivals fade. 2 to 5 s carry as much;
	// README.md has the figures.
	arrivalSpan = 2 * time.Second
	// arrivalMost is the most that one prompt counts, in ms. What has come says what will
	// come as far as it is many requests: one prompt of 10 s says that there are such, not
	// that the next one comes to the same replica, and it is done before the first token of
	// what is sent behind it.
	arrivalMost = 500
	// mostShare bounds the share of time that prefills take: there would be no end
	// else.
	mostShare = 0.95
	// growth is by how much a step gets longer while an answer is under way, near a limit:
	// what comes finds a few more running than what came before. Too little of it and all
	// answers are a little too slow; README.md has what that does.
	growth = 1.05
)

// add notes a prefill of so many ms. Of two within the same nanoseconds one may be lost,
// or what was there be taken for fresh: it is an estimate, and fades.
func (a *arrivals) add(ms float64, now int64) {
	if now != 0 {
		before := a.sum.load() * faded(a.at.Swap(now), now)
		a.sum.store(before + min(ms, arrivalMost))
	}
}

// share is the part of the time that they take. It is what this lbd sends alone: whoever
// concluded from the number of others' requests what those bring was once locked out by
// them, for it sent none any more from which it could have learned better.
func (a *arrivals) share(now int64) float64 {
	if now == 0 {
		return 0
	}
	return min(a.sum.load()*faded(a.at.Load(), now)/milliseconds(arrivalSpan), mostShare)
}

// faded is what is left of a sum.
func faded(since, now int64) float64 {
	return math.Exp(-float64(max(now-since, 0)) / float64(arrivalSpan))
}

// perToken is the time per output token of the request at a candidate, in ms: a decode
// step with it, somewhat longer in the end, and stretched by the prefills that come in
// between. A step is as long as its decode part without a prefill, so of a second in which
// prefills take the share φ there are (1-φ)/step tokens.
func (w *workspace) perToken(i int) float64 {
	s, a := &w.sights[i], &w.asked
	step := s.cycle + s.sequence + s.held*(a.prompt+a.output/2)
	return growth * step / (1 - s.st.arrivals.share(a.now))
}
