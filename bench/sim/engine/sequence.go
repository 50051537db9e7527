package engine

import (
	"slices"
	"time"
)

// state of a sequence.
type state uint8

const (
	waiting state = iota
	prefilling
	decoding
)

// sequence is one request inside the engine. While it decodes, emitted and computed stand still at their values of
// round joined, so that a decode round need not touch it; settle brings them up to date.
type sequence struct {
	id             uint64
	prompt, output int // tokens
	external       int
	chain          []uint64 // hashes of the prompt's full blocks that others may share

	state       state
	emitted     int // tokens generated
	computed    int // tokens in the KV cache
	told        int // tokens reported in events; used when quiet
	preemptions int
	cached      int // prompt tokens found in the cache at first admission

	order  uint64 // of admission
	joined uint64 // decode rounds of the engine when it began to decode
	due    uint64 // decode rounds of the engine when it has its last token
	slot   int    // decode rounds congruent to it (modulo block size) start a new block
	heapAt int    // position in the heap of due sequences

	blocks    int     // blocks it holds
	published []int32 // nodes of its full computed blocks, none for copies
	pins      int     // of published, how many are not none

	submitted, admitted time.Duration // engine time
	links               [2]link
}

// total is the number of tokens that must be in the KV cache before the next one can be generated.
func (s *sequence) total() int { return s.prompt + s.emitted }

// block is the hash of the i-th block.
func (s *sequence) block(i int) uint64 {
	if i < len(s.chain) {
		return s.chain[i]
	}
	return PrivateBlock(s.id, i)
}

// begin makes s a new request, keeping the memory of the one it was.
func (s *sequence) begin(r Request, now time.Duration) {
	*s = sequence{
		id: r.ID, prompt: r.PromptTokens, output: r.OutputTokens, chain: r.Blocks, external: r.External,
		submitted: now, published: s.published[:0],
	}
}

// expect makes room for the blocks a sequence can ever publish, so that decode rounds do not allocate.
func (s *sequence) expect(blocks int) {
	s.published = slices.Grow(s.published, max(0, blocks-len(s.published)))
}

// A sequence is in one order list (waiting or running) and, while it decodes, in one growth list.
const (
	inOrder = iota
	inGrowth
)

type link struct{ prev, next *sequence }

// list is a doubly linked list of sequences through links[kind].
type list struct {
	kind       int
	head, tail *sequence
	n          int
}

func (l *list) pushBack(s *sequence) {
	s.links[l.kind] = link{prev: l.tail}
	if l.tail == nil {
		l.head = s
	} else {
		l.tail.links[l.kind].next = s
	}
	l.tail = s
	l.n++
}

func (l *list) pushFront(s *sequence) {
	s.links[l.kind] = link{next: l.head}
	if l.head == nil {
		l.tail = s
	} else {
		l.head.links[l.kind].prev = s
	}
	l.head = s
	l.n++
}

func (l *list) remove(s *sequence) {
	at := s.links[l.kind]
	if at.prev == nil {
		l.head = at.next
	} else {
		at.prev.links[l.kind].next = at.next
	}
	if at.next == nil {
		l.tail = at.prev
	} else {
		at.next.links[l.kind].prev = at.prev
	}
	s.links[l.kind] = link{}
	l.n--
}

// dueHeap orders decoding sequences by the round of their last token, then by admission (container/heap).
type dueHeap []*sequence

func (h dueHeap) Len() int { return len(h) }
func (h dueHeap) Less(i, j int) bool {
	if h[i].due != h[j].due {
		return h[i].due < h[j].due
	}
	return h[i].order < h[j].order
}
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].heapAt, h[j].heapAt = i, j
}
func (h *dueHeap) Push(x any) {
	s := x.(*sequence)
	s.heapAt = len(*h)
	*h = append(*h, s)
}
func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	s := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return s
}

// Chain is the hash of a block with the given content after the block with hash parent (0 for the first block), for
// callers that build Request.Blocks. Equal results mean equal prefixes.
func Chain(parent, content uint64) uint64 {
	return mix(mix(parent+0x9E3779B97F4A7C15) ^ content)
}

// Run is the hash of the i-th block of a run known by its content, which may be as long as one likes. Hashes of one run
// are not a chain: equal content must mean equal prefix already, as it does for the block ids of traces. The engine finds
// the blocks of a run faster than others.
func Run(content uint64, i int) uint64 {
	return mix(content+uint64(i>>runBits)*0x9E3779B97F4A7C15)&^runMask | uint64(i)&runMask
}

// PrivateBlock is the hash of a request's block that no other request can have by its prompt: one beyond
// Request.Blocks, generated tokens included. A follow-up request that repeats the whole conversation may name it.
func PrivateBlock(id uint64, index int) uint64 {
	return Run(mix(id^0x6C62645F70726976), index)
}

// mix is the finaliser of splitmix64 (Steele, Lea, Flood 2014).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}
