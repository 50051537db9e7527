package affinity

import (
	"sync"
	"sync/atomic"
	"time"
)

// table remembers homes by key. It is built like a processor's cache: a key has its place in one set of ways entries, and the
// least recently used of them makes room. So memory is fixed, an entry costs 24 bytes, and nothing is ever allocated but the
// table itself, with the first entry. Sets overflow while others have room: of n keys at random in a table for n, about one in
// seven is displaced (Poisson, 8 per set).
type table struct {
	entries int
	sets    atomic.Pointer[[]set]
	made    sync.Once
	locks   [stripes]stripe

	start   time.Time
	newest  atomic.Uint32 // the latest tick that was told, for callers without a clock
	ttl     atomic.Uint32 // ticks
	evicted atomic.Uint64
}

const (
	ways    = 8
	stripes = 64 // locks; more than cores that pick at once
)

type set [ways]entry

type entry struct {
	key, home uint64
	model     uint32
	seen      uint32 // tick of the last use; 0 is an empty entry
}

// home is where a key was bound to.
type home struct {
	replica uint64 // its mark
	model   uint32
}

type stripe struct {
	sync.Mutex
	_ [56]byte // a cache line each
}

// newTable makes a table for at least so many entries. They last ttl after their last use.
func newTable(entries int, ttl time.Duration) *table {
	t := &table{entries: entries, start: time.Now()}
	t.setTTL(ttl)
	return t
}

func (t *table) setTTL(d time.Duration) { t.ttl.Store(uint32(max(d/time.Second, 1))) }

// tick is a time in seconds since the table was made, never 0. A time that is not known counts as the latest one that was.
func (t *table) tick(now time.Time) uint32 {
	if now.IsZero() {
		return max(t.newest.Load(), 1)
	}
	n := uint32(max(now.Sub(t.start)/time.Second, 0)) + 1
	if n > t.newest.Load() {
		t.newest.Store(n) // once a second; a lost race is made good by the next pick
	}
	return n
}

// at returns the set of a key and its lock.
func (t *table) at(sets []set, key uint64) (*set, *stripe) {
	i := fold(key, prime2) % uint64(len(sets))
	return &sets[i], &t.locks[i%stripes]
}

// get finds a key and notes that it is in use.
func (t *table) get(key uint64, now time.Time) (home, bool) {
	return t.find(key, now, true)
}

// peek finds a key and leaves no trace.
func (t *table) peek(key uint64, now time.Time) (home, bool) {
	return t.find(key, now, false)
}

func (t *table) find(key uint64, now time.Time, use bool) (home, bool) {
	sets := t.sets.Load()
	if sets == nil {
		return home{}, false
	}
	tick, ttl := t.tick(now), t.ttl.Load()
	s, lock := t.at(*sets, key)
	lock.Lock()
	defer lock.Unlock()
	for i := range s {
		if e := &s[i]; e.key == key && e.seen != 0 && tick <= e.seen+ttl {
			if use {
				e.seen = max(e.seen, tick)
			}
			return home{e.home, e.model}, true
		}
	}
	return home{}, false
}

// put binds a key, in place of what it was bound to.
func (t *table) put(key uint64, h home, now time.Time) {
	t.made.Do(func() {
		sets := make([]set, (t.entries+ways-1)/ways)
		t.sets.Store(&sets)
	})
	tick, ttl := t.tick(now), t.ttl.Load()
	s, lock := t.at(*t.sets.Load(), key)
	lock.Lock()
	defer lock.Unlock()
	victim := &s[0]
	for i := range s {
		e := &s[i]
		if e.key == key && e.seen != 0 {
			victim = e
			break
		}
		if e.seen < victim.seen {
			victim = e
		}
	}
	if victim.seen != 0 && victim.key != key && tick <= victim.seen+ttl {
		t.evicted.Add(1)
	}
	*victim = entry{key: key, home: h.replica, model: h.model, seen: tick}
}

// drop forgets a key.
func (t *table) drop(key uint64) {
	sets := t.sets.Load()
	if sets == nil {
		return
	}
	s, lock := t.at(*sets, key)
	lock.Lock()
	defer lock.Unlock()
	for i := range s {
		if s[i].key == key {
			s[i] = entry{}
		}
	}
}

// live counts entries that have not expired. It walks the whole table, 2.4 MB for 100,000 entries, and is for scrapes.
func (t *table) live(now time.Time) (n int) {
	sets := t.sets.Load()
	if sets == nil {
		return 0
	}
	tick, ttl := t.tick(now), t.ttl.Load()
	for i := range *sets {
		lock := &t.locks[i%stripes]
		lock.Lock()
		for _, e := range (*sets)[i] {
			if e.seen != 0 && tick <= e.seen+ttl {
				n++
			}
		}
		lock.Unlock()
	}
	return n
}
