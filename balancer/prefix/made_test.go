package prefix

import (
	"runtime"
	"sync"
	"testing"
)

// However many requests come first at once, one table is made.
func TestOneTable(t *testing.T) {
	const bytes, rounds = 4 << 20, 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range rounds {
		x := New(Config{Bytes: bytes})
		var all sync.WaitGroup
		begin := make(chan struct{})
		for range 8 {
			all.Go(func() {
				<-begin
				if len(x.made()) != x.lines {
					t.Error("half a table")
				}
			})
		}
		close(begin)
		all.Wait()
	}
	runtime.ReadMemStats(&after)
	if made := after.TotalAlloc - before.TotalAlloc; made > rounds*bytes*5/4 {
		t.Errorf("%d MiB for %d tables of %d MiB", made>>20, rounds, bytes>>20)
	}
}
