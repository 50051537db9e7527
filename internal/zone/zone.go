package zone

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
)

// Codes that a server fails with (RCODE, RFC 1035 section 4.1.1).
const (
	ServFail = 2
	NXDomain = 3
)

// most is how long an answer over UDP may be (RFC 1035 section 4.2.1); a longer one is
// truncated, and asked for again over TCP.
const most = 512

// Zone knows the addresses of names; any other has none (NXDOMAIN).
type Zone struct {
	udp net.PacketConn
	tcp net.Listener
	wg  sync.WaitGroup

	mu    sync.Mutex
	names map[string][]netip.Addr
	code  byte
	asked map[string]int
}

// Start serves until the test is over.
func Start(t testing.TB) *Zone {
	t.Helper()
	z := &Zone{names: map[string][]netip.Addr{}, asked: map[string]int{}}
	z.listen(t)
	z.wg.Go(z.serveUDP)
	z.wg.Go(z.serveTCP)
	t.Cleanup(func() {
		z.udp.Close()
		z.tcp.Close()
		z.wg.Wait()
	})
	return z
}

// listen takes one port of both kinds.
func (z *Zone) listen(t testing.TB) {
	t.Helper()
	for range 10 {
		udp, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if tcp, err := net.Listen("tcp", udp.LocalAddr().String()); err == nil {
			z.udp, z.tcp = udp, tcp
			return
		}
		udp.Close() // somebody has the port of the other kind
	}
	t.Fatal("no port is free for UDP and TCP")
}

// Addr is where it listens.
func (z *Zone) Addr() string { return z.udp.LocalAddr().String() }

// Resolver asks z and nobody else.
func (z *Zone) Resolver() *net.Resolver { return Asking(z.Addr()) }

// Asking returns a resolver that asks the server at addr.
func Asking(addr string) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}}
}

// Set gives a name these addresses, and ends a failure. A name without any is there, but
// has no address (NODATA).
func (z *Zone) Set(name string, ips ...string) {
	all := make([]netip.Addr, len(ips))
	for i, ip := range ips {
		all[i] = netip.MustParseAddr(ip)
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	z.names[name], z.code = all, 0
}

// Fail answers everything with code from now on.
func (z *Zone) Fail(code byte) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.code = code
}

// Asked counts the questions for a name, of both kinds of addresses.
func (z *Zone) Asked(name string) int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.asked[name]
}

func (z *Zone) serveUDP() {
	buf := make([]byte, 1500)
	for {
		n, from, err := z.udp.ReadFrom(buf)
		if err != nil {
			return
		}
		b := z.answer(buf[:n])
		if len(b) > most {
			b = truncated(b)
		}
		if b != nil {
			z.udp.WriteTo(b, from)
		}
	}
}

func (z *Zone) serveTCP() {
	for {
		c, err := z.tcp.Accept()
		if err != nil {
			return
		}
		z.wg.Go(func() {
			defer c.Close()
			z.converse(c)
		})
	}
}

// converse answers one question; a resolver makes a connection for each.
func (z *Zone) converse(c net.Conn) error {
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return err
	}
	q := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, q); err != nil {
		return err
	}
	b := z.answer(q)
	if b == nil {
		return errors.New("no question")
	}
	_, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	return err
}

// The kinds of records (RFC 1035, RFC 3596).
const (
	kindA    = 1
	kindAAAA = 28
)

// answer makes a response (RFC 1035 section 4) of a query with one question; nil for what
// is none.
func (z *Zone) answer(q []byte) []byte {
	name, end := question(q)
	if end == 0 {
		return nil
	}
	kind := binary.BigEndian.Uint16(q[end-4:])
	b := append([]byte(nil), q[:end]...)
	clear(b[6:12])
	ips, code := z.look(name)
	b[2], b[3] = 0x81, 0x80|code // a response, recursion wanted and had
	for _, ip := range ips {
		if ip.Is4() && kind == kindA || ip.Is6() && kind == kindAAAA {
			b = append(b, 0xc0, 12, 0, byte(kind), 0, 1, 0, 0, 0, 1, 0, byte(ip.BitLen()/8)) // the name of the question, kind, IN, 1 s, length
			b = append(b, ip.AsSlice()...)
			binary.BigEndian.PutUint16(b[6:], binary.BigEndian.Uint16(b[6:])+1)
		}
	}
	return b
}

// question returns the name that is asked for and where the question ends, 0 for none.
func question(q []byte) (name string, end int) {
	var labels []string
	for end = 12; end < len(q) && q[end] != 0; end += int(q[end]) + 1 {
		if end+int(q[end]) >= len(q) {
			return "", 0
		}
		labels = append(labels, string(q[end+1:end+1+int(q[end])]))
	}
	if end += 5; end > len(q) { // the root label, type and class
		return "", 0
	}
	return strings.ToLower(strings.Join(labels, ".")), end
}

func (z *Zone) look(name string) (ips []netip.Addr, code byte) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked[name]++
	ips, known := z.names[name]
	switch {
	case z.code != 0:
		return nil, z.code
	case !known:
		return nil, NXDomain
	}
	return ips, 0
}

// truncated is the head of an answer and its question, which say that there is more.
func truncated(b []byte) []byte {
	_, end := question(b)
	b[2] |= 0x02
	clear(b[6:8])
	return b[:end]
}
