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
	return c.judge(p)
}

// judge hands on what a read into p brought.
func (c *Conn) judge(p []byte) stepped {
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

// carry is a loop's part, for what it has read into b. It reports whether that was all
// there is. What the client is to get is written later in the turn.
func (c *Conn) carry(t *Turn, b *Buf) (all bool) {
	client := c.client
	client.turn, t.buf = t, b
	defer func() {
		client.turn = nil
		if v := recover(); v != nil {
			c.flow.panic, c.flow.stack, all = v, debug.Stack(), false
		}
	}()
	s := c.judge(b.B[:])
	c.flow.over = s == over
	return s == drained
}

// hold has p written when the turn gets to it, or now where it will not last till then.
func (c *Conn) hold(p []byte) (int, error) {
	if t := c.turn; t.stays(p) {
		t.parts = append(t.parts, part{c, p})
		return len(p), nil
	}
	c.turn.writeParts() // what comes before
	return c.writeOrHold(p)
}

// writeOrHold writes what the peer takes at once and keeps the rest.
func (c *Conn) writeOrHold(p []byte) (int, error) {
	if len(c.held) > 0 {
		c.held = append(c.held, p...)
		return len(p), nil
	}
	for n := 0; n < len(p); {
		m, err := c.writeNow(p[n:])
		if err != nil {
			return n, err
		}
		if m == 0 {
			c.held = append(c.held, p[n:]...)
			return len(p), nil
		}
		n += m
	}
	return len(p), nil
}
