package names

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"time"
)

// host is one name with one server behind it.
type host struct {
	inquiry // its lock guards what follows

	ips     []netip.Addr // best first; replaced as a whole
	missing int          // look-ups in a row that say that there is no such name
	conns   map[*conn]struct{}
}

// known returns a copy of the addresses, the best first.
func (h *host) known() []netip.Addr {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.ips)
}

func (h *host) has(ip netip.Addr) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.ips) == 0 || slices.Contains(h.ips, ip)
}

// addresses returns what is known, and looks only if nothing is.
func (h *host) addresses(ctx context.Context) ([]netip.Addr, error) {
	if ips := h.known(); len(ips) > 0 {
		return ips, nil
	}
	err := h.lookup(ctx, time.Now())
	if ips := h.known(); len(ips) > 0 {
		return ips, nil
	}
	if err == nil {
		err = &net.DNSError{Err: "no address", Name: h.name, IsNotFound: true}
	}
	return nil, err
}

// reach is Names.Try for one name.
func (h *host) reach(ctx context.Context, port string, dial func(context.Context, string) error) error {
	began := time.Now()
	ips, err := h.addresses(ctx)
	if err != nil {
		return &net.OpError{Op: "dial", Net: "tcp", Err: err}
	}
	err = h.try(ctx, ips, port, dial)
	if err == nil || ctx.Err() != nil {
		return err
	}
	h.lookup(ctx, began)
	others := slices.DeleteFunc(h.known(), func(ip netip.Addr) bool { return slices.Contains(ips, ip) })
	if len(others) == 0 {
		return err
	}
	return h.try(ctx, others, port, dial)
}

// try dials one address after the other.
func (h *host) try(ctx context.Context, ips []netip.Addr, port string, dial func(context.Context, string) error) (err error) {
	for i, ip := range ips {
		if err = attempt(ctx, len(ips)-i, net.JoinHostPort(ip.String(), port), dial); err == nil {
			h.prefer(ip)
			return nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return err
}

// attempt dials one of left addresses in its share of the time.
func attempt(ctx context.Context, left int, addr string, dial func(context.Context, string) error) error {
	if end, ok := ctx.Deadline(); ok && left > 1 {
		share, cancel := context.WithTimeout(ctx, time.Until(end)/time.Duration(left))
		defer cancel()
		ctx = share
	}
	return dial(ctx, addr)
}

// prefer puts the address that took a connection first.
func (h *host) prefer(ip netip.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.Index(h.ips, ip)
	if i <= 0 {
		return
	}
	h.ips = slices.Insert(slices.Delete(slices.Clone(h.ips), i, i+1), 0, ip)
}

func (h *host) refresh() { h.lookup(gone, time.Now()) }

func (h *host) lookup(ctx context.Context, since time.Time) error {
	return h.inquire(ctx, since, func(ctx context.Context) {
		h.answer(h.names.opt.Lookup(ctx, "ip", h.name))
	})
}

// answer takes over the result of a look-up.
func (h *host) answer(ips []netip.Addr, err error) {
	h.mu.Lock()
	before := h.answered(err)
	old := h.ips
	switch {
	case err == nil && len(ips) > 0:
		h.missing = 0
		h.ips = inOrder(old, ips)
	case notFound(err):
		if h.missing++; h.missing >= forgetAfter {
			h.ips = nil
		}
	}
	now, left := h.ips, h.strays()
	h.mu.Unlock()
	for _, c := range left {
		c.Close()
	}
	if len(old) > 0 && !sameSet(old, now) {
		h.names.opt.OnEvent(Event{Kind: Moved, Host: h.name, Old: old, New: now})
	}
	h.tell(before, err)
}

// inOrder keeps the order of those that were known, so that the address in use stays
// in use however a DNS server turns its answers.
func inOrder(old, now []netip.Addr) []netip.Addr {
	var ips []netip.Addr
	for i := range now {
		now[i] = now[i].Unmap()
	}
	for _, ip := range old {
		if slices.Contains(now, ip) {
			ips = append(ips, ip)
		}
	}
	for _, ip := range now {
		if !slices.Contains(ips, ip) {
			ips = append(ips, ip)
		}
	}
	return ips
}

func sameSet(a, b []netip.Addr) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(ip netip.Addr) bool { return !slices.Contains(b, ip) })
}

// conn is a connection of DialContext.
type conn struct {
	net.Conn
	host *host
	ip   netip.Addr
}

// keep notes a connection until it is closed.
func (h *host) keep(nc net.Conn) net.Conn {
	tcp, ok := nc.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return nc
	}
	c := &conn{Conn: nc, host: h, ip: tcp.AddrPort().Addr().Unmap()}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conns[c] = struct{}{}
	return c
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.host.mu.Lock()
	delete(c.host.conns, c)
	c.host.mu.Unlock()
	return c.Conn.Close()
}

// strays are the connections to addresses that the name has left. Who calls it holds
// mu.
func (h *host) strays() (cs []*conn) {
	if len(h.ips) == 0 {
		return nil
	}
	for c := range h.conns {
		if !slices.Contains(h.ips, c.ip) {
			cs = append(cs, c)
		}
	}
	return cs
}
