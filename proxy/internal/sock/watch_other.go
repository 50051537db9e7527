//go:build !linux

package sock

import (
	"maps"
	"slices"
	"sync"
)

// Watch only keeps a list of connections on this system: a client that leaves is
// noticed when the next byte is written to it.
type Watch struct {
	mu    sync.Mutex
	conns map[*Conn]struct{}
}

// watchHears says that nobody is told of an end that came together with bytes.
const watchHears = false

type watchSlot struct{}

// NewWatch returns a watch that never hears anything.
func NewWatch() (*Watch, error) { return &Watch{conns: map[*Conn]struct{}{}}, nil }

// Close does nothing.
func (w *Watch) Close() error { return nil }

func (w *Watch) add(c *Conn) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns[c] = struct{}{}
	return nil
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

// AwaitReadable cannot be had on this system.
func (c *Conn) AwaitReadable(func()) bool { return false }
