package balancer

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
)

// Endpoint is where a replica is reached.
type Endpoint struct {
	// Addr is the TCP address to dial, host:port.
	Addr string
	// Host is the value of the Host header: as the user wrote it, without the
	// default port.
	Host string
	// BasePath is put in front of every request path; empty or "/prefix"
	// without a trailing slash.
	BasePath string
	// TLS says that the replica is spoken to in TLS: an https URL.
	TLS bool
	// Each says that every address of the host is a replica: a dns+http or dns+https
	// URL. No replica has such an endpoint, but those that Member makes of it.
	Each bool
	// Name is host:port of the endpoint that Member was asked of; else empty.
	Name string
}

// eachPrefix stands in front of the scheme of an endpoint with Each.
const eachPrefix = "dns+"

// ParseEndpoint reads the base URL of a replica, http or https, or of many. A path
// becomes a prefix, and user info, query and fragment are refused because nothing would
// be done with them.
func ParseEndpoint(raw string) (Endpoint, error) {
	u, err := url.Parse(raw)
	each := false
	if err == nil {
		u.Scheme, each = strings.CutPrefix(u.Scheme, eachPrefix)
	}
	switch {
	case err != nil:
		return Endpoint{}, fmt.Errorf("endpoint %q is not a URL; want http://host:port", raw)
	case u.Scheme != "http" && u.Scheme != "https":
		return Endpoint{}, fmt.Errorf("endpoint %q has scheme %q; want http://host:port", raw, u.Scheme)
	case u.Hostname() == "":
		return Endpoint{}, fmt.Errorf("endpoint %q has no host; want http://host:port", raw)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return Endpoint{}, fmt.Errorf("endpoint %q carries user info, a query or a fragment; want http://host:port[/prefix]", u.Redacted())
	}
	port, tls := u.Port(), u.Scheme == "https"
	switch {
	case port == "" && tls:
		port = "443"
	case port == "":
		port = "80"
	}
	return Endpoint{
		Addr:     net.JoinHostPort(u.Hostname(), port),
		Host:     u.Host,
		BasePath: strings.TrimRight(u.EscapedPath(), "/"),
		TLS:      tls,
		Each:     each,
	}, nil
}

// Member returns the endpoint of the replica at one address of an endpoint with Each. It
// is dialled at the address; its Host header, and the name that its certificate must
// have, are those of the name.
func (e Endpoint) Member(ip netip.Addr) Endpoint {
	_, port, err := net.SplitHostPort(e.Addr)
	if err != nil || !e.Each {
		panic("BUG: " + e.String() + " has no members")
	}
	e.Each, e.Name, e.Addr = false, e.Addr, net.JoinHostPort(ip.String(), port)
	return e
}

// String returns the endpoint as a URL, as it was written or, of a member, with the
// address that it stands for.
func (e Endpoint) String() string {
	host, each := e.Host, ""
	if e.Name != "" {
		host = e.Addr
	}
	if e.Each {
		each = eachPrefix
	}
	return each + e.scheme() + host + e.BasePath
}

// URL is where requests of lbd's own go, with Host as their Host header.
func (e Endpoint) URL() string { return e.scheme() + e.Addr + e.BasePath }

// Of is the URL of the endpoint that Member was asked of; else empty.
func (e Endpoint) Of() string {
	if e.Name == "" {
		return ""
	}
	return eachPrefix + e.scheme() + e.Host + e.BasePath
}

func (e Endpoint) scheme() string {
	if e.TLS {
		return "https://"
	}
	return "http://"
}

// ServerAddr is host:port of the name that the replica's certificate must have.
func (e Endpoint) ServerAddr() string {
	if e.Name != "" {
		return e.Name
	}
	return e.Addr
}

// Replica is one vLLM server that serves one or more models. Its identity never
// changes; its load is live and shared by every snapshot it appears in, so a
// pointer to a Replica is carried across snapshots and reloads.
type Replica struct {
	// ID is unique in the fleet and stable over restarts: host:port plus the
	// base path of the endpoint.
	ID       string
	Endpoint Endpoint
	// Listed is the ID of what the configuration lists: the replica itself, or the name
	// of which it is an address. What a replica is shown, keys and certificates, goes by it.
	Listed string
	// Device names the accelerator the replica runs on. Replicas with the same
	// non-empty device share it.
	Device string
	// Weight is the relative capacity, at least 1.
	Weight int64
	// CacheTokens is how many tokens of prompts the replica keeps cached beyond
	// those in use; 0 is unknown. kvcached keeps 16,000 (KVCACHED_MAX_CACHED_TOKENS).
	CacheTokens int64

	// load is shared by all that With made of one replica.
	load *load
}

// NewReplica returns an idle replica that was never polled. A weight below 1
// counts as 1.
func NewReplica(e Endpoint, device string, weight int) *Replica {
	id := e.Addr + e.BasePath
	r := &Replica{ID: id, Endpoint: e, Listed: id, Device: device, Weight: int64(max(weight, 1)), load: new(load)}
	if e.Name != "" {
		r.Listed = e.Name + e.BasePath // else one string for both
	}
	r.load.epoch.Store(&epoch{})
	return r
}

// With returns the replica under another device and weight, for a reload that
// changes them. Both share one load: a reservation made on either counts on both
// and is done once.
func (r *Replica) With(device string, weight int) *Replica {
	c := *r
	c.Device, c.Weight = device, int64(max(weight, 1))
	return &c
}

// At returns the replica under another spelling of its endpoint, https for http say,
// for a reload that changes it. The ID stays, and both share one load.
func (r *Replica) At(e Endpoint) *Replica {
	c := *r
	c.Endpoint, c.Listed = e, e.ServerAddr()+e.BasePath
	return &c
}
