package inbound

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"lbd/proxy/internal/relay"
	"lbd/proxy/internal/sock"
)

// Errors of a request that cannot be read, besides *Malformed. What they mean to
// the client is the handler's business.
var (
	ErrVersion  = errors.New("HTTP version not supported")
	ErrHeadSize = errors.New("request head too large")
	ErrBodySize = errors.New("request body too large")
	ErrTimeout  = errors.New("request did not arrive in time")
	ErrCut      = errors.New("request ended before the end of its body")
)

// Limits bound what a client may send. They apply to the next request.
type Limits struct {
	Head int           // bytes of a request head
	Body int           // bytes of a request body
	Read time.Duration // for one request, from its first byte; 0 = no limit
	Idle time.Duration // between requests; 0 = no limit
}

// Conn is one client's connection. It belongs to the goroutine that serves it.
type Conn struct {
	*sock.Conn
	srv *Server
	// Owner is what the handler knows of the connection, and of whose request it
	// carries; this package does not look at it.
	Owner any

	req      Request
	buf      *sock.Buf // what was read and is not used up; nil while nothing was
	big      []byte    // in place of buf, for a head that outgrew it
	from     int       // first byte not used up
	to       int       // behind the last byte read
	headSize int       // of the request
	headEnd  int       // where its head ends
	body     *content  // of a body that does not stand in buf
	chunks   relay.Body
	limited  bool         // a read deadline is set
	out      *Out         // an answer to be written
	waitFn   func() error // wait, made once
	begun    atomic.Bool  // a request has come
	stays    atomic.Bool  // it cannot be parked

	mu    sync.Mutex // held by those who end the waiting
	state atomic.Int32
	since atomic.Int64 // of the server's clock, when waiting began
}

// Request returns the request that was read last, valid until Release.
func (c *Conn) Request() *Request { return &c.req }

// States of a connection.
const (
	active  int32 = iota // a request is read or answered
	waiting              // the goroutine waits for a request, the answer before is written
	kicked               // it has been told to stop waiting
	parked               // nobody but the watch waits
	closing              // the server has closed it
)

// bytes returns the buffer that bytes are read into.
func (c *Conn) bytes() []byte {
	if c.big != nil {
		return c.big
	}
	if c.buf == nil {
		return nil
	}
	return c.buf.B[:]
}

// next reads the next request. The ends of waiting mean that none came.
func (c *Conn) next() error {
	for {
		if c.from == c.to {
			if err := c.await(); err != nil {
				return err
			}
		}
		if err := c.flush(); err != nil { // the next request has come already
			return err
		}
		if err := c.inTime(c.srv.limits.Load()); err != errBlank {
			if !c.begun.Load() {
				c.begun.Store(true)
			}
			return err
		}
	}
}

// inTime reads a request within the time for one.
func (c *Conn) inTime(lim *Limits) error {
	err := c.read(lim)
	if c.limited {
		c.limited = false
		c.SetReadDeadline(time.Time{}) // fails on a closed connection only, as the next read will
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ErrTimeout
	}
	return err
}

// errBlank says that empty lines came and nothing else, which is no request yet.
var errBlank = errors.New("no request but empty lines")

// Ends of waiting without a request.
var (
	errClosing = errors.New("no request is wanted any more")
	errKicked  = errors.New("no request came for a while")
	errEnded   = errors.New("the connection ended without a request")
)

// Reply writes a whole answer. It may do so when the handler has returned, together
// with waiting for the next request, and takes the buffer over.
func (c *Conn) Reply(o *Out) {
	c.out = o
}

// Out is a buffer for an answer.
type Out struct{ B []byte }

var outs = sync.Pool{New: func() any { return new(Out) }}

// GetOut returns an empty buffer.
func GetOut() *Out { return outs.Get().(*Out) }

// keepOut is the largest answer buffer that is kept, in bytes.
const keepOut = 64 << 10

// PutOut gives a buffer back that was not used for Reply; nil is allowed.
func PutOut(o *Out) {
	if o == nil {
		return
	}
	if o.B = o.B[:0]; cap(o.B) > keepOut {
		o.B = nil
	}
	outs.Put(o)
}

// flush writes an answer that is still to be written.
func (c *Conn) flush() error {
	if c.out == nil {
		return nil
	}
	defer c.dropOut()
	_, err := c.Write(c.out.B)
	return err
}

