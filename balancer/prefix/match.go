package prefix

// Match sets how many leading blocks each owner has, and reports the most. d must
// be zero.
//
// Whoever has a block has all before it: an insert notes every block of the prefix
// at one instant, so that none is older than those behind it. Blocks between two
// that the same owners have need no look therefore, and where they differ it is
// halved: some seven blocks of 44 are read when a system prompt is everywhere and
// the rest at one replica. See doc.go on what has been overwritten.
func (x *Index) Match(hashes []uint64, d *Depths) (deepest int) {
	t := x.table.Load()
	if t == nil || len(hashes) == 0 {
		return 0
	}
	w := walk{index: x, table: *t, hashes: hashes[:min(len(hashes), MaxBlocks)], depths: d}
	lo, hi := 0, len(w.hashes)-1
	have, _ := w.read(0, 0)
	for ; have == 0; have, _ = w.read(lo, lo) {
		if lo == maxHole || lo == hi {
			return 0
		}
		lo++
	}
	if lo < hi {
		every := max((hi-lo)/near, 1)
		touch(w.table, w.hashes, lo+every, hi, every)
		deep, strays := w.read(hi, lo)
		w.between(lo, hi, have+strays, deep)
	}
	return w.deepest
}

// maxHole is how many blocks at the start of a prompt may be missing from the table,
// overwritten by others, before nobody is taken to have any of it.
const maxHole = 1

// near is how many blocks are fetched at once, those that halving will read and those
// between: that takes less than to wait for one after the other.
const near = 8

// further is how many lines of a block are fetched at once when the one before was not
// its last.
const further = 3

// walk is one match.
type walk struct {
	index   *Index
	table   []line
	hashes  []uint64
	depths  *Depths
	deepest int
}

// between finds where those who have block lo but not block hi end; so many have
// either.
func (w *walk) between(lo, hi, atLo, atHi int) {
	if hi-lo <= near && atLo > atHi {
		touch(w.table, w.hashes, lo+1, hi, 1)
	}
	for hi-lo > 1 && atLo > atHi {
		mid := int(uint(lo+hi) / 2)
		found, strays := w.read(mid, lo)
		atLo += strays
		w.between(mid, hi, atHi+found, atHi)
		hi, atHi = mid, atHi+found
	}
}

// read adds the i-th block to the owners that have it. It reports how many were not
// known to have as much, and how many of those not even block lo, which has been
// overwritten then.
func (w *walk) read(i, lo int) (found, strays int) {
	at, step, tag := place(w.hashes, i)
	for n := range maxLines {
		same, free := 0, false
		l := lineAt(w.table, at+n*step)
		for s := range l {
			e := l[s].Load()
			if e>>tagShift != tag || e == 0 {
				free = free || e == 0
				continue
			}
			same++
			id := e >> stampBits & ownerMask
			d := int(w.depths[id])
			if d > i {
				continue
			}
			if _, alive := w.index.owners[id].age(e & stampMask); alive {
				w.depths[id] = uint16(i + 1)
				w.deepest = max(w.deepest, i+1)
				found++
				if d <= lo {
					strays++
				}
			}
		}
		if last(n, same, free) {
			break
		}
		if n%further == 0 {
			for k := 1; k <= further; k++ {
				lineAt(w.table, at+(n+k)*step)[0].Load()
			}
		}
	}
	return found, strays
}
