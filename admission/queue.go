package admission

import (
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"lbd/balancer"
)

// queue is what waits for one model.
type queue struct {
	a       *Admission
	name    string
	waiting atomic.Int64 // line.n, for those without the lock

	mu     sync.Mutex // held while one is placed, so that a place is given once
	line   line
	drain  drain
	output float64   // mean tokens of answers
	gone   time.Time // since when nobody serves the model; zero while somebody does
	dead   bool      // dropped by Admission
	room   []*balancer.Replica
	full   []*balancer.Replica
}

// outcome is how waiting ended.
type outcome struct {
	res      balancer.Reservation
	err      error
	panicked *Panicked
}

// usualOutput is assumed before the end of a request was seen; routing.md section 2
// on lengths, as in least-cost.
const usualOutput = 200

// outputPace is the weight of the newest answer in the mean of their lengths, and
// outputMost how many times that mean it counts as at most: one answer doubles the
// mean and does no more, whatever a replica says.
const (
	outputPace = 1.0 / 32
	outputMost = 1 / outputPace
)

// costOutput is what a generated token costs beside one of the prompt: w_q = 2 w_p
// in VTC.
const costOutput = 2

func (q *queue) cost(ask *Ask) float64 {
	output := q.output
	if ask.MaxTokens > 0 {
		output = min(output, float64(ask.MaxTokens))
	}
	return float64(max(ask.Prompt, 1)) + costOutput*output
}

// join is enter for who has locked the queue, which it unlocks.
func (q *queue) join(m *balancer.Model, req Request, ask *Ask, p balancer.Prediction) (*waiter, balancer.Reservation, error) {
	defer q.mu.Unlock() // also when a strategy panics
	w, res, err := q.enter(m, req, ask, p)
	if w != nil {
		q.dispatch() // what came up since the look at the replicas, nobody will announce
	}
	return w, res, err
}

// freed is for a replica that may have room.
func (q *queue) freed() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dispatch()
}

// enter puts a request into the line unless it is to be refused, or need not wait:
// then it has the reservation. p is what is predicted of it from the moment it is
// placed, zero when nobody predicts.
func (q *queue) enter(m *balancer.Model, req Request, ask *Ask, p balancer.Prediction) (*waiter, balancer.Reservation, error) {
	cfg, now := q.a.cfg.Load(), time.Now()
	w := &waiter{
		req: req, client: ask.Client, class: ask.Class, cost: q.cost(ask), bytes: ask.Bytes,
		since: now, timeout: ask.Timeout, out: make(chan outcome, 1),
	}
	passes := q.line.n == 0 && cfg.anyRoom(m.Available, true)
	if err := q.refusedAtOnce(cfg, w, passes, p, int(ask.Prompt)); err != nil {
		return nil, balancer.Reservation{}, err
	}
	if passes {
		res, err := req.Place(m, nil)
		return nil, res, err
	}
	out, ok := q.line.victims(w, bounds{cfg.MaxLength, cfg.MaxBytes})
	if !ok {
		return nil, balancer.Reservation{}, q.refusal(QueueFull, w, now)
	}
	for _, v := range out {
		q.refuse(v, QueueFull, now)
	}
	w.prefers = req.Prefers(m)
	if q.line.n == 0 {
		q.drain.resume(now)
	}
	q.line.join(w)
	q.count()
	return w, balancer.Reservation{}, nil
}

// refusedAtOnce refuses what would be too late by the time it had its turn, and what would
// miss a limit, for a prompt of so many tokens. It returns a plain error so that nil is nil.
func (q *queue) refusedAtOnce(cfg *Config, w *waiter, passes bool, p balancer.Prediction, prompt int) error {
	wait := time.Duration(0)
	if !passes {
		wait = q.wait(q.line.ahead(w.client, w.class)+w.cost, w.since)
	}
	p.TTFT += wait
	switch l := cfg.Limits; {
	case l.Late(p.TTFT, prompt):
		allowed := l.FirstToken(prompt)
		return &Refusal{Reason: PredictedTTFT, RetryAfter: clampRetry(p.TTFT - allowed), Predicted: p.TTFT, Allowed: allowed}
	case l.Slow(p.TPOT):
		return &Refusal{Reason: PredictedTPOT, RetryAfter: clampRetry(wait), Predicted: p.TPOT, Allowed: l.TPOT}
	}
	if limit, late := w.patience(cfg); limit > 0 && wait > limit {
		return &Refusal{Reason: late, RetryAfter: clampRetry(wait - limit)}
	}
	return nil
}

// patience is how long a request may wait at most, by the configuration of now, and what
// for it is refused then; 0 is for ever.
func (w *waiter) patience(cfg *Config) (time.Duration, Reason) {
	if w.timeout > 0 && (cfg.MaxWait == 0 || w.timeout < cfg.MaxWait) {
		return w.timeout, Deadline
	}
	return cfg.MaxWait, TooOld
}

// longest bounds predictions: they are added, and nobody waits so long.
const longest = 10 * mostRetry

