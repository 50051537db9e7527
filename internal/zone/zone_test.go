package zone

import (
	"errors"
	"fmt"
	"net"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestZone(t *testing.T) {
	z := Start(t)
	z.Set("some.example.org", "127.0.0.1", "::1", "127.0.0.2")
	z.Set("empty.example.org")
	var many []string
	for i := range 250 {
		many = append(many, fmt.Sprintf("10.0.0.%d", i))
	}
	z.Set("many.example.org", many...)
	for _, c := range []struct {
		network, name string
		want          int
	}{
		{"ip", "some.example.org", 3}, {"ip4", "Some.example.org", 2}, {"ip6", "some.example.org", 1},
		{"ip", "many.example.org", 250},
	} {
		if ips, err := z.Resolver().LookupNetIP(t.Context(), c.network, c.name+"."); err != nil || len(ips) != c.want {
			t.Errorf("%s of %s: %v, %v; want %d", c.network, c.name, ips, err, c.want)
		}
	}
	missing := func(name string, want bool) {
		t.Helper()
		_, err := z.Resolver().LookupNetIP(t.Context(), "ip", name+".")
		var d *net.DNSError
		if !errors.As(err, &d) || d.IsNotFound != want {
			t.Errorf("%s: %v; want not found %t", name, err, want)
		}
	}
	missing("empty.example.org", true)
	missing("none.example.org", true)
	z.Fail(ServFail)
	missing("some.example.org", false)
	z.Fail(NXDomain)
	missing("some.example.org", true)
	if n := z.Asked("none.example.org"); n < 2 {
		t.Errorf("asked %d times for a name; want both kinds", n)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01"))
	f.Add([]byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x3fa\x00\x00\x01\x00\x01"))
	z := &Zone{asked: map[string]int{}}
	f.Fuzz(func(t *testing.T, q []byte) {
		if b := z.answer(q); b != nil && (len(b) < 17 || len(truncated(b)) > len(q)) {
			t.Errorf("%x is answered with %x", q, b)
		}
	})
}