// wait begins to wait for a request, the answer before is written: from now on the
// server may close the connection.
func (c *Conn) wait() error {
	c.dropOut()
	c.since.Store(c.srv.clock.Load())
	c.state.Store(waiting)
	if c.srv.stopping.Load() {
		return errClosing
	}
	return nil
}

// await waits for the first byte of a request.
func (c *Conn) await() error {
	c.give()
	b, n, err := c.firstBytes()
	if !c.state.CompareAndSwap(waiting, active) {
		if was := c.stopWaiting(); was == closing {
			sock.PutBuf(b)
			return errClosing
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return errKicked
		}
	}
	if err != nil {
		return errEnded
	}
	c.buf, c.from, c.to = b, 0, n
	return nil
}

// firstBytes writes what is to be written and waits for what comes then.
func (c *Conn) firstBytes() (*sock.Buf, int, error) {
	if c.out == nil || len(c.out.B) == 0 {
		if err := c.wait(); err != nil {
			return nil, 0, err
		}
		return c.ReadBuf()
	}
	_, _, b, n, err := c.Ask(c.out.B, false, c.waitFn)
	c.dropOut() // if it could not be written
	return b, n, err
}

func (c *Conn) dropOut() {
	PutOut(c.out)
	c.out = nil
}

// stopWaiting is for a connection that the server has taken out of waiting: it
// returns what the server wants of it.
func (c *Conn) stopWaiting() (was int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if was = c.state.Load(); was == kicked {
		c.state.Store(active)
		c.SetReadDeadline(time.Time{})
	}
	return was
}

// kick makes the goroutine that waits return.
func (c *Conn) kick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.CompareAndSwap(waiting, kicked) {
		c.TCPConn.SetReadDeadline(longAgo) // past the connection's own record, which is the reader's
	}
}

var longAgo = time.Unix(1, 0)

// anyTime stands for whenever the waiting began.
const anyTime = -1

// shut closes the connection if no request is being read or answered, and none has
// been since. It reports whether there is no goroutine that would notice.
func (c *Conn) shut(since int64) (orphan bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if since != anyTime && c.since.Load() != since {
		return false
	}
	was := c.state.Load()
	if (was != waiting && was != parked) || !c.state.CompareAndSwap(was, closing) {
		return false
	}
	c.Close()
	return was == parked
}

