package inbound

import (
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// Room bounds how many connections there may be.
type Room struct {
	Total int // in all; 0 = no bound
	Each  int // of one client, see client; 0 = no bound
	// Exempt are clients whose address stands for many, and for whom Each does not
	// count; nil = none.
	Exempt func(netip.Addr) bool

	// Answer is what a client reads that is turned away, a whole answer; nil = it
	// only sees the end. request is what has come of its request, nil while nothing has.
	Answer func(why Reason, request []byte) []byte
	// Refused hears of each of them, and must not block; nil = nobody does.
	Refused func(why Reason, from netip.Addr)
}

// Reason is why a client was turned away.
type Reason int

// The reasons.
const (
	Full    Reason = iota // Room.Total
	Crowded               // Room.Each
	reasons
)

func (r Reason) String() string {
	return [...]string{"max_connections", "max_connections_per_client"}[r]
}

// Reasons lists them.
func Reasons() []Reason { return []Reason{Full, Crowded} }

// Occupancy is what a server counts of its connections.
type Occupancy struct {
	Open, Total int
	Refused     [reasons]uint64 // by Reason
	Reclaimed   uint64          // idle ones closed to let others in
}

// seat is a connection's place in the room, guarded by Server.mu.
type seat struct {
	from netip.Addr // counted as; zero = not counted
	left bool       // closed to let another in, and about to end
}

// seats is how full the room is, guarded by Server.mu but for the counters.
type seats struct {
	Room
	left  int                // connections that are closed and have not ended
	crowd map[netip.Addr]int // connections by client, while Each is set

	spare  []overdue // idle connections, oldest last
	looked int64     // of the clock, until when spare is not looked for again

	refused   [reasons]atomic.Uint64
	reclaimed atomic.Uint64
}

// clientBits is the part of an IPv6 address that one client is given at least, and
// may choose the rest of (RFC 6177 section 2, RFC 4291 section 2.5.1).
const clientBits = 64

// client is what connections are counted by: an address, or the /64 of one.
func client(a net.Addr) netip.Addr {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	ip := t.AddrPort().Addr().Unmap().WithZone("")
	if !ip.Is6() {
		return ip
	}
	p, err := ip.Prefix(clientBits)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return p.Addr()
}

// SetRoom applies to the next connections; those that are open stay.
func (s *Server) SetRoom(r Room) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room.Room, s.room.crowd = r, nil
	for c := range s.conns {
		c.seat.from = netip.Addr{}
		if !c.seat.left {
			s.room.take(c)
		}
	}
}

// Occupancy returns the counts of now.
func (s *Server) Occupancy() Occupancy {
	s.mu.Lock()
	o := Occupancy{Open: len(s.conns), Total: s.room.Total, Reclaimed: s.room.reclaimed.Load()}
	s.mu.Unlock()
	for i := range o.Refused {
		o.Refused[i] = s.room.refused[i].Load()
	}
	return o
}

// take adds a connection to its client's.
func (r *seats) take(c *Conn) {
	if r.Each == 0 {
		return
	}
	from := client(c.RemoteAddr())
	if !from.IsValid() || r.exempt(c) {
		return
	}
	if r.crowd == nil {
		r.crowd = map[netip.Addr]int{}
	}
	c.seat.from = from
	r.crowd[from]++
}

func (r *seats) exempt(c *Conn) bool {
	t, ok := c.RemoteAddr().(*net.TCPAddr)
	return ok && r.Exempt != nil && r.Exempt(t.AddrPort().Addr().Unmap().WithZone(""))
}

// give takes a connection off that has ended.
func (r *seats) give(c *Conn) {
	if c.seat.left {
		r.left--
		return
	}
	r.uncount(c)
}

func (r *seats) uncount(c *Conn) {
	from := c.seat.from
	if !from.IsValid() {
		return
	}
	if r.crowd[from]--; r.crowd[from] <= 0 {
		delete(r.crowd, from)
	}
}

// leaves is for one that is closed and has not ended: its place is free already.
func (r *seats) leaves(c *Conn) {
	r.uncount(c)
	c.seat.left = true
	r.left++
}

