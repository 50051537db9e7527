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
	return p.rotation.least(candidates, inflightKey, typical{})
}

func inflightKey(r *balancer.Replica, _ typical) key {
	return key{requests: r.InFlight(), weight: r.Weight}
}