// park ends the goroutine of a connection without a request: the watch begins
// another one when bytes come or the client leaves. It returns false where that
// cannot be had.
func (c *Conn) park() bool {
	c.req.Fields = nil
	c.state.Store(parked)
	if !c.srv.stopping.Load() && c.AwaitReadable(c.unpark) {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.state.CompareAndSwap(parked, active)
}

func (c *Conn) unpark() {
	if c.state.CompareAndSwap(parked, active) {
		go c.serve()
	}
}

// handshakeTimeout bounds a TLS handshake, which takes a round trip or two; nginx
// gives a client as much as for its whole head (60 s).
const handshakeTimeout = 10 * time.Second

// secured makes the connection speak TLS if that is spoken here. A client that
// cannot is not told in plain text, which it could not read.
func (c *Conn) secured() bool {
	t := c.srv.TLS
	return t == nil || c.Secure() || c.StartServer(t, handshakeTimeout) == nil
}

// serve reads and answers requests until the connection ends or is parked.
func (c *Conn) serve() {
	if !c.secured() {
		c.srv.end(c)
		return
	}
	for {
		switch err := c.next(); {
		case err == errKicked:
			if c.park() {
				return
			}
			c.stays.Store(true)
			continue
		case err != nil:
			c.refuse(err)
			c.srv.end(c)
			return
		}
		if !c.srv.handler.Serve(c) {
			c.flush() // there is nothing to do if it fails
			c.srv.end(c)
			return
		}
		c.Release()
	}
}

// refuse has the client told why its request is not read, if there is one.
func (c *Conn) refuse(err error) {
	for _, silent := range []error{errClosing, errEnded, io.EOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE, sock.ErrStalled} {
		if errors.Is(err, silent) {
			return
		}
	}
	c.srv.handler.Refuse(c, err)
	c.flush() // there is nothing to do if it fails
}

// keepTrailer is the longest trailer section whose buffer a connection keeps, in bytes.
const keepTrailer = 512

// give returns the buffers of a request that is over.
func (c *Conn) give() {
	sock.PutBuf(c.buf)
	c.buf, c.big, c.from, c.to = nil, nil, 0, 0
}

// Release gives up everything that the request's slices point into. What the
// client has sent behind the request is kept.
func (c *Conn) Release() {
	putContent(c.body)
	c.body = nil
	if len(c.chunks.Trailer()) > keepTrailer {
		c.chunks = relay.Body{}
	}
	c.req.reset()
	if c.from == c.to {
		c.give()
	}
}

func (c *Conn) read(lim *Limits) error {
	size, err := c.head(lim)
	if err != nil {
		return err
	}
	if err := c.req.parse(c.bytes()[c.from : c.from+size]); err != nil {
		return err
	}
	c.from += size
	c.headSize, c.headEnd = size, c.from
	if err := c.srv.handler.Admit(c); err != nil {
		return err
	}
	if c.req.chunked {
		return c.chunkedBody(lim)
	}
	return c.plainBody(lim)
}

// head reads up to the empty line and returns the head's size. What can never
// become a head is refused at once.
func (c *Conn) head(lim *Limits) (size int, err error) {
	scanned := 0
	for {
		b := c.bytes()[c.from:c.to]
		if scanned == 0 {
			b = c.skipBlank(b)
			switch {
			case c.from == c.to:
				return 0, errBlank
			case len(b) > 0 && !relay.IsToken(b[:1]):
				return 0, malformed("a request does not start with the byte 0x%02x", b[0])
			}
		}
		if size, scanned, err = endOfHead(b, scanned); size > 0 || err != nil {
			if size > lim.Head {
				return 0, ErrHeadSize
			}
			return size, err
		}
		if len(b) >= lim.Head {
			return 0, ErrHeadSize
		}
		if err := c.more(lim); err != nil {
			return 0, err
		}
	}
}

// skipBlank drops empty lines in front of a request, as RFC 9112 section 2.2 asks
// of servers: some clients send one behind a body.
func (c *Conn) skipBlank(b []byte) []byte {
	for len(b) >= 2 && b[0] == '\r' && b[1] == '\n' {
		b = b[2:]
		c.from += 2
	}
	if len(b) == 1 && b[0] == '\r' {
		return nil
	}
	return b
}

// endOfHead looks for the empty line from position scanned, where a line starts.
func endOfHead(b []byte, scanned int) (size, next int, err error) {
	for {
		i := bytes.IndexByte(b[scanned:], '\n')
		if i < 0 {
			return 0, scanned, nil
		}
		if i == 0 || b[scanned+i-1] != '\r' {
			return 0, 0, malformed("a line of the head does not end in CRLF")
		}
		if i == 1 && scanned > 0 {
			return scanned + 2, 0, nil
		}
		scanned += i + 1
	}
}

// more reads more of a head. A head that does not fit into what is left of the
// buffer moves to its start, or into a larger one.
func (c *Conn) more(lim *Limits) error {
	if b := c.bytes(); c.to == len(b) {
		n := c.to - c.from
		if c.from == 0 {
			c.big = make([]byte, min(2*len(b), lim.Head+1))
			copy(c.big, b)
			sock.PutBuf(c.buf)
			c.buf = nil
		} else {
			copy(b, b[c.from:c.to])
		}
		c.from, c.to = 0, n
	}
	c.limit(lim)
	n, err := c.Read(c.bytes()[c.to:])
	c.to += n
	return c.cut(err)
}

// limit sets the deadline of a request that has not come in one piece.
func (c *Conn) limit(lim *Limits) {
	if !c.limited && lim.Read > 0 {
		c.limited = true
		c.SetReadDeadline(time.Now().Add(lim.Read))
	}
}

func (c *Conn) cut(err error) error {
	if errors.Is(err, io.EOF) {
		return ErrCut
	}
	return err
}

// plainBody reads a body of known length, none included.
func (c *Conn) plainBody(lim *Limits) error {
	length := c.req.length
	if length <= 0 {
		return nil
	}
	if length > int64(lim.Body) {
		return ErrBodySize
	}
	n := int(length)
	if c.to-c.from >= n {
		c.req.Body = c.bytes()[c.from : c.from+n]
		c.from += n
		return nil
	}
	if err := c.goOn(); err != nil {
		return err
	}
	if n <= len(c.bytes())-c.from {
		return c.bodyInPlace(n, lim)
	}
	return c.bodyApart(n, lim)
}

func (c *Conn) bodyInPlace(n int, lim *Limits) error {
	for c.to-c.from < n {
		c.limit(lim)
		m, err := c.Read(c.bytes()[c.to : c.from+n])
		if c.to += m; err != nil {
			return c.cut(err)
		}
	}
	c.req.Body = c.bytes()[c.from : c.from+n]
	c.from += n
	return nil
}

// bodyApart reads a body that does not fit behind its head. The buffer grows with
// what has come, not with what was announced.
func (c *Conn) bodyApart(n int, lim *Limits) error {
	c.body = getContent(n)
	b := append(c.body.b, c.bytes()[c.from:c.to]...)
	c.from = c.to
	for len(b) < n {
		if len(b) == cap(b) {
			b = append(make([]byte, 0, min(n, 2*cap(b))), b...)
		}
		c.limit(lim)
		m, err := c.Read(b[len(b):min(n, cap(b))])
		if b = b[:len(b)+m]; err != nil {
			return c.cut(err)
		}
	}
	c.body.b, c.req.Body = b, b
	return nil
}

// chunkedBody reads and decodes a chunked body. Trailer fields are dropped, which
// RFC 9110 section 6.5.1 allows: a replica gets a body of known length.
func (c *Conn) chunkedBody(lim *Limits) error {
	c.chunks.Reset(relay.Chunked, 0)
	c.body = getContent(0)
	if err := c.decode(lim); err != nil {
		return err
	}
	if !c.chunks.Ended() {
		if err := c.roomBehindHead(); err != nil {
			return err
		}
		if err := c.goOn(); err != nil {
			return err
		}
	}
	for !c.chunks.Ended() {
		if err := c.moreChunks(lim); err != nil {
			return err
		}
		if err := c.decode(lim); err != nil {
			return err
		}
	}
	c.req.Body = c.body.b
	return nil
}

// decode takes what is there.
func (c *Conn) decode(lim *Limits) error {
	for c.from < c.to && !c.chunks.Ended() {
		payload, n, err := c.chunks.Next(c.bytes()[c.from:c.to])
		if err != nil {
			return malformed("the body is not well-formed: %s", err)
		}
		if len(c.body.b)+len(payload) > lim.Body {
			return ErrBodySize
		}
		c.body.b = append(c.body.b, payload...)
		c.from += n
	}
	return nil
}

// minRoom is the least that is read of a chunked body at once, in bytes.
const minRoom = 4 << 10

// roomBehindHead moves a head that leaves little of its buffer. The request points
// into the old one, so it is read again.
func (c *Conn) roomBehindHead() error {
	b := c.bytes()
	start := c.headEnd - c.headSize
	if len(b)-c.headEnd >= minRoom {
		return nil
	}
	c.big = append(make([]byte, 0, c.headSize+4*minRoom), b[start:c.headEnd]...)
	c.big = c.big[:cap(c.big)]
	c.buf = nil // not given back: an error may still quote from it
	c.headEnd = c.headSize
	c.from, c.to = c.headEnd, c.headEnd
	return c.req.parse(c.big[:c.headSize])
}

// moreChunks reads on behind the head, whose bytes the request still points to.
func (c *Conn) moreChunks(lim *Limits) error {
	c.from, c.to = c.headEnd, c.headEnd
	c.limit(lim)
	n, err := c.Read(c.bytes()[c.headEnd:])
	c.to += n
	if errors.Is(err, io.EOF) && c.chunks.Between() {
		return io.EOF // as if the request had not begun
	}
	return c.cut(err)
}

// goOn tells a client that waits for it to send the body.
func (c *Conn) goOn() error {
	if !c.req.expects || c.req.Minor == 0 {
		return nil
	}
	_, err := c.Write([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
	return err
}

// content is the buffer of a body, kept for others.
type content struct{ b []byte }

// Sizes of body buffers in bytes: what one is made with at most before anything
// has come, and the largest that is kept.
const (
	firstContent = 64 << 10
	keepContent  = 1 << 20
)

var contents = sync.Pool{New: func() any { return new(content) }}

func getContent(n int) *content {
	c := contents.Get().(*content)
	if n = min(n, firstContent); cap(c.b) < n {
		c.b = make([]byte, 0, n)
	}
	return c
}

func putContent(c *content) {
	if c == nil {
		return
	}
	if c.b = c.b[:0]; cap(c.b) > keepContent {
		c.b = nil
	}
	contents.Put(c)
}
