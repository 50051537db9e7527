//go:build unix

package load

import (
	"net"
	"syscall"
)

// alive tells whether an idle connection is still open: a peek that would block
// is the only good answer. End of stream means the server has closed it, bytes
// nobody asked for mean the two sides disagree about where a response ends.
func alive(c net.Conn) bool {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return true // TLS or a test's pipe: nothing to ask
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	open := false
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		open = err == syscall.EAGAIN || err == syscall.EWOULDBLOCK
		return true
	})
	return err == nil && open
}
