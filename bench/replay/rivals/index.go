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

	blocks   map[uint64]*block
	replicas []lru
	matched  []int // tokens, by replica; the result of match
	found    []*block
}

type block struct {
	id     uint64
	copies []*copied
}

// copied is a block at a replica.
type copied struct {
	block      *block
	replica    int
	at         time.Duration
	prev, next *copied
}

// lru is a ring through its head: next is the most recently used.
type lru struct {
	head copied
	n    int
}

func newIndex(s replay.Setup, limit int, ttl time.Duration) *index {
	x := &index{
		blockTokens: s.BlockTokens, limit: limit, ttl: ttl,
		blocks: map[uint64]*block{}, replicas: make([]lru, len(s.Replicas)), matched: make([]int, len(s.Replicas)),
	}
	for i := range x.replicas {
		h := &x.replicas[i].head
		h.prev, h.next = h, h
	}
	return x
}

// match returns for each replica how many tokens of the prompt it was sent before. The slice is valid until the next call.
func (x *index) match(now time.Duration, q *replay.Query) []int {
	clear(x.matched)
	x.found = x.found[:0]
	for _, id := range q.Blocks {
		b := x.blocks[id]
		if b == nil {
			break
		}
		x.found = append(x.found, b)
	}
	for depth := len(x.found); depth > 0; depth-- {
		for _, c := range x.found[depth-1].copies {
			if x.matched[c.replica] == 0 && !x.old(c, now) {
				x.matched[c.replica] = min(depth*x.blockTokens, q.PromptTokens)
			}
		}
	}
	return x.matched
}

func (x *index) old(c *copied, now time.Duration) bool { return x.ttl > 0 && now-c.at > x.ttl }

// insert notes that a prompt was sent to a replica.
func (x *index) insert(now time.Duration, q *replay.Query, replica int) {
	for i := len(q.Blocks) - 1; i >= 0; i-- {
		x.use(now, q.Blocks[i], replica)
	}
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

func (x *index) use(now time.Duration, id uint64, replica int) {
	b := x.blocks[id]
	if b == nil {
		b = &block{id: id}
		x.blocks[id] = b
	}
	l := &x.replicas[replica]
	for _, c := range b.copies {
		if c.replica == replica {
			c.at = now
			c.unlink()
			l.front(c)
			return
		}
	}
	c := &copied{block: b, replica: replica, at: now}
	b.copies = append(b.copies, c)
	l.front(c)
	l.n++
}

func (l *lru) front(c *copied) {
	c.prev, c.next = &l.head, l.head.next
	c.prev.next, c.next.prev = c, c
}

func (c *copied) unlink() { c.prev.next, c.next.prev = c.next, c.prev }

// evict drops what is too much or too old at a replica.
func (x *index) evict(now time.Duration, replica int) {
	l := &x.replicas[replica]
	for l.n > 0 {
		c := l.head.prev
		if !x.old(c, now) && (x.limit == 0 || l.n*x.blockTokens <= x.limit) {
			return
		}
		x.drop(c)
	}
}

func (x *index) drop(c *copied) {
	c.unlink()
	x.replicas[c.replica].n--
	b := c.block
	for i, other := range b.copies {
		if other == c {
			b.copies[i] = b.copies[len(b.copies)-1]
			b.copies = b.copies[:len(b.copies)-1]
			break
		}
	}
	if len(b.copies) == 0 {
		delete(x.blocks, b.id)
	}
}

// size is the tokens noted for a replica.
func (x *index) size(replica int) int { return x.replicas[replica].n * x.blockTokens }
