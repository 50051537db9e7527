package sock

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
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
	looks := looksAmongOthers
	if n == 1 {
		looks = looksAlone
	}
	for range n {
		l, err := newLoop(looks)
		if err != nil {
			w.Close()
			return nil, fmt.Errorf("epoll: %w", err)
		}
		w.loops = append(w.loops, l)
	}
	return w, nil
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

// loop is one edge-triggered epoll set and the goroutine that serves it. The
// goroutine parks in the runtime's poller, on the descriptor of the set, so that no
// thread blocks and the scheduler stays in charge.
type loop struct {
	file *os.File
	raw  syscall.RawConn
	bell int // an eventfd in the set, for ring
	// looks is how often the loop looks for more before it goes by the scheduler.
	looks int
	done  chan struct{}

	mu      sync.Mutex
	sockets map[int32]*polled // by descriptor
	gen     uint32
}

func newLoop(looks int) (*loop, error) {
	fd, bell, err := newSet()
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "loop")
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		unix.Close(bell)
		return nil, err
	}
	l := &loop{file: f, raw: raw, bell: bell, looks: looks, done: make(chan struct{}), sockets: map[int32]*polled{}}
	go l.run()
	return l, nil
}

// newSet makes an epoll set with a bell in it.
func newSet() (set, bell int, err error) {
	set, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return 0, 0, err
	}
	bell, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(set)
		return 0, 0, err
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(bell)}
	err = errors.Join(unix.SetNonblock(set, true), unix.EpollCtl(set, unix.EPOLL_CTL_ADD, bell, &ev))
	if err != nil {
		unix.Close(set)
		unix.Close(bell)
		return 0, 0, err
	}
	return set, bell, nil
}

func (l *loop) close() error {
	err := l.file.Close()
	if errors.Is(err, os.ErrClosed) {
		return err // by then the bell's number may be another descriptor's
	}
	<-l.done
	return errors.Join(err, unix.Close(l.bell))
}

// batch is how many events are taken at once.
const batch = 128

func (l *loop) run() {
	defer close(l.done)
	defer l.deafen()
	var k work
	defer k.turn.end()
	l.raw.Read(func(fd uintptr) bool {
		for range l.looks {
			if !l.serve(fd, &k) {
				return k.n < 0
			}
		}
		if k.left() {
			l.ring()
		}
		// What happens after the last look is told to the poller, which then does not
		// let the goroutine wait.
		return false
	}) // ends when it is closed
}

// Only in the scheduler, and only when nothing is left to run, does a busy processor ask
// the poller about the other loops. Else the system's monitor does, after 10 ms (sysmon
// in runtime/proc.go). A loop that is the only one keeps nobody waiting but what comes
// to the poller besides, and a look by the scheduler costs it 3 % of a small request.
const (
	looksAmongOthers = 4
	looksAlone       = 32
)

// work is what a loop does at once.
type work struct {
	events  [batch]unix.EpollEvent
	sockets [batch]*polled
	n       int // events
	turn    Turn
}

// serve does what there is to do. It says whether there is likely to be more: a loop
// that is told of things one by one has the time to wait for the next.
func (l *loop) serve(fd uintptr, k *work) (more bool) {
	k.n = epollNow(fd, k.events[:])
	if k.n < 0 || k.n == 0 && len(k.turn.again) == 0 {
		return false
	}
	l.find(k.events[:k.n], &k.sockets)
	k.turn.others = false
	for i, s := range k.sockets[:k.n] {
		if s != nil && s.happened(k.events[i].Events, &k.turn) {
			k.turn.others = true
		}
	}
	k.turn.work()
	if k.turn.others {
		// They come first; with one processor they would else wait until nothing
		// more happens.
		runtime.Gosched()
	}
	return k.n > 1 || len(k.turn.again) > 0
}

// left says that there is something to do that nobody will tell of.
func (k *work) left() bool { return k.n == batch || len(k.turn.again) > 0 }

// ring has the poller told of the loop's set, whatever was told before.
func (l *loop) ring() { unix.Write(l.bell, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

// epollNow does not wait; it returns -1 when the set cannot be read.
func epollNow(fd uintptr, events []unix.EpollEvent) int {
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, fd, uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
		switch errno {
		case 0:
			return int(n)
		case syscall.EINTR:
		default:
			return -1
		}
	}
}

// deafen lets nobody wait for a loop that has ended.
func (l *loop) deafen() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.sockets {
		s.rd.end(gateDeaf)
		s.wr.end(gateDeaf)
	}
}

// find looks up whom events are about: nil for those that are closed already.
func (l *loop) find(events []unix.EpollEvent, found *[batch]*polled) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range events {
		s := l.sockets[events[i].Fd]
		if s != nil && s.gen != uint32(events[i].Pad) {
			s = nil
		}
		found[i] = s
	}
}

// add holds the lock over both steps: find waits for it, so an event that comes
// at once finds the socket.
func (l *loop) add(s *polled) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gen++
	s.loop, s.gen = l, l.gen
	var addErr error
	err := l.raw.Control(func(ep uintptr) {
		ev := unix.EpollEvent{
			Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET,
			Fd:     int32(s.fd), Pad: int32(s.gen),
		}
		addErr = unix.EpollCtl(int(ep), unix.EPOLL_CTL_ADD, s.fd, &ev)
	})
	for _, e := range []error{err, addErr} {
		if e != nil {
			return fmt.Errorf("epoll: %w", e)
		}
	}
	l.sockets[int32(s.fd)] = s
	return nil
}

func (l *loop) remove(s *polled) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sockets[int32(s.fd)] == s {
		delete(l.sockets, int32(s.fd))
	}
}

func (l *loop) list() (conns []*Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.sockets {
		conns = append(conns, s.conn)
	}
	return conns
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
