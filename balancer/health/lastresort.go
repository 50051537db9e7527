package health

import (
	"time"

	"lbd/balancer"
)

// sign is what was last found out about a replica, as far as it says how likely a
// request is to be answered there. Lower ones are likelier.
type sign int32

const (
	answers  sign = iota - 1 // probes, and waits for the end of its back-off
	silent                   // nobody has asked it yet
	talks                    // answers with an error, with nonsense or by breaking off
	refuses                  // nobody listens there, or did a moment ago
	hopeless                 // takes its time to say nothing
)

// signOf is the sign of an outcome that took so long to come about.
func signOf(o balancer.Outcome, took time.Duration) sign {
	switch o {
	case balancer.Answered:
		return answers
	case balancer.ConnectRefused:
		if took < unreachableAfter {
			return refuses
		}
	case balancer.ServerError, balancer.BadResponse, balancer.Reset:
		return talks
	}
	return hopeless
}

// note keeps a sign that was found at that time.
func (p *passive) note(s sign, at time.Time) {
	p.found.Store(at.UnixNano())
	p.sign.Store(int32(s))
}

// hope is what a request that comes now can expect. A refusal of a moment ago is as good as
// one more: while a whole fleet is down, the probes that requests ask for are refused in
// their place.
func (p *passive) hope(now time.Time) sign {
	s := sign(p.sign.Load())
	if s == refuses && now.UnixNano()-p.found.Load() < int64(freshRefusal) {
		return hopeless
	}
	return s
}

// LastResort returns those of the replicas, all of them out of service, that are
// likeliest to answer a request that nobody in service can take. Next to those that answer
// probes come those that nobody has probed yet, then those that at least say something,
// and those where nobody listened. Those that hang, cannot be reached or have refused a
// moment ago are no candidates: a client would wait for what lbd can say at once.
//
// All that are asked for are probed as soon as may be, since somebody needs them. It may
// be called by any goroutine at any time, and allocates.
func (c *Checker) LastResort(rs []*balancer.Replica) []*balancer.Replica {
	watches, best, now := *c.watches.Load(), hopeless, c.opts.Now()
	var likeliest []*balancer.Replica
	for _, r := range rs {
		w := watches[r.ID]
		if w == nil {
			continue // has just joined, or left
		}
		w.wanted.Store(true)
		s := w.hope(now)
		if s < best {
			best, likeliest = s, likeliest[:0]
		}
		if s == best && s < hopeless {
			likeliest = append(likeliest, r)
		}
	}
	c.poke()
	return likeliest
}
