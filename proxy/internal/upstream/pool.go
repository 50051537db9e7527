package upstream

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"lbd/proxy/internal/sock"
)

// Conn is a connection to a replica.
type Conn struct {
	*sock.Conn
	// Reused says that the connection has carried a request before.
	Reused bool

	mark   int64 // bytes written before the current request
	since  time.Time
	waited time.Duration // unused, before the current request
	ip     netip.Addr    // of the replica, where it is known by name
	rules  *tls.Config   // that it was made by; nil = plain text
	loop   int           // that hears of it
}

// Begin marks the start of a request, for Arrived.
func (c *Conn) Begin() { c.mark = c.Written() }

// Send writes p.
func (c *Conn) Send(p []byte) error {
	_, err := c.Write(p)
	return err
}

// Ask writes p and waits for the first bytes of the answer. A connection that was
// idle fails with sock.ErrNotQuiet if it is not as it was left.
func (c *Conn) Ask(p []byte) (sendErr error, b *sock.Buf, n int, err error) {
	_, sendErr, b, n, err = c.Conn.Ask(p, c.Reused, nil)
	return sendErr, b, n, err
}

// Arrived says whether the replica may have received any byte of the current
// request. When it has not, the request cannot have been executed: either our own
// kernel took none, because a reset had come before, or the replica had closed.
func (c *Conn) Arrived() bool { return c.Written() > c.mark && c.Conn.Arrived(c.mark) }

// Config holds the limits of a pool.
type Config struct {
	// ConnectTimeout bounds name look-up and connect together.
	ConnectTimeout time.Duration
	// IdleTimeout is how long a connection may wait unused. It has to stay below
	// the replica's own limit (uvicorn: 5 s), or requests are lost: a replica that
	// closes with an unread request in its kernel resets, and after a reset a
	// request is not sent again (see Conn.Arrived). Measured against an asyncio
	// server whose timer fires at 100 ms, on a busy machine: 397 of 4,800 requests
	// aimed at that moment were lost so; with a limit of 60 ms, none of 3,200.
	IdleTimeout time.Duration
	// WriteTimeout is the longest time a replica may take no byte of a request;
	// 0 = no limit.
	WriteTimeout time.Duration
	// Watch hears of connections that replicas close.
	Watch *sock.Watch
	// Names knows what the names of replicas stand for; nil = each dial asks the
	// system.
	Names Names
}

// Names is where a pool finds the addresses of a replica that is known by name.
type Names interface {
	// Try calls dial with one address (IP:port) after the other until one takes the
	// connection.
	Try(ctx context.Context, addr string, dial func(ctx context.Context, addr string) error) error
	// Current says whether a connection to ip is still one to the name.
	Current(addr string, ip netip.Addr) bool
}

// maxIdle bounds the idle connections per replica: a burst may leave many, of
// which later traffic needs few.
const maxIdle = 1024

// Pool holds the idle connections of one replica.
type Pool struct {
	addr  string
	named bool               // addr has to be looked up
	peer  Peer               // zero = plain text
	tls   func() *tls.Config // nil = plain text
	cfg   Config

	mu     sync.Mutex
	idle   []*Conn // oldest first
	lesson lesson
	closed bool
}

// NewPool returns an empty pool for the replica at addr (host:port).
func NewPool(addr string, cfg Config) *Pool {
	_, err := netip.ParseAddrPort(addr)
	return &Pool{addr: addr, named: err != nil && cfg.Names != nil, cfg: cfg}
}

func (p *Pool) secure() bool { return p.tls != nil }

// Dial makes a new connection for a client of that loop, whatever is idle. An attempt that
// ctx ends says nothing of the replica.
func (p *Pool) Dial(ctx context.Context, near int) (*Conn, error) {
	rules := p.rules()
	sc, err := p.dial(ctx, p.cfg.Watch.Near(near), rules)
	if err != nil {
		if ctx.Err() == nil {
			p.forget()
		}
		return nil, err
	}
	c := &Conn{Conn: sc, loop: sc.Loop(), rules: rules}
	if a, ok := sc.RemoteAddr().(*net.TCPAddr); ok && p.named {
		c.ip = a.AddrPort().Addr().Unmap()
	}
	return c, nil
}

// forget is for a replica that was away: what comes back may be another one.
func (p *Pool) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lesson.forget()
}

