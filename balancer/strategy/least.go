package strategy

import "sync/atomic"

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

// rotation breaks ties: of equals, the first one behind the last winner wins. A counter that only counts picks would not
// do: when ties and clear wins alternate, it shows the same parity at every tie. Its word is written by every pick; see
// cycle for why one word per model is affordable.
//
// A pick from one candidate is no win. A request that is at home somewhere is placed so (package affinity), and would turn
// the rotation to the same place each time: all new sessions of an idle fleet would have one home.
type rotation struct {
	_    [64]byte // a cache line of its own, as in cycle
	next atomic.Uint64
	_    [56]byte
}

// start is where to begin to compare n replicas, and the word to give to won.
func (t *rotation) start(n int) (i int, word uint64) {
	word = t.next.Load()
	return int(word % uint64(n)), word
}

// won notes the winner of a comparison that began with word. False means that
// another pick came in between: picks at the same instant do not see each other's
// reservations, which follow the pick, so the one that comes second looks once
// more, behind the winner of the first.
func (t *rotation) won(i int, word uint64) bool { return t.next.CompareAndSwap(word, uint64(i)+1) }
