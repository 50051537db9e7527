package proxy

import (
	"net"
	"os"
	"syscall"
	"testing"
)

// What this host refuses is not reported of the replica: it would be ejected, the
// last one too. Only ports are counted per replica, so only then another may do.
func TestOwnLimitIsNotTheReplicas(t *testing.T) {
	for errno, retry := range map[syscall.Errno]bool{
		syscall.EMFILE: false, syscall.ENFILE: false, syscall.ENOBUFS: false, syscall.ENOMEM: false, syscall.ENOSPC: false,
		syscall.EADDRNOTAVAIL: true,
	} {
		s, _, _ := withMistake(t) // its Health panics
		x := &exchange{s: s.Server}
		v := x.cannotConnect(&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", errno)})
		if v.err == nil || v.err.status != 503 || (v.retry != "") != retry {
			t.Errorf("%v: %+v, retry %q", errno, v.err, v.retry)
		}
	}
}
