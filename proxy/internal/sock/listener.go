package sock

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"
)

// Listener accepts watched connections.
type Listener struct {
	*net.TCPListener
	// Fault hears why a connection could not be accepted, before the pause that
	// follows; nil = nobody does. It is to be set before the first Accept.
	Fault func(err error)

	watch  *Watch
	stall  time.Duration
	once   sync.Once
	closed chan struct{}
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
	return NewListener(ln.(*net.TCPListener), w, stall), nil
}

// NewListener is Listen for a socket that listens already.
func NewListener(ln *net.TCPListener, w *Watch, stall time.Duration) *Listener {
	return &Listener{TCPListener: ln, watch: w, stall: stall, closed: make(chan struct{})}
}

// Close lets nobody in any more. What has connected and was not accepted is lost
// unless another process holds the same socket.
func (l *Listener) Close() error {
	err := l.TCPListener.Close()
	// Only now: who does not pause any more has to find it closed, and not try on and on.
	l.once.Do(func() { close(l.closed) })
	return err
}

// Pauses between tries while the system has no descriptor or memory for another
// connection, doubling from the first to the longest as in net/http. Clients wait
// in the backlog meanwhile.
const (
	acceptPause    = 5 * time.Millisecond
	maxAcceptPause = time.Second
)

// Accept is AcceptConn for those who want a net.Conn.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.AcceptConn()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// AcceptConn returns the next connection. One that cannot be set up is dropped, and
// every error is waited out but that of a closed listener: accept(2) also reports
// what befell a connection that nobody has seen yet (accept(2), "Error handling").
func (l *Listener) AcceptConn() (*Conn, error) {
	pause := acceptPause
	for {
		tc, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		if err == nil {
			var c *Conn
			if c, err = newConn(tc, l.watch, l.stall); err == nil {
				return c, nil
			}
			tc.Close()
		}
		if l.Fault != nil {
			l.Fault(err)
		}
		if !errors.Is(err, syscall.ECONNABORTED) { // that was one client's doing
			l.wait(pause)
			pause = min(2*pause, maxAcceptPause)
		}
	}
}

// wait ends early when the listener is closed.
func (l *Listener) wait(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.closed:
	}
}

// Queued returns a connection that has been made and waits to be accepted, if there
// is one. It is for the last moment before Close, which would reset it.
func (l *Listener) Queued() (*Conn, bool) {
	for {
		tc, err := acceptNow(l.TCPListener)
		if errors.Is(err, syscall.ECONNABORTED) {
			continue
		}
		if err != nil {
			return nil, false
		}
		if c, err := newConn(tc, l.watch, l.stall); err == nil {
			return c, true
		}
		tc.Close()
	}
}

// Unread says that the peer has sent something that nobody has read yet. Unlike
// Quiet it may be called while another goroutine waits for it.
func (c *Conn) Unread() bool {
	n := 0
	c.raw.Control(func(fd uintptr) { // fails on a closed connection only
		var b [1]byte
		n, _, _ = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	return n > 0
}
