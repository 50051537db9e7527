package sock

import (
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// gate is where the goroutine of one side of a connection waits, reading or
// writing, and where the loop tells it that it may go on. It is what the runtime's
// poller keeps per descriptor (runtime/netpoll.go), with two more ways of waiting.
//
// Invariant: who takes the gate out of a waiting state, by compare and swap, and
// nobody else, wakes who waits, once.
type gate struct {
	state  atomic.Uint32
	flags  atomic.Uint32
	wake   chan struct{} // made by the first who waits
	reader Reader        // set by who rests the connection

	mu    sync.Mutex // of the deadline
	due   time.Time
	timer *time.Timer
}

// States of a gate.
const (
	gateIdle    uint32 = iota
	gateReady          // something has happened since begin
	gateWaiting        // a goroutine waits
	gatePumped         // a goroutine waits, and the loop is to carry what comes
	gateBusy           // the loop carries
	gateParked         // nobody waits: a function is to be called
	gateResting        // nobody waits: the loop is to read for reader
)

// Flags of a gate.
const (
	gateClosed  uint32 = 1 << iota
	gateExpired        // the deadline has passed
	gateDeaf           // the loop has ended: nobody would wake
)

func (g *gate) set(flag uint32) { g.flags.Or(flag) }

// err is why nothing may be tried any more.
func (g *gate) err() error { return reason(g.flags.Load()) }

func reason(f uint32) error {
	switch {
	case f&gateClosed != 0:
		return net.ErrClosed
	case f&gateExpired != 0:
		return os.ErrDeadlineExceeded
	}
	return nil
}

// begin forgets what was told before: it comes in front of a try, which would find
// it.
func (g *gate) begin() error {
	if err := g.err(); err != nil {
		return err
	}
	g.state.Store(gateIdle)
	return nil
}

// wait waits until something was told since begin. as is gateWaiting or gatePumped.
func (g *gate) wait(as uint32) error {
	if g.wake == nil {
		g.wake = make(chan struct{}, 1)
	}
	for !g.state.CompareAndSwap(gateIdle, as) {
		if g.state.CompareAndSwap(gateReady, gateIdle) {
			return g.err()
		}
	}
	// An end that came before the state was set has woken nobody.
	if g.hopeless() && g.state.CompareAndSwap(as, gateIdle) {
		return g.over()
	}
	<-g.wake
	return g.over()
}

func (g *gate) hopeless() bool { return g.flags.Load() != 0 }

// over is why there is nothing to wait for. The flags are looked at once: a deadline
// that passes between two looks would be taken for an end.
func (g *gate) over() error {
	f := g.flags.Load()
	if err := reason(f); err != nil || f == 0 {
		return err
	}
	return net.ErrClosed
}

// rest begins a wait that r is told the end of. It returns false when something has
// happened since begin.
func (g *gate) rest(r Reader) bool {
	g.reader = r
	for !g.state.CompareAndSwap(gateIdle, gateResting) {
		if g.state.CompareAndSwap(gateReady, gateIdle) {
			return false
		}
	}
	if g.hopeless() { // since when nobody could wake
		g.unblock()
	}
	return true
}

// told is what a gate wants the loop to do.
type told uint8

const (
	nothing told = iota
	woke         // a goroutine goes on
	carry        // and then carried
	call         // the parked connection's function
	take         // what is there is to be read, for reader
)

// tell says that there is something to try. It is for the loop.
func (g *gate) tell() told {
	for {
		switch s := g.state.Load(); s {
		case gateIdle:
			if g.state.CompareAndSwap(s, gateReady) {
				return nothing
			}
		case gateWaiting:
			if g.state.CompareAndSwap(s, gateIdle) {
				g.wake <- struct{}{}
				return woke
			}
		case gatePumped:
			if g.state.CompareAndSwap(s, gateBusy) {
				return carry
			}
		case gateParked:
			if g.state.CompareAndSwap(s, gateIdle) {
				return call
			}
		case gateResting:
			if g.state.CompareAndSwap(s, gateIdle) {
				return take
			}
		default:
			return nothing
		}
	}
}

// carried ends what tell began with carry: with more the goroutine waits on.
func (g *gate) carried(more bool) {
	if !more {
		g.state.Store(gateIdle)
		g.wake <- struct{}{}
		return
	}
	g.state.Store(gatePumped)
	if g.hopeless() { // since when nobody could wake
		g.unblock()
	}
}

// unblock wakes who waits, after a flag was set.
func (g *gate) unblock() {
	for {
		s := g.state.Load()
		if s != gateWaiting && s != gatePumped && s != gateResting {
			return // who is about to wait looks at the flags, as does carried
		}
		if !g.state.CompareAndSwap(s, gateIdle) {
			continue
		}
		if s == gateResting {
			g.reader.Ended()
		} else {
			g.wake <- struct{}{}
		}
		return
	}
}

// end makes every wait fail, now and later.
func (g *gate) end(flag uint32) {
	g.set(flag)
	g.unblock()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.timer != nil {
		g.timer.Stop()
	}
}

// setDeadline makes what waits fail at t; zero means never.
func (g *gate) setDeadline(t time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.flags.Load()&gateClosed != 0 {
		return net.ErrClosed
	}
	g.due = t
	if g.timer != nil {
		g.timer.Stop()
	}
	if t.IsZero() {
		g.flags.And(^gateExpired)
		return nil
	}
	left := time.Until(t)
	if left <= 0 {
		g.set(gateExpired)
		g.unblock()
		return nil
	}
	g.flags.And(^gateExpired)
	if g.timer == nil {
		g.timer = time.AfterFunc(left, g.expire)
	} else {
		g.timer.Reset(left)
	}
	return nil
}

// expire is called by the timer, perhaps for a deadline that was moved meanwhile.
func (g *gate) expire() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.due.IsZero() || time.Now().Before(g.due) {
		return
	}
	g.set(gateExpired)
	g.unblock()
}
