package replay

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"lbd/balancer"
	"lbd/bench/sim/engine"
)

// run is one simulation under way.
type run struct {
	cfg      Config
	workload *Workload
	source   source
	servers  []*server
	lbds     []*lbd
	agenda   agenda
	steps    steps

	live  []*Query // by slot
	spare []int    // free slots
	under int      // requests that have not ended

	gaps                               histogram
	each                               []Served
	promptTokens, cachedTokens         int64
	outputTokens                       int64
	firstArrival, lastArrival, lastEnd time.Duration
	arrived, ended, good, bad          int
	late                               lateness
	held                               int
	computed                           map[uint64]bool // blocks, with a shared cache
	res                                Result
}

// Run offers the workload to the fleet and serves it to the end.
func Run(cfg Config, w *Workload) (*Result, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	r := &run{cfg: cfg, workload: w, source: w.open(), computed: map[uint64]bool{}}
	defer func() {
		if r.source != nil {
			r.source.close()
		}
	}()
	if err := r.prepare(); err != nil {
		return nil, err
	}
	r.loop()
	err := r.source.close()
	r.source = nil
	if err != nil {
		return nil, fmt.Errorf("workload %s: %w", w.Name, err)
	}
	return r.result(), nil
}

func (r *run) prepare() (err error) {
	if r.servers, err = r.cfg.servers(); err != nil {
		return err
	}
	if r.cfg.Policy.Poll > 0 {
		r.cfg.Poll = r.cfg.Policy.Poll
	}
	r.steps = newSteps(len(r.servers))
	infos := make([]ReplicaInfo, len(r.servers))
	for i, s := range r.servers {
		infos[i] = s.ReplicaInfo
	}
	for i := range r.cfg.LBDs {
		rng := rand.New(rand.NewPCG(r.cfg.Seed, streamRouter<<32|uint64(i)))
		setup := Setup{
			Replicas: infos, LBD: i, LBDs: r.cfg.LBDs, Poll: r.cfg.Poll, BlockTokens: r.workload.BlockTokens, Admission: r.cfg.Admission,
			Uint64: rng.Uint64, Truth: &Truth{r},
		}
		r.lbds = append(r.lbds, newLBD(r.cfg.Policy.New(setup), len(r.servers)))
		phase := r.cfg.Poll * time.Duration(i) / time.Duration(r.cfg.LBDs)
		r.agenda.add(event{at: phase, kind: kindPoll, who: i})
	}
	for i, f := range r.cfg.Faults {
		r.agenda.add(event{at: f.At, kind: kindFault, who: 2 * i})
		if f.For > 0 {
			r.agenda.add(event{at: f.At + f.For, kind: kindFault, who: 2*i + 1})
		}
	}
	return nil
}

// horizon is when the run ends at the latest.
func (r *run) horizon() time.Duration {
	if r.cfg.Horizon > 0 {
		return r.cfg.Horizon
	}
	return never
}

// loop takes what comes next, until all requests have ended. At one instant steps end before anything else happens.
func (r *run) loop() {
	for horizon := r.horizon(); ; {
		arrival, other := r.source.next(), r.agenda.next()
		replica, step := r.steps.first()
		next := min(arrival, other, step)
		switch {
		case r.cfg.MaxBad > 0 && r.bad > r.cfg.MaxBad:
			r.res.Stopped = true
			return
		case r.cfg.MinGood > 0 && r.good >= r.cfg.MinGood:
			r.res.Enough = true
			return
		case next > horizon || r.under == 0 && arrival == never:
			r.res.Unfinished = r.under
			return
		case step == next:
			r.endStep(replica, step)
		case other == next:
			r.handle(r.agenda.pop())
		default:
			r.arrive(r.source.take())
		}
	}
}

// limit is how far a replica may run ahead when its steps tell nothing: to whatever happens next that was not brought
// about by replicas. What they bring about themselves (the next request of a session, a request let go by its lbd) reaches
// an engine minFrontEnd later at the earliest.
func (r *run) limit(now time.Duration) time.Duration {
	limit := min(r.source.next(), r.agenda.next(), r.horizon())
	if r.held > 0 || r.workload.closed {
		limit = min(limit, now+minFrontEnd)
	}
	return limit
}

// minFrontEnd is the least engine.FrontEnd.
var minFrontEnd = engine.FrontEnd(0, 0)

func (r *run) handle(e event) {
	switch e.kind {
	case kindFault:
		r.fault(e)
	case kindPoll:
		r.poll(e)
	case kindProbe:
		r.probe(e)
	case kindSubmit:
		r.submit(e)
	}
}

