package outward

import (
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"

	"lbd/access/certs"
)

// Replica is what one replica is shown.
type Replica struct {
	// APIKey is sent with relayed requests in place of what the client sent, and with
	// lbd's own; empty = none.
	APIKey string
	TLS    TLS
}

// TLS is how a replica with an https URL is spoken to.
type TLS struct {
	Files certs.Files // CA to believe instead of the system's; certificate to show
	// ServerName is the name its certificate must have; empty = the URL's.
	ServerName string
	// Insecure believes every certificate.
	Insecure bool
}

// Config is what replicas are shown: Default, unless they are in ByID.
type Config struct {
	Default Replica
	ByID    map[string]Replica
}

// Outward is what is in force. Its methods may be called by any goroutine.
type Outward struct {
	now atomic.Pointer[picture]
	mu  sync.Mutex // held by those that replace now
}

// picture is immutable, but for the cache in tls.
type picture struct {
	cfg        Config
	defaultKey string // "Bearer KEY" or empty
	keys       map[string]string
	identities map[identityOf]*certs.Identity

	tls sync.Map // dialled -> *tls.Config
}

// identityOf is what two replicas with one identity have in common.
type identityOf struct {
	files    certs.Files
	insecure bool
}

type dialled struct{ id, addr string }

// New reads all files.
func New(c Config) (*Outward, error) {
	o := &Outward{}
	return o, o.Set(c)
}

// Set replaces what replicas are shown from now on. On an error nothing changes.
func (o *Outward) Set(c Config) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := &picture{
		cfg: Config{c.Default, maps.Clone(c.ByID)}, defaultKey: bearer(c.Default.APIKey),
		keys: map[string]string{}, identities: map[identityOf]*certs.Identity{},
	}
	if err := p.add(c.Default.TLS); err != nil {
		return err
	}
	for id, r := range c.ByID {
		p.keys[id] = bearer(r.APIKey)
		if err := p.add(r.TLS); err != nil {
			return err
		}
	}
	o.now.Store(p)
	return nil
}

func bearer(key string) string {
	if key == "" {
		return ""
	}
	return "Bearer " + key
}

func (p *picture) add(t TLS) error {
	k := identityOf{t.Files, t.Insecure}
	if p.identities[k] != nil {
		return nil
	}
	i, err := certs.NewIdentity(t.Files, t.Insecure)
	if err == nil {
		p.identities[k] = i
	}
	return err
}

// Authorization is the value of the header field Authorization for a replica, empty
// if it gets none.
func (o *Outward) Authorization(id string) string {
	p := o.now.Load()
	if len(p.keys) > 0 {
		if v, own := p.keys[id]; own {
			return v
		}
	}
	return p.defaultKey
}

// Replaces says whether some replica is sent a key of lbd's.
func (o *Outward) Replaces() bool {
	p := o.now.Load()
	return p.defaultKey != "" || slices.ContainsFunc(slices.Collect(maps.Values(p.keys)), func(v string) bool { return v != "" })
}

// TLS is what to dial a replica with; addr is host:port. Connections of one
// replica share it until something changes, so that sessions are resumed.
func (o *Outward) TLS(id, addr string) *tls.Config {
	p := o.now.Load()
	k := dialled{id, addr}
	if c, ok := p.tls.Load(k); ok {
		return c.(*tls.Config)
	}
	c, _ := p.tls.LoadOrStore(k, p.config(k))
	return c.(*tls.Config)
}

func (p *picture) config(k dialled) *tls.Config {
	r, own := p.cfg.ByID[k.id]
	if !own {
		r = p.cfg.Default
	}
	name := r.TLS.ServerName
	if name == "" {
		name, _, _ = net.SplitHostPort(k.addr)
	}
	return p.identities[identityOf{r.TLS.Files, r.TLS.Insecure}].Config(name)
}

// Dial connects to a replica in TLS.
func (o *Outward) Dial(ctx context.Context, id, addr string) (net.Conn, error) {
	d := tls.Dialer{NetDialer: &net.Dialer{}, Config: o.TLS(id, addr)}
	return d.DialContext(ctx, "tcp", addr)
}

// Refresh reads files that have changed. New connections see them at once. On an
// error what was read before stays.
func (o *Outward) Refresh() (changed bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := o.now.Load()
	var faults []error
	for _, i := range p.identities {
		c, err := i.Refresh()
		changed = changed || c
		if err != nil {
			faults = append(faults, err)
		}
	}
	if changed { // an empty cache
		o.now.Store(&picture{cfg: p.cfg, defaultKey: p.defaultKey, keys: p.keys, identities: p.identities})
	}
	return changed, errors.Join(faults...)
}

// Insecure returns the IDs of replicas whose certificates are not checked, "" for
// all that are not set otherwise: for a warning.
func (o *Outward) Insecure() (ids []string) {
	c := o.now.Load().cfg
	if c.Default.TLS.Insecure {
		ids = append(ids, "")
	}
	for id, r := range c.ByID {
		if r.TLS.Insecure {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}
