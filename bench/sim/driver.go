package sim

import (
	"sync"
	"time"

	"lbd/bench/sim/engine"
)

// delivery is what reached one choice of a request since it last looked.
type delivery struct {
	choice   int
	tokens   int
	cached   int // prompt tokens found in the prefix cache; with the first token
	first    bool
	finished bool
}

// generation is one engine request as the driver sees it.
type generation struct {
	id        uint64
	choice    int
	job       *job
	want      int // output tokens
	prompt    int
	maxTokens int
	n         int
	reason    string // finish reason when it ends

	arrived time.Time // Submit
	began   time.Time // first admission, known with the first token
	first   time.Time
	last    time.Time
	cached  int
}

// job is the mailbox of one HTTP request: the driver fills it and never waits
// for the reader, as vLLM's engine does not wait for its API server.
type job struct {
	merge  bool // V1's output collector joins what the client was too slow for
	notify chan struct{}

	mu    sync.Mutex
	queue []delivery
}

func newJob(merge bool) *job { return &job{merge: merge, notify: make(chan struct{}, 1)} }

func (j *job) put(d delivery) {
	j.mu.Lock()
	if n := len(j.queue); j.merge && n > 0 && j.queue[n-1].choice == d.choice {
		last := &j.queue[n-1]
		last.tokens += d.tokens
		last.cached = max(last.cached, d.cached)
		last.first = last.first || d.first
		last.finished = d.finished
	} else {
		j.queue = append(j.queue, d)
	}
	j.mu.Unlock()
	select {
	case j.notify <- struct{}{}:
	default:
	}
}

// take empties the mailbox into buf.
func (j *job) take(buf []delivery) []delivery {
	j.mu.Lock()
	defer j.mu.Unlock()
	buf = append(buf[:0], j.queue...)
	j.queue = j.queue[:0]
	return buf
}

// driver owns the engine: it alone steps it. Requests reach it through an
// inbox that is emptied between steps, as vLLM's engine loop empties its.
type driver struct {
	eng    *engine.Engine
	meters *meters
	speed  float64
	v0     bool
	poll   time.Duration // idle gauge refresh of V0
	faults *faultSet
	device *share

	admission *admission // the API server's book

	mu     sync.Mutex
	submit []*submission
	abort  []uint64
	stats  engine.Stats

	wake chan struct{}
	stop chan struct{}
	done chan struct{}
	live map[uint64]*generation // driver goroutine only
}

// submission asks for one engine request; the engine's answer comes back on
// accepted.
type submission struct {
	req engine.Request
	gen *generation
	err chan error
}

func newDriver(cfg Config, eng *engine.Engine, m *meters, f *faultSet) *driver {
	return &driver{
		eng: eng, meters: m, speed: cfg.Speed, v0: cfg.Profile == ProfileV064, poll: cfg.StatsPoll,
		faults: f, admission: newAdmission(cfg), stats: eng.Stats(),
		wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
		live: make(map[uint64]*generation),
	}
}

func (d *driver) start() { go d.loop() }

func (d *driver) join() {
	close(d.stop)
	<-d.done
}

func (d *driver) poke() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// generate queues a request. It returns when the engine has taken or refused
// it, at the latest after the step under way.
func (d *driver) generate(req engine.Request, g *generation) error {
	s := &submission{req: req, gen: g, err: make(chan error, 1)}
	d.mu.Lock()
	d.submit = append(d.submit, s)
	d.mu.Unlock()
	d.poke()
	select {
	case err := <-s.err:
		return err
	case <-d.done:
		return errBroken
	}
}

func (d *driver) cancel(id uint64) {
	d.admission.ended(id)
	d.mu.Lock()
	d.abort = append(d.abort, id)
	d.mu.Unlock()
	d.poke()
}

func (d *driver) engineStats() engine.Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stats
}

// maxLag bounds how far the schedule may fall behind the clock before the
// driver gives the lost time up instead of racing to catch up.
const maxLag = 200 * time.Millisecond

// minSleep is below the useful resolution of a timer; shorter waits are
// carried over to the next step, because the deadlines are absolute.
const minSleep = time.Millisecond

func (d *driver) loop() {
	defer close(d.done)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var evs []engine.Event
	deadline := time.Now()
	for {
		aborted := d.intake()
		var took time.Duration
		took, evs = d.eng.Step(evs[:0])
		if took == 0 && len(evs) == 0 {
			d.idleStats(aborted)
			if !d.waitIdle(timer) {
				return
			}
			deadline = time.Now()
			continue
		}
		deadline = deadline.Add(time.Duration(float64(took) / d.speed * d.faults.slowdown()))
		if !d.waitUntil(timer, &deadline) {
			return
		}
		d.deliver(evs)
	}
}

// intake hands the inbox to the engine and reports whether it aborted any.
func (d *driver) intake() bool {
	d.mu.Lock()
	submit, abort := d.submit, d.abort
	d.submit, d.abort = nil, nil
	d.mu.Unlock()
	now := time.Now()
	for _, s := range submit {
		s.gen.arrived = now
		err := d.eng.Submit(s.req)
		if err == nil {
			d.live[s.req.ID] = s.gen
		}
		s.err <- err
	}
	aborted := false
	for _, id := range abort {
		if d.eng.Abort(id) {
			delete(d.live, id)
			aborted = true
		}
	}
	return aborted
}

// idleStats refreshes what an idle engine knows. V0's gauges stay as they were
// until the poll of waitIdle; V1 (v0.19) shows an abort at once.
func (d *driver) idleStats(aborted bool) {
	d.publish(aborted && !d.v0)
}

// publish stores the engine's statistics and, if refresh, the gauges.
func (d *driver) publish(refresh bool) engine.Stats {
	st := d.eng.Stats()
	d.mu.Lock()
	d.stats = st
	d.mu.Unlock()
	if refresh {
		d.meters.gauges(st, d.device.usage(st))
	}
	return st
}

func (d *driver) waitIdle(timer *time.Timer) bool {
	poll := d.poll
	if !d.v0 {
		poll = time.Hour
	}
	for {
		timer.Reset(poll)
		select {
		case <-d.stop:
			return false
		case <-d.wake:
			return true
		case <-timer.C:
			d.publish(d.v0)
		}
	}
}

func (d *driver) waitUntil(timer *time.Timer, deadline *time.Time) bool {
	now := time.Now()
	if now.Sub(*deadline) > maxLag {
		*deadline = now
	}
	wait := deadline.Sub(now)
	if wait < minSleep {
		select {
		case <-d.stop:
			return false
		default:
			return true
		}
	}
	timer.Reset(wait)
	select {
	case <-d.stop:
		return false
	case <-timer.C:
		return true
	}
}

// deliver passes a finished step on: statistics first, so a client that has
// its last token never sees itself running.
func (d *driver) deliver(evs []engine.Event) {
	was := d.engineStats()
	st := d.publish(true)
	d.meters.step(evs, d.live, time.Now(), d.speed, st.PrefillTokens-was.PrefillTokens, st.GenerationTokens-was.GenerationTokens)
	for _, ev := range evs {
		g := d.live[ev.ID]
		if g == nil {
			continue
		}
		if ev.First {
			d.admission.computed(ev.ID)
		}
		if ev.Finished {
			delete(d.live, ev.ID)
			d.admission.ended(ev.ID)
		}
		if ev.Tokens > 0 || ev.Finished {
			g.job.put(delivery{
				choice: g.choice, tokens: ev.Tokens, cached: ev.CachedTokens, first: ev.First, finished: ev.Finished,
			})
		}
	}
}
