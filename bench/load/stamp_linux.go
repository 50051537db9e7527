//go:build linux && (amd64 || arm64)

package load

import (
	"io"
	"net"
	"syscall"
	"time"
	"unsafe"
)

// stamper reads a TCP connection together with the kernel's receive stamps
// (SO_TIMESTAMPNS; socket(7), Documentation/networking/timestamping.rst). With
// thousands of streams on a processor an event may lie in the socket for a while
// before its goroutine gets to it; that time is the client's, and the stamp leaves
// it out.
type stamper struct {
	raw   syscall.RawConn
	read  func(fd uintptr) bool // made once: a closure for each read would be garbage
	into  []byte
	n     int
	errno syscall.Errno
	head  syscall.Msghdr
	iov   syscall.Iovec
	oob   [stampSpace]byte
}

// stampSpace holds one control message with a struct timespec.
const stampSpace = 64

// newStamper returns nil where the kernel gives no stamps.
func newStamper(c net.Conn) *stamper {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return nil // TLS, or a test's pipe
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return nil
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_TIMESTAMPNS, 1)
	})
	if err != nil || set != nil {
		return nil
	}
	s := &stamper{raw: raw}
	s.read = s.receive
	return s
}

// receive is one recvmsg; false means there is nothing to read yet. The socket
// does not block, so the scheduler need not hear of the call.
func (s *stamper) receive(fd uintptr) bool {
	s.iov.Base = &s.into[0]
	s.iov.SetLen(len(s.into))
	s.head = syscall.Msghdr{Iov: &s.iov, Iovlen: 1, Control: &s.oob[0]}
	s.head.SetControllen(len(s.oob))
	n, _, errno := syscall.RawSyscall(syscall.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&s.head)), syscall.MSG_DONTWAIT)
	s.n, s.errno = int(n), errno
	return errno != syscall.EAGAIN && errno != syscall.EINTR
}

// Read reads, and tells when the last of the bytes arrived.
func (s *stamper) Read(p []byte) (n int, arrived time.Time, err error) {
	s.into = p
	err = s.raw.Read(s.read)
	now := time.Now()
	switch {
	case err != nil:
		return 0, now, err
	case s.errno != 0:
		return 0, now, s.errno
	case s.n == 0:
		return 0, now, io.EOF
	}
	return s.n, now.Add(-s.waited(now)), nil
}

// maxWaited is the longest wait that is believed: the stamp is of the clock people
// set, and a step of it must not look like a wait.
const maxWaited = time.Second

// waited is how long the bytes lay in the socket, 0 without a stamp.
func (s *stamper) waited(now time.Time) time.Duration {
	if s.head.Controllen < uint64(syscall.CmsgLen(int(unsafe.Sizeof(syscall.Timespec{})))) {
		return 0
	}
	head := (*syscall.Cmsghdr)(unsafe.Pointer(&s.oob[0]))
	if head.Level != syscall.SOL_SOCKET || head.Type != syscall.SO_TIMESTAMPNS {
		return 0
	}
	stamp := (*syscall.Timespec)(unsafe.Pointer(&s.oob[syscall.CmsgLen(0)]))
	d := time.Duration(now.UnixNano() - stamp.Nano())
	if d < 0 || d > maxWaited {
		return 0
	}
	return d
}
