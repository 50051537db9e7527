package sock

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// polled is a socket that waits through a loop. The runtime's poller does not know
// it, so that what arrives is told once and not twice.
type polled struct {
	fd   int
	refs atomic.Int32 // users of fd, and polledClosed
	loop *loop
	gen  uint32       // tells it from an earlier socket with the same descriptor
	lent *net.TCPConn // whose descriptor fd is; nil = fd is its own
	conn *Conn

	rd, wr        gate
	local, remote net.Addr
}

// polledClosed is the bit of refs that says that nobody may begin to use fd. The
// last user closes it.
const polledClosed = 1 << 30

func (s *polled) use() bool {
	for {
		n := s.refs.Load()
		if n&polledClosed != 0 {
			return false
		}
		if s.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (s *polled) unuse() {
	if s.refs.Add(-1) == polledClosed {
		s.closeFD()
	}
}

func (s *polled) closeFD() error {
	if s.lent != nil {
		return s.lent.Close()
	}
	return os.NewSyscallError("close", unix.Close(s.fd))
}

// Read calls fn, again and again whenever there may be something to read, until it
// returns true. It fails at the deadline, without a call if that has passed.
func (s *polled) Read(fn func(fd uintptr) (done bool)) error { return s.try(&s.rd, fn) }

// Write is Read for writing.
func (s *polled) Write(fn func(fd uintptr) (done bool)) error { return s.try(&s.wr, fn) }

func (s *polled) try(g *gate, fn func(fd uintptr) bool) error {
	if !s.use() {
		return net.ErrClosed
	}
	defer s.unuse()
	if err := g.begin(); err != nil {
		return err
	}
	for !fn(uintptr(s.fd)) {
		if err := g.wait(gateWaiting); err != nil {
			return err
		}
	}
	return nil
}

// Control calls fn.
func (s *polled) Control(fn func(fd uintptr)) error {
	if !s.use() {
		return net.ErrClosed
	}
	defer s.unuse()
	fn(uintptr(s.fd))
	return nil
}

func (s *polled) SyscallConn() (syscall.RawConn, error) { return s, nil }

func (s *polled) LocalAddr() net.Addr  { return s.local }
func (s *polled) RemoteAddr() net.Addr { return s.remote }

func (s *polled) SetDeadline(t time.Time) error {
	return errors.Join(s.rd.setDeadline(t), s.wr.setDeadline(t))
}
func (s *polled) SetReadDeadline(t time.Time) error  { return s.rd.setDeadline(t) }
func (s *polled) SetWriteDeadline(t time.Time) error { return s.wr.setDeadline(t) }

func (s *polled) control(what string, fn func(fd int) error) error {
	var callErr error
	if err := s.Control(func(fd uintptr) { callErr = fn(int(fd)) }); err != nil {
		return err
	}
	return os.NewSyscallError(what, callErr)
}

func (s *polled) SetLinger(sec int) error {
	return s.control("setsockopt", func(fd int) error {
		l := unix.Linger{Linger: int32(max(sec, 0))}
		if sec >= 0 {
			l.Onoff = 1
		}
		return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &l)
	})
}

func (s *polled) SetWriteBuffer(bytes int) error {
	return s.control("setsockopt", func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, bytes)
	})
}

func (s *polled) CloseWrite() error {
	return s.control("shutdown", func(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) })
}

// Close ends every wait. The descriptor is closed by its last user, which may be a
// moment later.
func (s *polled) Close() error {
	for {
		n := s.refs.Load()
		if n&polledClosed != 0 {
			return net.ErrClosed
		}
		if !s.refs.CompareAndSwap(n, n|polledClosed) {
			continue
		}
		s.rd.end(gateClosed)
		s.wr.end(gateClosed)
		if n == 0 {
			return s.closeFD()
		}
		return nil
	}
}

// happened takes an event of the loop: departures first, so that who reads then
// knows of them. It reports whether a goroutine goes on.
func (s *polled) happened(events uint32, t *Turn) (others bool) {
	const gone = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	if events&gone != 0 {
		s.conn.hangup()
	}
	if events&(unix.EPOLLIN|gone) != 0 {
		switch s.rd.tell() {
		case woke:
			others = true
		case carry:
			t.pump(s)
		case call:
			s.conn.call()
			others = true
		case take:
			t.take(s)
		}
	}
	if events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 && s.wr.tell() == woke {
		others = true
	}
	return others
}

// adopt makes a connection wait through a loop of w. tc is closed, unless it fails: a
// second descriptor of its socket takes its place, which the runtime's poller does not
// know. Without a free descriptor it stays known to both, which only costs time: the
// last client that could be let in must not need two.
func (w *Watch) adopt(c *Conn, tc *net.TCPConn) error {
	s := &polled{conn: c, local: tc.LocalAddr(), remote: tc.RemoteAddr()}
	var err error
	if s.fd, err = dup(tc); err != nil {
		s.lent = tc
		if err := lend(tc, &s.fd); err != nil {
			return err
		}
	}
	c.TCPConn, c.raw = s, s
	if err := w.add(s); err != nil {
		s.Close()
		return err
	}
	if s.lent == nil {
		tc.Close()
	}
	return nil
}

// lend tells a socket's descriptor to who keeps tc for as long as it uses that.
func lend(tc *net.TCPConn, fd *int) error {
	raw, err := tc.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(own uintptr) { *fd = int(own) })
}

func dup(c syscall.Conn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	var fd int
	var dupErr error
	if err := raw.Control(func(old uintptr) {
		fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
	}); err != nil {
		return -1, err
	}
	return fd, os.NewSyscallError("fcntl", dupErr)
}

// native returns the socket as net knows it, for what only net can do, and a
// function that ends that.
func (c *Conn) native() (*net.TCPConn, func(), error) {
	s, ok := c.TCPConn.(*polled)
	if !ok {
		return c.TCPConn.(*net.TCPConn), func() {}, nil
	}
	var fd int
	if err := s.control("fcntl", func(old int) (err error) {
		fd, err = unix.FcntlInt(uintptr(old), unix.F_DUPFD_CLOEXEC, 0)
		return err
	}); err != nil {
		return nil, nil, err
	}
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	nc, err := net.FileConn(f)
	if err != nil {
		return nil, nil, err
	}
	tc, ok := nc.(*net.TCPConn)
	if !ok {
		nc.Close()
		return nil, nil, fmt.Errorf("socket of network %q, want tcp", nc.RemoteAddr().Network())
	}
	return tc, func() { tc.Close() }, nil
}
