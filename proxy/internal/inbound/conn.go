package inbound

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
	ErrSlow     = errors.New("request came too slowly")
	ErrCut      = errors.New("request ended before the end of its body")
	ErrPlain    = errors.New("request in plain text where TLS is spoken")
)

// Limits bound what a client may send. They apply to the next request.
type Limits struct {
	Head int           // bytes of a request head
	Body int           // bytes of a request body
	Read time.Duration // for one request, from its first byte; 0 = no limit, and no pace
	Idle time.Duration // between requests; 0 = no limit

	slow time.Duration // in place of SlowTime, for tests
}

// Conn is one client's connection. It belongs to the goroutine that serves it.
type Conn struct {
	*sock.Conn
	srv *Server
	// Owner is what the handler knows of the connection, and of whose request it
	// carries; this package does not look at it.
	Owner any

	req      Request
	room     *fieldRoom // of req; nil while there is none
	buf      *sock.Buf  // what was read and is not used up; nil while nothing was
	big      []byte     // in place of buf, for a head that outgrew it
	from     int        // first byte not used up
	to       int        // behind the last byte read
	headSize int        // of the request
	headEnd  int        // where its head ends
	body     *content   // of a body that does not stand in buf
	chunks   relay.Body
	pace     pace         // at which the request comes
	blanks   int          // empty lines since the last request
	held     int          // bytes of the server's larder
	out      *Out         // an answer to be written
	waitFn   func() error // wait, made once
	serveFn  func()       // serve, made once
	atOnce   bool         // reading must not wait
	waits    bool         // for a request, of which no byte has come
	stirred  bool         // while it waited, by bytes that are none of a request yet
	ready    bool         // a request has been read and is to be answered
	wrong    error        // with one that has been read, and is to be refused
	begun    atomic.Bool  // a request has come
	stays    atomic.Bool  // it cannot be parked
	seat     seat         // of the server's room

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
	if c.ready {
		c.ready = false
		return nil
	}
	if c.wrong != nil {
		c.isBegun()
		return c.wrong
	}
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
			c.isBegun()
			return err
		}
	}
}

// isBegun notes that a request has come. The flag is looked at first: others read it.
func (c *Conn) isBegun() {
	if !c.begun.Load() {
		c.begun.Store(true)
	}
}

// inTime reads a request within the time for one.
func (c *Conn) inTime(lim *Limits) error {
	return c.unlimited(c.read(lim))
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
	c.noteWait()
	c.state.Store(waiting)
	if c.srv.leaving() && !c.Unread() {
		return errClosing
	}
	return nil
}

// noteWait notes when waiting for a request began. Where the connection was only woken, by a
// part of a TLS record say, it begins anew once, for that may be the beginning of a request;
// else a byte now and then would keep the connection for ever.
func (c *Conn) noteWait() {
	switch {
	case !c.waits:
		c.waits, c.stirred = true, false
	case !c.stirred:
		c.stirred = true
	default:
		return
	}
	c.since.Store(c.srv.clock.Load())
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
	c.buf, c.from, c.to, c.waits = b, 0, n, false
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

// shut closes the connection if no request is being read or answered, none has been
// since, and none has come that nobody has looked at yet. It reports whether there is
// no goroutine that would notice.
func (c *Conn) shut(since int64) (closed, orphan bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.since.Load() != since {
		return false, false
	}
	was := c.state.Load()
	if was == parked && c.Unread() {
		c.Stir() // nobody may have told of it: what stands behind an urgent byte is not told of
		return false, false
	}
	if (was != waiting && was != parked) || c.Unread() || !c.state.CompareAndSwap(was, closing) {
		return false, false
	}
	c.Close()
	return true, was == parked
}

// park ends the goroutine of a connection without a request: the watch begins
// another one when bytes come or the client leaves. It returns false where that
// cannot be had.
func (c *Conn) park() bool {
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

// secured makes the connection speak TLS if that is spoken here. A client that sends
// HTTP in plain text gets ErrPlain told in plain text, as by nginx and net/http; to
// others whose handshake fails nothing can be said that they could read.
func (c *Conn) secured() bool {
	t := c.srv.TLS
	if t == nil || c.Secure() {
		return true
	}
	err := c.StartServer(t, handshakeTimeout)
	var not tls.RecordHeaderError
	if errors.As(err, &not) && not.Conn != nil && looksLikeHTTP(not.RecordHeader) {
		c.refuse(ErrPlain)
	}
	return err == nil
}

// looksLikeHTTP says that what should be the header of a TLS record is the beginning of
// a request.
func looksLikeHTTP(b [5]byte) bool {
	switch string(b[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET", "PATCH":
		return true
	}
	return false
}

// serve reads and answers requests until the connection ends or is parked.
func (c *Conn) serve() {
	if !c.secured() {
		c.srv.end(c)
		return
	}
	for {
		if !c.ready && c.wrong == nil && c.rest() {
			return
		}
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
	if c.room != nil {
		c.req.reset()
		c.room.fields, c.req.Fields = c.req.Fields, nil
		rooms.Put(c.room)
		c.room = nil
	}
}

// fieldRoom is where the fields of a request stand. A connection that waits has none.
type fieldRoom struct{ fields []relay.Field }

var rooms = sync.Pool{New: func() any { return new(fieldRoom) }}

// hasRoom makes sure that there is room for the fields of a request.
func (c *Conn) hasRoom() {
	if c.room == nil {
		c.room = rooms.Get().(*fieldRoom)
		c.req.Fields = c.room.fields
	}
}

// Release gives up everything that the request's slices point into. What the
// client has sent behind the request is kept.
func (c *Conn) Release() {
	putContent(c.body)
	c.body = nil
	c.letGo()
	if len(c.chunks.Trailer()) > keepTrailer {
		c.chunks = relay.Body{}
	}
	c.req.reset()
	if c.from == c.to {
		c.give()
	}
}
