package prefix

import (
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"

	"hash/maphash"
)

// Config sizes an index.
type Config struct {
	// Bytes of memory at most, rounded down to a power of two; default 64 MiB,
	// which holds 8 million pairs of block and replica: for each of 64 replicas
	// 130 MB of text, ten times what an 80 GB device can cache.
	Bytes int
}

// DefaultBytes is the memory of an index unless the configuration says otherwise.
const DefaultBytes = 64 << 20

// Index maps blocks to the replicas that have them. Match and Insert may be called
// by any number of goroutines; they neither block nor allocate, but for the first
// Insert, which makes the table.
type Index struct {
	seed   maphash.Seed
	lines  int
	table  atomic.Pointer[[]line]
	owners []Owner // by id; 0 is nobody

	mu    sync.Mutex // guards who is who
	named map[string]*Owner
	free  []uint32
}

// A line is one cache line of slots. All slots of a block are in the line its hash
// leads to and, if that is full, in further ones: what all replicas have, such as
// a common system prompt, needs a slot for each.
type line [slotsPerLine]atomic.Uint64

const (
	slotsPerLine = 8
	lineBytes    = slotsPerLine * 8
	// crowd is how many slots of a block in a line let one look into the next line
	// too: fewer than all, since other blocks take some of them back.
	crowd = slotsPerLine / 2
	// maxLines is how far a block may reach: 128 holders.
	maxLines = 16
)

// A slot is tag, owner and stamp in one word, so that no reader sees half an
// entry. Zero is empty. The tag is not the hash: of 2^24 blocks in the same line
// one looks like another.
const (
	tagBits, ownerBits, stampBits = 24, 10, 30

	stampMask = 1<<stampBits - 1
	ownerMask = 1<<ownerBits - 1
	tagShift  = ownerBits + stampBits
)

// New returns an empty index.
func New(c Config) *Index {
	if c.Bytes <= 0 {
		c.Bytes = DefaultBytes
	}
	x := &Index{
		seed: maphash.MakeSeed(), lines: 1 << (bits.Len(uint(max(c.Bytes/lineBytes, maxLines))) - 1),
		owners: make([]Owner, MaxOwners+1), named: make(map[string]*Owner),
	}
	for id := MaxOwners; id > 0; id-- {
		x.owners[id].id = uint32(id)
		x.free = append(x.free, uint32(id))
	}
	return x
}

// Hasher returns the hasher of a model: prompts of different models share no
// prefix.
func (x *Index) Hasher(model string) Hasher {
	return Hasher{seed: x.seed, base: maphash.String(x.seed, model)}
}

// Owner returns the owner of that name, the same one until it was released as
// often; nil when there are MaxOwners others.
func (x *Index) Owner(name string) *Owner {
	x.mu.Lock()
	defer x.mu.Unlock()
	o := x.named[name]
	if o == nil {
		if len(x.free) == 0 {
			return nil
		}
		o = &x.owners[x.free[len(x.free)-1]]
		x.free = x.free[:len(x.free)-1]
		o.name = name
		x.named[name] = o
		o.Restart() // what the last one of this id had is not this one's
	}
	o.refs++
	return o
}

// Release gives an owner back.
func (x *Index) Release(o *Owner) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if o.refs--; o.refs > 0 {
		return
	}
	if o.refs < 0 {
		panic(fmt.Sprintf("BUG: owner %q released too often", o.name))
	}
	delete(x.named, o.name)
	x.free = append(x.free, o.id)
}

// Depths is how many leading blocks of a prompt each owner has, by [Owner.ID].
type Depths [MaxOwners + 1]uint16

// group is how many consecutive blocks of a prompt lie in consecutive lines, 1 KiB
// on one page: a walk over 44 blocks, most of them in no cache, misses the TLB
// three times instead of 44 times, and the processor fetches ahead.
const group = 16

