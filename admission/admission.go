package admission

import (
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"lbd/balancer"
)

// Request is what a queue wants of a request. Enter's caller makes it. While Enter
// waits its methods are called by other goroutines, one at a time; later none is.
type Request interface {
	// Place picks a replica of the model that is not in full, and reserves it. The
	// slice must not be kept.
	Place(m *balancer.Model, full []*balancer.Replica) (balancer.Reservation, error)
	// Prefers is the replica the request is best placed at, for what is cached there
	// say; nil when one is as good as another.
	Prefers(m *balancer.Model) *balancer.Replica
	// Predict is what the strategy expects of the request once it is placed; ok is false
	// when it does not predict.
	Predict(m *balancer.Model) (p balancer.Prediction, ok bool)
	// Gone says that the client has left.
	Gone() bool
	// Watch has left called when the client may have left, by any goroutine, perhaps
	// never and perhaps long after Enter has returned.
	Watch(left func())
}

// Ask is what decides about the order and the end of waiting.
type Ask struct {
	// Client is between whom the queue is fair.
	Client string
	Class  Class
	// Prompt is an estimate in tokens, MaxTokens the request's limit of the answer,
	// 0 without one.
	Prompt    int64
	MaxTokens int
	// Bytes are held while the request waits.
	Bytes int64
	// Timeout is how long the client waits for an answer; 0 is unknown.
	Timeout time.Duration
}

// Ticket is the account of a request that has waited.
type Ticket struct {
	// Waited is how long it was held back.
	Waited time.Duration

	q    *queue
	flow *flow
	cost float64
}

// Settle charges the client what the request has really cost, in tokens as the
// replica reported them. Without a call the estimate stands.
func (t *Ticket) Settle(prompt, output int) {
	prompt, output = min(prompt, balancer.LongestContext), min(output, balancer.LongestContext)
	if t.flow != nil && prompt+output > 0 {
		t.q.settle(t.flow, t.cost, prompt, output)
		t.flow = nil
	}
}

// Panicked is what Enter panics with when Place has panicked in another goroutine.
type Panicked struct {
	Value any
	Stack []byte // where that was
}

// Error implements error.
func (p *Panicked) Error() string {
	return fmt.Sprintf("%v\n\nwhile it was placed:\n%s", p.Value, p.Stack)
}

// Admission is the queues of all models. Its methods may be called by any goroutine.
type Admission struct {
	cfg      atomic.Pointer[Config]
	snapshot func() *balancer.Snapshot
	waiting  atomic.Int64 // in all queues
	queues   atomic.Pointer[map[string]*queue]

	mu      sync.Mutex // guards the rest, and writing queues; taken after a queue's own
	running bool       // the sweeper
	closed  bool
	stop    chan struct{}
	wg      sync.WaitGroup
}

// New returns queues without anybody in them. snapshot is the fleet now: requests
// that wait are placed with what it says then.
func New(c Config, snapshot func() *balancer.Snapshot) *Admission {
	a := &Admission{snapshot: snapshot, stop: make(chan struct{})}
	a.cfg.Store(&c)
	a.queues.Store(&map[string]*queue{})
	return a
}

// SetConfig applies to those that wait as well.
func (a *Admission) SetConfig(c Config) { a.cfg.Store(&c) }

// Pass says that a request of the model may be placed at once: nobody waits, and a
// replica has room. A model that nobody serves is not this package's business.
func (a *Admission) Pass(m *balancer.Model) bool {
	cfg := a.cfg.Load()
	if !cfg.On || len(m.Available) == 0 {
		return true
	}
	if cfg.Limits.Any() || a.waiting.Load() > 0 && a.waitingFor(m.Name) > 0 {
		return false
	}
	return cfg.anyRoom(m.Available, true)
}

func (a *Admission) waitingFor(model string) int64 {
	if q := (*a.queues.Load())[model]; q != nil {
		return q.waiting.Load()
	}
	return 0
}

// Enter returns when the request has its place, with the reservation that is it. The
// error is a *Refusal, ErrLeft, ErrGone, ErrClosed or one of Place. What Place panics
// with Enter does, whoever has called Place.
func (a *Admission) Enter(m *balancer.Model, req Request, ask Ask) (balancer.Reservation, Ticket, error) {
	var p balancer.Prediction
	if a.cfg.Load().Limits.Any() {
		p, _ = req.Predict(m)
		p.TTFT = min(p.TTFT, longest)
	}
	q, err := a.lockQueue(m.Name)
	if err != nil {
		return balancer.Reservation{}, Ticket{}, err
	}
	w, res, err := q.join(m, req, &ask, p)
	if w == nil {
		return res, Ticket{}, err
	}
	a.sweeping()
	req.Watch(func() { q.left(w) })
	out := <-w.out
	if out.panicked != nil {
		panic(out.panicked)
	}
	return out.res, Ticket{Waited: time.Since(w.since), q: q, flow: w.flow, cost: w.cost}, out.err
}

