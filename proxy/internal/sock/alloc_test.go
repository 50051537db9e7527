//go:build !race

package sock

import (
	"io"
	"testing"
	"time"
)

// One event from socket to socket: read, write, and the look at an idle
// connection.
func TestEventAllocatesNothing(t *testing.T) {
	up, replica := dialled(t, newWatch(t))
	client, browser := accepted(t, newWatch(t), time.Minute)
	event, buf := make([]byte, 250), make([]byte, 250)
	if n := testing.AllocsPerRun(200, func() {
		if !up.Quiet() {
			t.Fatal("not quiet")
		}
		replica.Write(event)
		b, n, err := up.ReadBuf()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Write(b.B[:n]); err != nil {
			t.Fatal(err)
		}
		PutBuf(b)
		io.ReadFull(browser, buf)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkEvent(b *testing.B) {
	up, replica := dialled(b, newWatch(b))
	client, browser := accepted(b, newWatch(b), time.Minute)
	event, buf := make([]byte, 250), make([]byte, 250)
	for b.Loop() {
		replica.Write(event)
		p, n, err := up.ReadBuf()
		if err != nil {
			b.Fatal(err)
		}
		client.Write(p.B[:n])
		PutBuf(p)
		io.ReadFull(browser, buf)
	}
}

func BenchmarkQuiet(b *testing.B) {
	c, _ := dialled(b, newWatch(b))
	for b.Loop() {
		if !c.Quiet() {
			b.Fatal("not quiet")
		}
	}
}

// One event carried by a loop.
func TestCarryAllocatesNothing(t *testing.T) {
	up, replica := dialled(t, newWatch(t))
	client, browser := accepted(t, newWatch(t), time.Minute)
	client.Bind(up)
	done := make(chan error, 1)
	go func() { done <- up.Pump(func(p []byte) bool { client.Write(p); return true }) }()
	event, buf := make([]byte, 250), make([]byte, 250)
	if n := testing.AllocsPerRun(200, func() {
		replica.Write(event)
		io.ReadFull(browser, buf)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	up.Close()
	<-done
}
