package balancer

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

type first struct{}

func (first) Pick(_ *Request, rs []*Replica) *Replica {
	if len(rs) == 0 {
		return nil
	}
	return rs[0]
}

func TestPickSkipsTried(t *testing.T) {
	a, b := newTestReplica(t), newTestReplica(t)
	m := &Model{Name: "m", Picker: first{}, Available: []*Replica{a, b}}
	v, err := m.Pick(&Request{}, nil)
	if err != nil || v.Replica() != a || a.InFlight() != 1 {
		t.Fatalf("first pick: %v, %v", v.Replica(), err)
	}
	v.Done()
	if v, err = m.Pick(&Request{}, []*Replica{a}); err != nil || v.Replica() != b {
		t.Fatalf("pick without a: %v, %v", v.Replica(), err)
	}
	v.Done()
	if _, err = m.Pick(&Request{}, []*Replica{a, b}); !errors.Is(err, ErrNoReplica) {
		t.Fatalf("pick without both: %v; want ErrNoReplica", err)
	}
	if len(m.Available) != 2 || m.Available[0] != a {
		t.Fatal("a retry changed the snapshot")
	}
}

func TestSnapshotNames(t *testing.T) {
	x := &Model{Name: "x", Aliases: []string{"short", "y"}}
	y := &Model{Name: "y"}
	s := NewSnapshot(1, nil, []*Model{x, y})
	for name, want := range map[string]*Model{"x": x, "short": x, "y": y, "z": nil, "": nil, "X": nil} {
		if got := s.Model([]byte(name)); got != want {
			t.Errorf("model %q is %v; want %v", name, got, want)
		}
	}
	if s.OnlyModel() != nil {
		t.Error("one of two models is the only one")
	}
	if NewSnapshot(1, nil, []*Model{y}).OnlyModel() != y {
		t.Error("the only model is not found")
	}
	name := []byte("short")
	if n := testing.AllocsPerRun(100, func() { s.Model(name) }); n != 0 {
		t.Errorf("a look-up allocates %v times; want 0", n)
	}
}

func TestHolderBeforeFirstStore(t *testing.T) {
	var h Holder
	if s := h.Load(); s == nil || len(s.Models) != 0 || s.Model([]byte("x")) != nil {
		t.Fatalf("empty holder gives %+v", s)
	}
}

func TestParseEndpoint(t *testing.T) {
	for raw, want := range map[string]Endpoint{
		"http://a:8000":         {Addr: "a:8000", Host: "a:8000"},
		"http://a":              {Addr: "a:80", Host: "a"},
		"http://[::1]:8000/":    {Addr: "[::1]:8000", Host: "[::1]:8000"},
		"http://a:8000/base/":   {Addr: "a:8000", Host: "a:8000", BasePath: "/base"},
		"http://a:8000/b%20c/d": {Addr: "a:8000", Host: "a:8000", BasePath: "/b%20c/d"},
		"https://a/base":        {Addr: "a:443", Host: "a", BasePath: "/base", TLS: true},
		"https://a:8000":        {Addr: "a:8000", Host: "a:8000", TLS: true},
		"dns+http://a":          {Addr: "a:80", Host: "a", Each: true},
		"DNS+https://a:8000/b/": {Addr: "a:8000", Host: "a:8000", BasePath: "/b", TLS: true, Each: true},
	} {
		if got, err := ParseEndpoint(raw); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", raw, got, err, want)
		}
	}
	for _, raw := range []string{
		"", "a:8000", "wss://a", "https://", "http://", "http://u:secret@a", "http://a?x", "http://a/#f", "ftp://a", "http://a b", "://",
		"dns+ftp://a", "dns+dns+http://a", "dns://a", "dns+http://",
	} {
		_, err := ParseEndpoint(raw)
		if err == nil {
			t.Errorf("%q is accepted", raw)
		} else if strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "http://host:port") {
			t.Errorf("%q: error %q; want no secret and what was wanted", raw, err)
		}
	}
}

func FuzzParseEndpoint(f *testing.F) {
	for _, s := range []string{"http://a:8000", "http://[::1]/x", "https://a", "http://a:b", "dns+http://a:1/x", "dns+https://a"} {
		f.Add(s)
	}
	ips := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}
	f.Fuzz(func(t *testing.T, raw string) {
		e, err := ParseEndpoint(raw)
		if err != nil {
			return
		}
		again, err := ParseEndpoint(e.String())
		if err != nil || again != e {
			t.Fatalf("%q became %q, which reads %+v, %v; want %+v", raw, e, again, err, e)
		}
		for _, ip := range ips {
			if !e.Each {
				break
			}
			m := e.Member(ip)
			alone, err := ParseEndpoint(m.String())
			if err != nil || alone.Addr != m.Addr || alone.BasePath != m.BasePath || alone.TLS != m.TLS {
				t.Errorf("%v of %q is %q, which reads %+v, %v; want the address of %+v", ip, raw, m, alone, err, m)
			}
			if at, err := netip.ParseAddrPort(m.Addr); err == nil && at.Addr() != ip { // a port need not be a number here
				t.Errorf("%v of %q is dialled at %v", ip, raw, at)
			}
			if m.Of() != e.String() || m.Host != e.Host || m.ServerAddr() != e.Addr || NewReplica(m, "", 1).Listed != NewReplica(e, "", 1).ID {
				t.Errorf("%v of %q: %+v; want it to be spoken to as %+v", ip, raw, m, e)
			}
		}
	})
}
