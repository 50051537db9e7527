package sock

import (
	"fmt"
	"net"
	"runtime/debug"
	"syscall"
)

// carried waits while a loop carries the pump. It ends with an error of waiting, or
// with what reading ended with in c.rd.
func (c *Conn) carried() error {
	s, polls := c.TCPConn.(*polled)
	client := c.client
	if !polls || client == nil || client.tls != nil || client.watch == nil {
		return c.raw.Read(c.pumpFn)
	}
	if !s.use() {
		return net.ErrClosed
	}
	defer s.unuse()
	c.flow = flow{}
	for {
		if err := s.rd.begin(); err != nil {
			return err
		}
		if c.drain(uintptr(s.fd)) {
			return nil
		}
		err := s.rd.wait(gatePumped)
		if c.flow.panic != nil {
			panic(&Panicked{Value: c.flow.panic, Stack: c.flow.stack})
		}
		if len(client.held) > 0 {
			if err := client.flushHeld(); err != nil {
				return fmt.Errorf("%w: %w", ErrBound, err)
			}
		}
		if c.flow.over {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// stepped is how a step of a pump ended.
type stepped uint8

const (
	drained stepped = iota // there is nothing more now
	left                   // there may be more
	over
)

// step reads once.
func (c *Conn) step(fd uintptr, p []byte) stepped {
	c.rd.n, c.rd.err = rawRead(fd, p)
	switch {
	case c.rd.err == syscall.EAGAIN:
		return drained
	case c.rd.err != nil || c.rd.n == 0:
		return over
	case !c.pump(p[:c.rd.n]):
		c.rd.n, c.rd.err = 0, errTaken
		return over
	case c.rd.n < len(p) && !c.gone.Load():
		return drained
	}
	return left
}

// drain is the goroutine's own part: what is there before it waits, and what is too
// much for a loop. It reports whether the pump is over.
func (c *Conn) drain(fd uintptr) bool {
	b := GetBuf()
	defer PutBuf(b)
	for {
		switch c.step(fd, b.B[:]) {
		case drained:
			return false
		case over:
			return true
		}
	}
}

// carry is a loop's part: one read, of which the client takes what it takes at once.
// It returns false when the goroutine has to go on.
func (c *Conn) carry(buf []byte) (more bool) {
	client := c.client
	client.holds = true
	defer func() {
		client.holds = false
		if v := recover(); v != nil {
			c.flow.panic, c.flow.stack, more = v, debug.Stack(), false
		}
	}()
	s := c.step(uintptr(c.TCPConn.(*polled).fd), buf)
	c.flow.over = s == over
	return s == drained && len(client.held) == 0
}

// writeOrHold writes what the peer takes at once and keeps the rest.
func (c *Conn) writeOrHold(p []byte) (int, error) {
	if len(c.held) > 0 {
		c.held = append(c.held, p...)
		return len(p), nil
	}
	s := c.TCPConn.(*polled)
	if !s.use() {
		return 0, net.ErrClosed
	}
	defer s.unuse()
	for n := 0; n < len(p); {
		m, err := rawWrite(uintptr(s.fd), p[n:])
		switch err {
		case nil:
			n += m
			c.written.Add(int64(m))
		case syscall.EAGAIN:
			c.held = append(c.held, p[n:]...)
			return len(p), nil
		default:
			c.wrFault = c.wrFault || err != syscall.EPIPE
			return n, err
		}
	}
	return len(p), nil
}
