package sock

import (
	"net"
	"syscall"
	"time"
)

// TCPConn is the socket of a Conn. It is a *net.TCPConn where no watch serves it,
// and else one that waits through the watch's loops.
type TCPConn interface {
	LocalAddr() net.Addr
	RemoteAddr() net.Addr
	SetDeadline(t time.Time) error
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
	SetLinger(sec int) error
	SetWriteBuffer(bytes int) error
	SyscallConn() (syscall.RawConn, error)
	CloseWrite() error
	Close() error
}

// AckDelay is the shortest time for which a kernel holds an acknowledgement back
// (Linux TCP_DELACK_MIN, HZ/25).
const AckDelay = 40 * time.Millisecond

// AnyLoop is no loop's number: see Watch.Near.
const AnyLoop = -1