// arrive brings a request to one of the lbds.
func (r *run) arrive(q Request) {
	if r.arrived == 0 {
		r.firstArrival = q.At
	}
	r.arrived++
	r.lastArrival = q.At
	r.res.Requests++
	r.under++
	r.each = append(r.each, Served{Failed: true})
	slot := r.slot()
	query := r.live[slot]
	chain, tried := query.chain[:0], query.tried[:0]
	*query = Query{
		Request: q, slot: slot, generation: query.generation, first: -1, chain: chain, tried: tried,
		Stream:   unit(r.cfg.Seed, saltStream, q.ID) >= r.cfg.NonStreaming,
		Estimate: max(1, int(float64(q.PromptTokens)*lognormal(r.cfg.PromptError, r.cfg.Seed, saltPrompt, q.ID))),
		lbd:      int(unit(r.cfg.Seed, saltLBD, q.ID) * float64(r.cfg.LBDs)),
	}
	if r.cfg.MaxBad > 0 {
		r.overdue(q.At)
		r.late.add(query, r.cfg.Limits.FirstToken(q.PromptTokens))
	}
	r.pick(q.At, query)
}

// slot finds room for a request.
func (r *run) slot() int {
	if n := len(r.spare); n > 0 {
		slot := r.spare[n-1]
		r.spare = r.spare[:n-1]
		return slot
	}
	r.live = append(r.live, &Query{})
	return len(r.live) - 1
}

// The engine's id of a request is its own, unique for ever because caches remember it, and its slot.
const slotBits = 24

func (q *Query) engineID() uint64 { return q.ID<<slotBits | uint64(q.slot) }

func (r *run) query(engineID uint64) *Query { return r.live[engineID&(1<<slotBits-1)] }

// pick finds a replica and sends the request there, or puts it among the held ones.
func (r *run) pick(now time.Duration, q *Query) {
	l := r.lbds[q.lbd]
	candidates := l.candidates(q)
	if len(candidates) == 0 {
		r.res.Refused++
		r.fail(now, q)
		return
	}
	if len(l.held) > 0 && q.Tries == 0 {
		r.hold(l, q) // behind those who wait already
		return
	}
	switch i := l.router.Pick(now, q, candidates); i {
	case Hold:
		r.hold(l, q)
	case Refuse:
		r.refuse(now, q)
	default:
		r.send(now, q, i)
	}
}

func (r *run) refuse(now time.Duration, q *Query) {
	r.res.Late++
	r.each[q.ID].Late = true
	r.fail(now, q)
}

func (r *run) hold(l *lbd, q *Query) {
	q.waits = true
	l.held = append(l.held, q)
	r.held++
	r.res.HeldMax = max(r.res.HeldMax, r.held)
}

// release offers the held requests of an lbd again, the first lookAhead of them.
func (r *run) release(now time.Duration, l *lbd) {
	if len(l.held) == 0 {
		return
	}
	kept := l.held[:0]
	for _, q := range l.held {
		n := Hold
		if c := l.candidates(q); len(kept) < lookAhead && len(c) > 0 {
			n = l.router.Pick(now, q, c)
		}
		if n == Hold {
			kept = append(kept, q)
			continue
		}
		r.held--
		q.waits = false
		if n == Refuse {
			r.refuse(now, q)
			continue
		}
		r.send(now, q, n)
	}
	clear(l.held[len(kept):])
	l.held = kept
}

// lookAhead is how many held requests are offered at a time: with one, a request that fits nowhere keeps those behind it
// from replicas that are free (the head-of-line effect).
const lookAhead = 32

func (r *run) send(now time.Duration, q *Query, replica int) {
	q.Replica = replica
	q.Tries++
	q.generation++
	q.submitted = false
	if r.servers[replica].down {
		r.attemptFailed(now, q)
		return
	}
	q.frontEnd = engine.FrontEnd(charsPerToken*q.PromptTokens, unit(r.cfg.Seed, saltFrontEnd, q.ID))
	q.sent = true
	r.agenda.add(event{at: now + q.frontEnd, kind: kindSubmit, who: q.slot, generation: q.generation})
}

// charsPerToken of English text with today's vocabularies.
const charsPerToken = 4

// submit hands a request to the engine, or leaves it to the end of the step under way.
func (r *run) submit(e event) {
	q := r.live[e.who]
	if q.generation != e.generation {
		return // it was reset meanwhile
	}
	q.submitted = true
	s := r.servers[q.Replica]
	s.requests++
	s.inbox = append(s.inbox, q.slot)
	if s.until == never {
		r.beginStep(s, e.at)
	}
}

// beginStep takes what has arrived into the engine and starts a step.
func (r *run) beginStep(s *server, now time.Duration) {
	refused := 0
	for _, slot := range s.inbox {
		q := r.live[slot]
		q.chain = r.chain(q, s.Engine.BlockSize)
		err := s.e.Submit(engine.Request{ID: q.engineID(), PromptTokens: q.PromptTokens, OutputTokens: q.OutputTokens, Blocks: q.chain, External: r.external(q)})
		if errors.Is(err, engine.ErrTooLong) {
			s.inbox[refused] = slot
			refused++
		} else if err != nil {
			panic("BUG: " + err.Error())
		}
	}
	for _, slot := range s.inbox[:refused] {
		r.res.TooLong++
		r.tell(now, r.live[slot], true)
		r.fail(now, r.live[slot])
	}
	s.inbox = s.inbox[:0]
	end := s.begin(now, r.limit(now), &r.gaps)
	s.until = end
	r.steps.set(s.number, end)
}

