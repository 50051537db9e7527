package strategy

import (
	"math/bits"

	"lbd/balancer"
)

// below scales the 64 random bits u to 0 <= k < n (Lemire, "Fast random integer generation in an interval", 2019, without
// its rejection step: the bias is n/2^64).
func below(u, n uint64) uint64 {
	k, _ := bits.Mul64(u, n)
	return k
}

// weigh adds up the weights, and reports whether they are all the same.
func weigh(rs []*balancer.Replica) (total uint64, even bool) {
	even = true
	for _, r := range rs {
		total += uint64(r.Weight)
		even = even && r.Weight == rs[0].Weight
	}
	return total, even
}

// at is the index of the replica that owns position pos on the line on which each takes as much room as its weight.
func at(rs []*balancer.Replica, pos uint64) int {
	for i, r := range rs {
		if w := uint64(r.Weight); pos < w {
			return i
		} else {
			pos -= w
		}
	}
	panic("BUG: position beyond the weights")
}

// byWeight picks one replica in proportion to its weight from 64 random bits.
func byWeight(rs []*balancer.Replica, u uint64) int {
	total, even := weigh(rs)
	if even {
		return int(below(u, uint64(len(rs))))
	}
	return at(rs, below(u, total))
}
