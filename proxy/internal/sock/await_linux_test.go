package sock

import (
	"sync"
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
	case <-time.After(10 * time.Second):
		t.Error("not called when the peer left")
	}
}
