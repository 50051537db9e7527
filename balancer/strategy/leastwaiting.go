package strategy

import (
	"sync/atomic"

	"lbd/balancer"
)

// leastWaiting compares first what waits. The polled gauge says that of one moment, so it is corrected by all that is known
// since: see waiting. The gauge is mostly 0 while a replica has KV blocks free; then what runs decides, own load and what
// others put there.
type leastWaiting struct {
	rotation rotation
	tick     atomic.Int64 // when the newest poll was answered, Unix nanoseconds
	sent     atomic.Int64 // picks since
	_        [48]byte
}

func newLeastWaiting(o Options) balancer.Picker {
	p := &leastWaiting{}
	p.rotation.next.Store(o.uint64()())
	return p
}

func (p *leastWaiting) Pick(_ *balancer.Request, candidates []*balancer.Replica) *balancer.Replica {
	if len(candidates) == 0 {
		return nil
	}
	ty, allTell := survey(candidates)
	ty.faded = p.sentSince(ty.tick) << fadedShift / ty.weight
	if !allTell {
		ty.addMeans(candidates)
	}
	return p.rotation.least(candidates, waitingKey, ty)
}

// sentSince counts the picks since the tick, this one not included. Picks that meet a new tick at once may both begin to
// count; that a pick or two is lost then changes nothing.
func (p *leastWaiting) sentSince(tick int64) int64 {
	if p.tick.Load() != tick {
		p.tick.Store(tick)
		p.sent.Store(0)
	}
	return p.sent.Add(1) - 1
}

// waitingKey takes for unknown what is typical. Own requests without a first byte say nothing there: without a poll to
// count from, every request that does not stream would be one.
func waitingKey(r *balancer.Replica, ty typical) key {
	k := key{requests: r.InFlight(), weight: r.Weight}
	var ok bool
	if k.waiting, ok = waiting(r, ty); !ok {
		k.waiting = ty.waiting * r.Weight
	}
	f, ok := foreign(r)
	if !ok {
		f = ty.foreign * r.Weight
	}
	k.requests += f
	return k
}

// waiting estimates what waits at r now, unless its gauge is unknown. Three things correct the gauge:
//
// What was sent there since the poll and has had no first byte waits behind it. Without that, all of a poll period goes to
// one replica: the herd. vLLM's own balancer of data-parallel engines adds the same (vllm/v1/engine/core_client.py).
//
// What waited at the poll was either own or foreign. Of the own, no more can wait than has still had no first byte.
//
// The rest fades as requests are placed: by one for each that a replica of that weight got on average since the poll. So
// a queue that was seen costs its replica as many requests as waited, as in Dahlin's "Interpreting stale load information"
// (TPDS 2000), instead of all until the next poll; four lbds that do not know of each other would else herd away from it.
func waiting(r *balancer.Replica, ty typical) (n int64, ok bool) {
	with, ok := r.Waiting() // the gauge, and what was sent since
	p := r.Polled()
	if !ok {
		return 0, false
	}
	seen := int64(p.Waiting.Value)
	since := max(with-seen, 0)
	if seen == 0 {
		return since, true
	}
	before := max(r.Pending()-since, 0)
	seen = min(seen, before+min(seen, max(p.Foreign, 0)))
	return max(seen-ty.faded*r.Weight>>fadedShift, 0) + since, true
}

// typical is what a pick knows of all candidates together. Waiting and foreign are the means of the replicas that tell,
// per weight and rounded down: what one that does not tell is taken to have. The mean neither draws requests there, as
// zero would, nor keeps them away. Both are zero if all tell, which is the usual case, and if none does: then own load
// alone decides.
type typical struct {
	waiting, foreign int64
	weight           int64 // of all
	tick             int64 // when the newest poll was answered
	faded            int64 // requests since the tick, per weight, with fadedShift binary places
}

// fadedShift leaves room for 2^47 requests between two polls, and spares a division per replica.
const fadedShift = 16

// survey is the first look at the candidates: all of typical that needs no means, and whether any are needed.
func survey(rs []*balancer.Replica) (ty typical, allTell bool) {
	allTell = true
	for _, r := range rs {
		ty.weight += r.Weight
		p := r.Polled()
		if p == nil || !p.ForeignKnown() {
			allTell = false
			continue
		}
		ty.tick = max(ty.tick, p.At.UnixNano())
	}
	return ty, allTell
}

func (ty *typical) addMeans(rs []*balancer.Replica) {
	known := *ty
	var waitingWeight, foreignWeight int64
	for _, r := range rs {
		if n, ok := waiting(r, known); ok {
			ty.waiting += n
			waitingWeight += r.Weight
		}
		if n, ok := foreign(r); ok {
			ty.foreign += n
			foreignWeight += r.Weight
		}
	}
	ty.waiting /= max(waitingWeight, 1)
	ty.foreign /= max(foreignWeight, 1)
}
