package faults

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"testing"
)

// asking is a resolver that asks one DNS server.
func asking(addr string) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}}
}

// zone is a DNS server, over UDP, that knows the addresses of one name.
type zone struct {
	pc net.PacketConn
	wg sync.WaitGroup

	mu    sync.Mutex
	ips   []netip.Addr
	code  byte // RCODE: 0 answers, 2 SERVFAIL, 3 NXDOMAIN
	asked int
}

const (
	servFail = 2
	nxDomain = 3
)

func startZone(t *testing.T, ips ...string) *zone {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	z := &zone{pc: pc}
	z.set(ips...)
	z.wg.Go(z.serve)
	t.Cleanup(func() {
		pc.Close()
		z.wg.Wait()
	})
	return z
}

func (z *zone) set(ips ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.ips, z.code = nil, 0
	for _, ip := range ips {
		z.ips = append(z.ips, netip.MustParseAddr(ip))
	}
}

func (z *zone) fail(code byte) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.code = code
}

func (z *zone) serve() {
	buf := make([]byte, 1500)
	for {
		n, from, err := z.pc.ReadFrom(buf)
		if err != nil {
			return
		}
		if b := z.answer(buf[:n]); b != nil {
			z.pc.WriteTo(b, from)
		}
	}
}

// answer makes a response (RFC 1035 section 4) of a query with one question: A
// records, and none of any other type.
func (z *zone) answer(q []byte) []byte {
	end := 12
	for end < len(q) && q[end] != 0 {
		end += int(q[end]) + 1
	}
	end += 5 // the root label, type and class
	if end > len(q) {
		return nil
	}
	isA := binary.BigEndian.Uint16(q[end-4:]) == 1
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked++
	b := append([]byte(nil), q[:end]...)
	b[2], b[3] = 0x81, 0x80|z.code // a response, recursion wanted and had
	clear(b[6:12])
	if !isA || z.code != 0 {
		return b
	}
	b[7] = byte(len(z.ips))
	for _, ip := range z.ips {
		b = append(b, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4) // the name of the question, A, IN, 1 s, 4 bytes
		b = append(b, ip.AsSlice()...)
	}
	return b
}
