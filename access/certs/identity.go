package certs

import (
	"crypto/tls"
)

// Identity is the TLS of a dialling side.
type Identity struct {
	*state
	insecure bool
}

// NewIdentity reads the files: the CA to believe instead of the system's, and the
// certificate to show, each if there is one. insecure believes everybody.
func NewIdentity(f Files, insecure bool) (*Identity, error) {
	s, err := newState(f)
	if err != nil {
		return nil, err
	}
	return &Identity{s, insecure}, nil
}

// Config is the configuration to dial a server of that name with. It is of this
// moment: after a Refresh that changed something, new connections need a new one.
// RootCAs cannot be swapped behind a tls.Config, and checking by hand in its place
// would be the one part of TLS that lbd does itself.
func (i *Identity) Config(serverName string) *tls.Config {
	now := i.loaded.Load()
	c := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"http/1.1"},
		ServerName:         serverName,
		RootCAs:            now.pool, // nil = the system's
		InsecureSkipVerify: i.insecure,
		ClientSessionCache: tls.NewLRUClientSessionCache(0),
	}
	if now.cert != nil {
		c.Certificates = []tls.Certificate{*now.cert}
	}
	return c
}

// Same says that both would have one and the same Config.
func (i *Identity) Same(o *Identity) bool {
	return i.insecure == o.insecure && i.loaded.Load().sums == o.loaded.Load().sums
}

// Refresh reads the files if they have changed. On an error the old ones stay, and
// the same files are not tried again.
func (i *Identity) Refresh() (changed bool, err error) { return i.refresh() }
