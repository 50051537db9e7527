package poll

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Options are the seams of a Poller; the zero value is for production.
type Options struct {
	// OnEvent may be called by several goroutines at once. It must not block; of
	// the poller it may call Failures, ModelFailures and Age.
	OnEvent func(Event)
	Fetcher Fetcher
	// Dial connects to replicas, DialTLS to those with an https URL; nil = as the
	// system does, with its authorities. Neither is asked with a Fetcher.
	Dial, DialTLS func(ctx context.Context, network, addr string) (net.Conn, error)
	Now           func() time.Time
}

// Poller reads the fleet's replicas. Relearn, Failures, ModelFailures and Age
// may be called by any goroutine at any time, the other methods by the owner.
type Poller struct {
	fleet Fleet
	opts  Options

	config atomic.Pointer[Config]
	wake   chan struct{}
	slots  chan struct{}

	start, stop sync.Once
	ctx         context.Context
	cancel      context.CancelFunc
	wg          sync.WaitGroup

	// targets is replaced as a whole by the goroutine run. It has no lock, since
	// OnEvent is called under a target's and may look up others.
	targets atomic.Pointer[map[string]*target]
}

// New returns a poller that is not started.
func New(cfg Config, fleet Fleet, opts Options) *Poller {
	if opts.OnEvent == nil {
		opts.OnEvent = func(Event) {}
	}
	if opts.Fetcher == nil {
		opts.Fetcher = newHTTPFetcher(opts.Dial, opts.DialTLS)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	p := &Poller{
		fleet: fleet, opts: opts, wake: make(chan struct{}, 1),
		slots: make(chan struct{}, maxUnderWay),
	}
	p.targets.Store(&map[string]*target{})
	cfg = cfg.filled()
	p.config.Store(&cfg)
	return p
}

// Start reads every replica at once and goes on until Stop.
func (p *Poller) Start() {
	p.start.Do(func() {
		p.ctx, p.cancel = context.WithCancel(context.Background())
		p.wg.Go(p.run)
	})
}

// Stop ends what is under way and waits for it. It may be called more than once.
func (p *Poller) Stop() {
	p.start.Do(func() {}) // too late to start
	p.stop.Do(func() {
		if p.cancel != nil {
			p.cancel()
		}
	})
	p.wg.Wait()
	if f, ok := p.opts.Fetcher.(*httpFetcher); ok {
		f.close()
	}
}

// SetConfig applies a reload. A new key or a new replica is tried at once.
func (p *Poller) SetConfig(cfg Config) {
	cfg = cfg.filled()
	if old := p.config.Swap(&cfg); !old.sameKeys(cfg) {
		for _, t := range *p.targets.Load() {
			t.want()
		}
	}
	p.poke()
}

// Renew has connections made anew: what DialTLS asks of a replica has changed.
func (p *Poller) Renew() {
	if f, ok := p.opts.Fetcher.(*httpFetcher); ok {
		f.renew()
	}
}

// Relearn asks for a new reading of the replica's models: it has just said that
// it does not know one.
func (p *Poller) Relearn(id string) {
	if t := p.target(id); t != nil {
		t.want()
		p.poke()
	}
}

// Failures counts the failed polls of a replica since it joined.
func (p *Poller) Failures(id string) uint64 {
	if t := p.target(id); t != nil {
		return t.failures.Load()
	}
	return 0
}

// ModelFailures counts the failed readings of its models.
func (p *Poller) ModelFailures(id string) uint64 {
	if t := p.target(id); t != nil {
		return t.modelFailures.Load()
	}
	return 0
}

// Age returns the time since the replica's /metrics last answered, false if it
// never did.
func (p *Poller) Age(id string) (time.Duration, bool) {
	t := p.target(id)
	if t == nil {
		return 0, false
	}
	at := t.answeredAt.Load()
	if at == nil {
		return 0, false
	}
	return p.opts.Now().Sub(*at), true
}

func (t *target) want() {
	t.mu.Lock()
	t.models.wanted = true
	t.mu.Unlock()
}

func (p *Poller) target(id string) *target { return (*p.targets.Load())[id] }

func (p *Poller) poke() {
	select {
	case p.wake <- struct{}{}:
	default: // it will look anyway
	}
}

func (p *Poller) tell(k Kind, t *target, reason string) {
	p.opts.OnEvent(Event{Kind: k, Replica: t.replica.ID, Reason: reason})
}

func (p *Poller) run() {
	interval := p.config.Load().Interval
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	p.tick()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-ticker.C:
			p.tick()
		case <-p.fleet.Wake():
			p.sync()
			p.learnWanted(true)
		case <-p.wake:
			p.sync()
			p.learnWanted(false)
			if now := p.config.Load().Interval; now != interval {
				interval = now
				ticker.Reset(interval)
			}
		}
	}
}

// tick polls every replica in the same instant.
func (p *Poller) tick() {
	p.sync()
	cfg, now := p.config.Load(), p.opts.Now()
	for _, t := range *p.targets.Load() {
		p.expire(t, cfg, now)
		p.startPoll(t, cfg)
	}
	p.learnWanted(false)
}

// learnWanted reads the models of those that are due.
func (p *Poller) learnWanted(atOnce bool) {
	cfg := p.config.Load()
	unlearned := make(map[string]bool)
	for _, r := range p.fleet.Unlearned() {
		unlearned[r.ID] = true
	}
	for _, t := range *p.targets.Load() {
		p.startLearn(t, cfg, unlearned[t.replica.ID], atOnce)
	}
}

// sync takes over who is in the fleet.
func (p *Poller) sync() {
	s := p.fleet.Snapshot()
	old := *p.targets.Load()
	next := make(map[string]*target, len(s.Replicas))
	changed := len(s.Replicas) != len(old)
	for i := range s.Replicas {
		r := s.Replicas[i].Replica
		t := old[r.ID]
		if t == nil {
			t, changed = &target{replica: r}, true
		}
		t.mu.Lock()
		t.replica = r
		t.mu.Unlock()
		next[r.ID] = t
	}
	if changed {
		p.targets.Store(&next)
	}
}

// slot runs f with the timeout once there is room for another request.
func (p *Poller) slot(timeout time.Duration, f func(context.Context)) {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-p.ctx.Done():
		return
	}
	ctx, cancel := context.WithTimeout(p.ctx, timeout)
	defer cancel()
	f(ctx)
}
