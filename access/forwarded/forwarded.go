package forwarded

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
)

// Mode is what is done with the fields.
type Mode string

// The modes.
const (
	Set  Mode = "set"
	Pass Mode = "pass"
	Drop Mode = "drop"
)

// Modes lists them.
func Modes() []string { return []string{string(Set), string(Pass), string(Drop)} }

// Policy is immutable.
type Policy struct {
	mode    Mode
	trusted []netip.Prefix
}

// New returns a policy. trusted are addresses and networks in CIDR notation.
func New(mode Mode, trusted []string) (*Policy, error) {
	p := &Policy{mode: mode}
	for _, text := range trusted {
		n, err := ParseNetwork(text)
		if err != nil {
			return nil, err
		}
		p.trusted = append(p.trusted, n)
	}
	return p, nil
}

// ParseNetwork reads one address or network.
func ParseNetwork(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	n, err := netip.ParsePrefix(text)
	if err != nil || n.Addr().Is4In6() {
		return n, fmt.Errorf("%q is not a network; want one such as 10.0.0.0/8, fd00::/8 or 192.168.1.7", text)
	}
	if n != n.Masked() {
		return n, fmt.Errorf("%q has bits behind the mask; want %q", text, n.Masked())
	}
	return n, nil
}

// Peer is what is known of one connection's other side. It is immutable.
type Peer struct {
	mode    Mode
	trusted bool
	addr    []byte
	proto   []byte
}

var protoHTTP, protoHTTPS = []byte("http"), []byte("https")

// Peer looks at a connection.
func (p *Policy) Peer(remote net.Addr, tls bool) Peer {
	peer := Peer{mode: p.mode, proto: protoHTTP}
	if tls {
		peer.proto = protoHTTPS
	}
	tcp, ok := remote.(*net.TCPAddr)
	if !ok {
		return peer // a Unix socket has no address to tell
	}
	a := tcp.AddrPort().Addr().Unmap().WithZone("")
	peer.addr = a.AppendTo(nil)
	for _, n := range p.trusted {
		peer.trusted = peer.trusted || n.Contains(a)
	}
	return peer
}

// Trusted says that the other side is a proxy that is believed.
func (p *Peer) Trusted() bool { return p.trusted }

// Names of the fields.
const (
	For   = "X-Forwarded-For"
	Proto = "X-Forwarded-Proto"
	Host  = "X-Forwarded-Host"
)

// others also tell of a client or of how it came, and are believed by somebody.
var others = [...]string{"Forwarded", "X-Real-Ip", "X-Forwarded-Port", "X-Forwarded-Ssl", "X-Forwarded-Scheme", "X-Forwarded-Prefix"}

// Fields are what a request said of where it came from, for Append. Note collects
// them; the values are kept, not copied.
type Fields struct {
	chain [maxChain][]byte // X-Forwarded-For, which may be several fields
	n     int
	proto bool
	host  bool
}

// Reset forgets a request. It is cheap where there was nothing to note.
func (f *Fields) Reset() {
	clear(f.chain[:f.n])
	f.n, f.proto, f.host = 0, false, false
}

// maxChain bounds the fields that one chain may be spread over.
const maxChain = 8

// add notes the next part of the chain. Of too many the first ones go: anybody can have
// sent them, and what the proxy has seen itself is the last one.
func (f *Fields) add(part []byte) {
	if f.n == maxChain {
		f.n = copy(f.chain[:], f.chain[1:])
	}
	f.chain[f.n] = part
	f.n++
}

// Note looks at a field of a request and says whether it is kept. X-Forwarded-For
// of a trusted proxy is not: Append writes it, longer by one.
func (p *Peer) Note(f *Fields, name, value []byte) (keep bool) {
	if p.mode == Pass || !known(name) {
		return true
	}
	if p.mode == Drop || !p.trusted {
		return false
	}
	switch {
	case is(name, For):
		if len(value) > 0 {
			f.add(value)
		}
		return false
	case is(name, Proto):
		f.proto = true
	case is(name, Host):
		f.host = true
	}
	return true
}

func known(name []byte) bool {
	if len(name) < len("Forwarded") || len(name) > len("X-Forwarded-Scheme") {
		return false
	}
	switch name[0] {
	case 'x', 'X', 'f', 'F':
	default:
		return false
	}
	if is(name, For) || is(name, Proto) || is(name, Host) {
		return true
	}
	for _, o := range others {
		if is(name, o) {
			return true
		}
	}
	return false
}

func is(name []byte, want string) bool {
	return len(name) == len(want) && bytes.EqualFold(name, []byte(want))
}

// Append adds the fields that a replica is told, each as CRLF, name, colon, space
// and value: behind the last field of a head, in front of the CRLF that ends it.
// host is the Host that the client asked for.
func (p *Peer) Append(dst []byte, f *Fields, host []byte) []byte {
	if p.mode != Set {
		return dst
	}
	if f.n > 0 || len(p.addr) > 0 {
		dst = append(dst, "\r\n"+For+": "...)
		for i, v := range f.chain[:f.n] {
			if i > 0 {
				dst = append(dst, ", "...)
			}
			dst = append(dst, v...)
		}
		if f.n > 0 && len(p.addr) > 0 {
			dst = append(dst, ", "...)
		}
		dst = append(dst, p.addr...)
	}
	if !f.proto {
		dst = append(dst, "\r\n"+Proto+": "...)
		dst = append(dst, p.proto...)
	}
	if !f.host && len(host) > 0 {
		dst = append(dst, "\r\n"+Host+": "...)
		dst = append(dst, host...)
	}
	return dst
}
