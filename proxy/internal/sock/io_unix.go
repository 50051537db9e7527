//go:build unix && !linux

package sock

import "syscall"

func rawRead(fd uintptr, p []byte) (int, error) {
	for {
		if n, err := syscall.Read(int(fd), p); err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

func rawWrite(fd uintptr, p []byte) (int, error) {
	for {
		if n, err := syscall.Write(int(fd), p); err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

// rawQuiet says that there is nothing to read: no bytes, no FIN, no error.
func rawQuiet(fd uintptr) bool {
	var p [1]byte
	for {
		_, _, err := syscall.Recvfrom(int(fd), p[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		if err != syscall.EINTR {
			return err == syscall.EAGAIN
		}
	}
}
