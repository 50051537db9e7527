package sock

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// BufSize is the size of a relay buffer in bytes: 32 KiB fits the first-level
// cache with its copy and was the fastest size for large bodies.
const BufSize = 32 << 10

// Buf is a pooled relay buffer.
type Buf struct {
	B [BufSize]byte
	// Without it all buffers would begin at multiples of a page, and their first bytes,
	// which is all that most of them hold, share a few sets of the caches.
	_ [192]byte
}

// slab is how many buffers are made at once, so that they lie as above.
const slab = 8

var bufs sync.Pool

func init() { bufs.New = newBufs }

func newBufs() any {
	s := new([slab]Buf)
	for i := range s[1:] {
		bufs.Put(&s[i+1])
	}
	return &s[0]
}

// GetBuf takes a buffer from the pool.
func GetBuf() *Buf { return bufs.Get().(*Buf) }

// PutBuf gives a buffer back; nil is allowed.
func PutBuf(b *Buf) {
	if b != nil {
		bufs.Put(b)
	}
}

// ErrStalled is returned by a write of which the peer took no byte for the
// stall time of the connection.
var ErrStalled = errors.New("peer takes no data")

// Conn is a TCP connection. One goroutine reads and one writes at a time; Bind,
// Gone and Close may be called by others.
type Conn struct {
	TCPConn
	raw   syscall.RawConn
	watch *Watch

	stall time.Duration // write stall limit, 0 = none

	rd, wr   ioState
	readFn   func(fd uintptr) bool
	writeFn  func(fd uintptr) bool
	borrowFn func(fd uintptr) bool
	peekFn   func(fd uintptr)
	borrowed *Buf
	quiet    bool // what peekFn found
	askFn    func(fd uintptr) bool
	pump     func(p []byte) bool
	pumpFn   func(fd uintptr) bool
	flow     flow
	ask      askState

	client *Conn  // whose request this connection to a replica carries
	turn   *Turn  // that a write belongs to: it does not wait, but keeps bytes
	held   []byte // such bytes

	late             error // of a read by a loop, told by the next one
	ended            bool  // a read has seen the peer's FIN
	rdFault, wrFault bool  // a system call failed: a reset, a timeout

	due   time.Time // when a read that waits fails; zero: what armed says
	armed time.Time // what the runtime's timer is set to

	tls     *tls.Conn // nil = plain text
	written atomic.Int64
	hard    atomic.Bool // Close resets
	stuck   atomic.Bool // a write has failed with ErrStalled

	wake func() // of a parked connection, called once when there is something to read; under mu

	gone   atomic.Bool
	mu     sync.Mutex
	bound  *Conn
	left   func() // called once when the peer has left
	closed bool
	linger atomic.Bool
}

// ioState carries arguments and results of one system call through a poller
// callback, which keeps the callback free of allocations.
type ioState struct {
	p   []byte
	n   int
	err error

	armed bool // a write deadline is set for this call
	mark  int  // bytes written when it was set
}

// newConn takes tc over unless it fails.
func newConn(tc *net.TCPConn, w *Watch, stall time.Duration) (*Conn, error) {
	c := bare(w, stall)
	if w != nil {
		return c, w.adopt(c, tc)
	}
	var err error
	c.TCPConn = tc
	c.raw, err = tc.SyscallConn()
	return c, err
}

// bare returns a connection that has no socket yet.
func bare(w *Watch, stall time.Duration) *Conn {
	c := &Conn{watch: w, stall: stall}
	c.readFn, c.writeFn, c.borrowFn, c.peekFn = c.readReady, c.writeReady, c.borrowReady, c.peekNow
	c.askFn, c.pumpFn = c.askReady, c.pumpReady
	return c
}

// SetReadDeadline makes reads that wait fail at t; zero means never.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.due, c.armed = time.Time{}, t
	return c.TCPConn.SetReadDeadline(t)
}

