package engine

import "math/bits"

// index maps block hashes to nodes. Block look-ups are most of what a replay of long prompts does, and their cost is
// cache misses; so the blocks whose hashes differ in their last runBits only, as those of Run do, share one entry, and
// the entry found last is tried first. Entries are found by open addressing with linear probing; a slot holds enough of
// the key to tell strangers without a look at the entry.
type index struct {
	slots []uint64 // tag<<32 | entry+1, 0 when empty
	shift uint     // 32 - log2(len(slots))
	runs  []run
	spare []int32 // unused entries
	last  int32   // the entry found last
	n     int     // blocks
}

// run has the nodes of the blocks hash = key<<runBits | i.
type run struct {
	key   uint64
	nodes [1 << runBits]int32 // node+1, 0 when unknown
	n     int32               // how many are known
}

const (
	firstSlots = 1 << 8
	runBits    = 4
	runMask    = 1<<runBits - 1
	noKey      = 1<<64 - 1 // a key has 60 bits
)

func newIndex() index {
	x := index{runs: []run{{key: noKey}}} // entry 0 is nobody's, so that last always names one
	x.size(firstSlots)
	return x
}

func (x *index) size(slots int) {
	x.slots = make([]uint64, slots)
	x.shift = uint(32 - bits.TrailingZeros(uint(slots)))
}

// tag spreads keys: traces number their blocks 0, 1, 2, … (Fibonacci hashing, Knuth volume 3, 6.4).
func tag(key uint64) uint64 { return key * 0x9E3779B97F4A7C15 >> 32 }

func (x *index) find(hash uint64) int32 {
	key := hash >> runBits
	if r := &x.runs[x.last]; r.key == key {
		return r.nodes[hash&runMask] - 1
	}
	return x.findIn(key, hash)
}

func (x *index) findIn(key, hash uint64) int32 {
	if i, ok := x.slot(key); ok {
		x.last = int32(uint32(x.slots[i])) - 1
		return x.runs[x.last].nodes[hash&runMask] - 1
	}
	return none
}

// slot is where the entry of a key is, or would be.
func (x *index) slot(key uint64) (i int, ok bool) {
	mask, t := len(x.slots)-1, tag(key)
	for i = int(t >> x.shift); x.slots[i] != 0; i = (i + 1) & mask {
		if x.slots[i]>>32 == t && x.runs[uint32(x.slots[i])-1].key == key {
			return i, true
		}
	}
	return i, false
}

// insert makes a node known that is not.
func (x *index) insert(n int32, hash uint64) {
	key := hash >> runBits
	if x.runs[x.last].key != key {
		x.last = x.entry(key)
	}
	r := &x.runs[x.last]
	r.nodes[hash&runMask] = n + 1
	r.n++
	x.n++
}

// entry finds or makes the entry of a key.
func (x *index) entry(key uint64) int32 {
	i, ok := x.slot(key)
	if ok {
		return int32(uint32(x.slots[i])) - 1
	}
	used := len(x.runs) - len(x.spare)
	if 2*used > len(x.slots) {
		x.grow()
		i, _ = x.slot(key)
	}
	var e int32
	if n := len(x.spare); n > 0 {
		e = x.spare[n-1]
		x.spare = x.spare[:n-1]
	} else {
		e = int32(len(x.runs))
		x.runs = append(x.runs, run{})
	}
	x.runs[e].key = key
	x.slots[i] = tag(key)<<32 | uint64(e+1)
	return e
}

func (x *index) grow() {
	was := x.slots
	x.size(2 * len(was))
	mask := len(x.slots) - 1
	for _, s := range was {
		if s == 0 {
			continue
		}
		i := int(s >> 32 >> x.shift)
		for x.slots[i] != 0 {
			i = (i + 1) & mask
		}
		x.slots[i] = s
	}
}

// remove forgets a known block, and its entry with the last one of it.
func (x *index) remove(hash uint64) {
	key := hash >> runBits
	e := x.last
	if x.runs[e].key != key {
		i, _ := x.slot(key)
		e = int32(uint32(x.slots[i])) - 1
	}
	r := &x.runs[e]
	r.nodes[hash&runMask] = 0
	r.n--
	x.n--
	if r.n > 0 {
		return
	}
	x.drop(key)
	r.key = noKey
	x.spare = append(x.spare, e)
	x.last = 0
}

// drop closes the gap it leaves, so that probing never meets a tombstone (Knuth volume 3, 6.4, algorithm R).
func (x *index) drop(key uint64) {
	mask := len(x.slots) - 1
	gap, _ := x.slot(key)
	for i := (gap + 1) & mask; x.slots[i] != 0; i = (i + 1) & mask {
		home := int(x.slots[i] >> 32 >> x.shift)
		if (i-home)&mask >= (i-gap)&mask {
			x.slots[gap] = x.slots[i]
			gap = i
		}
	}
	x.slots[gap] = 0
}
