package sock

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"
)

// Listener accepts watched connections.
type Listener struct {
	*net.TCPListener
	watch *Watch
	stall time.Duration
}

// Listen listens on addr; writes to its connections fail when the client takes
// nothing for stall (0 = never).
func Listen(addr string, w *Watch, stall time.Duration) (*Listener, error) {
	var lc net.ListenConfig
	// What the watch and Arrived rely on is the behaviour of plain TCP sockets.
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &Listener{TCPListener: ln.(*net.TCPListener), watch: w, stall: stall}, nil
}

// acceptPause is the time between tries while the system has no descriptor or
// memory for another connection. Clients wait in the backlog meanwhile.
const acceptPause = 20 * time.Millisecond

// Accept is AcceptConn for those who want a net.Conn.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.AcceptConn()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// AcceptConn returns the next connection. One that cannot be set up is dropped,
// and a lack of descriptors is waited out: neither ends the listener.
func (l *Listener) AcceptConn() (*Conn, error) {
	for {
		tc, err := l.AcceptTCP()
		switch {
		case err == nil:
			if c, err := newConn(tc, l.watch, l.stall); err == nil {
				return c, nil
			}
			tc.Close()
		case passing(err):
			time.Sleep(acceptPause)
		default:
			return nil, err
		}
	}
}

// passing says that accept(2) may succeed later.
func passing(err error) bool {
	for _, e := range []syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
