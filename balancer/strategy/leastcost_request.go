package strategy

import (
	"math"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"lbd/balancer"
)

// costTicket is one request that least-cost has placed.
type costTicket struct {
	balancer.Placement
	p      *leastCost
	st     *costState
	hashes []uint64
	stream bool

	sent        time.Time
	incarnation uint64
	bucket      int     // of output lengths
	text        float64 // bytes of text in the prompt
	predicted   int64   // cached tokens
	features    vec     // of the time to first token, times the prior
	ahead       float64 // ms of the prediction that are not of the features
	expected    float64 // ms of prefill, as predicted
	total       float64 // ms to the first token, as predicted without trust
	step        float64 // ms of a decode step, as predicted
	awaited     bool    // the replica has not shown yet what awaits looks for

	first     time.Time
	generated int
	usage     balancer.Usage
	last      time.Time // of the window of decode steps
	done      float64

	expiry int64
	next   *costTicket // of expiries
	queued bool
}

var ticketPool = sync.Pool{New: func() any { return &costTicket{} }}

// FirstToken ends the prefill and says how long it took.
func (t *costTicket) FirstToken(now time.Time) {
	if !t.first.IsZero() {
		return
	}
	t.first, t.last = now, now
	t.generated = 1
	t.endPrefill(now)
	t.st.unseen.drop(t)
	if t.stream {
		t.shows(now)
	}
	t.learnFirst(now)
	t.done = t.st.done.load()
	if n := t.st.slow.Load(); n > 0 && n < slowStartUntil {
		t.st.slow.CompareAndSwap(n, 2*n)
	} else if n > 0 && t.st.slow.CompareAndSwap(n, 0) {
		t.st.dear.Store(t.st.penalty.load() > 0)
	}
	t.st.changes.Add(1)
}

// slowStartUntil is how many requests at a time end the slow start.
const slowStartUntil = 64

// endPrefill takes the prefill off the replica. It may come from another goroutine,
// for answers that do not stream.
func (t *costTicket) endPrefill(now time.Time) {
	if !t.EndPrefill() {
		return
	}
	st := t.st
	if !now.IsZero() {
		st.since.Store(now.UnixNano())
	}
	st.done.store(st.done.load() + t.expected) // may lose one to another: only learning reads it
	if t.p.opt.LateCredit {
		t.remember()
	}
}

// remember credits the replica with the prompt, at once when it is sent there: vLLM
// V1 puts blocks into its table when it schedules their prefill, so that the next
// request finds them, also before the first token. Of requests with the same new
// prompt that come together, one computes it then, not one per replica.
func (t *costTicket) remember() {
	if t.st.owner != nil && len(t.hashes) > 0 && t.incarnation == t.Replica().Incarnation() {
		t.p.index.Insert(t.st.owner, t.hashes)
	}
}

func (t *costTicket) learnFirst(now time.Time) {
	if t.sent.IsZero() || now.IsZero() || t.p.opt.Frozen {
		return
	}
	seen := milliseconds(now.Sub(t.sent))
	t.st.correct(seen, t.total)
	t.st.missed(seen, t.total)
	t.sampled(now)
	// What decode steps and neighbours should have taken may be more than all of it.
	y := max(seen-t.ahead, seen/10)
	m, w := &t.p.model, t.st.weight.load()
	center := scaled(load(&m.prefill), 1/w)
	t.st.regressed.learn(&t.st.regressed.prefills, &t.st.prefill, t.features, y, center, replicaRange, now)
	t.p.regressed.learn(&t.p.regressed.prefills, &m.prefill, t.features, y*w, vec{1, 1, 1}, modelRange, now)
	t.p.recenter(now)
}

// learnWhole learns how much slower than the others a replica is from answers that do
// not stream: nothing else of them shows it.
func (t *costTicket) learnWhole(completion int, now time.Time) {
	if t.stream || t.sent.IsZero() || now.IsZero() || t.p.opt.Frozen {
		return
	}
	expected := t.total + float64(completion)*t.step
	ratio := math.Log(max(milliseconds(now.Sub(t.sent)), 1e-3) / expected)
	t.p.wholes.add(ratio)
	t.st.correct(math.Exp(ratio-t.p.wholes.or(0)), 1)
	t.sampled(now)
	t.p.recenter(now)
}

// recenterEvery is often enough for replicas that are not asked, and seldom enough
// to cost nothing: 64 of them take some microseconds.
const recenterEvery = 100 * time.Millisecond

// trustHalfLife is how fast a correction fades that no request confirms.
const trustHalfLife = 30 * time.Second

