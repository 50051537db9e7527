package strategy

import (
	"sync/atomic"

	"lbd/balancer"
)

// key is what replicas are compared by: less is better.
type key struct{ waiting, requests, weight int64 }

// less compares waiting per weight, then requests per weight with the one to place counted in: what it costs to add it.
// Two idle replicas of different weight are not a tie then; the larger one is better.
func (a key) less(b key) bool {
	if x, y := a.waiting*b.weight, b.waiting*a.weight; x != y {
		return x < y
	}
	return (a.requests+1)*b.weight < (b.requests+1)*a.weight
}

// foreign is the load that others put on r, unless it is unknown.
func foreign(r *balancer.Replica) (n int64, ok bool) {
	p := r.Polled()
	if p == nil || !p.ForeignKnown() {
		return 0, false
	}
	return p.Foreign, true
}

// rotation breaks ties: of equals, the first one behind the last winner wins. A counter that only counts picks would not
// do: when ties and clear wins alternate, it shows the same parity at every tie. Its word is written by every pick; see
// cycle for why one word per model is affordable.
type rotation struct {
	_    [64]byte // a cache line of its own, as in cycle
	next atomic.Uint64
	_    [56]byte
}

// least is the replica with the least key. Picks at the same instant do not see each other's reservations, which follow
// the pick; the one that comes second sees that the word has moved and looks once more, behind the winner of the first.
func (t *rotation) least(rs []*balancer.Replica, keyOf func(*balancer.Replica, typical) key, ty typical) *balancer.Replica {
	if len(rs) == 0 {
		return nil
	}
	old := t.next.Load()
	i := leastFrom(rs, int(old%uint64(len(rs))), keyOf, ty)
	if !t.next.CompareAndSwap(old, uint64(i)+1) {
		i = leastFrom(rs, int(t.next.Load()%uint64(len(rs))), keyOf, ty)
		t.next.Store(uint64(i) + 1)
	}
	return rs[i]
}

// leastFrom is the index of the first least key from start on, around the end.
func leastFrom(rs []*balancer.Replica, start int, keyOf func(*balancer.Replica, typical) key, ty typical) int {
	best, bestKey := start, keyOf(rs[start], ty)
	for i := start + 1; i < len(rs); i++ {
		if k := keyOf(rs[i], ty); k.less(bestKey) {
			best, bestKey = i, k
		}
	}
	for i := range start {
		if k := keyOf(rs[i], ty); k.less(bestKey) {
			best, bestKey = i, k
		}
	}
	return best
}