// makeRoom says whether there is room for a connection. Before there is none it
// closes one that waits for a request, the one that has waited longest.
func (s *Server) makeRoom(c *Conn) (why Reason, ok bool) {
	s.mu.Lock()
	total, from := s.full(), s.crowded(c)
	s.mu.Unlock()
	switch {
	case from.IsValid() && !s.reclaimOf(from):
		return Crowded, false
	case total && !from.IsValid() && !s.reclaim():
		return Full, false
	}
	return 0, true
}

func (s *Server) full() bool {
	return s.room.Total > 0 && len(s.conns)-s.room.left >= s.room.Total
}

// crowded returns the client of which there are as many as there may be.
func (s *Server) crowded(c *Conn) netip.Addr {
	if s.room.Each == 0 {
		return netip.Addr{}
	}
	from := client(c.RemoteAddr())
	if s.room.crowd[from] < s.room.Each || s.room.exempt(c) {
		return netip.Addr{}
	}
	return from
}

// lookCost is the time set aside for each connection that is looked at in search of
// an idle one, ten times what it takes: a flood can make the server look for a tenth
// of one core, and meanwhile is refused without looking.
const lookCost = time.Microsecond

// mayLook says that idle connections may be looked for now.
func (s *Server) mayLook() bool {
	now := s.at(time.Now())
	if now < s.room.looked {
		return false
	}
	s.room.looked = now + int64(len(s.conns))*int64(lookCost)
	return true
}

// reclaim closes the connection that has waited longest for a request. Who is found
// is remembered, so that many newcomers cost one search.
func (s *Server) reclaim() bool {
	for fresh := false; ; fresh = true {
		for {
			o, ok := s.nextSpare()
			if !ok {
				break
			}
			if s.evict(o) {
				return true
			}
		}
		if fresh || !s.findSpare() {
			return false
		}
	}
}

func (s *Server) nextSpare() (o overdue, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.room.spare)
	if n == 0 {
		return o, false
	}
	o = s.room.spare[n-1]
	s.room.spare[n-1] = overdue{}
	s.room.spare = s.room.spare[:n-1]
	return o, true
}

// maxSpare bounds how many idle connections are remembered.
const maxSpare = 4096

func (s *Server) findSpare() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.mayLook() {
		return false
	}
	all := s.waiters(func(*Conn) bool { return true })
	s.room.spare = append(s.room.spare[:0], all[max(0, len(all)-maxSpare):]...)
	return len(all) > 0
}

// reclaimOf closes the connection of one client that has waited longest.
func (s *Server) reclaimOf(from netip.Addr) bool {
	s.mu.Lock()
	var all []overdue
	if s.mayLook() {
		all = s.waiters(func(c *Conn) bool { return c.seat.from == from })
	}
	s.mu.Unlock()
	for _, o := range slices.Backward(all) {
		if s.evict(o) {
			return true
		}
	}
	return false
}

// waiters are the connections that wait for a request, the one to be closed first
// last: those that have not sent one after parkAfter, which a flood is made of, and
// then the others by how long they have waited.
func (s *Server) waiters(of func(*Conn) bool) (all []overdue) {
	late := s.clock.Load() - int64(parkAfter)
	for c := range s.conns {
		if state := c.state.Load(); (state == waiting || state == parked) && of(c) {
			all = append(all, overdue{c, c.since.Load()})
		}
	}
	mute := func(o overdue) bool { return !o.c.begun.Load() && o.since < late }
	slices.SortFunc(all, func(a, b overdue) int {
		switch am, bm := mute(a), mute(b); {
		case am && !bm:
			return 1
		case bm && !am:
			return -1
		}
		return int(min(max(b.since-a.since, -1), 1))
	})
	return all
}

func (s *Server) evict(o overdue) bool {
	closed, orphan := o.c.shut(o.since)
	if !closed {
		return false
	}
	s.room.reclaimed.Add(1)
	if orphan {
		s.forget(o.c)
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.conns[o.c]; ok { // its goroutine has not ended it yet
		s.room.leaves(o.c)
	}
	return true
}

// Relieve closes idle connections when the system has no descriptors left: a sixteenth
// of all, as nginx drains its reusable ones.
func (s *Server) Relieve() {
	s.mu.Lock()
	n := len(s.conns)/16 + 1
	s.mu.Unlock()
	for range n {
		if !s.reclaim() {
			return
		}
	}
}
