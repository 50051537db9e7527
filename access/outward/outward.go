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

// Config is what replicas are shown: Default, unless they are in ByID, which goes by what
// the configuration lists (balancer.Replica.Listed).
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

	tls sync.Map // dialled -> *made, written under Outward.mu
}

// identityOf is what two replicas with one identity have in common.
type identityOf struct {
	files    certs.Files
	insecure bool
}

type dialled struct{ id, addr string }

// made is a configuration of TLS and what it was made of.
type made struct {
	*tls.Config
	identity *certs.Identity
	name     string
}

// New reads all files.
func New(c Config) (*Outward, error) {
	o := &Outward{}
	_, err := o.Set(c)
	return o, err
}

// Set replaces what replicas are shown from now on, and reports whether some replica that
// was spoken to in TLS is so by other rules now. On an error nothing changes.
func (o *Outward) Set(c Config) (renewed bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	old := o.now.Load()
	if old == nil {
		old = &picture{}
	}
	p := &picture{
		cfg: Config{c.Default, maps.Clone(c.ByID)}, defaultKey: bearer(c.Default.APIKey),
		keys: map[string]string{}, identities: map[identityOf]*certs.Identity{},
	}
	if err := p.add(c.Default.TLS, old); err != nil {
		return false, err
	}
	for id, r := range c.ByID {
		p.keys[id] = bearer(r.APIKey)
		if err := p.add(r.TLS, old); err != nil {
			return false, err
		}
	}
	return o.replace(old, p, nil), nil
}

// replace puts p in the place of old, with what of old's configurations holds as it is:
// connections go on where nothing has changed. Those of changed identities do not.
func (o *Outward) replace(old, p *picture, changed map[*certs.Identity]bool) (renewed bool) {
	old.tls.Range(func(k, v any) bool {
		m := v.(*made)
		if i, name := p.rules(k.(dialled)); i == m.identity && name == m.name && !changed[i] {
			p.tls.Store(k, m)
		} else {
			renewed = true
		}
		return true
	})
	o.now.Store(p)
	return renewed
}

// Retain forgets replicas that are gone.
func (o *Outward) Retain(known func(id string) bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := o.now.Load()
	p.tls.Range(func(k, _ any) bool {
		if !known(k.(dialled).id) {
			p.tls.Delete(k)
		}
		return true
	})
}

func bearer(key string) string {
	if key == "" {
		return ""
	}
	return "Bearer " + key
}

// add reads an identity. Where old has it, with the same in its files, it is old's.
func (p *picture) add(t TLS, old *picture) error {
	k := identityOf{t.Files, t.Insecure}
	if p.identities[k] != nil {
		return nil
	}
	i, err := certs.NewIdentity(t.Files, t.Insecure)
	if err != nil {
		return err
	}
	if was := old.identities[k]; was != nil && was.Same(i) {
		i = was
	}
	p.identities[k] = i
	return nil
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

// TLS is what to dial a replica with; addr is host:port as the configuration has it.
// Connections of one replica, or of the addresses of one name, share it until something changes, so that sessions are resumed.
func (o *Outward) TLS(id, addr string) *tls.Config {
	k := dialled{id, addr}
	if m, ok := o.now.Load().tls.Load(k); ok {
		return m.(*made).Config
	}
	o.mu.Lock() // nobody replaces the picture meanwhile, without this one
	defer o.mu.Unlock()
	p := o.now.Load()
	m, ok := p.tls.Load(k)
	if !ok {
		i, name := p.rules(k)
		m = &made{i.Config(name), i, name}
		p.tls.Store(k, m)
	}
	return m.(*made).Config
}

// rules are the identity for a replica, and the name that its certificate must have.
func (p *picture) rules(k dialled) (*certs.Identity, string) {
	r, own := p.cfg.ByID[k.id]
	if !own {
		r = p.cfg.Default
	}
	name := r.TLS.ServerName
	if name == "" {
		name, _, _ = net.SplitHostPort(k.addr)
	}
	return p.identities[identityOf{r.TLS.Files, r.TLS.Insecure}], name
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
	others := map[*certs.Identity]bool{}
	for _, i := range p.identities {
		c, err := i.Refresh()
		if c {
			others[i] = true
		}
		if err != nil {
			faults = append(faults, err)
		}
	}
	if len(others) > 0 {
		o.replace(p, &picture{cfg: p.cfg, defaultKey: p.defaultKey, keys: p.keys, identities: p.identities}, others)
	}
	return len(others) > 0, errors.Join(faults...)
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
