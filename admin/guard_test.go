package admin

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"lbd/balancer/fleet"
)

func TestGuardHosts(t *testing.T) {
	g := newGuard("admin.local:9901", []string{"lbd", "Other.Example:1"})
	for host, want := range map[string]bool{
		"127.0.0.1:9901": true, "127.0.0.1": true, "10.1.2.3:80": true, "[::1]:9901": true, "[::1]": true, "::1": true,
		"localhost": true, "localhost:9901": true, "LocalHost.": true,
		"admin.local:9901": true, "admin.local": true, "lbd:9901": true, "other.example": true,
		"": false, ":9901": false, "evil.example:9901": false, "127.0.0.1.evil.example": false, "localhost.evil.example": false, "xlbd": false,
		"127.0.0.1@evil.example": false, "evil.example:127.0.0.1": false, "0x7f.1": false,
	} {
		if got := g.allows(host); got != want {
			t.Errorf("host %q: %v", host, got)
		}
	}
}

func TestListenOnEveryAddressGivesNoName(t *testing.T) {
	if g := newGuard(":9901", nil); len(g.names) != 1 {
		t.Errorf("%v", g.names)
	}
}

func TestForeignHostIsRefused(t *testing.T) {
	f := newFleet(t, "http://a:1")
	s := start(t, Options{Fleet: f, Hosts: []string{"lbd.internal"}})
	for _, path := range []string{"/", "/fleet", "/debug/pprof/heap"} {
		wantContains(t, wantError(t, s.get(path, "Host", "rebound.example:9901"), 403, "host_not_allowed"), `"rebound.example:9901"`)
		if a := s.get(path, "Host", "lbd.internal"); a.status != 200 {
			t.Errorf("%s under a configured name: %d", path, a.status)
		}
	}
	wantError(t, s.do("POST", "/replicas/a:1/drain", "", "Host", "rebound.example"), 403, "host_not_allowed")
	if f.Snapshot().Replicas[0].Draining {
		t.Error("drained")
	}
}

// A page may send a form to any address: that must not drain anything.
func TestPagesOfOtherOriginsChangeNothing(t *testing.T) {
	f := newFleet(t, "http://a:1")
	s := start(t, Options{Fleet: f})
	for _, headers := range [][]string{
		{"Sec-Fetch-Site", "cross-site"},
		{"Sec-Fetch-Site", "same-site"},
		{"Origin", "http://evil.example"},
		{"Origin", "null"},
	} {
		a := s.do("POST", "/replicas/a:1/drain", "", headers...)
		wantError(t, a, 403, "cross_origin")
		for name := range a.header {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s was sent", name)
			}
		}
	}
	if f.Snapshot().Replicas[0].Draining {
		t.Error("drained")
	}
	if a := s.do("POST", "/replicas/a:1/drain", "", "Sec-Fetch-Site", "same-origin"); a.status != 200 {
		t.Errorf("a page of this origin: %d", a.status)
	}
	a := s.do("OPTIONS", "/replicas/a:1/drain", "", "Origin", "http://evil.example", "Access-Control-Request-Method", "POST")
	if a.status != http.StatusMethodNotAllowed || a.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("preflight: %d %v", a.status, a.header)
	}
}

// FuzzGuard: only addresses and the names it goes by get in.
func FuzzGuard(f *testing.F) {
	for _, seed := range []string{"localhost", "127.0.0.1:1", "[::1]:1", "evil", "lbd.:80", "[fe80::1%eth0]:1", "fe80::1%eth0.100", "b::%[", ""} {
		f.Add(seed)
	}
	g := newGuard("lbd:1", nil)
	f.Fuzz(func(t *testing.T, host string) {
		if !g.allows(host) {
			return
		}
		h, _, err := net.SplitHostPort(host)
		if err != nil {
			h = host
		}
		h = strings.Trim(strings.ToLower(h), "[].")
		if _, err := netip.ParseAddr(h); err != nil && h != "localhost" && h != "lbd" {
			t.Errorf("%q got in", host)
		}
	})
}

func TestAnswersAreNotCachedOrGuessed(t *testing.T) {
	s := start(t, Options{Fleet: configured(t, fleet.Config{Strategy: "first"})})
	h := s.get("/fleet").header
	if h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%v", h)
	}
}