func (p *Pool) dial(ctx context.Context, w *sock.Watch, rules *tls.Config) (c *sock.Conn, err error) {
	if !p.named {
		return p.dialAt(ctx, p.addr, w, rules)
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.ConnectTimeout)
	defer cancel()
	err = p.cfg.Names.Try(ctx, p.addr, func(ctx context.Context, addr string) (err error) {
		c, err = p.dialAt(ctx, addr, w, rules)
		return err
	})
	return c, err
}

// dialAt connects to an address. In TLS the name is still the configuration's.
func (p *Pool) dialAt(ctx context.Context, addr string, w *sock.Watch, rules *tls.Config) (*sock.Conn, error) {
	if rules == nil {
		return sock.Dial(ctx, addr, p.cfg.ConnectTimeout, p.cfg.WriteTimeout, w)
	}
	return sock.DialTLS(ctx, addr, rules, p.cfg.ConnectTimeout, p.cfg.WriteTimeout, w)
}

// rules are what a connection that is made now speaks TLS by, nil for plain text.
func (p *Pool) rules() *tls.Config {
	if p.secure() {
		return p.tls()
	}
	return nil
}

// outdated says that the connection would not be made now: the name of the replica does not
// stand for the server at the other end any more, or that one has shown who it is by rules
// that have changed since.
func (p *Pool) outdated(c *Conn) bool {
	return p.named && !p.cfg.Names.Current(p.addr, c.ip) || c.rules != p.rules()
}

// Reuse returns the idle connection used last, nil if there is none, and rather one that the
// client's loop hears of, if that is among the last few. now is the time, which need not be
// exact: idle connections are told from old ones by it. Reuse asks the watch only. Its word
// may be on the way, and stray bytes of a replica would be taken for the next answer: who
// uses the connection has to see that it is quiet, which Ask does at no cost of its own.
func (p *Pool) Reuse(now time.Time, near int) *Conn {
	for {
		c, most := p.take(now, near)
		if c == nil {
			return nil
		}
		c.waited = now.Sub(c.since)
		switch {
		case c.waited >= most:
			c.Close()
			if near == sock.AnyLoop {
				return nil // the others are older; Expire closes them
			}
			near = sock.AnyLoop
		case c.Gone():
			p.Closed(c)
			c.Close()
		case p.outdated(c):
			c.Close()
		default:
			c.Reused = true
			return c
		}
	}
}

// lastFew is how many idle connections are looked at for one near the client.
const lastFew = 16

// take returns a connection and how long it may have waited.
func (p *Pool) take(now time.Time, near int) (c *Conn, most time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.idle) - 1
	if last < 0 {
		return nil, 0
	}
	at := last
	for i := last; i >= max(last-lastFew+1, 0) && near != sock.AnyLoop; i-- {
		if p.idle[i].loop == near {
			at = i
			break
		}
	}
	c = p.idle[at]
	p.idle = slices.Delete(p.idle, at, at+1)
	return c, p.lesson.most(now, p.cfg.IdleTimeout)
}

// Put gives back a connection whose response was read to its end, at about now.
func (p *Pool) Put(c *Conn, now time.Time) {
	c.since = now
	outdated := p.outdated(c)
	p.mu.Lock()
	keep := !p.closed && !outdated && len(p.idle) < maxIdle && !c.Gone() && p.lesson.most(now, p.cfg.IdleTimeout) > 0
	if keep {
		p.idle = append(p.idle, c)
	}
	p.mu.Unlock()
	if !keep {
		c.Close()
	}
}

// Expire closes connections that were idle too long, that the replica closed, and
// those that are outdated.
func (p *Pool) Expire(now time.Time) {
	p.mu.Lock()
	var dead []*Conn
	kept := p.idle[:0]
	for _, c := range p.idle {
		waited := now.Sub(c.since)
		gone := c.Gone()
		if gone {
			p.lesson.closed(now, waited, p.cfg.IdleTimeout)
		}
		if gone || p.outdated(c) || waited >= p.lesson.most(now, p.cfg.IdleTimeout) {
			dead = append(dead, c)
		} else {
			kept = append(kept, c)
		}
	}
	clear(p.idle[len(kept):])
	p.idle = kept
	p.mu.Unlock()
	for _, c := range dead {
		c.Close()
	}
}

// Idle returns how many connections wait.
func (p *Pool) Idle() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.idle)
}

// Close closes the idle connections; those in use are closed when given back.
func (p *Pool) Close() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, true
	p.mu.Unlock()
	for _, c := range idle {
		c.Close()
	}
}
