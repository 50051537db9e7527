//go:build !linux

package sock

import (
	"net"
	"syscall"
)

// acceptNow finds nobody: accept4 is Linux's.
func acceptNow(*net.TCPListener) (*net.TCPConn, error) { return nil, syscall.EAGAIN }
