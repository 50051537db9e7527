package strategy

import (
	"maps"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"lbd/balancer"
	"lbd/balancer/prefix"
)

// costState is what least-cost keeps of one replica for one model. It outlives
// snapshots, reloads and ejections.
type costState struct {
	// What a pick reads when it has changed: what the last poll said, and how fast the
	// replica is.
	gauges gauges
	// trust is observed over predicted time to first token, a fast correction
	// beside the slow coefficients.
	trust number
	// unsure is how far off, relative to it, a first token may be as predicted.
	unsure number
	weight number        // relative to the mean of the model's
	owner  *prefix.Owner // nil when there are too many replicas
	place  int32         // in prefix.Depths; 0 is nobody's
	learner

	// Of learner, every pick reads changes. It is in one cache line with what a pick
	// reads of most replicas of which something has changed, to unseen.earliest.
	polled       atomic.Uint64 // Number of the last poll that was looked at, 0 of none
	firsts, ends silence
	dear         atomic.Bool // there is a penalty, or a slow start
	unseen       expiries

	// since is when the prefill under way began, Unix nanoseconds; 0 is unknown.
	since atomic.Int64

	id string
	// done is the prefill that own first tokens have ended, in ms: what decode
	// steps in between were stretched by.
	done number
	// freed is tokens per ms that leave the KV cache, freedAt when it was counted.
	freed   number
	freedAt atomic.Int64

	arrivals arrivals

	off number // mean error of a predicted first token, relative to it
	// When it last showed how fast it is: in Unix nanoseconds, and as leastCost.shown
	// counts.
	sampled, sampledAt atomic.Int64

	penalty     number // ms, of failures; halves every penaltyHalfLife
	penaltyAt   atomic.Int64
	slow        atomic.Int64 // slow start: requests at a time, 0 when it is over
	incarnation atomic.Uint64

	memory    memory
	hits      hitCheck
	regressed regressions
	_         [24]byte // a multiple of cache lines
}

// costView is the candidates of a snapshot beside what is kept of them.
type costView struct {
	replicas []*balancer.Replica
	states   []*costState
}

// stateOf finds the state of the i-th candidate: nearly always where the last
// snapshot has it.
func (p *leastCost) stateOf(v *costView, i int, r *balancer.Replica) *costState {
	if v != nil && i < len(v.replicas) && v.replicas[i] == r {
		return v.states[i]
	}
	return (*p.known.Load())[r]
}

// meet makes states for replicas that were never candidates before, and the view
// of these candidates. It is the only part of a pick that allocates and locks; it
// runs when the fleet changes.
func (p *leastCost) meet(candidates []*balancer.Replica) *costView {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := maps.Clone(*p.known.Load())
	p.forget(known, candidates)
	v := &costView{replicas: slices.Clone(candidates)}
	fresh := len(p.states) == 0
	for _, r := range candidates {
		st := p.states[r.ID]
		if st == nil {
			st = p.newState(r)
			if !fresh {
				st.startSlowly()
			}
			p.states[r.ID] = st
		}
		known[r] = st
		v.states = append(v.states, st)
	}
	p.weigh(v)
	p.known.Store(&known)
	p.view.Store(v)
	return v
}

// keepUnseen is how many replicas are remembered that are no candidates now, beside
// as many as there are candidates: ejected and draining ones come back, those that
// a deployment has replaced do not.
const keepUnseen = 64

// forget drops replicas that are no candidates, once they are many.
func (p *leastCost) forget(known map[*balancer.Replica]*costState, candidates []*balancer.Replica) {
	if len(known) <= 2*len(candidates)+keepUnseen {
		return
	}
	for r, st := range known {
		switch i := slices.IndexFunc(candidates, func(c *balancer.Replica) bool { return c.ID == r.ID }); {
		case i >= 0 && candidates[i] != r: // before a reload that gave it another weight, say
			delete(known, r)
		case i < 0 && r.InFlight() == 0:
			delete(known, r)
			if p.states[r.ID] == st {
				delete(p.states, r.ID)
				if st.owner != nil {
					p.index.Release(st.owner)
				}
			}
		}
	}
}

// leave gives the places in a shared index back once nobody uses the strategy any more,
// requests that it has placed included: nobody says so when a model leaves or is given
// another strategy, and of replicas whose addresses change with each deployment the index
// would be full one day.
func (p *leastCost) leave() {
	runtime.AddCleanup(p, func(h held) {
		for _, st := range h.states {
			if st.owner != nil {
				h.index.Release(st.owner)
			}
		}
	}, held{p.index, p.states})
}

// held is what a strategy has of an index. It does not lead to the strategy.
type held struct {
	index  *prefix.Index
	states map[string]*costState
}

