package inbound

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// dialFrom connects a client that has a loopback address of its own.
func (r *running) dialFrom(t testing.TB, ip string) *net.TCPConn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	c, err := d.Dial("tcp", r.addr)
	if err != nil {
		if runtime.GOOS == "linux" { // where all of 127.0.0.0/8 is this machine's
			t.Fatal(err)
		}
		t.Skipf("cannot connect from %s: %v", ip, err)
	}
	r.mu.Lock()
	r.peers = append(r.peers, c)
	r.mu.Unlock()
	return c.(*net.TCPConn)
}

func refusal(why Reason, _ []byte) []byte { return []byte("no: " + why.String() + "\n") }

// crowded runs a server that says why it turns clients away.
func crowded(t *testing.T, a *answerer, room Room) *running {
	t.Helper()
	r := start(t, a, plentiful)
	room.Answer = refusal
	r.SetRoom(room)
	return r
}

// holding opens a connection whose request is under way.
func (r *running) holding(t *testing.T, a *answerer, ip string) *net.TCPConn {
	t.Helper()
	c := r.dialFrom(t, ip)
	send(t, c, get("/hold"))
	select {
	case <-a.entered:
	case <-time.After(patience):
		t.Fatalf("the request from %s did not come in", ip)
	}
	return c
}

func TestRoomIsFull(t *testing.T) {
	a := newAnswerer()
	r := crowded(t, a, Room{Total: 2})
	one, _ := r.holding(t, a, "127.0.0.1"), r.holding(t, a, "127.0.0.2")
	for range 3 {
		c := r.dial(t)
		send(t, c, get("/1")+"and a body that nobody reads")
		ends(t, c, "no: max_connections\n")
	}
	if o := r.Occupancy(); o.Refused[Full] != 3 || o.Refused[Crowded] != 0 || o.Open != 2 || o.Total != 2 || o.Reclaimed != 0 {
		t.Errorf("%+v", o)
	}
	close(a.release)
	recv(t, one, answerTo("/hold"))
	one.Close()
	eventually(t, "the end", func() bool { return r.Open() == 1 })
	c := r.dial(t)
	send(t, c, get("/1"))
	recv(t, c, answerTo("/1"))
	r.SetRoom(Room{Total: 1}) // who is in stays, and more than there may be are no room
	send(t, c, get("/hold"))
	recv(t, c, answerTo("/hold"))
}

// Idle connections make room, the one first that has waited longest, and a client
// that has sent nothing at all before those.
func TestRoomOfTheIdle(t *testing.T) {
	a := newAnswerer()
	r := crowded(t, a, Room{Total: 5})
	r.stopClock()
	peers := make([]net.Conn, 5)
	of := map[string]*Conn{}
	for i := range peers {
		peers[i] = r.dial(t)
		if i != 3 {
			send(t, peers[i], get("/1"))
			recv(t, peers[i], answerTo("/1"))
		}
		eventually(t, "the accept", func() bool { return r.Open() == i+1 })
	}
	for _, c := range r.list() {
		of[c.RemoteAddr().String()] = c
	}
	r.park(t, 5)
	send(t, peers[4], get("/2")) // one with a goroutine among them
	recv(t, peers[4], answerTo("/2"))
	r.settle(t, waiting, 1)
	now := r.clock.Load()
	for i, age := range []time.Duration{3 * time.Minute, 5 * time.Minute, 4 * time.Minute, 2 * time.Minute, time.Minute} {
		of[peers[i].LocalAddr().String()].since.Store(now - int64(age))
	}
	for n, victim := range []int{3, 1, 2, 0, 4} {
		r.holding(t, a, "127.0.0.1")
		ends(t, peers[victim], "")
		if o := r.Occupancy(); o.Reclaimed != uint64(n+1) {
			t.Errorf("after %d newcomers: %+v", n+1, o)
		}
	}
	c := r.dial(t)
	send(t, c, get("/1"))
	ends(t, c, "no: max_connections\n")
	close(a.release)
}

func TestRoomOfEach(t *testing.T) {
	a := newAnswerer()
	r := crowded(t, a, Room{Each: 2})
	r.stopClock()
	for _, ip := range []string{"127.0.0.2", "127.0.0.3"} {
		r.holding(t, a, ip)
		idle := r.dialFrom(t, ip)
		send(t, idle, get("/1"))
		recv(t, idle, answerTo("/1"))
		r.rest(t, 1)        // which begins after the answer
		r.holding(t, a, ip) // in place of the idle one
		ends(t, idle, "")
		c := r.dialFrom(t, ip)
		send(t, c, get("/1"))
		ends(t, c, "no: max_connections_per_client\n")
	}
	if o := r.Occupancy(); o.Refused[Crowded] != 2 || o.Reclaimed != 2 {
		t.Errorf("%+v", o)
	}
	close(a.release)
	for _, p := range r.peers {
		p.Close()
	}
	eventually(t, "the end", func() bool { return r.Open() == 0 })
	if n := len(r.room.crowd); n != 0 {
		t.Errorf("%d clients are remembered", n)
	}
}

