package balancer

import (
	"sync/atomic"
	"time"
)

// Work is what a request is expected to cost the replica it is placed on, as the
// strategy that places it has estimated.
type Work struct {
	// Prompt is the length of the prompt in tokens. They stay in the KV cache
	// until the request ends.
	Prompt int64
	// Uncached is how many of those have to be computed there.
	Uncached int64
	// Pairs is how many pairs of tokens attention visits for them: with x tokens
	// that end at position y, x·(y−x/2).
	Pairs int64
	// Prefill is how long computing them takes a replica that does nothing else.
	Prefill time.Duration
}

// Usage is what a replica said a request was, in tokens; -1 is unknown.
type Usage struct{ Prompt, Completion, Cached int }

// Ending is how a request ended, as far as a strategy can learn from it.
type Ending uint8

// The endings of a request at one replica.
const (
	// Abandoned: nothing can be learned. The client left, or lbd gave up.
	Abandoned Ending = iota
	// Finished: the response came whole.
	Finished
	// Failed: the replica refused, broke off, answered 5xx or was silent too long.
	Failed
)

// A Tracker is a strategy's part in a reservation: it hears what becomes of a
// request that it placed. Calls come from the goroutine of the request, in order;
// Done is the last one and comes once. No call may block. A zero now means that
// the caller does not know the time.
type Tracker interface {
	// FirstToken: the first event with content came.
	FirstToken(now time.Time)
	// Tokens: n further events with content came, the last of them at now.
	Tokens(n int, now time.Time)
	Usage(u Usage)
	Done(e Ending, now time.Time)
}

// A Placement is one request's part in a replica's own work. The strategy keeps
// it in its Tracker, apart from the Reservation, because it may end the prefill
// of a request on its own: an answer that does not stream shows no first token.
//
// Its address is what is reserved: it must not be copied or reused between
// [Replica.Place] and Done.
type Placement struct {
	replica  *Replica
	epoch    *epoch
	work     Work
	resident int64 // tokens in the KV cache; of the request's goroutine only
	prefill  atomic.Bool
}

// Place reserves one request with its work. The reservation tells t what becomes
// of it; t owns p.
func (r *Replica) Place(w Work, p *Placement, t Tracker) Reservation {
	v := r.reserve()
	p.replica, p.epoch, p.work, p.resident = r, v.epoch, w, w.Prompt
	p.prefill.Store(true)
	l := r.load
	l.prefillTokens.Add(w.Uncached)
	l.prefillPairs.Add(w.Pairs)
	l.prefillTime.Add(int64(w.Prefill))
	l.resident.Add(w.Prompt)
	p.epoch.resident.Add(w.Prompt)
	l.changed()
	v.tracker = t
	return v
}

// Work returns what was reserved.
func (p *Placement) Work() Work { return p.work }

// Replica returns where.
func (p *Placement) Replica() *Replica { return p.replica }

// EndPrefill takes the prefill off the replica's own work and reports whether it
// was still there. It may be called by any goroutine, and again.
func (p *Placement) EndPrefill() bool {
	if !p.prefill.CompareAndSwap(true, false) {
		return false
	}
	l := p.replica.load
	l.prefillTokens.Add(-p.work.Uncached)
	l.prefillPairs.Add(-p.work.Pairs)
	l.prefillTime.Add(-int64(p.work.Prefill))
	l.changed()
	return true
}

// Grow adds to the request's tokens in the KV cache: generated ones, or the
// difference to what the replica says they are.
func (p *Placement) Grow(tokens int64) {
	p.resident += tokens
	p.replica.load.resident.Add(tokens)
	p.epoch.resident.Add(tokens)
	p.replica.load.changed()
}

// Resident returns the request's tokens in the KV cache.
func (p *Placement) Resident() int64 { return p.resident }

// Done takes off everything that is still reserved.
func (p *Placement) Done() {
	p.EndPrefill()
	p.Grow(-p.resident)
}

// PrefillTokens returns the prompt tokens that own requests without a first token
// have the replica compute.
func (r *Replica) PrefillTokens() int64 { return r.load.prefillTokens.Load() }

// PrefillPairs returns the token pairs of the same requests.
func (r *Replica) PrefillPairs() int64 { return r.load.prefillPairs.Load() }

// PrefillTime returns how long the same requests were expected to take when they
// were placed.
func (r *Replica) PrefillTime() time.Duration { return time.Duration(r.load.prefillTime.Load()) }

// Resident returns the tokens that own requests hold in the replica's KV cache.
// Only requests that were placed with their work count.
func (r *Replica) Resident() int64 { return r.load.resident.Load() }

// Incarnation counts the processes that were seen behind the replica's endpoint.
// What one has cached the next one has not.
func (r *Replica) Incarnation() uint64 { return r.load.incarnation.Load() }

// BeginAt sets the incarnation that a replica begins with, before it is shown to anybody.
func (r *Replica) BeginAt(incarnation uint64) { r.load.incarnation.Store(incarnation) }

// Restarted notes that another process answers at the replica's endpoint now. Own
// load stays: it ends with its requests.
func (r *Replica) Restarted() {
	r.load.incarnation.Add(1)
	r.load.changed()
}