func (p *leastCost) newState(r *balancer.Replica) *costState {
	st := &costState{id: r.ID}
	if p.index != nil {
		if st.owner = p.index.Owner(r.ID); st.owner != nil {
			st.place = int32(st.owner.ID())
			st.owner.SetRoom(st.memory.room(r))
		}
	}
	st.weight.store(1)
	st.incarnation.Store(r.Incarnation())
	st.reset(load(&p.model.prefill), load(&p.model.decode))
	st.trust.store(1)
	st.off.store(usualError)
	st.unsure.store(usualError / math.Sqrt(replicaRidge))
	st.changes.Add(1)
	return st
}

// weigh takes the configured weight for the speed that a replica has relative to
// the others, until its own requests show it.
func (p *leastCost) weigh(v *costView) {
	total := 0.0
	for _, r := range v.replicas {
		total += float64(r.Weight)
	}
	for i, st := range v.states {
		w := float64(v.replicas[i].Weight) * float64(len(v.states)) / total
		if old := st.weight.load(); old != w {
			st.weight.store(w)
			st.reset(scaled(load(&st.prefill), old/w), scaled(load(&st.decode), old/w)) // counts as a change
		}
	}
}

func scaled(v vec, by float64) vec { return vec{v[0] * by, v[1] * by, v[2] * by} }

// restarted drops what the process before has had.
func (st *costState) restarted(incarnation uint64) {
	old := st.incarnation.Load()
	if old == incarnation || !st.incarnation.CompareAndSwap(old, incarnation) {
		return
	}
	if st.owner != nil {
		st.owner.Restart()
	}
	st.trust.store(max(st.trust.load(), newTrust))
	st.startSlowly()
	st.since.Store(0)
}

// startSlowly lets a replica take one request at a time, then two, and so on.
func (st *costState) startSlowly() {
	st.slow.Store(1)
	st.dear.Store(true)
}

// forgive ends penalties.
func (st *costState) forgive() {
	if st.dear.Load() {
		st.penalty.store(0)
		st.dear.Store(st.slow.Load() > 0)
	}
}

// newTrust is how much longer a replica that has just started is taken to need:
// its first requests meet cold caches and kernels that are compiled on use.
const newTrust = 1.5

// observe looks at a poll once.
func (p *leastCost) observe(st *costState, r *balancer.Replica, polled *balancer.Polled) {
	number := uint64(0)
	if polled != nil {
		number = polled.Number
	}
	old := st.polled.Load()
	if old == number || !st.polled.CompareAndSwap(old, number) {
		return
	}
	defer st.changes.Add(1)
	st.gauges.poll(polled)
	if polled == nil {
		return // another replica of the same name has taken its place
	}
	st.restarted(r.Incarnation())
	st.memory.poll(r, polled)
	if st.owner != nil {
		st.owner.SetRoom(st.memory.room(r))
		st.hits.poll(st.owner, polled)
	}
}

// hitCheck compares the hits that were predicted for a replica with what its
// counters say, for replicas that do not tell it per request
// (--enable-prompt-tokens-details is off by default).
type hitCheck struct {
	asked, predicted atomic.Int64 // tokens since the last comparison
	told             atomic.Bool  // the replica tells it per request

	mu            sync.Mutex
	queries, hits float64 // the counters then
}

// checkAfter is how many tokens a comparison needs. Requests that are counted here
// and not there yet, or the other way round, are few among them.
const checkAfter = 50_000

func (c *hitCheck) poll(o *prefix.Owner, p *balancer.Polled) {
	if !p.PrefixQueries.Known || !p.PrefixHits.Known || !c.mu.TryLock() {
		return
	}
	defer c.mu.Unlock()
	asked := c.asked.Load()
	if queries := p.PrefixQueries.Value - c.queries; asked >= checkAfter || queries < 0 {
		predicted := c.predicted.Load()
		// When others ask too, or preempted requests ask again, the counters say
		// nothing about us.
		if ours := queries > 0.9*float64(asked) && queries < 1.1*float64(asked); ours && !c.told.Load() {
			hits := (p.PrefixHits.Value - c.hits) * float64(asked) / queries
			o.Observe(predicted, int64(hits))
		}
		c.asked.Add(-asked)
		c.predicted.Add(-predicted)
		c.queries, c.hits = p.PrefixQueries.Value, p.PrefixHits.Value
	}
}

// penaltyHalfLife is how fast a failure is forgotten. Ejection is health's affair;
// this keeps requests from the replica for as long as that takes.
const (
	penaltyHalfLife = 5 * time.Second
	firstPenalty    = 200.0    // ms
	maxPenalty      = 30_000.0 // ms
)

// failed makes a replica dearer, twice as much with every failure: one that fails
// at once looks idle (Prequal calls it sinkholing).
func (st *costState) failed(now time.Time) {
	st.penalty.store(min(max(2*st.penaltyNow(now.UnixNano()), firstPenalty), maxPenalty))
	st.penaltyAt.Store(now.UnixNano())
	st.dear.Store(true)
}

func (st *costState) penaltyNow(now int64) float64 {
	v := st.penalty.load()
	if v == 0 {
		return 0
	}
	age := time.Duration(max(now-st.penaltyAt.Load(), 0))
	return v * halved(float64(age)/float64(penaltyHalfLife))
}