// A proxy stands for many; a limit that is set later counts those who are there.
func TestRoomExemptAndReload(t *testing.T) {
	a := newAnswerer()
	proxy := netip.MustParseAddr("127.0.0.9")
	r := crowded(t, a, Room{})
	for range 3 {
		r.holding(t, a, "127.0.0.9")
		r.holding(t, a, "127.0.0.8")
	}
	r.SetRoom(Room{Each: 3, Answer: refusal, Exempt: func(a netip.Addr) bool { return a == proxy }})
	r.holding(t, a, "127.0.0.9")
	c := r.dialFrom(t, "127.0.0.8")
	send(t, c, get("/1"))
	ends(t, c, "no: max_connections_per_client\n")
	r.SetRoom(Room{})
	r.holding(t, a, "127.0.0.8")
	close(a.release)
}

// In TLS the refused see the end and nothing else.
func TestRoomInTLS(t *testing.T) {
	a := newAnswerer()
	p := newPair(t, newWatch(t))
	s := NewServer(a, plentiful)
	s.TLS = &tls.Config{}
	s.SetRoom(Room{Total: 1, Answer: refusal})
	first, peer := p.next(t)
	defer peer.Close()
	c := &Conn{Conn: first, srv: s}
	s.enlist(c)
	sc, late := p.next(t)
	defer late.Close()
	s.begin(sc)
	ends(t, late, "")
	s.end(c)
	if err := s.Shutdown(soon(t)); err != nil {
		t.Error(err)
	}
}

// A client that sends nothing is told all the same, and one that does not leave does
// not stay for long.
func TestPorchOfTheSilent(t *testing.T) {
	a := newAnswerer()
	r := crowded(t, a, Room{Total: 1})
	r.holding(t, a, "127.0.0.1")
	c := r.dial(t)
	ends(t, c, "no: max_connections\n")
	eventually(t, "the end", func() bool { r.porch.mu.Lock(); defer r.porch.mu.Unlock(); return len(r.porch.conns) == 0 })
	r.dial(t) // and nobody waits for one at the end
	eventually(t, "the refusal", func() bool { return r.Occupancy().Refused[Full] == 2 })
	close(a.release)
}

// A flood from many addresses: those inside are served, the others are told or see
// the end at once, and nothing is left of it.
func TestFlood(t *testing.T) {
	const attackers, each, room = 16, 60, 40
	a := newAnswerer()
	var heard atomic.Int64
	r := crowded(t, a, Room{Total: room, Refused: func(Reason, netip.Addr) { heard.Add(1) }})
	var inside []net.Conn
	for range room {
		inside = append(inside, r.holding(t, a, "127.0.0.1"))
	}
	var told, cut atomic.Int64
	var g sync.WaitGroup
	for n := range attackers {
		g.Go(func() {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(n+1))}}
			for range each {
				c, err := d.Dial("tcp", r.addr)
				if err != nil {
					t.Errorf("refused by the system: %v", err)
					return
				}
				c.(*net.TCPConn).SetLinger(0)
				io.WriteString(c, get("/1"))
				c.SetReadDeadline(time.Now().Add(patience))
				switch b, err := io.ReadAll(c); {
				case err == nil && string(b) == "no: max_connections\n":
					told.Add(1)
				case err == nil || isReset(err):
					cut.Add(1)
				default:
					t.Errorf("%q, %v", b, err)
				}
				c.Close()
			}
		})
	}
	g.Wait()
	if told.Load()+cut.Load() != attackers*each || told.Load() < attackers*each/2 || heard.Load() != attackers*each {
		t.Errorf("%d told, %d cut, %d heard of; want %d in all", told.Load(), cut.Load(), heard.Load(), attackers*each)
	}
	close(a.release)
	for _, c := range inside {
		recv(t, c, answerTo("/hold"))
	}
	if o := r.Occupancy(); o.Open != room || o.Refused[Full] != attackers*each {
		t.Errorf("%+v", o)
	}
}

func isReset(err error) bool {
	op, ok := err.(*net.OpError)
	return ok && fmt.Sprint(op.Err) == "read: "+syscall.ECONNRESET.Error()
}

// Newcomers and idle ones race for the places; whoever is in is answered whole.
func TestRoomRaces(t *testing.T) {
	const clients, rounds, room = 8, 60, 4
	r := crowded(t, newAnswerer(), Room{Total: room, Each: room})
	var g sync.WaitGroup
	for n := range clients {
		g.Go(func() {
			for range rounds {
				c := r.dialFrom(t, fmt.Sprintf("127.0.0.%d", n%2+1))
				c.SetReadDeadline(time.Now().Add(patience))
				c.Write([]byte(get("/1")))
				b := make([]byte, 64)
				if m, err := c.Read(b); err == nil && string(b[:m]) != answerTo("/1") && string(b[:3]) != "no:" {
					t.Errorf("got %q", b[:m])
				}
				c.SetLinger(0)
				if n%3 == 0 { // the others leave their connection to be taken
					c.Close()
				}
			}
		})
	}
	g.Wait()
	for _, p := range r.peers {
		p.Close()
	}
	eventually(t, "the end", func() bool { return r.Open() == 0 })
	if r.room.left != 0 || len(r.room.crowd) != 0 {
		t.Errorf("%d places and %d clients are not given back", r.room.left, len(r.room.crowd))
	}
}

func TestClient(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.7": "192.0.2.7", "::ffff:192.0.2.7": "192.0.2.7", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::",
		"fe80::1%eth0": "fe80::", "::1": "::",
	} {
		if got := client(net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(in), 1))); got.String() != want {
			t.Errorf("%s counts as %s; want %s", in, got, want)
		}
	}
	if client(&net.UnixAddr{}).IsValid() {
		t.Error("a Unix socket has an address")
	}
}