// wait is how long so much work takes at the pace of late; 0 when that is unknown.
func (q *queue) wait(cost float64, now time.Time) time.Duration {
	rate, ok := q.drain.rate(now)
	if !ok {
		return 0
	}
	return time.Duration(min(cost/rate, longest.Seconds()) * 1e9)
}

func (q *queue) refusal(reason Reason, w *waiter, now time.Time) *Refusal {
	d := q.wait(q.line.ahead(w.client, w.class)+w.cost, now)
	if d == 0 {
		d = q.drain.busy(now)
	}
	return &Refusal{Reason: reason, RetryAfter: clampRetry(d), Waited: now.Sub(w.since)}
}

func clampRetry(d time.Duration) time.Duration { return min(max(d, leastRetry), mostRetry) }

// refuse ends the waiting of w.
func (q *queue) refuse(w *waiter, reason Reason, now time.Time) {
	q.end(w, now)
	w.out <- outcome{err: q.refusal(reason, w, now)}
}

// end takes w out without a place.
func (q *queue) end(w *waiter, now time.Time) {
	q.line.leave(w)
	q.emptied(now)
}

func (q *queue) emptied(now time.Time) {
	if q.line.n == 0 {
		q.drain.pause(now)
	}
	q.count()
}

// count makes the length known to those without the lock.
func (q *queue) count() {
	n := int64(q.line.n)
	q.a.waiting.Add(n - q.waiting.Swap(n))
}

// dispatch places requests as long as there is room.
func (q *queue) dispatch() {
	if q.line.n == 0 {
		return
	}
	cfg, m := q.a.cfg.Load(), q.model()
	if m == nil {
		return
	}
	for q.line.n > 0 && q.split(cfg, m) {
		w, now := q.line.next(q.room), time.Now()
		out := w.place(m, q.full)
		q.line.serve(w)
		q.drain.took(w.cost, now)
		q.emptied(now)
		w.out <- out
	}
}

// place has the request pick. Its panic is for its own goroutine: here it would end
// the request of whoever has freed the place, or lbd.
func (w *waiter) place(m *balancer.Model, full []*balancer.Replica) (out outcome) {
	defer func() {
		if v := recover(); v != nil {
			out.panicked = &Panicked{v, debug.Stack()}
		}
	}()
	out.res, out.err = w.req.Place(m, full)
	return out
}

// model is the one that waiters are placed with now; nil while nobody serves it.
func (q *queue) model() *balancer.Model {
	m := q.a.snapshot().Model([]byte(q.name))
	if m == nil || len(m.Available) == 0 {
		return nil
	}
	return m
}

// split sorts the replicas into those that have room and those that are full, and
// says whether there are any of the first.
func (q *queue) split(cfg *Config, m *balancer.Model) bool {
	q.room, q.full = q.room[:0], q.full[:0]
	for _, r := range m.Available {
		if cfg.room(r, false) > 0 {
			q.room = append(q.room, r)
		} else {
			q.full = append(q.full, r)
		}
	}
	return len(q.room) > 0
}

// goneFor is how long requests wait on for a model that nobody serves: a reload that
// replaces replicas takes a probe and a list of models, a fraction of a second, and
// a replica that is restarted takes minutes.
const goneFor = 2 * time.Second

// sweep does what no event announces: a poll that shows room, waiters whose time is
// over or whose client has left unheard, a model that is gone.
func (q *queue) sweep(now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	cfg := q.a.cfg.Load()
	for _, w := range q.list() {
		switch limit, late := w.patience(cfg); {
		case w.req.Gone():
			q.end(w, now)
			w.out <- outcome{err: ErrLeft}
		case limit > 0 && now.Sub(w.since) >= limit:
			q.refuse(w, late, now)
		}
	}
	q.dispatch()
	q.line.forget()
	switch {
	case q.model() != nil:
		q.gone = time.Time{}
	case q.gone.IsZero():
		q.gone = now
	case now.Sub(q.gone) >= goneFor:
		q.endAll(ErrGone, now)
	}
}

// list is everybody, in order. It is a copy.
func (q *queue) list() []*waiter {
	all := make([]*waiter, 0, q.line.n)
	for i := range q.line.lanes {
		all = append(all, q.line.lanes[i].order...)
	}
	return all
}

func (q *queue) endAll(err error, now time.Time) {
	for _, w := range q.list() {
		q.end(w, now)
		w.out <- outcome{err: err}
	}
}

// left takes out a request whose client has left. The request may long be over, and
// then its caller uses it for another one; or bytes came, and nobody has left.
func (q *queue) left(w *waiter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w.waits && w.req.Gone() {
		q.end(w, time.Now())
		w.out <- outcome{err: ErrLeft}
	}
}

// settle charges a request of f by what it has really cost, and learns how long
// answers are.
func (q *queue) settle(f *flow, estimated float64, prompt, output int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if output > 0 {
		q.output += outputPace * (min(float64(output), outputMost*q.output) - q.output)
	}
	f.correct(float64(prompt) + costOutput*float64(output) - estimated)
}
