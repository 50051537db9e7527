package load

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// target is where the requests go.
type target struct {
	base    string // the URL without trailing slash and /v1
	address string // host:port
	host    string // Host header
	path    string // prefix of every path
	tls     *tls.Config
}

func parseTarget(raw string) (target, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return target{}, fmt.Errorf("target %q; want a URL like http://host:port", raw)
	}
	path := strings.TrimSuffix(strings.TrimSuffix(strings.TrimRight(u.Path, "/"), "/v1"), "/")
	t := target{host: u.Host, path: path, base: u.Scheme + "://" + u.Host + path}
	port := u.Port()
	if u.Scheme == "https" {
		t.tls = &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS12}
	}
	if port == "" && t.tls != nil {
		port = "443"
	} else if port == "" {
		port = "80"
	}
	t.address = net.JoinHostPort(u.Hostname(), port)
	return t, nil
}

// conn is a connection and what was read ahead of it.
type conn struct {
	net.Conn
	in      *bufio.Reader
	stamper *stamper  // nil where the kernel does not stamp
	arrived time.Time // when the newest bytes did
	broken  error     // why it can be read no further
	parked  time.Time // when it was last given back
}

// Read remembers why reading ended: a parser that is cut off within a line
// complains about the line.
func (c *conn) Read(p []byte) (int, error) {
	var n int
	var err error
	if c.stamper != nil && len(p) > 0 {
		n, c.arrived, err = c.stamper.Read(p)
	} else {
		n, err = c.Conn.Read(p)
		c.arrived = time.Now()
	}
	if err != nil {
		c.broken = err
	}
	return n, err
}

// pool keeps idle connections, the latest used first: a pool that shrinks leaves
// the rest to time out.
type pool struct {
	target target
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
	idle   time.Duration

	unstamped atomic.Bool // a connection was without the kernel's stamps

	mu   sync.Mutex // guards free
	free []*conn
}

func newPool(t target, dial func(ctx context.Context, network, address string) (net.Conn, error), idle time.Duration) *pool {
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	return &pool{target: t, dial: dial, idle: idle}
}

// get returns a connection, new or used. A used one that the server has closed
// meanwhile is dropped here; one it closes from now on is a failed request, as
// with every client that does not repeat a POST.
func (p *pool) get(ctx context.Context) (*conn, error) {
	for c := p.pop(); c != nil; c = p.pop() {
		if time.Since(c.parked) < p.idle && alive(c.Conn) {
			return c, nil
		}
		c.Close()
	}
	raw, err := p.dial(ctx, "tcp", p.target.address)
	if err != nil {
		return nil, err
	}
	if p.target.tls != nil {
		secure := tls.Client(raw, p.target.tls)
		if err := secure.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, err
		}
		raw = secure
	}
	c := &conn{Conn: raw, stamper: newStamper(raw)}
	if c.stamper == nil {
		p.unstamped.Store(true)
	}
	c.in = bufio.NewReaderSize(c, 4096)
	return c, nil
}

func (p *pool) pop() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) == 0 {
		return nil
	}
	c := p.free[len(p.free)-1]
	p.free = p.free[:len(p.free)-1]
	return c
}

// put gives a connection back. The deadline of the request it carried must not
// make it look dead to the next one.
func (p *pool) put(c *conn) {
	if c.SetDeadline(time.Time{}) != nil {
		c.Close()
		return
	}
	c.parked = time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, c)
}

func (p *pool) close() {
	for c := p.pop(); c != nil; c = p.pop() {
		c.Close()
	}
}
