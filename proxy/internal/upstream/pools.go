package upstream

import (
	"sync"
	"sync/atomic"
	"time"
)

// Pools holds one pool per replica ID and closes idle connections in time.
type Pools struct {
	cfg   atomic.Pointer[Config]
	pools sync.Map // ID -> *Pool
	stop  chan struct{}
	done  chan struct{}
	once  sync.Once
}

// NewPools starts the goroutine that expires connections; Close ends it.
func NewPools(cfg Config) *Pools {
	ps := &Pools{stop: make(chan struct{}), done: make(chan struct{})}
	ps.cfg.Store(&cfg)
	go ps.run()
	return ps
}

// Get returns the pool of a replica. addr is used the first time only: an ID
// stands for one address.
func (ps *Pools) Get(id, addr string) *Pool {
	if p, ok := ps.pools.Load(id); ok {
		return p.(*Pool)
	}
	p, _ := ps.pools.LoadOrStore(id, NewPool(addr, *ps.cfg.Load()))
	return p.(*Pool)
}

// Retain closes the pools of replicas that are not in the fleet any more.
func (ps *Pools) Retain(known func(id string) bool) {
	ps.pools.Range(func(k, v any) bool {
		if !known(k.(string)) {
			ps.pools.Delete(k)
			v.(*Pool).Close()
		}
		return true
	})
}

// SetConfig applies new limits. Pools are made anew: their idle connections are
// closed, those in use end where they are.
func (ps *Pools) SetConfig(cfg Config) {
	if *ps.cfg.Swap(&cfg) != cfg {
		ps.Retain(func(string) bool { return false })
	}
}

// Close closes all idle connections and ends the goroutine. Further calls do
// nothing.
func (ps *Pools) Close() {
	ps.once.Do(func() {
		close(ps.stop)
		<-ps.done
		ps.Retain(func(string) bool { return false })
	})
}

func (ps *Pools) run() {
	defer close(ps.done)
	// Half the default idle time: a connection outlives its limit by at most
	// that, and 3 s + 0.5 s is still below uvicorn's 5 s.
	t := time.NewTicker(500 * time.Millisecond)
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
