package sock

import (
	"io"
	"net"
	"syscall"
	"unsafe"
)

// Turn is what a loop does about the events it was told of at once: it reads from all
// connections, then calls those for whom it has read, then writes what they want
// written. So the processor runs one piece of the kernel, or of this program, many
// times before the next one takes its place in the caches. Filling those costs more
// than the work for one small request does (bench/wire/README.md).
type Turn struct {
	took  []taken
	pumps []pumping
	parts []part
	sends []sending
	again []*Conn // to be read from in the next turn, whatever is told

	buf    *Buf // handed to the pump that is called now
	others bool // goroutines have something to do
}

// Go starts a goroutine for what a turn must not do.
func (t *Turn) Go(f func()) {
	t.others = true
	go f()
}

// Send has p written in this turn.
func (t *Turn) Send(c *Conn, p []byte, s Sender) {
	c.mustBePlain()
	t.sends = append(t.sends, sending{c: c, p: p, s: s})
}

// Ask is Send for a question: it fails with ErrNotQuiet, nothing sent, when something
// waits to be read. Await waits for the answer, however soon that comes.
func (t *Turn) Ask(c *Conn, p []byte, s Sender) {
	c.mustBePlain()
	t.sends = append(t.sends, sending{c: c, p: p, s: s, ask: true})
}

// Await has a loop read what comes next, for r. Nothing is missed that has come since
// Took brought all there was, or since Ask.
func (t *Turn) Await(c *Conn, r Reader) {
	c.mustBePlain()
	if !c.TCPConn.(*polled).rd.rest(r) {
		t.again = append(t.again, c)
	}
}

// mustBePlain keeps what is to be encrypted from being sent as it is.
func (c *Conn) mustBePlain() {
	if c.tls != nil {
		panic("BUG: a turn on a connection in TLS")
	}
}

// Stir ends the rest of a connection, if it rests, as if something had happened.
func (c *Conn) Stir() {
	if s, ok := c.TCPConn.(*polled); ok && s.rd.state.CompareAndSwap(gateResting, gateIdle) {
		s.rd.reader.Ended()
	}
}

// Rest is Turn.Await for a goroutine, which has read all it wants and must not use the
// connection any more. It returns false, and the connection stays the goroutine's, when
// there is something to read or no loop to do it.
func (c *Conn) Rest(r Reader) bool {
	s, ok := c.TCPConn.(*polled)
	if !ok || c.tls != nil || !s.use() {
		return false
	}
	defer s.unuse()
	g := &s.rd
	if g.begin() != nil || g.hopeless() || c.late != nil || !rawQuiet(uintptr(s.fd)) {
		return false
	}
	return g.rest(r)
}

// take reads once for a resting connection, which the loop has taken out of its rest.
func (t *Turn) take(s *polled) {
	r := s.rd.reader
	if s.conn.gone.Load() { // what a goroutine knows to tell from a mere end
		t.others = true
		r.Ended()
		return
	}
	if !r.Claim() {
		return
	}
	b := GetBuf()
	n, err := s.readNow(b.B[:])
	switch {
	case n > 0:
		if n == BufSize { // there may be more, of which nobody will tell
			s.rd.tell()
		}
		t.took = append(t.took, taken{r, b, n, nil})
		return
	case err == nil:
		err = io.EOF // which another read finds again
	case err == syscall.EAGAIN:
		err = nil
	default:
		s.conn.late = err // which no other read would
	}
	PutBuf(b)
	t.took = append(t.took, taken{r: r, err: err})
}

// pump reads once for a pump.
func (t *Turn) pump(s *polled) {
	b := GetBuf()
	s.conn.rd.n, s.conn.rd.err = s.readNow(b.B[:])
	t.pumps = append(t.pumps, pumping{c: s.conn, b: b})
}

// work ends the turn.
func (t *Turn) work() {
	again := len(t.again)
	for _, c := range t.again {
		t.take(c.TCPConn.(*polled))
	}
	t.again = drop(t.again, again)
	for _, k := range t.took {
		k.r.Took(t, k.b, k.n, k.err)
	}
	t.took = drop(t.took, len(t.took))
	t.carry()
	t.send()
}

// drop takes the first n off and lets go of what they point to.
func drop[T any](s []T, n int) []T {
	left := copy(s, s[n:])
	clear(s[left:])
	return s[:left]
}

// carry hands on what was read for pumps.
func (t *Turn) carry() {
	for i := range t.pumps {
		k := &t.pumps[i]
		k.drained = k.c.carry(t, k.b)
	}
	t.writeParts()
	for _, k := range t.pumps {
		more := k.drained && len(k.c.client.held) == 0
		PutBuf(k.b)
		t.others = t.others || !more
		k.c.TCPConn.(*polled).rd.carried(more)
	}
	t.pumps = drop(t.pumps, len(t.pumps))
}

// stays says that p is what it is until parts are written: it lies in what was read.
func (t *Turn) stays(p []byte) bool {
	if len(p) == 0 {
		return false
	}
	at := uintptr(unsafe.Pointer(&p[0])) - uintptr(unsafe.Pointer(&t.buf.B[0]))
	return at < BufSize
}

// writeParts leaves to the goroutine what fails: its write will fail as well.
func (t *Turn) writeParts() {
	for _, o := range t.parts {
		if n, err := o.c.writeOrHold(o.p); err != nil {
			o.c.held = append(o.c.held, o.p[n:]...)
		}
	}
	t.parts = drop(t.parts, len(t.parts))
}

// send writes what is to be written, and what is added meanwhile. It looks whether a
// connection is quiet right before it writes: a replica may close one at any moment.
func (t *Turn) send() {
	for from := 0; from < len(t.sends); {
		now := t.sends[from:]
		from = len(t.sends)
		for i := range now {
			now[i].write()
		}
		for _, k := range now {
			k.s.Sent(t, k.n, k.err)
		}
	}
	t.sends = drop(t.sends, len(t.sends))
}

func (k *sending) write() {
	if k.ask {
		if k.err = k.c.TCPConn.(*polled).quiet(); k.err != nil {
			return
		}
	}
	k.n, k.err = k.c.writeNow(k.p)
}

// end is for a loop that ends, and has no other turn.
func (t *Turn) end() {
	for _, c := range t.again {
		c.TCPConn.(*polled).rd.reader.Ended()
	}
}

// quiet makes sure that nothing waits to be read, and forgets what was told before.
func (s *polled) quiet() error {
	if !s.use() {
		return net.ErrClosed
	}
	defer s.unuse()
	if err := s.rd.begin(); err != nil {
		return err
	}
	if !rawQuiet(uintptr(s.fd)) {
		return ErrNotQuiet
	}
	return nil
}

func (s *polled) readNow(p []byte) (int, error) {
	if !s.use() {
		return 0, net.ErrClosed
	}
	defer s.unuse()
	return rawRead(uintptr(s.fd), p)
}

// writeNow writes what there is room for.
func (c *Conn) writeNow(p []byte) (int, error) {
	s := c.TCPConn.(*polled)
	if !s.use() {
		return 0, net.ErrClosed
	}
	defer s.unuse()
	n, err := rawWrite(uintptr(s.fd), p)
	switch err {
	case nil:
		c.written.Add(int64(n))
	case syscall.EAGAIN:
		return 0, nil
	default:
		c.wrFault = c.wrFault || err != syscall.EPIPE
	}
	return n, err
}
