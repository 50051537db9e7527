package engine

import "math/bits"

// index maps block hashes to nodes: open addressing with linear probing, the keys staying in the nodes. A Go map does
// the same at three times the cost, and block look-ups are most of what a replay of long prompts does.
type index struct {
	slots []int32 // node number, or none
	shift uint    // 64 - log2(len(slots))
	n     int
}

const firstSlots = 1 << 10

func newIndex() index {
	x := index{}
	x.size(firstSlots)
	return x
}

func (x *index) size(slots int) {
	x.slots = make([]int32, slots)
	for i := range x.slots {
		x.slots[i] = none
	}
	x.shift = uint(64 - bits.TrailingZeros(uint(slots)))
}

// home is where a hash is looked for first. Traces number their blocks 0, 1, 2, …, so hashes are spread here
// (Fibonacci hashing, Knuth volume 3, 6.4).
func (x *index) home(hash uint64) int {
	return int(hash * 0x9E3779B97F4A7C15 >> x.shift)
}

func (x *index) find(hash uint64, nodes []node) int32 {
	mask := len(x.slots) - 1
	for i := x.home(hash); ; i = (i + 1) & mask {
		n := x.slots[i]
		if n == none || nodes[n].hash == hash {
			return n
		}
	}
}

func (x *index) insert(n int32, nodes []node) {
	if 2*(x.n+1) > len(x.slots) {
		x.grow(nodes)
	}
	x.place(n, nodes)
	x.n++
}

func (x *index) place(n int32, nodes []node) {
	mask := len(x.slots) - 1
	i := x.home(nodes[n].hash)
	for x.slots[i] != none {
		i = (i + 1) & mask
	}
	x.slots[i] = n
}

func (x *index) grow(nodes []node) {
	was := x.slots
	x.size(2 * len(was))
	for _, n := range was {
		if n != none {
			x.place(n, nodes)
		}
	}
}

// remove closes the gap it leaves, so that probing never meets a tombstone (Knuth volume 3, 6.4, algorithm R).
func (x *index) remove(n int32, nodes []node) {
	mask := len(x.slots) - 1
	gap := x.home(nodes[n].hash)
	for x.slots[gap] != n {
		gap = (gap + 1) & mask
	}
	x.n--
	for i := (gap + 1) & mask; x.slots[i] != none; i = (i + 1) & mask {
		home := x.home(nodes[x.slots[i]].hash)
		if (i-home)&mask >= (i-gap)&mask {
			x.slots[gap] = x.slots[i]
			gap = i
		}
	}
	x.slots[gap] = none
}
