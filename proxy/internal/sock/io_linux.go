package sock

import (
	"syscall"
	"unsafe"
)

// RawSyscall does not tell the scheduler about the call. That is right here and
// only here: the call cannot wait. recvfrom and sendto are shorter ways to a socket
// than read and write, which go through the file layer (fs/read_write.c).
func rawIO(trap, fd uintptr, p []byte, flags uintptr) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(trap, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), flags, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}

func rawRead(fd uintptr, p []byte) (int, error) {
	return rawIO(syscall.SYS_RECVFROM, fd, p, syscall.MSG_DONTWAIT)
}

// The runtime ignores SIGPIPE for all descriptors but 1 and 2; MSG_NOSIGNAL does so
// for these too.
func rawWrite(fd uintptr, p []byte) (int, error) {
	return rawIO(syscall.SYS_SENDTO, fd, p, syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
}

// rawQuiet says that there is nothing to read: no bytes, no FIN, no error.
func rawQuiet(fd uintptr) bool {
	var p [1]byte
	for {
		_, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&p)), 1,
			syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
		if errno != syscall.EINTR {
			return errno == syscall.EAGAIN
		}
	}
}
