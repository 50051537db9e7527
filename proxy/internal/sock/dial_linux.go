package sock

import (
	"context"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// keepAlive is how long a silent peer goes unasked whether it is there, in seconds, and
// keepAliveCount how often it is asked: as net has them (net.KeepAliveConfig).
const (
	keepAlive      = 15
	keepAliveCount = 9
)

// dialAddr connects to a literal address through a loop, without the runtime's poller.
// It needs little of a stack, which is most of what a live stream holds: the way
// through net.Dialer makes a goroutine's stack grow for good.
func dialAddr(ctx context.Context, to netip.AddrPort, timeout, stall time.Duration, w *Watch) (c *Conn, err error) {
	// A socket may connect to itself, when nobody listens on a port of the range that
	// ours are taken from (net/tcpsock_posix.go, selfConnect).
	for range 3 {
		if c, err = connect(ctx, to, timeout, stall, w); err != nil || !c.toItself() {
			break
		}
		c.Close()
		err = unix.ECONNREFUSED
	}
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: err}
	}
	return c, nil
}

func (c *Conn) toItself() bool { return c.LocalAddr().String() == c.RemoteAddr().String() }

func connect(ctx context.Context, to netip.AddrPort, timeout, stall time.Duration, w *Watch) (*Conn, error) {
	fd, err := openTCP(to)
	if err != nil {
		return nil, err
	}
	s := &polled{fd: fd, remote: net.TCPAddrFromAddrPort(to)}
	if err := s.connect(ctx, to, timeout, stall, w); err != nil {
		if s.conn != nil && s.loop != nil {
			s.loop.remove(s)
		}
		s.Close()
		return nil, err
	}
	return s.conn, nil
}

// openTCP opens a socket with the options that net sets.
func openTCP(to netip.AddrPort) (int, error) {
	family := unix.AF_INET6
	if to.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	for _, o := range [...]struct{ level, name, value int }{
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, keepAlive},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, keepAlive},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepAliveCount},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			unix.Close(fd)
			return -1, os.NewSyscallError("setsockopt", err)
		}
	}
	return fd, nil
}

// connect comes before the loop knows the socket: one that does not connect yet would
// look as if its peer had left.
func (s *polled) connect(ctx context.Context, to netip.AddrPort, timeout, stall time.Duration, w *Watch) error {
	var sa unix.Sockaddr = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	if to.Addr().Is4() {
		sa = &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	if err := unix.Connect(s.fd, sa); err != nil && err != unix.EINPROGRESS && err != unix.EINTR {
		return os.NewSyscallError("connect", err)
	}
	if timeout > 0 {
		s.wr.setDeadline(time.Now().Add(timeout))
	}
	s.conn = bare(w, stall)
	s.conn.TCPConn, s.conn.raw = s, s
	if err := w.add(s); err != nil {
		return err
	}
	if err := interruptible(ctx, s.expire, s.awaitConnected); err != nil {
		return err
	}
	return s.wr.setDeadline(time.Time{})
}

// expire makes what waits to write fail.
func (s *polled) expire() { s.wr.setDeadline(longAgo) }

func (s *polled) awaitConnected() error {
	var state error
	if err := s.Write(func(uintptr) bool {
		state = s.connected()
		return state != unix.EINPROGRESS
	}); err != nil {
		return err
	}
	return os.NewSyscallError("connect", state)
}

// connected returns EINPROGRESS as long as it is not known.
func (s *polled) connected() error {
	n, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return err
	}
	if n != 0 {
		return unix.Errno(n)
	}
	if _, err := unix.Getpeername(s.fd); err != nil {
		return unix.EINPROGRESS // and no error yet
	}
	own, err := unix.Getsockname(s.fd)
	if err != nil {
		return err
	}
	s.local = tcpAddr(own)
	return nil
}

func tcpAddr(sa unix.Sockaddr) net.Addr {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return &net.TCPAddr{IP: net.IP(sa.Addr[:]), Port: sa.Port}
	case *unix.SockaddrInet6:
		return &net.TCPAddr{IP: net.IP(sa.Addr[:]), Port: sa.Port}
	}
	return &net.TCPAddr{}
}
