package upstream

import (
	"crypto/tls"
	"sync"
	"time"
)

// Pools holds one pool per replica ID and closes idle connections in time.
type Pools struct {
	// TLS returns what a replica is spoken to with, the same pointer as long as nothing
	// changes: a connection that was made with another one is not used again. It is to be
	// set before GetTLS is used.
	TLS func(listed, addr string) *tls.Config

	pools sync.Map // ID -> *Pool

	mu     sync.Mutex // held by those who change what follows or pools
	cfg    Config
	closed bool

	stop chan struct{}
	done chan struct{}
	once sync.Once
}

// NewPools starts the goroutine that expires connections; Close ends it.
func NewPools(cfg Config) *Pools {
	ps := &Pools{cfg: cfg, stop: make(chan struct{}), done: make(chan struct{})}
	go ps.run()
	return ps
}

// Get returns the pool of a replica. addr is used the first time only: an ID
// stands for one address. After Close it returns a pool that keeps nothing.
func (ps *Pools) Get(id, addr string) *Pool { return ps.get(id, addr, Peer{}) }

// Peer is who a replica is in TLS.
type Peer struct {
	Listed string // what stands for it in the configuration
	Addr   string // host:port; its certificate must have the host
}

// GetTLS is Get for a replica that is spoken to in TLS. One that was somebody else
// before, or spoken to in plain text, or the reverse, gets another pool.
func (ps *Pools) GetTLS(id, addr string, peer Peer) *Pool { return ps.get(id, addr, peer) }

func (ps *Pools) get(id, addr string, peer Peer) *Pool {
	if p, ok := ps.pools.Load(id); ok && p.(*Pool).peer == peer {
		return p.(*Pool)
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p, ok := ps.pools.Load(id); ok {
		if p.(*Pool).peer == peer {
			return p.(*Pool)
		}
		p.(*Pool).Close()
	}
	p := NewPool(addr, ps.cfg)
	if p.peer = peer; peer != (Peer{}) {
		p.tls = func() *tls.Config { return ps.TLS(peer.Listed, peer.Addr) }
	}
	if ps.closed {
		p.Close()
		return p
	}
	ps.pools.Store(id, p)
	return p
}

// Retain closes the pools of replicas that are not in the fleet any more.
func (ps *Pools) Retain(known func(id string) bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.retain(known)
}

func (ps *Pools) retain(known func(id string) bool) {
	ps.pools.Range(func(k, v any) bool {
		if !known(k.(string)) {
			ps.pools.Delete(k)
			v.(*Pool).Close()
		}
		return true
	})
}

func none(string) bool { return false }

// SetConfig applies new limits. Pools are made anew: their idle connections are
// closed, those in use end where they are.
func (ps *Pools) SetConfig(cfg Config) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.cfg != cfg {
		ps.cfg = cfg
		ps.retain(none)
	}
}

// Close closes all idle connections and ends the goroutine; connections in use
// are closed when they are given back. Further calls do nothing.
func (ps *Pools) Close() {
	ps.once.Do(func() {
		close(ps.stop)
		<-ps.done
		ps.mu.Lock()
		defer ps.mu.Unlock()
		ps.closed = true
		ps.retain(none)
	})
}

// expireEvery is small against uvicorn's 5 s: a connection outlives its idle time
// by no more.
const expireEvery = 500 * time.Millisecond

func (ps *Pools) run() {
	defer close(ps.done)
	t := time.NewTicker(expireEvery)
	defer t.Stop()
	for {
		select {
		case <-ps.stop:
			return
		case now := <-t.C:
			ps.pools.Range(func(_, v any) bool { v.(*Pool).Expire(now); return true })
		}
	}
}
