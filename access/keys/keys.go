package keys

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Keys is the set of keys in force. Its methods may be called by any goroutine.
type Keys struct {
	ring    atomic.Pointer[ring]
	began   time.Time // zero of the clock of buckets; monotonic
	refused [reasons]atomic.Uint64

	mu sync.Mutex // held by Set and Off
	// usages are of every client there ever was: one that leaves the file and comes
	// back still owes what it used, and its requests may still run. The names are
	// the operator's, so there are few.
	usages map[string]*usage
}

// ring is immutable.
type ring struct {
	on bool
	// byHead finds candidates by the first 8 bytes of the digest.
	byHead  map[uint64][]*Key
	clients []*Client // in the order of the entries
}

// Key is one key in force. It is immutable.
type Key struct {
	digest Digest
	// Client is whose key it is.
	*Client
}

// Client is whoever holds keys of one name, with the limits of one configuration.
// It is immutable but for its usage, which it shares with the clients of that name
// in earlier and later configurations.
type Client struct {
	Name string
	Limits
	keys  *Keys
	usage *usage
}

// New returns a set that lets everybody in until Set is called.
func New() *Keys {
	k := &Keys{began: time.Now(), usages: map[string]*usage{}}
	k.ring.Store(&ring{})
	return k
}

// Set replaces the keys. From now on only their holders are let in, and nobody when
// there are none. Requests that were let in go on.
func (k *Keys) Set(entries []Entry) error {
	if err := CheckEntries(entries); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	r := &ring{on: true, byHead: map[uint64][]*Key{}}
	made := map[string]*Client{}
	for _, e := range entries {
		c := made[e.Name]
		if c == nil {
			c = &Client{Name: e.Name, Limits: e.Limits, keys: k, usage: k.usageOf(e.Name)}
			made[e.Name] = c
			r.clients = append(r.clients, c)
		}
		head := binary.LittleEndian.Uint64(e.Digest[:])
		r.byHead[head] = append(r.byHead[head], &Key{digest: e.Digest, Client: c})
	}
	k.ring.Store(r)
	return nil
}

// usageOf is for the holder of k.mu.
func (k *Keys) usageOf(name string) *usage {
	u := k.usages[name]
	if u == nil {
		u = new(usage)
		k.usages[name] = u
	}
	return u
}

// Off lets everybody in again.
func (k *Keys) Off() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ring.Store(&ring{})
}

// On says whether a key is asked for.
func (k *Keys) On() bool { return k.ring.Load().on }

// Closed says whether a key is asked for and there is none, so that nobody gets in.
func (k *Keys) Closed() bool {
	r := k.ring.Load()
	return r.on && len(r.clients) == 0
}

// Identify finds who sent a request. It belongs between a request's head and its
// body, so that a client without a key can make lbd hold no body. The key is nil
// when none is asked for, and with a refusal.
func (k *Keys) Identify(p *Presented) (*Key, Refusal) {
	r := k.ring.Load()
	if !r.on {
		return nil, Refusal{}
	}
	sent, several := p.key()
	switch {
	case several:
		return nil, k.refuse(Ambiguous)
	case len(sent) == 0:
		return nil, k.refuse(Missing)
	case len(sent) > maxLength:
		return nil, k.refuse(Unknown)
	}
	digest := sha256.Sum256(sent)
	for _, key := range r.byHead[binary.LittleEndian.Uint64(digest[:])] {
		if subtle.ConstantTimeCompare(key.digest[:], digest[:]) == 1 {
			return key, Refusal{}
		}
	}
	return nil, k.refuse(Unknown)
}

func (k *Keys) refuse(r Reason) Refusal {
	k.refused[r].Add(1)
	return Refusal{Reason: r}
}

func (k *Keys) clock(t time.Time) int64 { return int64(t.Sub(k.began)) }

// Restricted says that the client may not use every model.
func (c *Client) Restricted() bool { return len(c.Models) > 0 }

// Allows says whether the client may use a model; aliases are the model's further
// names. It counts nothing: a list of models asks it for each.
func (c *Client) Allows(model string, aliases []string) bool {
	if !c.Restricted() || c.names(model) {
		return true
	}
	for _, a := range aliases {
		if c.names(a) {
			return true
		}
	}
	return false
}

func (c *Client) names(model string) bool {
	for _, m := range c.Models {
		prefix, open := strings.CutSuffix(m, "*")
		if m == model || open && strings.HasPrefix(model, prefix) {
			return true
		}
	}
	return false
}

// RefuseModel is the refusal of a model that Allows does not allow.
func (c *Client) RefuseModel() Refusal { return c.refuse(Model, 0) }

func (c *Client) refuse(r Reason, wait time.Duration) Refusal {
	c.usage.refused[r].Add(1)
	return Refusal{Reason: r, RetryAfter: wait}
}
