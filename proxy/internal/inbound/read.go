package inbound

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"lbd/proxy/internal/relay"
	"lbd/proxy/internal/sock"
)

// read reads a request: its head, whether its sender may go on, its body.
func (c *Conn) read(lim *Limits) error {
	c.hasRoom()
	size, err := c.head(lim)
	if err != nil {
		c.noteLine(err)
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

// noteLine reads the request line of a head that will not be whole, if that much of it
// has come: the answer may depend on what was asked for.
func (c *Conn) noteLine(why error) {
	if why == errPartly || why == errBlank {
		return
	}
	c.req.reset()
	if line, _, ok := bytes.Cut(c.bytes()[c.from:c.to], crlf); ok && c.req.requestLine(line) != nil {
		c.req.reset()
	}
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
			case c.blanks > maxBlanks:
				return 0, malformed("more than %d empty lines in front of a request", maxBlanks)
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
			c.blanks = 0
			return size, err
		}
		if len(b) >= lim.Head {
			return 0, ErrHeadSize
		}
		if c.atOnce {
			return 0, errPartly
		}
		if err := c.more(lim); err != nil {
			return 0, err
		}
	}
}

// maxBlanks bounds the empty lines in front of a request: each one that comes alone
// begins the waiting anew.
const maxBlanks = 8

// skipBlank drops empty lines in front of a request, as RFC 9112 section 2.2 asks
// of servers: some clients send one behind a body.
func (c *Conn) skipBlank(b []byte) []byte {
	for len(b) >= 2 && b[0] == '\r' && b[1] == '\n' {
		b = b[2:]
		c.from += 2
		c.blanks++
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
	n, err := c.readHead(c.bytes()[c.to:], lim)
	c.to += n
	return c.cut(err)
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
	if c.atOnce {
		return errPartly
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
		m, err := c.readBody(c.bytes()[c.to:c.from+n], lim)
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
	if err := c.hold(min(n, cap(b))); err != nil {
		return err
	}
	for len(b) < n {
		if len(b) == cap(b) {
			size := min(n, 2*cap(b))
			if err := c.hold(size); err != nil {
				return err
			}
			b = append(make([]byte, 0, size), b...)
		}
		m, err := c.readBody(b[len(b):min(n, cap(b))], lim)
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
		if c.atOnce {
			putContent(c.body)
			c.body = nil
			return errPartly
		}
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
		if len(c.body.b) > firstContent {
			if err := c.hold(cap(c.body.b)); err != nil {
				return err
			}
		}
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
	n, err := c.readBody(c.bytes()[c.headEnd:], lim)
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
