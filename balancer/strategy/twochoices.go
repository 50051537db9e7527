package strategy

import "lbd/balancer"

// twoChoices is the power of two choices (Mitzenmacher, 1996): the lesser of two keeps most of what comparing all would
// bring, and randomness that breaks symmetry is what makes old information harmless (Mitzenmacher, "How useful is old
// information?", TPDS 2000).
type twoChoices struct{ uint64 func() uint64 }

func newTwoChoices(o Options) balancer.Picker { return twoChoices{o.uint64()} }

func (p twoChoices) Pick(_ *balancer.Request, candidates []*balancer.Replica) *balancer.Replica {
	switch len(candidates) {
	case 0:
		return nil
	case 1:
		return candidates[0]
	}
	i, j := twoByWeight(candidates, p.uint64(), p.uint64())
	return lesser(candidates[i], candidates[j])
}

// twoByWeight picks two different replicas, each in proportion to its weight: uniformly drawn, a replica with the weight of
// all others together would still see only two picks in len(rs).
func twoByWeight(rs []*balancer.Replica, u, v uint64) (i, j int) {
	total, even := weigh(rs)
	if even {
		i, j = int(below(u, uint64(len(rs)))), int(below(v, uint64(len(rs)-1)))
		if j >= i {
			j++
		}
		return i, j
	}
	i = at(rs, below(u, total))
	w := uint64(rs[i].Weight)
	pos := below(v, total-w)
	if j = at(rs, pos); j >= i {
		j = at(rs, pos+w) // the line without the room of i
	}
	return i, j
}

// lesser is the less loaded one, a if they are equal: a is as random as b. Foreign load counts only if it is known of both.
func lesser(a, b *balancer.Replica) *balancer.Replica {
	ka, kb := key{requests: a.InFlight(), weight: a.Weight}, key{requests: b.InFlight(), weight: b.Weight}
	if fa, ok := foreign(a); ok {
		if fb, ok := foreign(b); ok {
			ka.requests += fa
			kb.requests += fb
		}
	}
	if kb.less(ka) {
		return b
	}
	return a
}

// foreign is the load that others put on r, unless it is unknown.
func foreign(r *balancer.Replica) (n int64, ok bool) {
	p := r.Polled()
	if p == nil || !p.ForeignKnown() {
		return 0, false
	}
	return p.Foreign, true
}
