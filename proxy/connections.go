package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"lbd/metrics"
	"lbd/proxy/internal/inbound"
	"lbd/proxy/internal/sock"
)

// Connections bounds those of clients.
type Connections struct {
	Max          int           // in all; 0 = no bound
	MaxPerClient int           // of one address, or of one /64 in IPv6; 0 = no bound. Trusted proxies are exempt.
	DrainIdle    time.Duration // in a drain, the wait for one more request on a connection without any
}

// Start listens on addr and serves until Stop.
func (s *Server) Start(addr string) error {
	ln, err := sock.Listen(addr, s.watch, s.cfg.Load().ClientWrite)
	if err != nil {
		return err
	}
	s.serve(ln)
	return nil
}

// StartOn is Start for a socket that listens already, which Stop closes.
func (s *Server) StartOn(ln *net.TCPListener) {
	s.serve(sock.NewListener(ln, s.watch, s.cfg.Load().ClientWrite))
}

func (s *Server) serve(ln *sock.Listener) {
	s.setConnections(s.cfg.Load())
	ln.Fault = s.acceptFault
	s.ln = ln
	go func() { s.served <- s.in.Serve(ln) }()
}

func (s *Server) setConnections(c *Config) {
	s.in.SetGrace(c.Connections.DrainIdle)
	s.in.SetRoom(inbound.Room{
		Total: c.Connections.Max, Each: c.Connections.MaxPerClient,
		Exempt:  c.trusts,
		Answer:  func(why inbound.Reason, request []byte) []byte { return refusals[why][dialectIn(request)] },
		Refused: s.turnedAway,
	})
}

// trusts says that an address is that of a proxy, which brings many clients.
func (c *Config) trusts(a netip.Addr) bool {
	peer := c.Forwarded.Peer(net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, 0)), false)
	return peer.Trusted()
}

// tooManyRetry is when a client that was turned away may try again, in seconds: most
// places are given up within that time, when an answer or a keep-alive ends.
const tooManyRetry = 5

// refusals are whole answers, by reason: they are written at a moment when nothing
// should be worked out for whoever is not let in.
var refusals = [...][dialects][]byte{
	inbound.Full:    refusalsOf("the load balancer has as many connections as it may have; try again"),
	inbound.Crowded: refusalsOf("your address has as many connections as it may have; use fewer, or keep them alive and reuse them"),
}

func refusalsOf(message string) (answers [dialects][]byte) {
	e := &apiError{status: 503, kind: "overloaded", code: "too_many_connections", message: message}
	for d := range dialects {
		body := e.body(d)
		answers[d] = fmt.Appendf(nil, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: %d\r\nRetry-After: %d\r\nConnection: close\r\n\r\n%s",
			len(body), tooManyRetry, body)
	}
	return answers
}

// crowd is what is counted and told of connections that were not let in.
type crowd struct {
	faults  [len(faultReasons)]atomic.Uint64
	refused [2]throttle // by inbound.Reason
	failed  throttle
}

// turnedAway is called once per connection, in a flood for thousands a second.
func (s *Server) turnedAway(why inbound.Reason, from netip.Addr) {
	if n, ok := s.crowd.refused[why].due(time.Now()); ok {
		limits := &s.cfg.Load().Connections
		limit := limits.Max
		if why == inbound.Crowded {
			limit = limits.MaxPerClient
		}
		s.opt.Log.Warn().Stringer("reason", why).Int("limit", limit).Stringer("last", from).Uint64("refused", n).Msg("connections refused")
	}
}

// faultReasons are the labels of errors of accept.
var faultReasons = [...]string{"descriptors", "memory", "aborted", "other"}

func faultReason(err error) int {
	switch {
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return 0
	case errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.ENOSPC):
		return 1 // ENOSPC: fs.epoll.max_user_watches
	case errors.Is(err, syscall.ECONNABORTED):
		return 2
	}
	return 3
}

// acceptFault hears why nobody could be let in. Without descriptors idle clients give
// up theirs.
func (s *Server) acceptFault(err error) {
	why := faultReason(err)
	s.crowd.faults[why].Add(1)
	if why < 2 {
		s.in.Relieve()
	}
	if faultReasons[why] == "aborted" { // by the client: nothing to be told
		return
	}
	if n, ok := s.crowd.failed.due(time.Now()); ok {
		s.opt.Log.Error().Err(err).Uint64("failed", n).Msg("connections cannot be accepted")
	}
}

// Connections returns what is known of clients' connections.
func (s *Server) Connections() metrics.Connections {
	o := s.in.Occupancy()
	c := metrics.Connections{Open: o.Open, Limit: o.Total, Reclaimed: o.Reclaimed, Refused: map[string]uint64{}, AcceptErrors: map[string]uint64{}}
	for _, why := range inbound.Reasons() {
		c.Refused[why.String()] = o.Refused[why]
	}
	for i, why := range faultReasons {
		c.AcceptErrors[why] = s.crowd.faults[i].Load()
	}
	return c
}

// throttleInterval is how often a line is written about something that goes on.
const throttleInterval = 10 * time.Second

// throttle lets one line through in a while and counts the others.
type throttle struct {
	mu    sync.Mutex
	next  time.Time
	since uint64
}

// due notes one event and says whether to tell it, with how many there were since
// the last time.
func (t *throttle) due(now time.Time) (n uint64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.since++
	if now.Before(t.next) {
		return 0, false
	}
	n, t.since, t.next = t.since, 0, now.Add(throttleInterval)
	return n, true
}
