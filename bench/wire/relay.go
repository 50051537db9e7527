//go:build linux

package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// relayMain is a bare TCP relay over one epoll set: the floor of what carrying
// bytes through a process costs in Go. It connects each client to the next
// replica in turn and knows nothing of what they say.
func relayMain(ports []int) error {
	runtime.LockOSThread()
	debug.SetGCPercent(400)
	l, err := newLoop()
	if err != nil {
		return err
	}
	turn := 0
	err = l.listen(ports[0], func(fd int) {
		turn++
		to, err := dial(ports[1+turn%(len(ports)-1)])
		if err != nil {
			_ = unix.Close(fd)
			return
		}
		a, b := &half{l: l, fd: fd}, &half{l: l, fd: to}
		a.other, b.other = b, a
		if l.add(fd, a, unix.EPOLLIN) != nil || l.add(to, b, unix.EPOLLIN) != nil {
			a.close()
		}
	})
	if err != nil {
		return err
	}
	for {
		l.run(nanos()+int64(time.Hour), nil)
	}
}

// half is one side of a relayed connection.
type half struct {
	l     *loop
	fd    int
	other *half
	out   []byte // for this side, not yet taken by the kernel
	gone  bool
}

func (h *half) close() {
	for _, s := range []*half{h, h.other} {
		if !s.gone {
			s.gone = true
			s.l.close(s.fd)
		}
	}
}

func (h *half) ready(events uint32) {
	if events&unix.EPOLLOUT != 0 && len(h.out) > 0 {
		out := h.out
		h.out = nil
		h.send(out)
		h.interest()
	}
	if h.gone || len(h.other.out) > 0 || events&^unix.EPOLLOUT == 0 {
		return
	}
	n, errno := rawRead(h.fd, h.l.buf[:64<<10])
	switch {
	case errno == syscall.EAGAIN || errno == syscall.EINTR:
	case errno != 0 || n == 0:
		h.close()
	default:
		h.other.send(h.l.buf[:n])
	}
}

// send writes to this side. What the kernel does not take waits, and the other
// side is not read meanwhile.
func (h *half) send(b []byte) {
	n, errno := rawWrite(h.fd, b)
	if errno != 0 && errno != syscall.EAGAIN {
		h.close()
		return
	}
	if n < len(b) {
		h.out = append(h.out, b[max(n, 0):]...)
		h.interest()
	}
}

// interest tells epoll what both sides wait for.
func (h *half) interest() {
	for _, s := range []*half{h, h.other} {
		if s.gone {
			continue
		}
		events := uint32(0)
		if len(s.out) > 0 {
			events |= unix.EPOLLOUT
		}
		if len(s.other.out) == 0 {
			events |= unix.EPOLLIN
		}
		s.l.want(s.fd, events)
	}
}

// relay is the peer that runs relayMain.
func relay(p place) ([]string, error) {
	args := []string{"relay", strconv.Itoa(p.port)}
	for _, r := range p.replicas {
		args = append(args, strconv.Itoa(r))
	}
	return args, nil
}

// self is this program, for the roles it starts itself in.
func self() (string, error) { return os.Executable() }
