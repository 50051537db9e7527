//go:build !linux

package sock

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Watch only keeps a list of connections on this system: a client that leaves is
// noticed when the next byte is written to it.
type Watch struct {
	mu    sync.Mutex
	conns map[*Conn]struct{}
}

// watchHears says that nobody is told of an end that came together with bytes.
const watchHears = false

// NewWatch returns a watch that never hears anything.
func NewWatch() (*Watch, error) { return &Watch{conns: map[*Conn]struct{}{}}, nil }

// Near is the watch itself: there are no loops.
func (w *Watch) Near(int) *Watch { return w }

// Loop says that no loop hears of the connection.
func (c *Conn) Loop() int { return AnyLoop }

// Close does nothing.
func (w *Watch) Close() error { return nil }

// adopt leaves the socket with the runtime's poller.
func (w *Watch) adopt(c *Conn, tc *net.TCPConn) (err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns[c] = struct{}{}
	c.TCPConn = tc
	c.raw, err = tc.SyscallConn()
	return err
}

func (w *Watch) remove(c *Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, c)
}

// CloseAll closes every connection that is watched.
func (w *Watch) CloseAll() {
	w.mu.Lock()
	conns := slices.Collect(maps.Keys(w.conns))
	w.mu.Unlock()
	cutAll(conns)
}

// Arrived cannot be known on this system, so it is assumed.
func (c *Conn) Arrived(int64) bool { return true }

// dialAddr is for loops, which there are none of.
func dialAddr(context.Context, netip.AddrPort, time.Duration, time.Duration, *Watch) (*Conn, error) {
	panic("BUG: a loop without loops")
}

func (c *Conn) native() (*net.TCPConn, func(), error) {
	return c.TCPConn.(*net.TCPConn), func() {}, nil
}

func (c *Conn) unparked() bool { return false }

func (c *Conn) carried() error { return c.raw.Read(c.pumpFn) }

// hold is for loops, which there are none of.
func (c *Conn) hold([]byte) (int, error) { panic("BUG: a loop without loops") }

// AwaitReadable cannot be had on this system.
func (c *Conn) AwaitReadable(func()) bool { return false }

// Turn is for loops, which there are none of.
type Turn struct{}

func (t *Turn) Go(func())                  { panic("BUG: a loop without loops") }
func (t *Turn) Send(*Conn, []byte, Sender) { panic("BUG: a loop without loops") }
func (t *Turn) Ask(*Conn, []byte, Sender)  { panic("BUG: a loop without loops") }
func (t *Turn) Await(*Conn, Reader)        { panic("BUG: a loop without loops") }

// Stir is for connections that rest.
func (c *Conn) Stir() {}

// Rest cannot be had on this system.
func (c *Conn) Rest(Reader) bool { return false }
