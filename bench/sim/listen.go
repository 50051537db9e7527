package sim

import (
	"fmt"
	"net"
	"os"
	"syscall"
)

// port holds an address the way vLLM's launcher does: bound before the engine
// is ready but not listening, so connections are refused while the kernel gives
// the port to nobody who asks for any. It also keeps the address between Kill
// and the next Start.
type port struct {
	fd   int
	addr *net.TCPAddr
}

// bindPort binds addr ("host:port", port 0 = any) without listening.
func bindPort(addr string) (*port, error) {
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, err
	}
	family, sa := sockaddr(a)
	fd, err := socket(family)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		syscall.Close(fd)
		return nil, os.NewSyscallError("setsockopt", err)
	}
	if err := syscall.Bind(fd, sa); err != nil {
		syscall.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		syscall.Close(fd)
		return nil, os.NewSyscallError("getsockname", err)
	}
	return &port{fd: fd, addr: tcpAddr(bound)}, nil
}

// socket makes a non-blocking TCP socket that child processes do not inherit. The
// flags that do so in one call are Linux's own.
func socket(family int) (fd int, err error) {
	syscall.ForkLock.RLock()
	fd, err = syscall.Socket(family, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return -1, err
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		syscall.Close(fd)
		return -1, err
	}
	return fd, nil
}

func sockaddr(a *net.TCPAddr) (family int, sa syscall.Sockaddr) {
	if ip4 := a.IP.To4(); ip4 != nil || a.IP == nil {
		sa4 := &syscall.SockaddrInet4{Port: a.Port}
		copy(sa4.Addr[:], ip4) // none given = 0.0.0.0, vLLM's default
		return syscall.AF_INET, sa4
	}
	sa6 := &syscall.SockaddrInet6{Port: a.Port}
	copy(sa6.Addr[:], a.IP.To16())
	return syscall.AF_INET6, sa6
}

func tcpAddr(sa syscall.Sockaddr) *net.TCPAddr {
	switch s := sa.(type) {
	case *syscall.SockaddrInet4:
		return &net.TCPAddr{IP: append(net.IP(nil), s.Addr[:]...), Port: s.Port}
	case *syscall.SockaddrInet6:
		return &net.TCPAddr{IP: append(net.IP(nil), s.Addr[:]...), Port: s.Port}
	}
	panic(fmt.Sprintf("BUG: address family %T", sa))
}

// uvicorn's default backlog.
const backlog = 2048

// listen starts accepting. The port is used up, whatever the outcome.
func (p *port) listen() (net.Listener, error) {
	f := os.NewFile(uintptr(p.fd), p.addr.String())
	defer f.Close() // net.FileListener works on a copy
	if err := syscall.Listen(p.fd, backlog); err != nil {
		return nil, os.NewSyscallError("listen", err)
	}
	return net.FileListener(f)
}

func (p *port) release() { syscall.Close(p.fd) }
