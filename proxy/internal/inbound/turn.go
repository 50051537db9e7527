package inbound

import (
	"errors"

	"lbd/proxy/internal/sock"
)

// Beginner is a Handler that can begin, and often end, with a request in turns of a
// loop, so that a connection needs a goroutine only for what takes time.
type Beginner interface {
	Handler
	// Turns says that Begin takes requests at present. While it does not, a connection
	// at work keeps its goroutine: to begin one for each request costs more.
	Turns() bool
	// Begin takes the request c has read, or returns false, nothing done: Serve gets it
	// then. What was taken ends with c.Answered or c.GoOn. It must not wait.
	Begin(c *Conn, t *sock.Turn) (taken bool)
}

var _ sock.Reader = (*Conn)(nil)
var _ sock.Sender = (*Conn)(nil)

// rest ends the goroutine of a connection that waits for a request: a loop reads that.
// It returns false when the goroutine has to go on.
func (c *Conn) rest() bool {
	if c.srv.beginner == nil || c.srv.TLS != nil || c.from != c.to || !c.srv.beginner.Turns() {
		return false
	}
	if c.flush() != nil {
		// Nothing may follow an answer that was cut, not even when the client, which took
		// nothing for too long, comes back.
		c.Conn.Close()
		return false
	}
	c.give()
	c.parks()
	if c.srv.leaving() && !c.Unread() || !c.Rest(c) {
		return !c.resumes()
	}
	return true
}

// restInTurn is rest for a connection that has no goroutine.
func (c *Conn) restInTurn(t *sock.Turn) {
	c.parks()
	if !c.srv.leaving() || c.Unread() {
		t.Await(c.Conn, c)
	} else if c.resumes() {
		t.Go(c.serveFn)
	}
}

// parks begins to wait without a goroutine: from now on the server may close the
// connection.
func (c *Conn) parks() {
	c.noteWait()
	c.state.Store(parked)
}

// resumes takes the connection out of its parking, unless the server has closed it:
// then it is nobody's any more.
func (c *Conn) resumes() bool { return c.state.CompareAndSwap(parked, active) }

// Claim implements sock.Reader.
func (c *Conn) Claim() bool { return c.resumes() }

// Ended implements sock.Reader.
func (c *Conn) Ended() { c.unpark() }

// Took implements sock.Reader.
func (c *Conn) Took(t *sock.Turn, b *sock.Buf, n int, err error) {
	switch {
	case err != nil:
		t.Go(c.serveFn)
	case n == 0:
		c.restInTurn(t)
	default:
		c.buf, c.from, c.to, c.waits = b, 0, n, false
		if !c.readAll() || !c.srv.beginner.Begin(c, t) {
			t.Go(c.serveFn)
		}
	}
}

// errPartly says that not all of a request has come.
var errPartly = errors.New("the request goes on")

// readAll reads a request if all of it is there. Of a part nothing is kept: a goroutine
// reads it anew. What is wrong with a request is for the goroutine to tell: it may not
// be asked for twice, as refusals are counted.
func (c *Conn) readAll() bool {
	blanks := c.blanks
	c.atOnce = true
	err := c.read(c.srv.limits.Load())
	c.atOnce = false
	switch err {
	case nil:
		c.isBegun()
		c.ready = true
		return true
	case errPartly, errBlank:
		c.from, c.blanks = 0, blanks
	default:
		c.wrong = err
	}
	return false
}

// Answered ends a request that Begin has taken, as the return of Serve does.
func (c *Conn) Answered(t *sock.Turn, keep bool) {
	c.ready = false
	if keep && c.out != nil {
		t.Send(c.Conn, c.out.B, c)
		return
	}
	t.Go(func() { c.after(keep) })
}

// Sent implements sock.Sender for the answer.
func (c *Conn) Sent(t *sock.Turn, n int, err error) {
	if n == len(c.out.B) {
		c.dropOut()
	} else {
		c.out.B = c.out.B[n:]
	}
	c.Release()
	if c.out != nil || c.from != c.to { // err is what a goroutine will find as well
		t.Go(c.serveFn)
		return
	}
	c.restInTurn(t)
}

// GoOn has a goroutine answer a request that Begin has taken: answer is called in place
// of Serve. t is the turn it is called in, nil for none.
func (c *Conn) GoOn(t *sock.Turn, answer func() (keep bool)) {
	c.ready = false
	goOn := func() { c.after(answer()) }
	if t == nil {
		go goOn()
	} else {
		t.Go(goOn)
	}
}

// after goes on behind an answer, with a goroutine.
func (c *Conn) after(keep bool) {
	if !keep {
		c.flush() // there is nothing to do if it fails
		c.srv.end(c)
		return
	}
	c.Release()
	c.serve()
}
