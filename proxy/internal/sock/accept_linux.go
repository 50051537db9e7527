package sock

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// acceptNow accepts without waiting: it fails with EAGAIN while nobody waits to be
// let in.
func acceptNow(ln *net.TCPListener) (*net.TCPConn, error) {
	raw, err := ln.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd, acceptErr := -1, error(nil)
	err = raw.Control(func(l uintptr) {
		fd, _, acceptErr = unix.Accept4(int(l), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	})
	if err == nil {
		err = acceptErr
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "queued connection")
	defer f.Close() // FileConn has one of its own
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}
