//go:build linux

package main

import (
	"bytes"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// client is all connections of the load's client half.
type client struct {
	l        *loop
	port     int
	requests [][]byte // connections take turns to take one
	opened   int
	reply    int64 // bytes an answer must have; -1: chunks
	again    bool  // send the next request when an answer is complete
	conns    map[*cconn]struct{}

	answers int64 // complete ones
	events  int64
	bytes   int64
	latency hist // of a whole answer, or of one event from replica to client
	first   hist // from dialling to the first byte of the first answer
	waiting int  // connections without a first byte yet
	perEnd  int  // events a stream must have when it ends; 0 = not checked
	errors  map[string]int
}

func newClient(l *loop) *client {
	return &client{l: l, conns: map[*cconn]struct{}{}, errors: map[string]int{}}
}

func (k *client) fault(word string) { k.errors[word]++ }

// clear forgets what was counted, not the connections.
func (k *client) clear() {
	k.answers, k.events, k.bytes = 0, 0, 0
	k.latency.reset()
	k.first.reset()
}

// open begins a connection and sends a request as soon as it stands.
func (k *client) open() *cconn {
	fd, err := dial(k.port)
	if err != nil {
		k.fault("connect: " + err.Error())
		return nil
	}
	c := &cconn{k: k, fd: fd, connecting: true, sent: nanos(), request: k.requests[k.opened%len(k.requests)]}
	k.opened++
	k.conns[c] = struct{}{}
	k.waiting++
	c.waiting = true
	if err := k.l.add(fd, c, unix.EPOLLIN|unix.EPOLLOUT); err != nil {
		k.fault("epoll: " + err.Error())
		c.drop()
		return nil
	}
	return c
}

// cconn is one connection of a client.
type cconn struct {
	k          *client
	fd         int
	request    []byte
	connecting bool
	waiting    bool // for its first byte ever
	busy       bool // an answer is on its way
	gone       bool
	sent       int64 // when the request was, the first one when it was dialled
	out        []byte
	blocked    bool // waits for EPOLLOUT

	inBody  bool
	head    []byte // of an answer that came in parts
	length  int64  // bytes of the body still to come, without chunks
	chunked bool
	chunks  dechunk

	digits int // of the stamp being read, plus one; 0 = looking for one
	stamp  int64
	latest int64
	events int
}

// drop closes the connection with an RST.
func (c *cconn) drop() { c.end(c.k.l.reset) }

func (c *cconn) end(close func(fd int)) {
	if c.gone {
		return
	}
	c.gone = true
	c.answered()
	delete(c.k.conns, c)
	close(c.fd)
}

func (c *cconn) answered() {
	if c.waiting {
		c.waiting = false
		c.k.waiting--
	}
}

func (c *cconn) fail(word string) {
	c.k.fault(word)
	c.drop()
	// A closed loop stays closed: the number of connections is part of the work.
	if c.k.again && len(c.k.errors) < 100 && c.k.errors[word] < 10000 {
		c.k.open()
	}
}

// send begins a request on a connection that stands.
func (c *cconn) send() {
	c.busy = true
	if !c.waiting {
		c.sent = nanos()
	}
	c.out = c.request
	c.flush()
}

func (c *cconn) flush() {
	n, errno := rawWrite(c.fd, c.out)
	if errno != 0 && errno != syscall.EAGAIN {
		c.fail("write: " + errno.Error())
		return
	}
	c.out = c.out[max(n, 0):]
	if blocked := len(c.out) > 0; blocked != c.blocked {
		c.blocked = blocked
		events := uint32(unix.EPOLLIN)
		if blocked {
			events |= unix.EPOLLOUT
		}
		c.k.l.want(c.fd, events)
	}
}

func (c *cconn) ready(events uint32) {
	if c.connecting {
		if !c.connected() {
			return
		}
	} else if events&unix.EPOLLOUT != 0 && len(c.out) > 0 {
		c.flush()
	}
	if c.gone || events&^unix.EPOLLOUT == 0 {
		return
	}
	n, errno := rawRead(c.fd, c.k.l.buf)
	switch {
	case errno == syscall.EAGAIN || errno == syscall.EINTR:
	case errno != 0:
		c.fail("read: " + errno.Error())
	case n == 0:
		c.fail("closed early")
	default:
		c.take(c.k.l.buf[:n])
	}
}

func (c *cconn) connected() bool {
	code, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil || code != 0 {
		c.fail("connect: " + syscall.Errno(code).Error())
		return false
	}
	c.connecting = false
	c.k.l.want(c.fd, unix.EPOLLIN)
	c.send()
	return !c.gone
}

// take consumes bytes of answers.
func (c *cconn) take(b []byte) {
	if !c.busy {
		c.fail("bytes nobody asked for")
		return
	}
	if c.waiting {
		c.answered()
		c.k.first.add(nanos() - c.sent)
	}
	c.k.bytes += int64(len(b))
	for len(b) > 0 && !c.gone && c.busy {
		if !c.inBody {
			b = c.begin(b)
			continue
		}
		b = c.body(b)
	}
}

// begin takes the head of an answer and returns what follows it.
func (c *cconn) begin(b []byte) []byte {
	head := b
	if len(c.head) > 0 {
		c.head = append(c.head, b...)
		head = c.head
	}
	i := bytes.Index(head, []byte("\r\n\r\n"))
	if i < 0 {
		if len(c.head) == 0 {
			c.head = append(c.head, b...)
		}
		return nil
	}
	c.head = nil
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200")) {
		c.fail(fmt.Sprintf("status line %.40q", head[:bytes.IndexByte(head, '\r')]))
		return nil
	}
	c.length, c.chunked = framing(head[:i+2])
	if c.chunked == (c.k.reply >= 0) || !c.chunked && c.length != c.k.reply {
		c.fail("answer with another body than the replica's")
		return nil
	}
	c.inBody, c.events, c.latest = true, 0, 0
	if c.length == 0 && !c.chunked {
		c.complete()
	}
	return head[i+4:]
}

func (c *cconn) body(b []byte) []byte {
	if !c.chunked {
		n := min(int64(len(b)), c.length)
		if c.length -= n; c.length == 0 {
			c.complete()
		}
		return b[n:]
	}
	rest, part, done, ok := c.chunks.next(b)
	if !ok {
		c.fail("bad chunk")
		return nil
	}
	c.scan(part)
	if done {
		c.complete()
	}
	return rest
}

func (c *cconn) complete() {
	c.inBody, c.busy = false, false
	c.k.answers++
	if !c.chunked {
		c.k.latency.add(nanos() - c.sent)
	} else if c.k.perEnd > 0 && c.events != c.k.perEnd {
		c.fail("stream ended with events missing")
		return
	}
	if c.k.again {
		c.send()
	}
}

// scan finds the stamps in a part of a stream.
func (c *cconn) scan(b []byte) {
	for len(b) > 0 {
		if c.digits == 0 {
			i := bytes.IndexByte(b, markByte)
			if i < 0 {
				return
			}
			b = b[i+1:]
			c.digits, c.stamp = 1, 0
			continue
		}
		c.stamp = c.stamp<<4 | unhex(b[0])
		b = b[1:]
		if c.digits++; c.digits > markDigit {
			c.digits = 0
			c.event()
		}
	}
}

func (c *cconn) event() {
	if c.stamp <= c.latest {
		c.k.fault("events out of order")
	}
	c.latest = c.stamp
	c.events++
	c.k.events++
	c.k.latency.add(nanos() - c.stamp)
}
