package sock

import (
	"errors"
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

// watchHears says that a peer's end is told even when it came together with bytes.
const watchHears = true

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
				c.happened(events[i].Events)
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

// AwaitReadable calls wake, once, when there is something to read: bytes, an end or
// an error. Until then the connection needs no goroutine. wake is called by the
// watch's own goroutine and must not block. It returns false, and will not call,
// when this connection cannot be waited for in this way.
func (c *Conn) AwaitReadable(wake func()) bool {
	if c.watch == nil {
		return false
	}
	c.mu.Lock()
	c.wake = wake
	c.mu.Unlock()
	if c.listen(unix.EPOLLRDHUP|unix.EPOLLIN|unix.EPOLLET) == nil {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	called := c.wake == nil
	c.wake = nil
	return called
}

// listen says what the watch is to hear of. What has happened already is told at
// once, edge-triggered or not (ep_modify in fs/eventpoll.c polls the file).
func (c *Conn) listen(events uint32) error {
	var setErr, modErr error
	err := c.raw.Control(func(fd uintptr) {
		setErr = c.watch.raw.Control(func(ep uintptr) {
			ev := unix.EpollEvent{Events: events, Fd: c.slot.fd, Pad: int32(c.slot.gen)}
			modErr = unix.EpollCtl(int(ep), unix.EPOLL_CTL_MOD, int(fd), &ev)
		})
	})
	return errors.Join(err, setErr, modErr)
}

// happened takes an event. A connection that is read from again is not to be heard
// of for each packet, so the watch goes back to departures first.
func (c *Conn) happened(events uint32) {
	c.mu.Lock()
	wake := c.wake
	c.wake = nil
	c.mu.Unlock()
	if wake != nil && events&unix.EPOLLIN != 0 {
		c.listen(unix.EPOLLRDHUP | unix.EPOLLET) // fails on a closed connection only
	}
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		c.hangup()
	}
	if wake != nil {
		wake()
	}
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
	cutAll(conns)
}
