package health

import (
	"sync/atomic"

	"lbd/balancer"
)

// passive is what the proxy's reports have left for the owner. Many goroutines
// write it; nobody locks.
type passive struct {
	// answered: a request was answered since the last probe ended.
	answered    atomic.Bool
	consecutive atomic.Int32
	// unfinished counts answers that broke off, since the last one that did not: the
	// heads of others say nothing against it.
	unfinished atomic.Int32
	// slots is a ring of seconds; the owner moves slot on.
	slots [windowSlots]struct{ ok, failed atomic.Int32 }
	slot  atomic.Int32
	// What the owner has to look at, set until it did. wanted: out of service, and a
	// request had nobody else.
	refused, failing, wanted atomic.Bool
	last                     atomic.Uint32 // the newest failure, a balancer.Outcome
	sign                     atomic.Int32  // what was last found out, a sign
	found                    atomic.Int64  // when that was, Unix ns
}

// Report tells how an attempt at a replica ended. It neither blocks nor
// allocates; an answer in good times is a map look-up and an atomic add.
func (c *Checker) Report(r *balancer.Replica, o balancer.Outcome) {
	w := (*c.watches.Load())[r.ID]
	if w == nil {
		return // left the fleet, or not yet seen
	}
	p := &w.passive
	slot := &p.slots[p.slot.Load()]
	if o == balancer.Answered {
		slot.ok.Add(1)
		// Load before store: a shared cache line is written only when it changes.
		if !p.answered.Load() {
			p.answered.Store(true)
		}
		if p.consecutive.Load() != 0 {
			p.consecutive.Store(0)
		}
		return
	}
	slot.failed.Add(1)
	p.last.Store(uint32(o))
	if o == balancer.ConnectRefused {
		p.refused.Store(true) // a probe finds out whether somebody listens again
	} else {
		p.consecutive.Add(1)
	}
	if p.inARow() || p.tooMany() {
		p.failing.Store(true)
	}
	if p.refused.Load() || p.failing.Load() {
		c.poke()
	}
}

// Retract takes back an Answered of a request whose answer did not come to its end;
// the failure is reported besides. A replica that sends the heads of its answers and
// then hangs would fail half of what it does by the count, and never more: vLLM sends
// the head of a stream before its engine has looked at the request.
func (c *Checker) Retract(r *balancer.Replica) {
	w := (*c.watches.Load())[r.ID]
	if w == nil {
		return
	}
	w.slots[w.slot.Load()].ok.Add(-1)
	w.unfinished.Add(1)
}

// Finished tells that an answer has come to its end.
func (c *Checker) Finished(r *balancer.Replica) {
	if w := (*c.watches.Load())[r.ID]; w != nil && w.unfinished.Load() != 0 {
		w.unfinished.Store(0)
	}
}

// inARow says whether too many requests have failed with none between that did well.
func (p *passive) inARow() bool {
	return p.consecutive.Load() >= consecutiveFailures || p.unfinished.Load() >= consecutiveFailures
}

// tooMany says whether more than half of the window's outcomes are failures. What was
// retracted may have been counted before the window began.
func (p *passive) tooMany() bool {
	var ok, failed int32
	for i := range p.slots {
		ok += p.slots[i].ok.Load()
		failed += p.slots[i].failed.Load()
	}
	ok = max(ok, 0)
	return ok+failed >= minOutcomes && failed > ok
}

// rotate starts a new second. A report that still writes into the old slot is
// late by a second, which does not matter.
func (p *passive) rotate() {
	next := (p.slot.Load() + 1) % windowSlots
	p.slots[next].ok.Store(0)
	p.slots[next].failed.Store(0)
	p.slot.Store(next)
}

// forget starts anew after an ejection was decided on.
func (p *passive) forget() {
	p.consecutive.Store(0)
	p.unfinished.Store(0)
	for i := range p.slots {
		p.slots[i].ok.Store(0)
		p.slots[i].failed.Store(0)
	}
	p.failing.Store(false)
}
