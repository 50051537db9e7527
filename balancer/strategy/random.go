package strategy

import "lbd/balancer"

// random shares nothing between picks at all.
type random struct{ uint64 func() uint64 }

func newRandom(o Options) balancer.Picker { return random{o.uint64()} }

func (p random) Pick(_ *balancer.Request, candidates []*balancer.Replica) *balancer.Replica {
	if len(candidates) == 0 {
		return nil
	}
	return candidates[byWeight(candidates, p.uint64())]
}
