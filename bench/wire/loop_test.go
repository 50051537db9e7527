//go:build linux

package main

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// once notes that its descriptor was ready.
type once struct{ told int }

func (o *once) ready(uint32) { o.told++ }

// A loop that stays awake hears what comes, fires its timers and ends when it should.
func TestLoopAwake(t *testing.T) {
	l, err := newLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(l.ep)
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[1])
	o := &once{}
	if err := l.add(p[0], o, unix.EPOLLIN); err != nil {
		t.Fatal(err)
	}
	defer l.close(p[0])
	for _, awake := range []time.Duration{0, time.Microsecond, time.Hour} {
		l.awake, o.told = int64(awake), 0
		if l.run(nanos()+int64(2*time.Millisecond), func() bool { return o.told > 0 }) {
			t.Errorf("awake for %v: told of nothing", awake)
		}
		fired := false
		l.timers.add(nanos()+int64(time.Millisecond), func(int64) int64 {
			fired = true
			_, _ = unix.Write(p[1], []byte("x"))
			return 0
		})
		if !l.run(nanos()+int64(time.Minute), func() bool { return o.told > 0 }) || !fired {
			t.Errorf("awake for %v: timer fired %t, told %d times", awake, fired, o.told)
		}
		rawRead(p[0], l.buf)
	}
}
