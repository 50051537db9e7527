//go:build linux

package main

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

var started = time.Now()

// nanos is a monotonic clock of this process. Replica and client live in the
// same process, so a stamp of one is a time of the other.
func nanos() int64 { return int64(time.Since(started)) }

// source is what the loop calls when its descriptor is ready.
type source interface {
	ready(events uint32)
}

type slot struct {
	s   source
	gen uint32
}

// loop is one thread over one epoll set. Reads and writes are raw system calls:
// they never block, and the runtime's bookkeeping around blocking calls would
// show in the latency of everything measured.
type loop struct {
	ep     int
	slots  []slot // by descriptor; the generation tells a reused one
	events [256]unix.EpollEvent
	buf    []byte
	timers timers
	// awake is how long the thread looks for events before it sleeps, in nanoseconds.
	awake int64
}

func newLoop() (*loop, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return &loop{ep: ep, buf: make([]byte, 256<<10)}, nil
}

func (l *loop) add(fd int, s source, events uint32) error {
	for fd >= len(l.slots) {
		l.slots = append(l.slots, make([]slot, 1024)...)
	}
	l.slots[fd].s = s
	return l.ctl(unix.EPOLL_CTL_ADD, fd, events)
}

func (l *loop) ctl(op, fd int, events uint32) error {
	return unix.EpollCtl(l.ep, op, fd, &unix.EpollEvent{Events: events, Fd: int32(fd), Pad: int32(l.slots[fd].gen)})
}

func (l *loop) want(fd int, events uint32) { _ = l.ctl(unix.EPOLL_CTL_MOD, fd, events) }

// close forgets a descriptor and closes it.
func (l *loop) close(fd int) {
	l.slots[fd].s = nil
	l.slots[fd].gen++
	_ = unix.Close(fd)
}

// reset closes with an RST, so that thousands of connections leave no
// TIME_WAIT behind that the next round would run into.
func (l *loop) reset(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	l.close(fd)
}

// once waits for events until a time and handles them and the timers that are due.
func (l *loop) once(until int64) {
	now := nanos()
	if due, ok := l.timers.next(); ok {
		until = min(until, due)
	}
	n := 0
	for end := min(until, now+l.awake); n == 0 && now < end; now = nanos() {
		n = epollWait(l.ep, l.events[:], 0)
	}
	if n == 0 {
		n = epollWait(l.ep, l.events[:], max(until-now, 0))
	}
	for i := range n {
		ev := &l.events[i]
		if s := &l.slots[ev.Fd]; s.s != nil && int32(s.gen) == ev.Pad {
			s.s.ready(ev.Events)
		}
	}
	// A bounded number, so that a burst of events does not keep the client from
	// reading those that are already here.
	for range 32 {
		if !l.timers.fire(nanos()) {
			break
		}
	}
}

// run turns the loop until cond holds or the time is over, and tells which.
func (l *loop) run(until int64, cond func() bool) bool {
	for {
		if cond != nil && cond() {
			return true
		}
		if nanos() >= until {
			return false
		}
		l.once(until)
	}
}

// epollWait is epoll_pwait2, whose timeout is in nanoseconds: at 50,000 events a
// second a millisecond would bunch fifty of them.
func epollWait(ep int, events []unix.EpollEvent, wait int64) int {
	ts := unix.NsecToTimespec(wait)
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT2, uintptr(ep), uintptr(unsafe.Pointer(&events[0])),
		uintptr(len(events)), uintptr(unsafe.Pointer(&ts)), 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

func rawRead(fd int, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return int(n), errno
}

func rawWrite(fd int, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return int(n), errno
}

// listen opens a listener on 127.0.0.1 and calls accepted for each connection.
func (l *loop) listen(port int, accepted func(fd int)) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if err := unix.Bind(fd, loopback(port)); err != nil {
		return err
	}
	if err := unix.Listen(fd, 4096); err != nil {
		return err
	}
	return l.add(fd, &listener{fd, accepted}, unix.EPOLLIN)
}

func loopback(port int) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}
}

type listener struct {
	fd       int
	accepted func(fd int)
}

func (s *listener) ready(uint32) {
	for range 64 {
		fd, _, err := unix.Accept4(s.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		noDelay(fd)
		s.accepted(fd)
	}
}

func noDelay(fd int) { _ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) }

// dial begins a connection; the descriptor is writable when it stands.
func dial(port int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	noDelay(fd)
	if err := unix.Connect(fd, loopback(port)); err != nil && err != unix.EINPROGRESS {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// timer is something that is due at a time. tick returns when it is due again, 0
// for never.
type timer struct {
	due  int64
	tick func(now int64) int64
}

// timers is a binary heap. Its one hot operation is to move the first entry back
// by an interval.
type timers struct{ heap []timer }

func (t *timers) next() (int64, bool) {
	if len(t.heap) == 0 {
		return 0, false
	}
	return t.heap[0].due, true
}

func (t *timers) add(due int64, tick func(now int64) int64) {
	t.heap = append(t.heap, timer{due, tick})
	for i := len(t.heap) - 1; i > 0; {
		parent := (i - 1) / 2
		if t.heap[parent].due <= t.heap[i].due {
			return
		}
		t.heap[parent], t.heap[i] = t.heap[i], t.heap[parent]
		i = parent
	}
}

// fire runs the first timer if it is due, and tells whether it was.
func (t *timers) fire(now int64) bool {
	if len(t.heap) == 0 || t.heap[0].due > now {
		return false
	}
	due := t.heap[0].tick(now)
	if due == 0 {
		last := len(t.heap) - 1
		t.heap[0] = t.heap[last]
		t.heap[last] = timer{}
		t.heap = t.heap[:last]
	} else {
		t.heap[0].due = due
	}
	t.down()
	return true
}

func (t *timers) down() {
	for i := 0; ; {
		child := 2*i + 1
		if child >= len(t.heap) {
			return
		}
		if right := child + 1; right < len(t.heap) && t.heap[right].due < t.heap[child].due {
			child = right
		}
		if t.heap[i].due <= t.heap[child].due {
			return
		}
		t.heap[i], t.heap[child] = t.heap[child], t.heap[i]
		i = child
	}
}