// WaitUntil is SetReadDeadline for limits that are seldom reached and set again for
// each request: a timer that is set to an earlier time is left alone, and set again
// only if it fires. It is for the goroutine that reads.
func (c *Conn) WaitUntil(t time.Time) error {
	if t.IsZero() {
		return c.SetReadDeadline(t)
	}
	c.due = t
	if !c.armed.IsZero() && !c.armed.After(t) {
		return nil
	}
	c.armed = t
	return c.TCPConn.SetReadDeadline(t)
}

// early says that a read failed at a time that is no limit any more, and has set
// the timer to the one that is.
func (c *Conn) early(err error) bool {
	if c.due.IsZero() || !errors.Is(err, os.ErrDeadlineExceeded) || !time.Now().Before(c.due) {
		return false
	}
	c.armed = c.due
	return c.TCPConn.SetReadDeadline(c.due) == nil
}

// Read reads what is there, or waits for it.
func (c *Conn) Read(p []byte) (int, error) {
	if c.tls != nil {
		return c.readTLS(p)
	}
	return c.readPlain(p)
}

func (c *Conn) readPlain(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		c.rd = ioState{p: p}
		n, err := c.result(c.raw.Read(c.readFn))
		if err == nil || !c.early(err) {
			return n, err
		}
	}
}

// ReadBuf waits for data and returns it in a pooled buffer that the caller gives
// back with PutBuf. While it waits no buffer is held, except in TLS.
func (c *Conn) ReadBuf() (*Buf, int, error) {
	if c.tls != nil {
		return c.readBufTLS()
	}
	for {
		b, n, err := c.readBuf()
		if err == nil || !c.early(err) {
			return b, n, err
		}
	}
}

func (c *Conn) readBuf() (*Buf, int, error) {
	c.rd = ioState{}
	err := c.raw.Read(c.borrowFn)
	b := c.borrowed
	c.borrowed = nil
	n, err := c.result(err)
	if n == 0 {
		PutBuf(b)
		b = nil
	}
	return b, n, err
}

// result ends a read. pollErr means that the last try said EAGAIN.
func (c *Conn) result(pollErr error) (int, error) {
	n, err := c.rd.n, c.rd.err
	c.rd = ioState{}
	switch {
	case pollErr != nil:
		return 0, pollErr
	case err != nil:
		_, system := err.(syscall.Errno)
		c.rdFault = c.rdFault || system
		return 0, err
	case n == 0:
		c.ended = true
		return 0, io.EOF
	}
	return n, nil
}

// Write writes all of p. It fails with ErrStalled when the peer takes no byte
// for the stall time.
func (c *Conn) Write(p []byte) (int, error) {
	if c.tls != nil {
		return c.tls.Write(p)
	}
	return c.writePlain(p)
}

func (c *Conn) writePlain(p []byte) (int, error) {
	if c.turn != nil {
		return c.hold(p)
	}
	if len(c.held) > 0 {
		if err := c.flushHeld(); err != nil {
			return 0, err
		}
	}
	c.wr = ioState{p: p}
	for {
		err := c.raw.Write(c.writeFn)
		if err == nil {
			err = c.wr.err
		}
		if c.stall > 0 && errors.Is(err, os.ErrDeadlineExceeded) {
			if err = c.stalled(); err == nil {
				continue
			}
		}
		n := c.wr.n
		c.wr = ioState{}
		c.written.Add(int64(n))
		return n, err
	}
}

// stalled decides what an expired write deadline means: one left over from an
// earlier write is cleared, one after progress is set again.
func (c *Conn) stalled() error {
	switch {
	case !c.wr.armed:
		return c.SetWriteDeadline(time.Time{})
	case c.wr.n == c.wr.mark:
		c.stuck.Store(true)
		return ErrStalled
	}
	return c.armStall()
}

func (c *Conn) armStall() error {
	c.wr.armed, c.wr.mark = true, c.wr.n
	return c.SetWriteDeadline(time.Now().Add(c.stall))
}

func (c *Conn) readReady(fd uintptr) bool {
	if c.late != nil {
		c.rd.err, c.late = c.late, nil
		return true
	}
	c.rd.n, c.rd.err = rawRead(fd, c.rd.p)
	return c.rd.err != syscall.EAGAIN
}

