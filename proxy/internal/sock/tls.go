package sock

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"syscall"
	"time"
)

// In TLS a connection reads and writes through crypto/tls, which reads and writes
// through the same raw calls. What looks at the socket itself, the watch and
// Arrived, needs no more than the socket; Quiet also asks what was decrypted and not
// read. A connection that waits holds crypto/tls's buffers and one of its own.

// plain is the connection below TLS.
type plain struct{ *Conn }

func (p plain) Read(b []byte) (int, error)  { return p.readPlain(b) }
func (p plain) Write(b []byte) (int, error) { return p.writePlain(b) }

// StartServer makes the connection speak TLS, from its next byte on. The handshake
// ends within timeout, by which time nothing else may use the connection.
func (c *Conn) StartServer(cfg *tls.Config, timeout time.Duration) error {
	return c.start(tls.Server(plain{c}, cfg), timeout)
}

// DialTLS is Dial and a handshake, both within timeout. The name of the server is
// cfg's.
func DialTLS(ctx context.Context, addr string, cfg *tls.Config, timeout, stall time.Duration, w *Watch) (*Conn, error) {
	end := time.Now().Add(timeout)
	c, err := Dial(ctx, addr, timeout, stall, w)
	if err != nil {
		return nil, err
	}
	t := tls.Client(plain{c}, cfg)
	if err := interruptible(ctx, c.kill, func() error { return c.start(t, time.Until(end)) }); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// start uses a deadline and no context: that of crypto/tls closes the connection
// from a goroutine of its own, for which nobody would wait.
func (c *Conn) start(t *tls.Conn, timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	if err := c.SetReadDeadline(deadline); err != nil {
		return err
	}
	if err := t.Handshake(); err != nil {
		return err
	}
	c.tls = t
	return c.SetReadDeadline(time.Time{})
}

// Secure says that the connection speaks TLS.
func (c *Conn) Secure() bool { return c.tls != nil }

// readTLS reads what was decrypted. The end of the stream that the peer announced
// is one only if the peer has closed as well, for Arrived.
func (c *Conn) readTLS(p []byte) (int, error) {
	n, err := c.tls.Read(p)
	if n > 0 {
		return n, nil
	}
	if errors.Is(err, io.EOF) && !c.ended {
		c.raw.Control(c.endFn())
	}
	return 0, err
}

// endFn notes whether a FIN follows.
func (c *Conn) endFn() func(fd uintptr) {
	return func(fd uintptr) {
		var b [1]byte
		if n, err := rawRead(fd, b[:]); n == 0 && err == nil {
			c.ended = true
		} else if err != nil && err != syscall.EAGAIN {
			c.rdFault = true
		}
	}
}

func (c *Conn) readBufTLS() (*Buf, int, error) {
	b := GetBuf()
	n, err := c.readTLS(b.B[:])
	if n == 0 {
		PutBuf(b)
		return nil, 0, err
	}
	return b, n, nil
}

// askTLS is Ask, in the two steps that crypto/tls makes of it.
func (c *Conn) askTLS(p []byte, quiet bool, written func() error) (sent int, sendErr error, b *Buf, n int, err error) {
	if quiet && !c.Quiet() {
		return 0, ErrNotQuiet, nil, 0, ErrNotQuiet
	}
	if sent, err = c.tls.Write(p); err != nil {
		return sent, err, nil, 0, err
	}
	if written != nil {
		if err := written(); err != nil {
			return sent, nil, nil, 0, err
		}
	}
	b, n, err = c.readBufTLS()
	return sent, nil, b, n, err
}

// pumpTLS is Pump, record by record.
func (c *Conn) pumpTLS(take func(p []byte) (more bool)) error {
	for {
		b, n, err := c.readBufTLS()
		if err != nil {
			return err
		}
		more := take(b.B[:n])
		PutBuf(b)
		if !more {
			return nil
		}
	}
}

var longAgo = time.Unix(1, 0)

// quietTLS says that nothing was decrypted and not read: a read that may not wait
// finds nothing. The deadline stays what it was.
func (c *Conn) quietTLS() bool {
	due := c.due
	c.due = time.Time{} // or the read would wait until then
	if c.TCPConn.SetReadDeadline(longAgo) != nil {
		return false
	}
	var b [1]byte
	n, err := c.tls.Read(b[:])
	c.due = due
	return n == 0 && isTimeout(err) && c.TCPConn.SetReadDeadline(c.armed) == nil
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// Finish tells a peer in TLS that nothing more comes, so that it can tell an end from
// a cut. It is for the goroutine that writes, in front of Close; what was cut short
// is closed without it.
func (c *Conn) Finish() {
	if c.tls != nil && !c.hard.Load() && !c.gone.Load() {
		c.tls.CloseWrite() // fails on a broken connection only
	}
}

// SetLinger of 0 makes Close a reset: what was sent is not whole.
func (c *Conn) SetLinger(sec int) error {
	c.hard.Store(sec == 0)
	return c.TCPConn.SetLinger(sec)
}
