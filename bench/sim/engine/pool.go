package engine

// pool counts the KV blocks of one engine and keeps the prefix cache. A block is in one of four states:
//
//	empty    capacity - private - pinned - cached
//	private  written by one sequence and known to nobody else: not full yet, or a copy of a known block
//	pinned   known by its hash and referenced by at least one sequence
//	cached   known by its hash and referenced by nobody: evictable, counts as free
//
// Only pinned and cached blocks have a node; private and empty ones are numbers.
type pool struct {
	capacity int
	maxCache int // bound of cached, in blocks; negative = none

	private, pinned, cached int

	nodes            []node
	spare            int32 // free nodes, linked by next
	oldest, youngest int32 // LRU list of cached nodes; the oldest is evicted first
	known            index
	evicted          uint64
	watch            watch
}

// node is one block with a hash. Links are node numbers; none ends a list.
type node struct {
	hash       uint64
	refs       int32
	prev, next int32
	watched    bool // see watch
}

const none = int32(-1)

func newPool(capacity, maxCache int) pool {
	return pool{capacity: capacity, maxCache: maxCache, spare: none, oldest: none, youngest: none, known: newIndex()}
}

// available is the number of blocks take can provide.
func (p *pool) available() int { return p.capacity - p.private - p.pinned }

// take makes n blocks private, evicting the least recently used cached ones when no empty ones are left.
func (p *pool) take(n int) {
	for p.capacity-p.private-p.pinned-p.cached < n {
		p.evict()
	}
	p.private += n
}

// lookup finds the node of a known block.
func (p *pool) lookup(hash uint64) (int32, bool) {
	n := p.known.find(hash)
	return n, n != none
}

// pin adds a reference to a known block.
func (p *pool) pin(n int32) {
	if p.nodes[n].refs == 0 {
		p.unlink(n)
		p.cached--
		p.pinned++
		if p.nodes[n].watched {
			p.watch.used++
		}
	}
	p.nodes[n].refs++
}

// publish makes a private block known under its hash, pinned once. If the hash is known already the block stays private
// and publish returns none: vLLM keeps both copies in memory too, so that block tables are append-only.
func (p *pool) publish(hash uint64) int32 {
	if p.known.find(hash) != none {
		return none
	}
	if hash == p.watch.next {
		p.watch.valid = false
	}
	n := p.newNode(hash)
	p.known.insert(n, hash)
	p.private--
	p.pinned++
	return n
}

// release gives back the blocks of a sequence: its published ones, none for copies, and the number that are private.
// Last block first, so that suffixes are evicted before the prefixes they hang on.
func (p *pool) release(published []int32, private int) {
	for i := len(published) - 1; i >= 0; i-- {
		if n := published[i]; n != none {
			p.unpin(n)
		}
	}
	p.private -= private
	for p.maxCache >= 0 && p.cached > p.maxCache {
		p.evict()
	}
}

func (p *pool) unpin(n int32) {
	p.nodes[n].refs--
	if p.nodes[n].refs > 0 {
		return
	}
	if p.nodes[n].watched {
		p.watch.used--
	}
	p.pinned--
	p.cached++
	p.nodes[n].prev, p.nodes[n].next = p.youngest, none
	if p.youngest == none {
		p.oldest = n
	} else {
		p.nodes[p.youngest].next = n
	}
	p.youngest = n
}

func (p *pool) evict() {
	n := p.oldest
	if n == none {
		panic("BUG: a block is wanted and none is free or cached")
	}
	p.unlink(n)
	if p.nodes[n].watched {
		p.watch.valid = false
	}
	p.known.remove(p.nodes[n].hash)
	p.nodes[n].next, p.spare = p.spare, n
	p.cached--
	p.evicted++
}

// unlink takes a node out of the LRU list.
func (p *pool) unlink(n int32) {
	prev, next := p.nodes[n].prev, p.nodes[n].next
	if prev == none {
		p.oldest = next
	} else {
		p.nodes[prev].next = next
	}
	if next == none {
		p.youngest = prev
	} else {
		p.nodes[next].prev = prev
	}
}

func (p *pool) newNode(hash uint64) int32 {
	n := p.spare
	if n == none {
		n = int32(len(p.nodes))
		p.nodes = append(p.nodes, node{})
	} else {
		p.spare = p.nodes[n].next
	}
	p.nodes[n] = node{hash: hash, refs: 1, prev: none, next: none}
	return n
}
