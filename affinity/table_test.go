package affinity

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
	"unsafe"
)

func TestEntrySize(t *testing.T) {
	if n := unsafe.Sizeof(entry{}); n != 24 {
		t.Errorf("an entry is %d bytes; the documents say 24", n)
	}
}

// The table against a map: what it knows is right, and while there is room it knows everything.
func TestTable(t *testing.T) {
	start := time.Now()
	tb := newTable(8000, time.Hour)
	tb.start = start
	r := rand.New(rand.NewPCG(1, 2))
	model := map[uint64]home{}
	for i := range 4000 {
		key := r.Uint64()
		h := home{r.Uint64(), r.Uint32()}
		tb.put(key, h, start)
		model[key] = h
		if i%5 == 0 { // again
			h.replica++
			tb.put(key, h, start)
			model[key] = h
		}
		if i%7 == 0 {
			tb.drop(key)
			delete(model, key)
		}
	}
	known := 0
	for key, want := range model {
		got, ok := tb.get(key, start)
		if ok && got != want {
			t.Fatalf("key %x is %v; want %v", key, got, want)
		}
		if ok {
			known++
		}
	}
	if lost := len(model) - known; uint64(lost) != tb.evicted.Load() || lost > len(model)/20 {
		t.Errorf("%d of %d lost, %d counted as displaced", lost, len(model), tb.evicted.Load())
	}
	if n := tb.live(start); n != known {
		t.Errorf("%d live; want %d", n, known)
	}
	for range 1000 {
		if _, ok := tb.get(r.Uint64(), start); ok {
			t.Fatal("knows a key that was never put")
		}
	}
}

// Of a full set the least recently used entry makes room, expired ones first.
func TestTableMakesRoom(t *testing.T) {
	start := time.Now()
	tb := newTable(ways, time.Minute) // one set
	tb.start = start
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	for i := range ways {
		tb.put(uint64(i+1), home{}, at(i))
	}
	tb.get(1, at(20))  // key 1 is used again
	tb.peek(2, at(21)) // a peek is no use
	tb.put(100, home{}, at(22))
	for key, want := range map[uint64]bool{1: true, 2: false, 3: true, 8: true, 100: true} {
		if _, ok := tb.peek(key, at(22)); ok != want {
			t.Errorf("key %d known: %t", key, ok)
		}
	}
	if n := tb.evicted.Load(); n != 1 {
		t.Errorf("%d displaced; want 1", n)
	}
	tb.put(101, home{}, at(70)) // 3 expired at 62 s or so
	if n := tb.evicted.Load(); n != 1 {
		t.Errorf("%d displaced; want still 1", n)
	}
}

func TestTableWithoutAClock(t *testing.T) {
	tb := newTable(100, time.Minute)
	tb.put(1, home{replica: 7}, time.Time{})
	if h, ok := tb.get(1, time.Time{}); !ok || h.replica != 7 {
		t.Error("not known without a clock")
	}
	tb.get(2, tb.start.Add(time.Hour)) // somebody knows the time
	if _, ok := tb.get(1, time.Time{}); ok {
		t.Error("known an hour later")
	}
}

func TestTableIsMadeWithItsFirstEntry(t *testing.T) {
	tb := newTable(1<<20, time.Hour)
	tb.get(1, time.Now())
	tb.drop(1)
	if tb.live(time.Now()) != 0 || tb.sets.Load() != nil {
		t.Error("memory taken for nothing")
	}
}

// Many goroutines at once; the race detector looks on, and no answer is another key's.
func TestTableConcurrently(t *testing.T) {
	tb := newTable(512, time.Hour)
	now := time.Now()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 0))
			for range 3000 {
				key := r.Uint64N(1000) + 1
				switch r.IntN(10) {
				case 0:
					tb.drop(key)
				case 1:
					tb.live(now)
				case 2, 3, 4:
					tb.put(key, home{replica: key * 3, model: uint32(key)}, now)
				default:
					if h, ok := tb.get(key, now); ok && (h.replica != key*3 || h.model != uint32(key)) {
						t.Errorf("key %d has the home of %d", key, h.model)
					}
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkTable(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		tb := newTable(2*n, time.Hour)
		now := time.Now()
		for i := range n {
			tb.put(fold(uint64(i)+1, prime1), home{}, now)
		}
		b.Run(fmt.Sprintf("get/%d", n), func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				for i := rand.IntN(n); pb.Next(); i = (i + 7919) % n {
					tb.get(fold(uint64(i)+1, prime1), now)
				}
			})
		})
	}
}
