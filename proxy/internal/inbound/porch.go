package inbound

import (
	"net"
	"sync"
	"time"

	"lbd/proxy/internal/sock"
)

// porch is where those stand who are turned away, until they have heard why.
type porch struct {
	mu     sync.Mutex
	conns  map[*sock.Conn]struct{}
	closed bool
	all    sync.WaitGroup
}

// maxPorch bounds how many are told in peace, each with a goroutine, a buffer and a
// descriptor; the others are told in passing.
const maxPorch = 128

func (p *porch) enter(c *sock.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.conns) >= maxPorch {
		return false
	}
	if p.conns == nil {
		p.conns = map[*sock.Conn]struct{}{}
	}
	p.conns[c] = struct{}{}
	p.all.Add(1)
	return true
}

func (p *porch) leave(c *sock.Conn) {
	c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	p.all.Done()
}

// close cuts short what is said to those on the porch, and lets nobody on it.
func (p *porch) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for c := range p.conns {
		c.Close()
	}
}

func (p *porch) wait() { p.all.Wait() }

// turnAway tells a client that there is no room and closes its connection, without
// waiting. In TLS the client only sees the end: a handshake costs more than many
// requests, and a flood is the moment when it must not be paid for.
func (s *Server) turnAway(c *sock.Conn, why Reason) {
	s.mu.Lock()
	room := s.room.Room
	s.mu.Unlock()
	s.room.refused[why].Add(1)
	if room.Refused != nil {
		room.Refused(why, client(c.RemoteAddr()))
	}
	switch {
	case room.Answer == nil || s.TLS != nil:
		c.Close()
	case s.porch.enter(c):
		go func() {
			defer s.porch.leave(c)
			explain(c, func(request []byte) []byte { return room.Answer(why, request) })
		}()
	default:
		c.Write(room.Answer(why, nil)) // fits an empty send buffer: it does not wait
		c.Close()
	}
}

// Bounds of what a client that is turned away may take: the time it has for sending
// its request and for reading the answer, and the bytes that are read off.
const (
	porchTime  = time.Second
	porchBytes = 1 << 20
)

// explain answers when the request has come, because clients take an answer to
// nothing for a fault (net/http: "Unsolicited response received on idle HTTP channel"),
// and reads off what follows, because closing before it is read would be a reset that
// can overtake the answer.
func explain(c *sock.Conn, answer func(request []byte) []byte) {
	c.SetReadDeadline(time.Now().Add(porchTime)) // fails on a closed connection only, as what follows will
	b, n, err := c.ReadBuf()
	if n == 0 && err != nil && !isTimeout(err) {
		return
	}
	said := answer(came(b, n))
	sock.PutBuf(b)
	if _, err := c.Write(said); err != nil || c.CloseWrite() != nil {
		return
	}
	c.SetReadDeadline(time.Now().Add(porchTime))
	for left := porchBytes; left > 0; left -= n {
		b, n, err = c.ReadBuf()
		sock.PutBuf(b)
		if err != nil {
			return
		}
	}
}

func came(b *sock.Buf, n int) []byte {
	if b == nil {
		return nil
	}
	return b.B[:n]
}

func isTimeout(err error) bool {
	t, ok := err.(net.Error)
	return ok && t.Timeout()
}
