package sock

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// loop is one edge-triggered epoll set and the goroutine that serves it. The
// goroutine parks in the runtime's poller, on the descriptor of the set, so that no
// thread blocks and the scheduler stays in charge; but see shortWait.
type loop struct {
	file   *os.File
	raw    syscall.RawConn
	bell   int  // an eventfd in the set, for ring
	alone  bool // the only one
	number int  // in its watch
	done   chan struct{}

	mu      sync.Mutex
	sockets map[int32]*polled // by descriptor
	gen     uint32
}

func newLoop(alone bool) (*loop, error) {
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
	l := &loop{file: f, raw: raw, bell: bell, alone: alone, done: make(chan struct{}), sockets: map[int32]*polled{}}
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

// pumpsAtOnce is how many streams' events are read before they are written: what is read
// first waits for the rest. In bursts of 13 events, all at once, the median event was 10 to
// 40 us later than through nginx; by fours it is not, for up to a tenth more work
// (bench/wire/README.md).
const pumpsAtOnce = 4

func (l *loop) run() {
	defer close(l.done)
	defer l.deafen()
	k := work{epoch: time.Now()}
	defer k.turn.end()
	l.raw.Read(func(fd uintptr) bool {
		l.visit(fd, &k)
		// What happens after the last look is told to the poller, which then does not
		// let the goroutine wait.
		return k.n < 0
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

// A loop that is the only one, and whose last wait was short, takes the next one in its
// own set. The way through the scheduler, which asks the poller twice before it sleeps,
// costs a request on one connection a tenth to a fifth. Who is ready to run runs first;
// who becomes ready meanwhile, as the poller or a timer tells, waits for the processor,
// holdFor and longestWait at a time. So each wait for nothing leaves twice as many of the
// next short ones to the poller as the last such did, up to mostSpared, and each other
// wait halves that: where replicas run in this very process (lbd demo), it is they that
// are held up.
const (
	shortWait = time.Millisecond
	holdFor   = 2 * time.Millisecond
	// A timer that is due before the kernel's own tick, every 4 ms with CONFIG_HZ=250,
	// has to be set in the hardware, which leaves a virtual machine: with 0.05 to 1 ms a
	// request on one connection cost 1.1 to 1.4 times what it did without all this.
	longestWait = 4 * time.Millisecond
	// To sleep and be woken costs 10 to 15 us of the processor on a virtual machine (an
	// event that comes alone beside one of many). Who spins for about as long before he
	// sleeps spends at most some twice of what he would have, had he known (Karlin, Li,
	// Manasse and Owicki, Empirical Studies of Competitive Spinning, SOSP 1991).
	spinFor    = 20 * time.Microsecond
	mostSpared = 255
)

// work is what a loop does at once.
type work struct {
	events  [batch]unix.EpollEvent
	sockets [batch]*polled
	n       int // events
	turn    Turn

	epoch time.Time
	slept time.Duration // since the epoch: when there was nothing left to do
	wait  time.Duration // how long the last one took, at most
	spare int           // short waits to leave to the poller
	wrong int           // how many that were after the last wait for nothing
}

// visit does what there is to do, until the loop should go by the scheduler.
func (l *loop) visit(fd uintptr, k *work) {
	if k.look(fd) && l.alone {
		k.woke()
	}
	until := k.slept + k.wait + holdFor
	for look := 1; k.any() || l.alone && k.await(fd, until); look++ {
		more := l.serve(k)
		switch {
		case look == l.looks():
			if k.left() {
				l.ring()
			}
			return
		case more:
			k.look(fd)
		default:
			k.n = 0
		}
	}
}

func (l *loop) looks() int {
	if l.alone {
		return looksAlone
	}
	return looksAmongOthers
}

// any says that there is something to do.
func (k *work) any() bool { return k.n > 0 || k.n == 0 && len(k.turn.again) > 0 }

// look sees whether something has happened.
func (k *work) look(fd uintptr) bool {
	k.n = epoll(fd, k.events[:], 0)
	return k.n > 0
}

// await waits for something to happen, unless that may take long or it is late.
func (k *work) await(fd uintptr, until time.Duration) bool {
	k.slept = time.Since(k.epoch)
	if k.n < 0 || k.wait > shortWait || k.slept > until {
		return false
	}
	if k.spare > 0 {
		k.spare--
		return false
	}
	runtime.Gosched() // a turn may have woken whom it does not know: who waits for room, the log
	for k.wait < spinFor && !k.look(fd) && time.Since(k.epoch) < k.slept+spinFor {
	}
	if k.n == 0 {
		k.n = epoll(fd, k.events[:], longestWait)
	}
	k.woke()
	k.learn()
	return k.n > 0
}

// learn judges a wait in the loop's own set.
func (k *work) learn() {
	if k.n > 0 {
		k.wrong /= 2
		return
	}
	k.wrong = min(2*k.wrong+1, mostSpared)
	k.spare = k.wrong
}

// woke notes the end of a wait.
func (k *work) woke() { k.wait = time.Since(k.epoch) - k.slept }

// serve does what there is to do. It says whether there is likely to be more: a loop
// that is told of things one by one has the time to wait for the next.
func (l *loop) serve(k *work) (more bool) {
	l.find(k.events[:k.n], &k.sockets)
	k.turn.others = false
	for i, s := range k.sockets[:k.n] {
		if s != nil && s.happened(k.events[i].Events, &k.turn) {
			k.turn.others = true
		}
		if len(k.turn.pumps) >= pumpsAtOnce {
			k.turn.carry()
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

// epoll returns how many events there are, once there is one or the time is over, or -1
// when the set cannot be read. A wait that is interrupted is over: the runtime wants the
// processor. wait is a multiple of a millisecond.
func epoll(fd uintptr, events []unix.EpollEvent, wait time.Duration) int {
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, fd, uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)),
		uintptr(wait.Milliseconds()), 0, 0)
	switch errno {
	case 0:
		return int(n)
	case syscall.EINTR:
		return 0
	}
	return -1
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
