package admin

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// guard keeps web pages out. A page can make a browser on this machine send
// requests here in two ways: under a name of its own that it rebinds to this
// address, which shows in Host, or straight at the address, which shows in
// Sec-Fetch-Site or Origin and cannot read the answer. The first is refused
// always, the second where it changes something.
type guard struct {
	names  map[string]bool
	origin *http.CrossOriginProtection
}

func newGuard(listen string, names []string) *guard {
	g := &guard{names: map[string]bool{"localhost": true}, origin: http.NewCrossOriginProtection()}
	for _, name := range append([]string{listen}, names...) {
		if h := hostname(name); h != "" {
			g.names[h] = true
		}
	}
	return g
}

// allows takes every IP address: nobody can rebind one.
func (g *guard) allows(host string) bool {
	name := hostname(host)
	if a, err := netip.ParseAddr(name); err == nil {
		return plainZone(a.Zone())
	}
	return g.names[name]
}

// plainZone takes what interfaces are called; netip takes any text behind the %.
func plainZone(zone string) bool {
	for i, c := range []byte(zone) {
		inner := i > 0 && i < len(zone)-1 && strings.IndexByte(".-_", c) >= 0
		if !inner && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

// hostname drops port, brackets and the trailing dot. The port means nothing: it
// may have been forwarded.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

func (g *guard) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		if !g.allows(r.Host) {
			forbidden("host_not_allowed", "the admin listener does not go by the name %q; use localhost or an IP address", clip(r.Host)).write(w)
			return
		}
		if err := g.origin.Check(r); err != nil {
			forbidden("cross_origin", "requests from pages of another origin are refused").write(w)
			return
		}
		next.ServeHTTP(w, r)
	})
}
