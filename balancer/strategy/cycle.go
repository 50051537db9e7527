package strategy

import (
	"sync/atomic"

	"lbd/balancer"
)

// cycle takes turns. Its counter is one word per model that every pick writes: some 20 to 50 ns when all cores want it,
// beside the 13 µs that a request costs, and the same order as the reservation that follows. Exact turns need it.
type cycle struct {
	_ [64]byte // a cache line of its own: neighbours on the heap are read by every pick
	n atomic.Uint64
	_ [56]byte
}

// newCycle begins anywhere: else the first request after every restart would go to the first endpoint.
func newCycle(o Options) balancer.Picker {
	c := &cycle{}
	c.n.Store(o.uint64()() >> 1) // far from the wrap, where the turns of an uneven number of replicas would skip
	return c
}

func (c *cycle) Pick(_ *balancer.Request, candidates []*balancer.Replica) *balancer.Replica {
	switch len(candidates) {
	case 0:
		return nil
	case 1: // no turn is taken where there is no choice: see rotation
		return candidates[0]
	}
	n := c.n.Add(1)
	total, even := weigh(candidates)
	if even {
		return candidates[n%uint64(len(candidates))]
	}
	return candidates[at(candidates, below(n*golden, total))]
}

// golden is 2^64 divided by the golden ratio. Its multiples modulo 2^64 fall evenly everywhere, the most evenly of all
// such sequences (Knuth, TAOCP 3, section 6.4, theorem S), so that any stretch of turns holds each replica by its weight to
// within a few: a weight of 100 is not a burst of 100.
const golden = 0x9E3779B97F4A7C15