func (c *Conn) borrowReady(fd uintptr) bool {
	if c.late != nil {
		c.rd.err, c.late = c.late, nil
		return true
	}
	b := GetBuf()
	c.rd.n, c.rd.err = rawRead(fd, b.B[:])
	if c.rd.err == syscall.EAGAIN {
		PutBuf(b)
		return false
	}
	c.borrowed = b
	return true
}

func (c *Conn) writeReady(fd uintptr) bool {
	for c.wr.n < len(c.wr.p) {
		n, err := rawWrite(fd, c.wr.p[c.wr.n:])
		if err == syscall.EAGAIN {
			// Only a write that has to wait pays for a deadline.
			if c.stall > 0 && !c.wr.armed {
				c.wr.err = c.armStall()
				return c.wr.err != nil
			}
			return false
		}
		if err != nil {
			// EPIPE is the one error that a FIN leads to: Linux tells a reset
			// behind a FIN so (tcp_reset in net/ipv4/tcp_input.c).
			c.wr.err, c.wrFault = err, c.wrFault || err != syscall.EPIPE
			return true
		}
		c.wr.n += n
	}
	return true
}

// Written returns how many bytes were written to the socket: in TLS more than were
// given to Write.
func (c *Conn) Written() int64 { return c.written.Load() }

// Quiet says that the peer has sent nothing that was not read, and has not left:
// only then may an idle connection carry another request. It may not be called
// while another goroutine reads.
func (c *Conn) Quiet() bool {
	c.quiet = false
	err := c.raw.Control(c.peekFn)
	return err == nil && c.quiet && !c.gone.Load() && (c.tls == nil || c.quietTLS())
}

func (c *Conn) peekNow(fd uintptr) { c.quiet = rawQuiet(fd) }

// Gone says that the peer has closed its side or reset the connection.
func (c *Conn) Gone() bool { return c.gone.Load() }

// Bind makes the connection to a replica end as soon as this client leaves. It
// returns false, and binds nothing, when the client has left already.
func (c *Conn) Bind(up *Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone.Load() {
		return false
	}
	if c.bound = up; up != nil {
		up.client = c
	}
	return true
}

// Unbind ends what Bind began. It returns false when the client has left, in
// which case the replica's connection has ended or is about to.
func (c *Conn) Unbind() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bound != nil {
		c.bound.client = nil
	}
	c.bound = nil
	return !c.gone.Load()
}

// WhenGone has f called, once, when the peer has left: by a loop, so that f must not
// block. It returns false, and will not call, when the peer has left already; nil calls
// off what was asked for before, of which a call may be on its way.
func (c *Conn) WhenGone(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone.Load() {
		return false
	}
	c.left = f
	return true
}

// hangup is called by a loop when the peer has left.
func (c *Conn) hangup() {
	c.mu.Lock()
	c.gone.Store(true)
	up, left := c.bound, c.left
	c.bound, c.left = nil, nil
	c.mu.Unlock()
	if up != nil {
		up.kill()
	}
	if left != nil {
		left()
	}
}

// kill ends the connection for both sides. Unlike Close it never waits, not even
// for a pump that waits for a client: it is a loop that calls it.
func (c *Conn) kill() {
	c.raw.Control(func(fd uintptr) { syscall.Shutdown(int(fd), syscall.SHUT_RDWR) }) // fails if closed
}

// cutAll ends connections as if their peers had left. All of them have left before the
// first one ends, or a request that waits for the end of another would still be sent.
// And all are killed before one is closed: a relay to another may keep it from closing.
func cutAll(conns []*Conn) {
	for _, c := range conns {
		c.gone.Store(true)
	}
	for _, c := range conns {
		c.kill()
	}
	for _, c := range conns {
		c.cut()
	}
}

func (c *Conn) cut() {
	c.hangup()
	c.abort()
	if c.unparked() {
		c.call()
	}
}

// call is for who has taken the connection out of its parking. Between that and
// this the connection may be read from by somebody who did not wait for the call, and
// be parked anew: then the newer function is called early, or nobody is.
func (c *Conn) call() {
	c.mu.Lock()
	wake := c.wake
	c.wake = nil
	c.mu.Unlock()
	if wake != nil {
		wake()
	}
}
