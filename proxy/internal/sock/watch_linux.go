package sock

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
)

// watchHears says that a peer's end is told even when it came together with bytes.
const watchHears = true

// Watch hears of everything that happens to connections: what they wait for, and
// peers that close or reset, whether or not anybody reads. A client that only closes
// its sending side counts as gone, as it does for uvicorn. It has as many loops as
// the program may use processors; a connection stays with one.
type Watch struct {
	loops []*loop
	next  atomic.Uint32
}

// NewWatch starts the loops; Close ends them.
func NewWatch() (*Watch, error) {
	w := &Watch{}
	n := runtime.GOMAXPROCS(0)
	for range n {
		l, err := newLoop(n == 1)
		if err != nil {
			w.Close()
			return nil, fmt.Errorf("epoll: %w", err)
		}
		l.number = len(w.loops)
		w.loops = append(w.loops, l)
	}
	return w, nil
}

// Near is the part of the watch that hears of what a loop hears of, given its number. A
// replica's connection belongs near the client's: what a request needs then stays in the
// caches of one processor. With AnyLoop it is the watch itself.
func (w *Watch) Near(loop int) *Watch {
	if loop == AnyLoop || len(w.loops) == 1 {
		return w
	}
	return &Watch{loops: w.loops[loop : loop+1]}
}

// Loop is the number of the loop that hears of the connection.
func (c *Conn) Loop() int {
	if s, ok := c.TCPConn.(*polled); ok && s.loop != nil {
		return s.loop.number
	}
	return AnyLoop
}

// Close stops the loops and waits for their goroutines. Connections stay open; what
// waits, and whoever wants to wait, is told that they are closed.
func (w *Watch) Close() error {
	var errs []error
	for _, l := range w.loops {
		errs = append(errs, l.close())
	}
	return errors.Join(errs...)
}

func (w *Watch) add(s *polled) error {
	return w.loops[int(w.next.Add(1))%len(w.loops)].add(s)
}

// remove must come before the descriptor is closed; closing takes it out of the
// epoll set.
func (w *Watch) remove(c *Conn) {
	s := c.TCPConn.(*polled)
	if s.loop != nil {
		s.loop.remove(s)
	}
}

// CloseAll closes every connection that is watched.
func (w *Watch) CloseAll() {
	var conns []*Conn
	for _, l := range w.loops {
		conns = append(conns, l.list()...)
	}
	cutAll(conns)
}

// AwaitReadable calls wake, once, when there is something to read: bytes, an end or
// an error. Until then the connection needs no goroutine. wake is called by a loop,
// or by AwaitReadable itself, and must not block. Who reads without having been called
// forgoes the call; if he waits here again at once he may be called early. It returns
// false, and will not call, when this connection cannot be waited for in this way.
func (c *Conn) AwaitReadable(wake func()) bool {
	s, ok := c.TCPConn.(*polled)
	if !ok || !s.use() {
		return false
	}
	defer s.unuse()
	g := &s.rd
	// First out of an older parking: a loop that takes that for this one would call
	// the new function before the connection is parked.
	g.state.Store(gateIdle)
	c.mu.Lock()
	c.wake = wake
	c.mu.Unlock()
	for {
		g.state.Store(gateIdle)
		if !rawQuiet(uintptr(s.fd)) || g.hopeless() {
			c.call()
			return true
		}
		if g.state.CompareAndSwap(gateIdle, gateParked) {
			return true
		}
	}
}

// unparked takes the connection out of its parking.
func (c *Conn) unparked() bool {
	s, ok := c.TCPConn.(*polled)
	return ok && s.rd.state.CompareAndSwap(gateParked, gateIdle)
}
