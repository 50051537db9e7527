package sock

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Who waits for bytes or a departure here, and then reads without having been called,
// as a request does that has waited for admission, leaves a call on its way behind.
func TestAwaitReadableForgone(t *testing.T) {
	a, b := accepted(t, newWatch(t), 0)
	var writer sync.WaitGroup
	defer writer.Wait()
	const rounds = 3000
	writer.Go(func() {
		for range rounds {
			if _, err := b.Write([]byte("x")); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for got := 0; got < rounds; {
		if !a.AwaitReadable(func() {}) {
			t.Fatal("cannot wait")
		}
		buf, n, err := a.ReadBuf()
		if err != nil {
			t.Fatal(err)
		}
		PutBuf(buf)
		got += n
	}
	called := make(chan struct{}, 1)
	a.AwaitReadable(func() { called <- struct{}{} })
	b.Close()
	select {
	case <-called:
	case <-time.After(patience):
		t.Error("not called when the peer left")
	}
}

// More happens at once than a loop takes without going by the scheduler: what is left
// then is taken as well, though nothing more happens.
func TestMoreThanLoopTakes(t *testing.T) {
	w := ofOne(t, false)
	first, peer := dialled(t, w)
	held, all := make(chan struct{}), make(chan struct{})
	if !first.AwaitReadable(func() { <-held }) { // the loop stands still
		t.Fatal("AwaitReadable = false")
	}
	send(t, peer, "x")
	const conns = looksAmongOthers*batch + batch/2
	var told atomic.Int32
	for range conns {
		c, peer := dialled(t, w)
		c.AwaitReadable(func() {
			if told.Add(1) == conns {
				close(all)
			}
		})
		send(t, peer, "x")
	}
	close(held)
	within(t, "every connection is told", all)
}