// recenter has replicas that are not asked follow what the others of their model
// show. One that looks slow, because it once was, or because it still has the prior
// and the others have turned out to be faster than that, would never get a request
// to show that it is not.
func (p *leastCost) recenter(now time.Time) {
	v, last := p.view.Load(), p.recentered.Load()
	age := time.Duration(now.UnixNano() - last)
	if v == nil || age < recenterEvery || !p.recentered.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	if last == 0 {
		age = 0
	}
	fade := halved(float64(age) / float64(trustHalfLife))
	prefill, decode := load(&p.model.prefill), load(&p.model.decode)
	for _, st := range v.states {
		w := st.weight.load()
		keep := fade
		if st.stale(now, p.shown.Load(), int64(len(v.states))) {
			keep = halved(float64(age) / float64(staleHalfLife))
			st.regressed.age(keep)
		}
		st.regressed.recenter(&st.regressed.prefills, &st.prefill, scaled(prefill, 1/w), replicaRange, now)
		st.regressed.recenter(&st.regressed.steps, &st.decode, scaled(decode, 1/w), replicaRange, now)
		st.trust.store(1 + (st.trust.load()-1)*keep)
		st.reckon()
		st.changes.Add(1)
	}
}

// What is known of a replica that is not asked any more gets old fast: it may have
// been slow for a while only, or unlucky at first, and would never be asked again to
// show that it is not. README.md says what finding out costs.
//
// Not to be asked is to be asked for nothing in freshFor while freshTimes as many
// requests as there are replicas went elsewhere: by chance that comes once in e^8
// times.
const (
	freshFor      = 5 * time.Second
	freshTimes    = 8
	staleHalfLife = 10 * time.Second
)

func (t *costTicket) sampled(now time.Time) {
	t.st.sampled.Store(now.UnixNano())
	t.st.sampledAt.Store(t.p.shown.Add(1))
}

// stale says whether a replica is not asked any more, of so many.
func (st *costState) stale(now time.Time, shown, replicas int64) bool {
	return now.UnixNano()-st.sampled.Load() > int64(freshFor) && shown-st.sampledAt.Load() > freshTimes*replicas
}

// reckon says how sure the predicted first token is: a mean of so many samples, the
// center counted as replicaRidge of them, times trust, whose variance is that of a
// moving average.
func (st *costState) reckon() {
	if n, ok := st.regressed.samples(); ok {
		st.unsure.store(st.off.load() * math.Sqrt(1/(replicaRidge+n)+trustStep/(2-trustStep)))
	}
}

// usualError is taken for the relative error of a predicted first token before there
// was one, offStep is the pace at which its mean follows.
const usualError, offStep = 0.5, 0.05

func (st *costState) missed(seen, total float64) {
	off := min(math.Abs(seen/max(total, 1)-1), 1)
	st.off.store(st.off.load() + offStep*(off-st.off.load()))
}

// The range and the pace of trust: a fiftieth per first token follows a replica that
// slows down within a minute under load.
const (
	minTrust, maxTrust = 0.5, 3
	trustStep          = 0.02
)

func (st *costState) correct(seen, total float64) {
	ratio := min(max(seen/max(total, 1), minTrust/2), maxTrust*2)
	st.trust.store(min(max(st.trust.load()+trustStep*(ratio-st.trust.load()), minTrust), maxTrust))
}

// Tokens grows the request in the cache, and learns from the window of decode
// steps since the last call.
func (t *costTicket) Tokens(n int, now time.Time) {
	t.generated += n
	t.Grow(int64(n))
	if t.last.IsZero() || now.IsZero() || t.p.opt.Frozen {
		return
	}
	st, r := t.st, t.Replica()
	took, done := milliseconds(now.Sub(t.last)), st.done.load()
	stretched := done - t.done
	t.last, t.done = now, done
	if took <= 0 || stretched > took/2 {
		return // mostly the prefill of others
	}
	p := &t.p.prior
	x := vec{p.Step, p.PerSequence * float64(r.Requests()), p.PerResident * float64(r.Resident())}
	y := (took - stretched) / float64(n)
	m, w := &t.p.model, st.weight.load()
	st.regressed.learn(&st.regressed.steps, &st.decode, x, y, scaled(load(&m.decode), 1/w), replicaRange, now)
	st.changes.Add(1)
	t.p.regressed.learn(&t.p.regressed.steps, &m.decode, x, y*w, vec{1, 1, 1}, modelRange, now)
}

// Usage is the last word on lengths, within reason.
func (t *costTicket) Usage(u balancer.Usage) {
	t.usage = balancer.Usage{Prompt: min(u.Prompt, mostTokens), Completion: min(u.Completion, mostTokens), Cached: min(u.Cached, mostTokens)}
}

