package strategy

import "lbd/balancer"

// leastInflight needs no metric of a replica: own load is exact, event by event. It is blind to what others send.
type leastInflight struct{ rotation rotation }

func newLeastInflight(o Options) balancer.Picker {
	p := &leastInflight{}
	p.rotation.next.Store(o.uint64()())
	return p
}

func (p *leastInflight) Pick(_ *balancer.Request, candidates []*balancer.Replica) *balancer.Replica {
	switch len(candidates) {
	case 0:
		return nil
	case 1: // no tie is broken: see rotation
		return candidates[0]
	}
	start, word := p.rotation.start(len(candidates))
	i := leastInflightFrom(candidates, start)
	if !p.rotation.won(i, word) {
		start, word = p.rotation.start(len(candidates))
		i = leastInflightFrom(candidates, start)
		p.rotation.won(i, word)
	}
	return candidates[i]
}

// leastInflightFrom is the index of the first least key from start on, around the
// end.
func leastInflightFrom(rs []*balancer.Replica, start int) int {
	best, bestKey := start, inflightKey(rs[start])
	for n, i := 1, start; n < len(rs); n++ {
		if i++; i == len(rs) {
			i = 0
		}
		if k := inflightKey(rs[i]); k.less(bestKey) {
			best, bestKey = i, k
		}
	}
	return best
}

func inflightKey(r *balancer.Replica) key { return key{requests: r.InFlight(), weight: r.Weight} }
