package inbound

import (
	"crypto/tls"
	"sync"
	"sync/atomic"
	"time"

	"lbd/proxy/internal/sock"
)

// Handler answers requests. Its methods are called by the goroutine of the
// connection.
type Handler interface {
	// Admit looks at a request whose head c has read and whose body it has not, and
	// sets c.Owner. With an error the body is not read; the request is refused with
	// it.
	Admit(c *Conn) error
	// Serve answers the request c has read. It returns whether the connection may
	// carry another one; if not, it is closed.
	Serve(c *Conn) (keep bool)
	// Refuse answers a request that could not be read, with a *Malformed, one of the
	// errors of this package or an error of Admit. The connection is closed afterwards.
	Refuse(c *Conn, err error)
}

// Listener is where connections come from; *sock.Listener is one.
type Listener interface {
	AcceptConn() (*sock.Conn, error)
	Close() error
}

// Server serves the connections of a listener.
type Server struct {
	// TLS is spoken with clients; nil = plain text. It is to be set before Serve.
	TLS *tls.Config

	handler  Handler
	beginner Beginner // the handler, if it is one; else nil
	limits   atomic.Pointer[Limits]
	larder   larder
	began    time.Time    // zero of the clock; it is monotonic
	clock    atomic.Int64 // ns, to the tick
	stopping atomic.Bool
	grace    atomic.Int64 // ns, see SetGrace
	leave    atomic.Int64 // of the clock: while stopping, when waiting for a request ends

	mu       sync.Mutex
	ln       Listener
	closing  bool          // nobody is to be accepted any more
	accepted chan struct{} // closed when Serve has returned; nil before it
	conns    map[*Conn]struct{}
	idle     chan struct{} // closed when the last connection has ended, while stopping
	room     seats
	porch    porch

	halt sync.Once // closes stop
	stop chan struct{}
	done chan struct{} // the ticker has ended
}

// NewServer starts the server's clock; Shutdown ends it.
func NewServer(h Handler, lim Limits) *Server {
	s := &Server{
		handler: h, began: time.Now(), conns: map[*Conn]struct{}{}, idle: make(chan struct{}),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	s.beginner, _ = h.(Beginner)
	s.limits.Store(&lim)
	s.larder.limit = bodyMemory()
	go s.run()
	return s
}

// at is a time on the server's clock. The system's own may be set, by an hour in either
// direction: then idle connections would end at once or not at all, no place would be
// found for a newcomer, and a drain would last.
func (s *Server) at(t time.Time) int64 { return int64(t.Sub(s.began)) }

// SetLimits applies to the next request of each connection.
func (s *Server) SetLimits(lim Limits) { s.limits.Store(&lim) }

// Stopping says that every answer should end its connection.
func (s *Server) Stopping() bool { return s.stopping.Load() }

// Open returns the number of connections.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Serve accepts connections until Shutdown, which makes it return nil.
func (s *Server) Serve(ln Listener) error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		ln.Close()
		return nil
	}
	accepted := make(chan struct{})
	s.ln, s.accepted = ln, accepted
	s.mu.Unlock()
	defer close(accepted)
	for {
		sc, err := ln.AcceptConn()
		if err != nil {
			if s.over() {
				return nil
			}
			return err
		}
		s.begin(sc)
	}
}

func (s *Server) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

func (s *Server) begin(sc *sock.Conn) {
	c := &Conn{Conn: sc, srv: s}
	c.waitFn, c.serveFn = c.wait, c.serve
	if why, ok := s.makeRoom(c); !ok {
		s.turnAway(sc, why)
		return
	}
	if !s.enlist(c) {
		sc.Close()
		return
	}
	if !c.rest() {
		go c.serve()
	}
}

// enlist notes a connection, unless it was accepted while the server shuts down and
// nobody may be left who waits for it.
func (s *Server) enlist(c *Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping.Load() {
		return false
	}
	s.conns[c] = struct{}{}
	s.room.take(c)
	return true
}

// end closes a connection that is over.
func (s *Server) end(c *Conn) {
	if !c.Gone() && c.Unread() { // to close on that is a reset, which takes the end of the answer with it (RFC 9112 section 9.6)
		c.LingerOnClose()
	}
	c.Release()
	c.give()
	c.Finish()
	c.Close()
	s.forget(c)
}

func (s *Server) forget(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.conns[c]; !ok {
		return
	}
	s.room.give(c)
	if delete(s.conns, c); len(s.conns) == 0 && s.stopping.Load() {
		close(s.idle)
	}
}

// shut closes a connection without a request, which has come to wait at since.
func (s *Server) shut(c *Conn, since int64) (closed bool) {
	closed, orphan := c.shut(since)
	if orphan {
		s.forget(c)
	}
	return closed
}

func (s *Server) list() []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	conns := make([]*Conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	return conns
}

// parkAfter is how long a connection waits with a goroutine of its own, whose
// stack is most of what it costs. It is long against the pauses of a client that
// is at work, so that such a client never pays for it.
const parkAfter = time.Second

// tick is how exact the times of waiting connections are.
const tick = 500 * time.Millisecond

func (s *Server) run() {
	defer close(s.done)
	t := time.NewTicker(s.period())
	defer t.Stop()
	for {
		select {
		case <-s.stop:
			return
		case now := <-t.C:
			s.clock.Store(s.at(now))
			s.sweep(now)
			t.Reset(s.period())
		}
	}
}

// period keeps up with limits that are shorter than usual.
func (s *Server) period() time.Duration {
	lim, d := s.limits.Load(), tick
	for _, l := range []time.Duration{lim.Idle, lim.Read, time.Duration(s.grace.Load())} {
		if l > 0 {
			d = min(d, l/2+1)
		}
	}
	return d
}

// sweep closes connections that have waited too long and parks those that have
// waited for a while.
func (s *Server) sweep(now time.Time) {
	for _, o := range s.overdue(s.at(now), s.limits.Load()) {
		s.shut(o.c, o.since)
	}
}

// overdue is a connection and when its waiting began that was too long.
type overdue struct {
	c     *Conn
	since int64
}

func (s *Server) overdue(now int64, lim *Limits) (over []overdue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	leaving := s.leaving()
	if !s.full() {
		s.room.spare = nil
	}
	for c := range s.conns {
		state := c.state.Load()
		if state != waiting && state != parked {
			continue
		}
		since := c.since.Load()
		waited := time.Duration(now - since)
		switch limit := c.patience(lim); {
		case leaving || limit > 0 && waited >= limit:
			over = append(over, overdue{c, since})
		case state == waiting && waited >= parkAfter && !c.stays.Load():
			c.kick()
		}
	}
	return over
}

// patience is how long the connection may wait for a request: the first one must
// have begun within the time for reading a head, as in nginx.
func (c *Conn) patience(lim *Limits) time.Duration {
	if !c.begun.Load() && lim.Read > 0 {
		return lim.slowTime()
	}
	return lim.Idle
}