// Done takes everything back and learns lengths from what finished.
func (t *costTicket) Done(e balancer.Ending, now time.Time) {
	st := t.st
	t.st.unseen.drop(t)
	switch e {
	case balancer.Finished:
		t.finished(now)
	case balancer.Failed:
		if !now.IsZero() {
			st.failed(now)
		}
	}
	if st.owner != nil {
		st.owner.Advance(max(t.Resident()-t.Work().Prompt, 0))
	}
	st.free(t.Resident()-t.predicted, now)
	t.shows(time.Time{}) // unless it has: one that is given up is no sign of life
	t.Placement.Done()
	st.memory.shared.Add(-t.predicted)
	st.changes.Add(1)
	if st.owner != nil {
		st.owner.SetRoom(st.memory.room(t.Replica()))
	}
	t.recycle()
}

func (t *costTicket) finished(now time.Time) {
	t.endPrefill(now) // it ran, streamed or not
	t.shows(now)
	t.remember() // vLLM's cache counts from when a block was last in use
	t.st.forgive()
	completion := t.generated
	if t.usage.Completion > 0 {
		t.Grow(int64(t.usage.Completion - completion))
		completion = t.usage.Completion
	}
	t.learnWhole(completion, now)
	if completion > 0 && !t.p.opt.Frozen {
		t.p.outputs[t.bucket].learn(float64(completion), usualOutput)
	}
	if t.usage.Prompt > 0 {
		t.p.promptMean.learn(float64(t.usage.Prompt), usualPrompt)
		if t.text >= minText {
			t.p.bytesPerToken.learn(t.text/float64(t.usage.Prompt), usualBytes)
		}
	}
	if t.usage.Cached >= 0 && t.usage.Prompt > 0 && t.st.owner != nil {
		t.st.hits.told.Store(true)
		t.st.owner.Observe(t.predicted, int64(t.usage.Cached))
	}
}

// minText is the least prompt, in bytes, that says how long a token is: in shorter
// ones the chat template's own tokens count too much.
const minText = 500

func (t *costTicket) recycle() {
	h := t.hashes[:0]
	*t = costTicket{hashes: h}
	ticketPool.Put(t)
}

// freeSpan is over how long the rate of freed tokens is taken.
const freeSpan = 10 * time.Second

// free counts tokens that leave the KV cache.
func (st *costState) free(tokens int64, now time.Time) {
	if now.IsZero() {
		return
	}
	at := now.UnixNano()
	age := max(at-st.freedAt.Swap(at), 0)
	st.freed.store(st.freed.load()*halved(float64(age)/float64(freeSpan)) + float64(tokens)/milliseconds(freeSpan))
}

// lengthBucket sorts requests by their token limit: clients that set one expect
// answers of that order.
func lengthBucket(maxTokens int) int {
	if maxTokens <= 0 {
		return 0
	}
	return min(bits.Len(uint(maxTokens)), lengthBuckets-1)
}

const lengthBuckets = 20

// expiries are requests that do not stream: their first token is not seen, so that
// their prefill ends when it was predicted to. They are in the order in which they
// were sent, which is nearly that of their expiry: a replica works first come,
// first served.
type expiries struct {
	earliest   atomic.Int64 // expiry of the head; 0 is none
	mu         sync.Mutex
	head, tail *costTicket
}

func (x *expiries) add(t *costTicket) {
	x.mu.Lock()
	defer x.mu.Unlock()
	t.queued, t.next = true, nil
	if x.tail == nil {
		x.head = t
		x.earliest.Store(t.expiry)
	} else {
		x.tail.next = t
	}
	x.tail = t
}

// due says whether there is something to expire.
func (x *expiries) due(now int64) bool {
	at := x.earliest.Load()
	return at != 0 && now >= at
}

// expire ends prefills that are due, unless somebody else does it now.
func (x *expiries) expire(now int64) {
	if !x.mu.TryLock() {
		return
	}
	defer x.mu.Unlock()
	for x.head != nil && x.head.expiry <= now {
		t := x.head
		t.endPrefill(time.Unix(0, now))
		x.pop(nil, t)
	}
}

// drop takes a request out that has ended, or shown a token after all.
func (x *expiries) drop(t *costTicket) {
	if t.stream {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if !t.queued {
		return
	}
	var before *costTicket
	for c := x.head; c != t; c = c.next {
		before = c
	}
	x.pop(before, t)
}

func (x *expiries) pop(before, t *costTicket) {
	if before == nil {
		x.head = t.next
	} else {
		before.next = t.next
	}
	if x.tail == t {
		x.tail = before
	}
	t.queued, t.next = false, nil
	x.earliest.Store(0)
	if x.head != nil {
		x.earliest.Store(x.head.expiry)
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / 1e6 }