// external is what others have computed of a prompt, with a shared cache.
func (r *run) external(q *Query) int {
	n := 0
	for r.cfg.sharedCache && n < len(q.Blocks) && r.computed[q.Blocks[n]] {
		n++
	}
	return min(n*r.workload.BlockTokens, q.PromptTokens)
}

// chain names the full blocks of a prompt for an engine: as many as a block of the trace holds are derived from it. Equal
// ones stand for equal prefixes, since the trace's do.
func (r *run) chain(q *Query, blockSize int) []uint64 {
	per := r.workload.BlockTokens / blockSize
	chain := q.chain[:0]
	if per == 0 {
		return chain
	}
	full := min(q.PromptTokens/blockSize, len(q.Blocks)*per)
	for i := range full {
		chain = append(chain, blockHash(q.Blocks[i/per], i%per, per))
	}
	return chain
}

// blockHash names part j of per of a block of the trace. Neighbours in the trace's numbering are neighbours in one of the
// engine's runs as well, which is only for speed.
func blockHash(id uint64, j, per int) uint64 {
	if together := uint64(max(1, 16/per)); together > 1 {
		return engine.Run(mix(id/together), int(id%together)*per+j)
	}
	return engine.Run(mix(id), j)
}

// endStep delivers what a step did, and starts the next one.
func (r *run) endStep(replica int, now time.Duration) {
	s := r.servers[replica]
	s.shown = s.after
	freed := false
	for _, ev := range s.events {
		freed = r.deliver(now, ev) || freed
	}
	if freed && r.held > 0 {
		for _, l := range r.lbds {
			r.release(now, l)
		}
	}
	r.beginStep(s, now)
}

// deliver tells of an event; true when it made room at the replica.
func (r *run) deliver(now time.Duration, ev engine.Event) bool {
	q := r.query(ev.ID)
	l := r.lbds[q.lbd]
	if ev.First {
		q.first = now
		q.CachedTokens = ev.CachedTokens
		if r.cfg.sharedCache {
			for _, id := range q.Blocks {
				r.computed[id] = true
			}
		}
		if q.Stream {
			l.router.FirstToken(now, q)
		}
	}
	if ev.Preempted {
		q.preempted++
	}
	if r.cfg.Policy.Tokens && q.Stream && ev.Tokens > 0 && !ev.First {
		l.router.Tokens(now, q, ev.Tokens)
	}
	if ev.Finished {
		l.succeeded(q.Replica)
		r.tell(now, q, true)
		r.complete(now, q)
	}
	return ev.First || ev.Finished
}

func (r *run) tell(now time.Duration, q *Query, ok bool) { r.lbds[q.lbd].router.Done(now, q, ok) }

// complete writes down what a request got.
func (r *run) complete(now time.Duration, q *Query) {
	s := &r.each[q.ID]
	ttft, e2e := q.first-q.At, now-q.At
	*s = Served{TTFT: float32(millis(ttft)), E2E: float32(millis(e2e)), Output: int32(q.OutputTokens)}
	var tpot time.Duration
	if q.OutputTokens > 1 {
		tpot = (now - q.first) / time.Duration(q.OutputTokens-1)
		s.TPOT = float32(millis(tpot))
	}
	q.good = !r.cfg.Limits.Misses(balancer.Prediction{TTFT: ttft, TPOT: tpot}, q.PromptTokens)
	s.Good = q.good
	r.promptTokens += int64(q.PromptTokens)
	r.cachedTokens += int64(q.CachedTokens)
	r.outputTokens += int64(q.OutputTokens)
	r.res.Completed++
	r.end(now, q)
}

func (r *run) fail(now time.Duration, q *Query) {
	r.res.Failed++
	r.end(now, q)
}

func (r *run) end(now time.Duration, q *Query) {
	r.lastEnd = max(r.lastEnd, now)
	r.under--
	r.ended++
	r.count(q)
	r.source.ended(&q.Request, now)
	q.generation++
	q.sent = false
	q.Blocks = nil
	r.spare = append(r.spare, q.slot)
	if r.cfg.Progress != nil && r.ended%4096 == 0 {
		r.cfg.Progress(now, r.ended)
	}
}

// poll reads the gauges of all replicas for one lbd.
func (r *run) poll(e event) {
	if r.cfg.MaxBad > 0 {
		r.overdue(e.at)
	}
	l := r.lbds[e.who]
	for i, s := range r.servers {
		if !s.down {
			sample := s.sample()
			l.router.Poll(e.at, i, &sample)
		}
	}
	r.agenda.add(event{at: e.at + r.cfg.Poll, kind: kindPoll, who: e.who})
	r.release(e.at, l)
}
