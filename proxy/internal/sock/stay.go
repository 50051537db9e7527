package sock

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// Several reads or writes in one stay with the runtime's poller.

// askState is ioState for Ask.
type askState struct {
	p     []byte
	n     int // of p, written
	err   error
	check bool // make sure that nothing waits to be read
	wrote bool // writing is over

	written func() error // called then; nil for none
}

// ErrNotQuiet says that a peer has sent something nobody asked for, or has left.
var ErrNotQuiet = errors.New("connection is not quiet")

// Pump reads again and again and calls take with what each read brought, until take
// returns false. It is one stay with the poller, and no buffer is held while it
// waits. A read that did not fill its buffer has taken all there was, so the next
// one waits at once; an end that came together with data is told by the watch.
//
// While the connection is bound to a client, take may be called by a loop instead of
// this goroutine, which saves waking it for each read. It must not wait then for
// anything but that client: what the client does not take at once, this goroutine
// writes. An error of that wraps ErrBound.
func (c *Conn) Pump(take func(p []byte) (more bool)) error {
	if c.tls != nil {
		return c.pumpTLS(take)
	}
	for {
		c.pump = take
		err := c.carried()
		c.pump = nil
		if errors.Is(err, ErrBound) {
			c.rd = ioState{}
			return err
		}
		if _, err = c.result(err); err == nil || err == errTaken {
			return nil
		}
		if !c.early(err) {
			return err
		}
	}
}

// ErrBound says that the client of a pump could not be written to.
var ErrBound = errors.New("write to the bound client")

// flow is what the loop that carries a pump tells the goroutine that waits.
type flow struct {
	over  bool // as far as reading goes: what it ended with is in rd
	panic any  // of take
	stack []byte
}

// Panicked is what Pump panics with when its function has panicked in a loop: the
// goroutine whose handler is to know of it is another one than the one that failed.
type Panicked struct {
	Value any    // of the panic
	Stack []byte // of the loop, as debug.Stack prints it
}

// Error implements error.
func (p *Panicked) Error() string { return fmt.Sprintf("%v\n\ntold by a loop:\n%s", p.Value, p.Stack) }

// flushHeld writes what a loop could not.
func (c *Conn) flushHeld() error {
	p := c.held
	c.held = nil
	_, err := c.writePlain(p)
	return err
}

// errTaken ends a pump that take has ended.
var errTaken = errors.New("taken")

func (c *Conn) pumpReady(fd uintptr) bool {
	b := GetBuf()
	defer PutBuf(b)
	for {
		c.rd.n, c.rd.err = rawRead(fd, b.B[:])
		switch {
		case c.rd.err == syscall.EAGAIN:
			return false
		case c.rd.err != nil || c.rd.n == 0:
			return true
		case !c.pump(b.B[:c.rd.n]):
			c.rd.n, c.rd.err = 0, errTaken
			return true
		case c.rd.n < len(b.B) && watchHears && c.watch != nil && !c.gone.Load():
			return false
		}
	}
}

// Ask writes p and waits for what comes then, in one stay with the poller: a
// request to a replica and the wait for its answer, or an answer and the wait for
// the next request.
//
// sent is what was written of p, with the error of writing if it failed; the
// buffer, its length and err are as of ReadBuf. With quiet it first makes sure, as
// Quiet does, that nothing waits to be read, and else fails with ErrNotQuiet,
// nothing written; reading is then not tried before there is something, which would
// be a system call more. written, unless nil, is called between writing and waiting; its
// error ends the call.
func (c *Conn) Ask(p []byte, quiet bool, written func() error) (sent int, sendErr error, b *Buf, n int, err error) {
	if c.tls != nil {
		return c.askTLS(p, quiet, written)
	}
	c.rd, c.ask = ioState{}, askState{p: p, check: quiet, written: written}
	err = c.raw.Read(c.askFn)
	a := c.ask
	c.ask = askState{}
	c.written.Add(int64(a.n))
	b, c.borrowed = c.borrowed, nil
	if !a.wrote { // there was no room for all of p, or no chance to write
		return c.askSlowly(p, a.n, quiet && a.n == 0, err, written)
	}
	if a.err != nil {
		return a.n, a.err, nil, 0, a.err
	}
	if n, err = c.result(err); n == 0 {
		PutBuf(b)
		b = nil
	}
	if err != nil && c.early(err) {
		b, n, err = c.ReadBuf()
	}
	return a.n, nil, b, n, err
}

// AskOn ends what Turn.Ask began: n bytes of p were written, and err is why no more were, if it
// is not that there was no room. What it returns is as of Ask.
func (c *Conn) AskOn(p []byte, n int, err error) (sendErr error, b *Buf, m int, readErr error) {
	_, sendErr, b, m, readErr = c.askSlowly(p, n, n == 0, err, nil)
	return sendErr, b, m, readErr
}

// askSlowly goes on with ordinary calls after n bytes of p. An early expiry of the
// deadline comes here as well: the poller does not even call then, so quiet is still
// to be made sure of.
func (c *Conn) askSlowly(p []byte, n int, quiet bool, err error, written func() error) (sent int, sendErr error, b *Buf, m int, readErr error) {
	c.rd = ioState{}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return n, err, nil, 0, err
	}
	if quiet && !c.Quiet() {
		return 0, ErrNotQuiet, nil, 0, ErrNotQuiet
	}
	more, err := c.Write(p[n:])
	if err != nil {
		return n + more, err, nil, 0, err
	}
	if written != nil {
		if err := written(); err != nil {
			return n + more, nil, nil, 0, err
		}
	}
	b, m, readErr = c.ReadBuf()
	return n + more, nil, b, m, readErr
}

// askReady is called by the poller, first at once. The readiness it waits for is
// reset before that, so nothing that comes later is missed, but what came earlier is:
// it has to be looked for once, before the write or behind it.
func (c *Conn) askReady(fd uintptr) bool {
	if c.ask.wrote {
		return c.borrowReady(fd)
	}
	if c.ask.check && !rawQuiet(fd) {
		c.ask.wrote, c.ask.err = true, ErrNotQuiet
		return true
	}
	n, err := rawWrite(fd, c.ask.p)
	switch {
	case err == syscall.EAGAIN:
		return true
	case err != nil:
		c.ask.wrote, c.ask.err = true, err
		c.wrFault = c.wrFault || err != syscall.EPIPE
		return true
	}
	c.ask.n = n
	if n < len(c.ask.p) {
		return true
	}
	c.ask.wrote = true
	if c.ask.written != nil {
		if c.rd.err = c.ask.written(); c.rd.err != nil {
			return true
		}
	}
	return !c.ask.check && c.borrowReady(fd)
}
