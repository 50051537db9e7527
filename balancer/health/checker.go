package health

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"lbd/balancer"
)

// Fleet is what the checker watches and tells.
type Fleet interface {
	Snapshot() *balancer.Snapshot
	SetHealth(id string, h balancer.Health)
}

// Options are the seams of a Checker; the zero value is for production.
type Options struct {
	// OnEvent is called by the checker's goroutine, one event at a time, after the
	// fleet was told.
	OnEvent func(Event)
	Prober  Prober
	// Dial connects to replicas, DialTLS to those with an https URL; nil = as the
	// system does, with its authorities. Authorization returns what a replica is shown
	// in that header field; nil = nothing. None is asked with a Prober.
	Dial, DialTLS func(ctx context.Context, network, addr string) (net.Conn, error)
	Authorization func(listed string) string
	Now           func() time.Time
	// Rand returns a number in [0,1).
	Rand func() float64
}

// Checker probes the fleet. Report may be called by any goroutine at any time,
// the other methods by the owner of the checker.
type Checker struct {
	fleet Fleet
	opts  Options

	config  atomic.Pointer[Config]
	watches atomic.Pointer[map[string]*watch] // replaced as a whole by the owner
	wake    chan struct{}
	results chan result

	start, stop sync.Once
	cancel      context.CancelFunc
	wg          sync.WaitGroup

	// Of the goroutine run only.
	ctx  context.Context
	list []*watch // in the order of the fleet
}

// watch is what the checker knows of one replica. The goroutine run owns all
// but passive.
type watch struct {
	passive

	replica *balancer.Replica
	health  balancer.Health
	// due is when to probe next, probed when the last probe began.
	due, probed time.Time
	probing     bool
	// suspect: the proxy was refused, so the next probe to begin is deciding: it
	// needs no second one to take the replica out.
	suspect, deciding bool
	failed            int  // probes in a row
	good              bool // the last probe since it was ejected
	// unreachable: since it left service, or ever, nobody listened there.
	unreachable bool
	spared      bool // told, and no good probe since
	// level is the number of doublings of the back-off, backoff the last one,
	// until when it ends.
	level   int
	backoff time.Duration
	until   time.Time
}

type result struct {
	watch   *watch
	outcome balancer.Outcome
	err     error
}

// New returns a checker that is not started.
func New(cfg Config, fleet Fleet, opts Options) *Checker {
	if opts.OnEvent == nil {
		opts.OnEvent = func(Event) {}
	}
	if opts.Prober == nil {
		opts.Prober = newHTTPProber(opts)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Rand == nil {
		opts.Rand = rand.Float64
	}
	c := &Checker{fleet: fleet, opts: opts, wake: make(chan struct{}, 1), results: make(chan result)}
	cfg = cfg.filled()
	c.config.Store(&cfg)
	c.watches.Store(&map[string]*watch{})
	return c
}

// Start probes every replica at once and goes on until Stop.
func (c *Checker) Start() {
	c.start.Do(func() {
		c.ctx, c.cancel = context.WithCancel(context.Background())
		c.wg.Go(c.run)
	})
}

// Stop ends all probes and waits for them. It may be called more than once.
func (c *Checker) Stop() {
	c.start.Do(func() {}) // too late to start
	c.stop.Do(func() {
		if c.cancel != nil {
			c.cancel()
		}
	})
	c.wg.Wait()
}

// SetConfig applies a reload: at once to what is decided from now on, and to
// replicas the fleet has just got.
func (c *Checker) SetConfig(cfg Config) {
	cfg = cfg.filled()
	c.config.Store(&cfg)
	c.poke()
}

// Look has replicas probed at once that the fleet has just got.
func (c *Checker) Look() { c.poke() }

func (c *Checker) poke() {
	select {
	case c.wake <- struct{}{}:
	default: // it will look anyway
	}
}

func (c *Checker) run() {
	second := time.NewTicker(windowSlot)
	defer second.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		c.sync()
		c.probe()
		timer.Reset(c.next())
		select {
		case <-c.ctx.Done():
			return
		case <-timer.C:
		case <-second.C:
			for _, w := range c.list {
				w.rotate()
			}
		case <-c.wake:
			c.passive()
		case r := <-c.results:
			c.probed(r)
		}
	}
}

// sync takes over who is in the fleet. It also tells again a replica the fleet
// knows otherwise, as one that left and came back between two looks.
func (c *Checker) sync() {
	s := c.fleet.Snapshot()
	old := *c.watches.Load()
	changed := len(s.Replicas) != len(c.list)
	for i := range s.Replicas {
		r := &s.Replicas[i]
		w := old[r.ID]
		if w == nil {
			changed = true
			continue
		}
		w.replica = r.Replica
		changed = changed || c.list[min(i, len(c.list)-1)] != w
		if r.Health.State != w.health.State {
			c.fleet.SetHealth(r.ID, w.health)
		}
	}
	if !changed {
		return
	}
	byID := make(map[string]*watch, len(s.Replicas))
	list := make([]*watch, 0, len(s.Replicas))
	for i := range s.Replicas {
		r := &s.Replicas[i]
		w := old[r.ID]
		if w == nil {
			w = &watch{replica: r.Replica, health: r.Health, due: c.opts.Now()}
		}
		byID[r.ID], list = w, append(list, w)
	}
	c.list = list
	c.watches.Store(&byID)
}

// probe starts what is due.
func (c *Checker) probe() {
	now, cfg := c.opts.Now(), c.config.Load()
	for _, w := range c.list {
		if latest := w.probed.Add(cfg.Interval); w.due.After(latest) && !w.probed.IsZero() {
			w.due = latest // the interval became shorter
		}
		if w.probing || w.due.After(now) {
			continue
		}
		w.probing, w.probed, w.due = true, now, now.Add(cfg.Interval)
		if w.until.After(now) && w.until.Before(w.due) {
			w.due = w.until // back as soon as the back-off allows
		}
		w.deciding, w.suspect = w.suspect, false
		r := w.replica
		c.wg.Go(func() { c.ask(w, r, cfg) })
	}
}

func (c *Checker) ask(w *watch, r *balancer.Replica, cfg *Config) {
	ctx, cancel := context.WithTimeout(c.ctx, cfg.Timeout)
	defer cancel()
	o, err := c.opts.Prober.Probe(ctx, r, cfg.Path)
	select {
	case c.results <- result{w, o, err}:
	case <-c.ctx.Done():
	}
}

// next returns how long nothing is due. A probe under way reports by itself.
func (c *Checker) next() time.Duration {
	now, wait := c.opts.Now(), c.config.Load().Interval
	for _, w := range c.list {
		if !w.probing {
			wait = min(wait, w.due.Sub(now))
		}
	}
	return max(wait, 0)
}