// place is where the entries of the i-th block may be: in the line at and in every
// step-th one behind it, under a tag. They are three numbers because a struct of them is
// copied in wider pieces than it was written in, which waits for all reads before it
// (no store forwarding): the lines of a prompt were fetched one after the other for that.
func place(hashes []uint64, i int) (at, step int, tag uint64) {
	head, tag := hashes[i&^(group-1)], hashes[i]&(1<<tagBits-1)
	first := int(head>>tagBits) &^ (group - 1)
	// Prompts often end early in a group: where one begins is as good as random.
	offset := (i ^ int(head)) & (group - 1)
	// Blocks that share their first line differ in the second one.
	return first | offset, group * int(tag|1), tag
}

// lineAt is the line of that number, which wraps.
func lineAt(table []line, at int) *line { return &table[at&(len(table)-1)] }

// touch has the processor fetch the first lines of every so many blocks, so that those
// that are not in its caches come at the same time. What is stored in between would make
// it wait for each (atomic stores are fences).
func touch(table []line, hashes []uint64, from, to, every int) {
	for i := from; i < to; i += every {
		at, _, _ := place(hashes, i)
		lineAt(table, at)[0].Load()
	}
}

// ahead is how many blocks an insert has fetched at a time: as many lines are a twelfth
// of a first-level cache of 48 KiB.
const ahead = 64

// last says whether a block has nothing in the lines behind its n-th one, which
// holds so many slots of it. The second line takes what finds the first one full,
// so that blocks with many holders may share that.
func last(n, same int, free bool) bool { return same < crowd && (n > 0 || free) }

// Insert notes that the owner has all blocks now.
func (x *Index) Insert(o *Owner, hashes []uint64) {
	table := x.made()
	entry := uint64(o.id)<<stampBits | o.stamp()
	hashes = hashes[:min(len(hashes), MaxBlocks)]
	for i := range hashes {
		if i%ahead == 0 {
			touch(table, hashes, i, min(i+ahead, len(hashes)), 1)
		}
		at, step, tag := place(hashes, i)
		x.slot(table, at, step, tag, o.id).Store(tag<<tagShift | entry)
	}
}

// slot finds where the entry of a block and an owner belongs: where it is, or else
// the first empty slot of the lines of the block, or else the least alive one.
func (x *Index) slot(table []line, at, step int, tag uint64, id uint32) *atomic.Uint64 {
	var empty *atomic.Uint64
	for n := range maxLines {
		l := lineAt(table, at+n*step)
		same, free := 0, false
		for s := range l {
			w := l[s].Load()
			switch {
			case w == 0:
				free = true
				if empty == nil {
					empty = &l[s]
				}
			case w>>tagShift == tag:
				if uint32(w>>stampBits&ownerMask) == id {
					return &l[s]
				}
				same++
			}
		}
		if last(n, same, free) {
			if empty != nil {
				return empty
			}
			return x.leastAlive(table, at, step, tag, n+1)
		}
	}
	return x.leastAlive(table, at, step, tag, maxLines)
}

func (x *Index) leastAlive(table []line, at, step int, tag uint64, lines int) (victim *atomic.Uint64) {
	best := int64(-1)
	for n := range lines {
		l := lineAt(table, at+n*step)
		for s := range l {
			w := l[s].Load()
			if d := x.dispensable(w, w>>tagShift == tag); d > best {
				best, victim = d, &l[s]
			}
		}
	}
	return victim
}

// dispensable ranks the slots that could be overwritten: dead ones first, then by
// age. A living slot of the same block comes last.
func (x *Index) dispensable(w uint64, own bool) int64 {
	age, alive := x.owners[w>>stampBits&ownerMask].age(w & stampMask)
	switch {
	case !alive:
		return 1<<61 + int64(age)
	case own:
		return 0
	}
	return 1 + int64(age)
}

// Clear gives the table's memory back, and with it everything that was known, for when
// nobody asks any more. The next Insert makes another one.
func (x *Index) Clear() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.table.Store(nil)
}

// made is the table. Whoever comes while it is made waits: each making its own and
// all but one giving it up again cost a busy start 64 MiB a request.
func (x *Index) made() []line {
	if p := x.table.Load(); p != nil {
		return *p
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if p := x.table.Load(); p != nil {
		return *p
	}
	t := make([]line, x.lines)
	x.table.Store(&t)
	return t
}
