package health

import (
	"slices"
	"time"

	"lbd/balancer"
)

// connectionLevel failures may mean that the process has ended: what answers next
// may be another one.
func connectionLevel(o balancer.Outcome) bool {
	return o == balancer.ConnectRefused || o == balancer.ConnectTimeout || o == balancer.Reset
}

// nobodyThere failures prove that keeping the replica in service helps nobody.
// A reset does not: a client can cause those, with requests that make a server
// close its connections.
func nobodyThere(o balancer.Outcome) bool {
	return o == balancer.ConnectRefused || o == balancer.ConnectTimeout
}

// probed takes in the result of a probe.
func (c *Checker) probed(r result) {
	w, now := r.watch, c.opts.Now()
	w.probing = false
	busy := w.answered.Swap(false)
	if (*c.watches.Load())[w.replica.ID] != w {
		return // left the fleet meanwhile
	}
	w.good = r.outcome == balancer.Answered
	w.note(signOf(r.outcome, now.Sub(w.probed)), now)
	if w.good {
		w.failed, w.spared = 0, false
		c.well(w, now)
		return
	}
	if connectionLevel(r.outcome) && w.health.State != balancer.Healthy {
		w.unreachable = true
	}
	if busy && (r.outcome == balancer.Timeout || r.outcome == balancer.ConnectTimeout) {
		w.failed = 0 // requests are answered: its event loop is only busy
		return
	}
	w.failed++
	if w.failed >= c.config.Load().UnhealthyThreshold || w.deciding && r.outcome == balancer.ConnectRefused {
		c.fail(w, r.outcome, r.outcome.String(), "probe: "+r.err.Error())
		return
	}
	if w.health.State == balancer.Unknown { // who looks before the last word is told what is known
		w.health.Reason = "probe: " + r.err.Error()
		c.fleet.SetHealth(w.replica.ID, w.health)
	}
}

// passive looks at what the proxy's reports ask for.
func (c *Checker) passive() {
	now := c.opts.Now()
	for _, w := range c.list {
		if w.refused.Swap(false) {
			w.suspect = true
			w.soon(now)
		}
		if w.wanted.Swap(false) {
			w.soon(now)
		}
		if !w.failing.Swap(false) || w.health.State != balancer.Healthy {
			continue
		}
		o := balancer.Outcome(w.last.Load())
		if w.inARow() {
			c.failed(w, o, o.String(), "requests failing in a row, the last one with "+o.String())
		} else if w.tooMany() {
			c.failed(w, o, ErrorRate, "more than half of the requests failing, the last one with "+o.String())
		}
	}
}

// soon has the replica probed as soon as may be.
func (w *watch) soon(now time.Time) {
	if soon := w.probed.Add(minProbeGap); soon.Before(now) {
		w.due = now
	} else if soon.Before(w.due) {
		w.due = soon
	}
}

// well puts a replica into service, or leaves it out until its back-off is over. Nobody is
// left out when there is nobody else.
func (c *Checker) well(w *watch, now time.Time) {
	switch {
	case w.health.State == balancer.Healthy:
	case now.Before(w.until) && !c.stranded(w.replica):
	default:
		c.admit(w, now)
	}
}

func (c *Checker) admit(w *watch, now time.Time) {
	old, kind := w.health.State, Readmitted
	if w.health.Ejections == 0 {
		kind = Up
	}
	w.forget()
	w.refused.Store(false)
	w.health = balancer.Health{
		State: balancer.Healthy, Since: now, Ejections: w.health.Ejections, Restarted: w.unreachable,
	}
	w.unreachable = false
	c.tell(w, Event{Kind: kind, Old: old, New: balancer.Healthy, Restarted: w.health.Restarted})
}

// failed is fail for what requests have met.
func (c *Checker) failed(w *watch, o balancer.Outcome, reason, detail string) {
	w.note(signOf(o, 0), c.opts.Now())
	c.fail(w, o, reason, detail)
}

// fail takes a replica out of service. One that was not in service is only
// noted as down: it waits for nothing but a good probe.
func (c *Checker) fail(w *watch, o balancer.Outcome, reason, detail string) {
	now, old := c.opts.Now(), w.health.State
	w.forget()
	w.good = false
	switch {
	case old == balancer.Ejected:
		return
	case old == balancer.Unknown:
		w.health = balancer.Health{State: balancer.Ejected, Reason: detail, Since: now}
		c.tell(w, Event{Kind: Down, Old: old, New: balancer.Ejected, Reason: reason, Detail: detail})
		return
	case !nobodyThere(o) && c.last(w.replica):
		if !w.spared {
			w.spared = true
			c.opts.OnEvent(Event{
				Kind: Spared, Replica: w.replica.ID, Old: old, New: old,
				Reason: reason, Detail: detail, Ejections: w.health.Ejections,
			})
		}
		return
	}
	c.backOff(w, now)
	w.unreachable = connectionLevel(o)
	w.health = balancer.Health{State: balancer.Ejected, Reason: detail, Since: now, Ejections: w.health.Ejections + 1}
	c.tell(w, Event{
		Kind: Ejected, Old: old, New: balancer.Ejected, Reason: reason, Detail: detail, Backoff: w.backoff,
	})
	c.replace(w, now)
}

// replace finds who could serve what nobody serves without lost: those that wait for
// the end of their back-off. They come back at once if their last probe was good, and
// else are probed now.
func (c *Checker) replace(lost *watch, now time.Time) {
	var waiting []*watch
	for _, w := range c.list {
		if w != lost && w.health.State == balancer.Ejected && c.stranded(w.replica) {
			waiting = append(waiting, w)
		}
	}
	for _, w := range waiting {
		if w.good {
			c.admit(w, now)
		} else {
			w.due = now
		}
	}
}

// backOff sets how long the replica stays out: doubling with each ejection, one
// doubling taken back for every ten back-offs it was in service since.
func (c *Checker) backOff(w *watch, now time.Time) {
	cfg := c.config.Load()
	if w.backoff > 0 {
		w.level++
		w.level -= min(w.level, int(now.Sub(w.health.Since)/(forgiveAfter*w.backoff)))
	}
	d := cfg.EjectionTime
	for range w.level {
		if d >= cfg.MaxEjectionTime {
			break
		}
		d *= 2
	}
	w.level = min(w.level, 30)
	w.backoff = time.Duration(float64(min(d, cfg.MaxEjectionTime)) * (1 - jitter*c.opts.Rand()))
	w.until = now.Add(w.backoff)
	if w.due.After(w.until) {
		w.due = w.until
	}
}

// last says whether the replica is the only one available for some model.
func (c *Checker) last(r *balancer.Replica) bool {
	return slices.ContainsFunc(c.fleet.Snapshot().Models, func(m *balancer.Model) bool {
		return len(m.Available) == 1 && m.Available[0].ID == r.ID
	})
}

// stranded says whether the replica serves some model for which none is available.
func (c *Checker) stranded(r *balancer.Replica) bool {
	return slices.ContainsFunc(c.fleet.Snapshot().Models, func(m *balancer.Model) bool {
		return len(m.Available) == 0 && slices.ContainsFunc(m.Replicas, func(o *balancer.Replica) bool { return o.ID == r.ID })
	})
}

func (c *Checker) tell(w *watch, e Event) {
	e.Replica, e.Ejections = w.replica.ID, w.health.Ejections
	c.fleet.SetHealth(e.Replica, w.health)
	c.opts.OnEvent(e)
}
