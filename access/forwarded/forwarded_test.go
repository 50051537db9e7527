package forwarded

import (
	"bytes"
	"net"
	"net/netip"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func policy(t testing.TB, mode Mode, trusted ...string) *Policy {
	t.Helper()
	p, err := New(mode, trusted)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func from(addr string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr)) }

// told is what a replica gets of these fields; other fields are left out.
func told(p Peer, fields ...string) string {
	var f Fields
	var out []byte
	for i := 0; i < len(fields); i += 2 {
		if p.Note(&f, []byte(fields[i]), []byte(fields[i+1])) {
			out = append(out, "\r\n"+fields[i]+": "+fields[i+1]...)
		}
	}
	return strings.TrimPrefix(strings.ReplaceAll(string(p.Append(out, &f, []byte("api.example.org"))), "\r\n", "|"), "|")
}

func TestWhatReplicasAreTold(t *testing.T) {
	spoofed := []string{"X-Forwarded-For", "1.2.3.4", "x-forwarded-proto", "https", "X-FORWARDED-HOST", "evil.example", "Forwarded", "for=1.2.3.4", "X-Real-IP", "1.2.3.4", "X-Forwarded-Port", "443"}
	set := policy(t, Set, "10.0.0.0/8", "fd00::/8", "192.168.1.7")
	own := func(addr, proto string) string {
		return "X-Forwarded-For: " + addr + "|X-Forwarded-Proto: " + proto + "|X-Forwarded-Host: api.example.org"
	}
	for _, c := range []struct {
		what   string
		peer   Peer
		fields []string
		want   string
	}{
		{"a client", set.Peer(from("203.0.113.9:1"), false), []string{"Accept", "*/*"}, "Accept: */*|" + own("203.0.113.9", "http")},
		{"a client in TLS", set.Peer(from("203.0.113.9:1"), true), nil, own("203.0.113.9", "https")},
		{"a client that lies", set.Peer(from("203.0.113.9:1"), false), spoofed, own("203.0.113.9", "http")},
		{"beside the network", set.Peer(from("192.168.1.8:1"), false), spoofed, own("192.168.1.8", "http")},
		{"IPv6", set.Peer(from("[2001:db8::1%eth0]:1"), false), spoofed, own("2001:db8::1", "http")},
		{"a proxy", set.Peer(from("10.1.2.3:1"), false), spoofed,
			"x-forwarded-proto: https|X-FORWARDED-HOST: evil.example|Forwarded: for=1.2.3.4|X-Real-IP: 1.2.3.4|X-Forwarded-Port: 443|X-Forwarded-For: 1.2.3.4, 10.1.2.3"},
		{"a proxy in an IPv4-mapped address", set.Peer(from("[::ffff:10.1.2.3]:1"), false), []string{"X-Forwarded-For", "1.2.3.4"}, own("1.2.3.4, 10.1.2.3", "http")},
		{"a proxy that says nothing", set.Peer(from("192.168.1.7:1"), false), nil, own("192.168.1.7", "http")},
		{"a chain in several fields", set.Peer(from("[fd00::1]:1"), false), []string{"X-Forwarded-For", "1.1.1.1, 2.2.2.2", "x-forwarded-for", "3.3.3.3", "X-Forwarded-For", ""},
			own("1.1.1.1, 2.2.2.2, 3.3.3.3, fd00::1", "http")},
		{"a Unix socket", set.Peer(&net.UnixAddr{Name: "@"}, false), spoofed, "X-Forwarded-Proto: http|X-Forwarded-Host: api.example.org"},
		{"drop", policy(t, Drop).Peer(from("203.0.113.9:1"), true), append(spoofed, "Accept", "*/*"), "Accept: */*"},
		{"drop, a proxy", policy(t, Drop, "203.0.113.9").Peer(from("203.0.113.9:1"), true), spoofed, ""},
		{"pass", policy(t, Pass).Peer(from("203.0.113.9:1"), true), []string{"X-Forwarded-For", "1.2.3.4", "Forwarded", "for=x"}, "X-Forwarded-For: 1.2.3.4|Forwarded: for=x"},
	} {
		if got := told(c.peer, c.fields...); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.what, got, c.want)
		}
	}
}