// lockQueue returns the model's queue, locked.
func (a *Admission) lockQueue(model string) (*queue, error) {
	for {
		q := (*a.queues.Load())[model]
		if q == nil {
			var err error
			if q, err = a.makeQueue(model); err != nil {
				return nil, err
			}
		}
		q.mu.Lock()
		if !q.dead {
			return q, nil
		}
		q.mu.Unlock()
	}
}

func (a *Admission) makeQueue(model string) (*queue, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil, ErrClosed
	}
	old := *a.queues.Load()
	if q := old[model]; q != nil {
		return q, nil
	}
	next := maps.Clone(old)
	q := &queue{a: a, name: model, output: usualOutput}
	next[model] = q
	a.queues.Store(&next)
	return q, nil
}

// Freed places who waits, after a response of the replica has begun or a request
// there has ended. Nobody is woken but those who are placed.
func (a *Admission) Freed(r *balancer.Replica) {
	if a.waiting.Load() == 0 || r == nil {
		return
	}
	for _, q := range *a.queues.Load() { // other models may be on the same replica
		if q.waiting.Load() > 0 {
			q.freed()
		}
	}
}

const (
	// sweepEvery is how late polls, timeouts and reloads are noticed at most.
	sweepEvery = 20 * time.Millisecond
	// sweepOn is how many sweeps go on behind the last waiter: a saturated model has
	// the next one soon.
	sweepOn = 50
)

// sweeping makes sure that the sweeper runs while somebody waits.
func (a *Admission) sweeping() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.running && !a.closed && a.waiting.Load() > 0 {
		a.running = true
		a.wg.Go(a.run)
	}
}

func (a *Admission) run() {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for idle := 0; idle < sweepOn || !a.ended(); idle++ {
		select {
		case <-a.stop:
			return
		case now := <-t.C:
			if a.sweep(now) {
				idle = 0
			}
		}
	}
}

// ended takes the sweeper off, unless somebody has come to wait meanwhile.
func (a *Admission) ended() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.running = a.waiting.Load() > 0
	return !a.running
}

// sweep says whether anybody waits.
func (a *Admission) sweep(now time.Time) bool {
	for _, q := range *a.queues.Load() {
		if q.waiting.Load() > 0 {
			q.sweep(now)
		}
	}
	return a.waiting.Load() > 0
}

// Retain drops the queues of models that are not served any more, or names would
// pile up.
func (a *Admission) Retain() {
	for _, q := range *a.queues.Load() {
		if q.waiting.Load() == 0 && a.snapshot().Model([]byte(q.name)) == nil {
			a.drop(q)
		}
	}
}

func (a *Admission) drop(q *queue) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.line.n > 0 || q.dead {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	q.dead = true
	next := maps.Clone(*a.queues.Load())
	delete(next, q.name)
	a.queues.Store(&next)
}

// Close ends the waiting of everybody with ErrClosed and waits for the sweeper.
func (a *Admission) Close() {
	for _, q := range a.shut() {
		q.mu.Lock()
		q.dead = true
		q.endAll(ErrClosed, time.Now())
		q.mu.Unlock()
	}
	a.wg.Wait()
}

// shut makes sure that nobody comes any more, and returns where some may be.
func (a *Admission) shut() map[string]*queue {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.closed {
		a.closed = true
		close(a.stop)
	}
	return *a.queues.Swap(&map[string]*queue{})
}

// Stats is what operators see of one queue.
type Stats struct {
	Waiting int
	Bytes   int64
	Clients int           // that wait
	Oldest  time.Duration // how long the one that waits longest has waited
	// Tokens is the estimated work of those that wait, prompt tokens and twice the
	// output tokens; PerSecond the pace at which it is taken up, 0 when unknown.
	Tokens, PerSecond float64
}

// Stats returns that of a model; all zero for one without a queue.
func (a *Admission) Stats(model string) Stats {
	q := (*a.queues.Load())[model]
	if q == nil {
		return Stats{}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	s := Stats{Waiting: q.line.n, Bytes: q.line.bytes}
	for i := range q.line.lanes {
		lane := &q.line.lanes[i]
		s.Tokens += lane.cost
		for _, f := range lane.flows {
			if len(f.waiters) > 0 {
				s.Clients++
			}
		}
		for _, w := range lane.order {
			s.Oldest = max(s.Oldest, now.Sub(w.since))
		}
	}
	s.PerSecond, _ = q.drain.rate(now)
	return s
}
