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
			var err error
			n, err = unix.EpollWait(int(fd), events, 0)
			return n > 0 || (err != nil && err != unix.EINTR)
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

func (w *Watch) find(ev *unix.EpollEvent) *Conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c := w.conns[ev.Fd]; c != nil && c.slot.gen == uint32(ev.Pad) {
		return c
	}
	return nil
}

func (w *Watch) add(c *Conn) error {
	var err error
	ctlErr := c.raw.Control(func(fd uintptr) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.gen++
		c.slot = watchSlot{fd: int32(fd), gen: w.gen}
		ev := unix.EpollEvent{Events: unix.EPOLLRDHUP | unix.EPOLLET, Fd: c.slot.fd, Pad: int32(c.slot.gen)}
		err = w.raw.Control(func(ep uintptr) {
			if e := unix.EpollCtl(int(ep), unix.EPOLL_CTL_ADD, int(fd), &ev); e != nil {
				c.slot.gen = 0
				err = fmt.Errorf("epoll: %w", e)
			}
		})
		if err == nil && c.slot.gen != 0 {
			w.conns[c.slot.fd] = c
		}
	})
	if ctlErr != nil {
		return ctlErr
	}
	if c.slot.gen == 0 && err == nil {
		err = fmt.Errorf("epoll: connection not added")
	}
	return err
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

// Arrived says whether the peer's kernel has acknowledged any of the bytes
// written after the first sent bytes of the connection. When it has not, the
// peer cannot have read them: a request that failed this way never ran.
// tcpi_bytes_acked (RFC 4898 tcpEStatsAppHCThruOctetsAcked) counts the SYN too.
// An unknown answer counts as arrived.
func (c *Conn) Arrived(sent int64) bool {
	arrived := true
	err := c.raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil {
			arrived = int64(info.Bytes_acked) > sent+1
		}
	})
	return err != nil || arrived
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
		c.Close()
	}
}
