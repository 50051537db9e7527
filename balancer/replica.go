package balancer

import (
	"fmt"
	"net"
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
}

// ParseEndpoint reads the base URL of a replica, http or https. A path becomes a
// prefix, and user info, query and fragment are refused because nothing would be
// done with them.
func ParseEndpoint(raw string) (Endpoint, error) {
	u, err := url.Parse(raw)
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
	}, nil
}

// String returns the endpoint as a URL.
func (e Endpoint) String() string {
	if e.TLS {
		return "https://" + e.Host + e.BasePath
	}
	return "http://" + e.Host + e.BasePath
}

// Replica is one vLLM server that serves one or more models. Its identity never
// changes; its load is live and shared by every snapshot it appears in, so a
// pointer to a Replica is carried across snapshots and reloads.
type Replica struct {
	// ID is unique in the fleet and stable over restarts: host:port plus the
	// base path of the endpoint.
	ID       string
	Endpoint Endpoint
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
	r := &Replica{ID: e.Addr + e.BasePath, Endpoint: e, Device: device, Weight: int64(max(weight, 1)), load: new(load)}
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
	c.Endpoint = e
	return &c
}
