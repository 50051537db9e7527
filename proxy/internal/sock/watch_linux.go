package sock

import (
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Watch hears of peers that close or reset their connection, whether or not
// anybody reads from it: one edge-triggered epoll set that waits for EPOLLRDHUP,
// served by one goroutine that parks in the runtime's poller. A client that only
// closes its sending side counts as gone, as it does for uvicorn.
type Watch struct {
	file *os.File
	raw  syscall.RawConn
	done chan struct{}

	mu    sync.Mutex
	conns map[int32]*Conn // by descriptor
	gen   uint32
}

// watchSlot finds a connection again and tells it from an earlier one with the
// same descriptor.
type watchSlot struct {
	fd  int32
	gen uint32
}

// NewWatch starts the watch; Close ends it.
func NewWatch() (*Watch, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("epoll: %w", err)
	}
	f := os.NewFile(uintptr(fd), "client watch")
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("epoll: %w", err)
	}
	w := &Watch{file: f, raw: raw, done: make(chan struct{}), conns: map[int32]*Conn{}}
	go w.run()
	return w, nil
}

// Close stops the watch and waits for its goroutine. Connections stay open.
func (w *Watch) Close() error {
	err := w.file.Close()
	<-w.done
	return err
}

func (w *Watch) run() {
	defer close(w.done)
	events := make([]unix.EpollEvent, 128)
	for {
		n := 0
		err := w.raw.Read(func(fd uintptr) bool {
			n = epollNow(int(fd), events)
			return n != 0
		})
		if err != nil || n < 0 {
			return // closed
		}
		for i := range events[:n] {
			if c := w.find(&events[i]); c != nil {
				c.hangup()
			}
		}
	}
}

// epollNow does not wait; it returns -1 when the set cannot be read.
func epollNow(fd int, events []unix.EpollEvent) int {
	for {
		n, err := unix.EpollWait(fd, events, 0)
		switch err {
		case nil:
			return n
		case unix.EINTR:
		default:
			return -1
		}
	}
}

func (w *Watch) find(ev *unix.EpollEvent) *Conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c := w.conns[ev.Fd]; c != nil && c.slot.gen == uint32(ev.Pad) {
		return c
	}
	return nil
}

// add holds the lock over both steps: find waits for it, so an event that comes
// at once finds the connection.
func (w *Watch) add(c *Conn) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var setErr, addErr error
	err := c.raw.Control(func(fd uintptr) {
		setErr = w.raw.Control(func(ep uintptr) { addErr = w.enter(int(ep), int(fd), c) })
	})
	for _, e := range []error{err, setErr, addErr} {
		if e != nil {
			return fmt.Errorf("epoll: %w", e)
		}
	}
	return nil
}

func (w *Watch) enter(ep, fd int, c *Conn) error {
	w.gen++
	c.slot = watchSlot{fd: int32(fd), gen: w.gen}
	ev := unix.EpollEvent{Events: unix.EPOLLRDHUP | unix.EPOLLET, Fd: c.slot.fd, Pad: int32(w.gen)}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return err
	}
	w.conns[c.slot.fd] = c
	return nil
}

// remove must come before the descriptor is closed; closing takes it out of the
// epoll set.
func (w *Watch) remove(c *Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conns[c.slot.fd] == c {
		delete(w.conns, c.slot.fd)
	}
}

// CloseAll closes every connection that is watched.
func (w *Watch) CloseAll() {
	w.mu.Lock()
	conns := make([]*Conn, 0, len(w.conns))
	for _, c := range w.conns {
		conns = append(conns, c)
	}
	w.mu.Unlock()
	for _, c := range conns {
		c.hangup()
		c.abort()
	}
}