func TestOtherFieldsAreKept(t *testing.T) {
	p := policy(t, Drop).Peer(from("203.0.113.9:1"), false)
	for _, name := range []string{"X-Forwarded", "X-Forwarded-Fox", "Forwardee", "X-Request-Id", "Host", "", "x", "X-Forwarded-Prefixes"} {
		if !p.Note(new(Fields), []byte(name), []byte("x")) {
			t.Errorf("%q is dropped", name)
		}
	}
	for _, name := range append([]string{For, Proto, Host}, others[:]...) {
		if p.Note(new(Fields), []byte(strings.ToUpper(name)), []byte("x")) {
			t.Errorf("%q is kept", name)
		}
	}
}

func TestNetworks(t *testing.T) {
	for _, text := range []string{"10.0.0.1/8", "10.0.0.0/33", "10.0.0", "example.org", "", "fe80::1%eth0", "::ffff:10.0.0.0/104", "10.0.0.0/8 "} {
		if n, err := ParseNetwork(text); err == nil {
			t.Errorf("%q is %v", text, n)
		}
	}
	if n, err := ParseNetwork("::ffff:10.0.0.1"); err != nil || n.String() != "10.0.0.1/32" {
		t.Errorf("%v %v", n, err)
	}
}

// No connection costs an allocation per request.
func TestNoAllocations(t *testing.T) {
	p := policy(t, Set, "10.0.0.0/8").Peer(from("10.1.2.3:1"), false)
	dst, name, value, host := make([]byte, 0, 1024), []byte("x-forwarded-for"), []byte("1.2.3.4"), []byte("h")
	if n := testing.AllocsPerRun(100, func() {
		var f Fields
		p.Note(&f, name, value)
		dst = p.Append(dst[:0], &f, host)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzPeer: from a client that is not trusted, no byte that it sent under these
// names is told, and the fields added end no line of their own.
func FuzzPeer(f *testing.F) {
	f.Add("X-Forwarded-For", "1.2.3.4", "Forwarded", "for=a")
	f.Add("x-real-ip", "", "X-Forwarded-Prefix", "/x")
	p := policy(f, Set, "10.0.0.0/8")
	client := p.Peer(from("203.0.113.9:1"), false)
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		var got Fields
		keep1, keep2 := client.Note(&got, []byte(name1), []byte(value1)), client.Note(&got, []byte(name2), []byte(value2))
		out := client.Append(nil, &got, []byte("h"))
		want := "\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h"
		if string(out) != want {
			t.Errorf("%q", out)
		}
		for i, name := range []string{name1, name2} {
			forwarded := strings.HasPrefix(strings.ToLower(name), "x-forwarded-") && len(name) <= len("X-Forwarded-Proto") && known([]byte(name))
			if keep := []bool{keep1, keep2}[i]; forwarded && keep {
				t.Errorf("%q is kept", name)
			}
		}
		if bytes.Count(out, []byte("\n")) != 3 {
			t.Errorf("%q", out)
		}
	})
}

// Proxies add to a chain at its end, HAProxy with a field of its own: of a chain in more
// fields than are kept, the ends are what is true.
func TestLongChain(t *testing.T) {
	proxy := policy(t, Set, "10.0.0.0/8").Peer(from("10.1.2.3:1"), false)
	var fields []string
	for range 3 * maxChain {
		fields = append(fields, "X-Forwarded-For", "6.6.6.6")
	}
	got := told(proxy, append(fields, "X-Forwarded-For", "203.0.113.9")...)
	if chain, _, _ := strings.Cut(got, "|"); !strings.HasSuffix(chain, "6.6.6.6, 203.0.113.9, 10.1.2.3") {
		t.Errorf("%s; want the client that the proxy has seen next to it", chain)
	}
}
