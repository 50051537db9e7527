package rivals

import (
	"time"

	"lbd/bench/replay"
)

// index remembers which prompts were sent to which replica: the radix trees, hash tables and tries of the rules, all over
// the blocks of the trace. Since equal blocks mean equal prefixes, a tree is a map here, and the deepest block a replica
// has is its longest match. What was used least recently goes first, a prompt's end before its beginning.
type index struct {
	blockTokens int
	limit       int           // tokens per replica, 0 = none
	ttl         time.Duration // 0 = none
	every       time.Duration // eviction happens that seldom; 0 = at once
	evicted     time.Duration

	blocks   map[uint64]int32 // the first copy of each
	copies   []copied         // without pointers, which the garbage collector would follow; 0 is nobody's
	spare    int32            // free ones, linked by other
	replicas []lru
	matched  []int // tokens, by replica; the result of match

	found    []int32 // first copies of the known leading blocks of the prompt that was matched last
	foundFor uint64  // ID of its request + 1, 0 when they may have gone
}

// copied is a block at a replica.
type copied struct {
	id           uint64
	at           time.Duration
	other        int32 // copy of the same block
	replica      int32
	newer, older int32
}

// lru orders the copies of a replica by their last use.
type lru struct {
	newest, oldest int32
	n              int
}

func newIndex(s replay.Setup, limit int, ttl time.Duration) *index {
	return &index{
		blockTokens: s.BlockTokens, limit: limit, ttl: ttl, copies: make([]copied, 1),
		blocks: map[uint64]int32{}, replicas: make([]lru, len(s.Replicas)), matched: make([]int, len(s.Replicas)),
	}
}

// match returns for each replica how many tokens of the prompt it was sent before. The slice is valid until the next call.
func (x *index) match(now time.Duration, q *replay.Query) []int {
	clear(x.matched)
	x.found, x.foundFor = x.found[:0], q.ID+1
	for _, id := range q.Blocks {
		c := x.blocks[id]
		if c == 0 {
			break
		}
		x.found = append(x.found, c)
	}
	for depth, left := len(x.found), len(x.matched); depth > 0 && left > 0; depth-- {
		for i := x.found[depth-1]; i != 0; i = x.copies[i].other {
			c := &x.copies[i]
			if x.matched[c.replica] == 0 && !x.old(c, now) {
				x.matched[c.replica] = min(depth*x.blockTokens, q.PromptTokens)
				left--
			}
		}
	}
	return x.matched
}

func (x *index) old(c *copied, now time.Duration) bool { return x.ttl > 0 && now-c.at > x.ttl }

// insert notes that a prompt was sent to a replica.
func (x *index) insert(now time.Duration, q *replay.Query, replica int) {
	known := 0
	if x.foundFor == q.ID+1 {
		known = len(x.found)
	}
	for i := len(q.Blocks) - 1; i >= 0; i-- {
		if i < known {
			x.use(now, x.found[i], replica)
		} else {
			x.look(now, q.Blocks[i], replica)
		}
	}
	x.foundFor = 0
	if x.every == 0 {
		x.evict(now, replica)
		return
	}
	if now-x.evicted < x.every {
		return
	}
	x.evicted = now
	for i := range x.replicas {
		x.evict(now, i)
	}
}

// look is use of a block that may be new.
func (x *index) look(now time.Duration, id uint64, replica int) {
	if first := x.blocks[id]; first != 0 {
		x.use(now, first, replica)
		return
	}
	x.blocks[id] = x.add(copied{id: id, at: now, replica: int32(replica)})
}

// use notes a block whose first copy is known. That one stays the first.
func (x *index) use(now time.Duration, first int32, replica int) {
	for i := first; i != 0; i = x.copies[i].other {
		if c := &x.copies[i]; c.replica == int32(replica) {
			c.at = now
			x.unlink(i)
			x.front(i)
			return
		}
	}
	i := x.add(copied{id: x.copies[first].id, at: now, replica: int32(replica), other: x.copies[first].other})
	x.copies[first].other = i
}

func (x *index) add(c copied) int32 {
	i := x.spare
	if i == 0 {
		i = int32(len(x.copies))
		x.copies = append(x.copies, c)
	} else {
		x.spare = x.copies[i].other
		x.copies[i] = c
	}
	x.front(i)
	x.replicas[c.replica].n++
	return i
}

func (x *index) front(i int32) {
	c := &x.copies[i]
	l := &x.replicas[c.replica]
	c.newer, c.older = 0, l.newest
	if l.newest != 0 {
		x.copies[l.newest].newer = i
	} else {
		l.oldest = i
	}
	l.newest = i
}

func (x *index) unlink(i int32) {
	c := x.copies[i]
	l := &x.replicas[c.replica]
	if c.newer != 0 {
		x.copies[c.newer].older = c.older
	} else {
		l.newest = c.older
	}
	if c.older != 0 {
		x.copies[c.older].newer = c.newer
	} else {
		l.oldest = c.newer
	}
}

// evict drops what is too much or too old at a replica.
func (x *index) evict(now time.Duration, replica int) {
	for l := &x.replicas[replica]; l.n > 0; {
		if !x.old(&x.copies[l.oldest], now) && (x.limit == 0 || l.n*x.blockTokens <= x.limit) {
			return
		}
		x.drop(l.oldest)
	}
}

func (x *index) drop(i int32) {
	x.unlink(i)
	c := &x.copies[i]
	x.replicas[c.replica].n--
	switch first := x.blocks[c.id]; {
	case first != i:
		for x.copies[first].other != i {
			first = x.copies[first].other
		}
		x.copies[first].other = c.other
	case c.other != 0:
		x.blocks[c.id] = c.other
	default:
		delete(x.blocks, c.id)
	}
	c.other, x.spare = x.spare, i
}

// size is the tokens noted for a replica.
func (x *index) size(replica int) int { return x.replicas[replica].n * x.blockTokens }
