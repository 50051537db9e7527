package inbound

import (
	"context"
	"fmt"
	"time"

	"lbd/proxy/internal/sock"
)

// A server leaves in three steps, so that nobody who has reached it is turned down:
// the listener is closed, with what has connected already taken in; every answer from
// then on ends its connection; and a connection without a request is closed when
// there was time for one more, and never while bytes of it wait to be read. The last
// step is HAProxy's idle-close-on-response with an end: a request that was sent while
// the FIN was under way is what remains, as at every keep-alive timeout (RFC 9112
// section 9.5).

// SetGrace says how long, from Shutdown on, a connection may wait for one more
// request; 0 = it is closed at once.
func (s *Server) SetGrace(d time.Duration) { s.grace.Store(int64(d)) }

// Shutdown accepts nobody any more and waits until every connection has ended, or
// until ctx has. It returns an error that wraps ctx's and names the number of
// connections left.
func (s *Server) Shutdown(ctx context.Context) error {
	s.close()
	defer s.rest()
	select {
	case <-s.idle:
		return nil
	case <-ctx.Done():
	}
	if n := s.Open(); n > 0 {
		return fmt.Errorf("%d connections cut: %w", n, ctx.Err())
	}
	return nil
}

// close stops accepting before it stops: whoever was accepted is served.
func (s *Server) close() {
	s.mu.Lock()
	first := !s.closing
	s.closing = true
	ln, accepted := s.ln, s.accepted
	s.mu.Unlock()
	if !first {
		return
	}
	if ln != nil {
		s.letIn(ln)
		ln.Close()
		<-accepted
	}
	s.porch.close()
	now := time.Now()
	if g := s.grace.Load(); g > 0 {
		s.leave.Store(s.at(now) + g)
	}
	s.mu.Lock()
	if s.stopping.Store(true); len(s.conns) == 0 {
		close(s.idle)
	}
	s.mu.Unlock()
	s.sweep(now)
}

// rest ends the clock and waits for it, and for those who were turned away.
func (s *Server) rest() {
	s.halt.Do(func() { close(s.stop) })
	<-s.done
	s.porch.wait()
}

// queue is a Listener that knows who waits to be accepted.
type queue interface{ Queued() (*sock.Conn, bool) }

// maxQueued bounds how many are taken in at the end: the longest queue of Linux by
// default (net.core.somaxconn). Under a flood there is always one more.
const maxQueued = 4096

// letIn accepts those who have connected; closing the listener would reset them.
func (s *Server) letIn(ln Listener) {
	q, ok := ln.(queue)
	for range maxQueued {
		if !ok {
			return
		}
		var c *sock.Conn
		if c, ok = q.Queued(); ok {
			s.begin(c)
		}
	}
}

// leaving says that a connection is not to wait for a request any more.
func (s *Server) leaving() bool {
	return s.stopping.Load() && s.clock.Load() >= s.leave.Load()
}
