package strategy

import (
	"slices"
	"sync"
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
	switch len(candidates) {
	case 0:
		return nil
	case 1: // no tie is broken, see rotation, and this one's poll may not be the newest
		p.sent.Add(1)
		return candidates[0]
	}
	var room [roomFor]sight
	sights := room[:0]
	if len(candidates) > roomFor {
		pooled := sightPool.Get().(*[]sight)
		defer sightPool.Put(pooled)
		*pooled = slices.Grow((*pooled)[:0], len(candidates))
		sights = (*pooled)[:0]
	}
	sights = look(sights, candidates)
	ty := typicalOf(sights)
	ty.fade(p.sentSince(ty.tick))
	start, word := p.rotation.start(len(sights))
	i := leastWaitingFrom(sights, start, &ty)
	if !p.rotation.won(i, word) {
		sights = look(sights[:0], candidates)
		start, word = p.rotation.start(len(sights))
		i = leastWaitingFrom(sights, start, &ty)
		p.rotation.won(i, word)
	}
	return candidates[i]
}

// roomFor is how many candidates fit on the stack; larger sets use a pool.
const roomFor = 16

var sightPool = sync.Pool{New: func() any { return new([]sight) }}

// sentSince counts the picks since the tick, this one not included. Picks that meet a new tick at once may both begin to
// count; that a pick or two is lost then changes nothing.
func (p *leastWaiting) sentSince(tick int64) int64 {
	if p.tick.Load() != tick {
		p.tick.Store(tick)
		p.sent.Store(0)
	}
	return p.sent.Add(1) - 1
}

// sight is what one candidate shows, read once per pick: these loads are most of what a pick costs.
type sight struct {
	inflight, weight int64
	told             bool  // the gauges are known and fresh, and with them the rest
	gauge            int64 // what waited at the poll
	since            int64 // own, sent since the poll, without a first byte
	before           int64 // own, sent before the poll, still without a first byte
	foreign          int64
	tick             int64 // when the poll was answered
}

func look(sights []sight, rs []*balancer.Replica) []sight {
	for _, r := range rs {
		s := sight{inflight: r.InFlight(), weight: r.Weight}
		if p := r.Polled(); p != nil && p.ForeignKnown() {
			s.told, s.tick, s.foreign = true, p.At.UnixNano(), p.Foreign
			s.gauge, s.since = int64(p.Waiting.Value), max(p.PendingSince(), 0)
			if s.gauge > 0 {
				s.before = max(r.Pending()-s.since, 0)
			}
		}
		sights = append(sights, s)
	}
	return sights
}

// waiting estimates what waits there now. Three things correct the gauge:
//
// What was sent there since the poll and has had no first byte waits behind it. Without that, all of a poll period goes to
// one replica: the herd. vLLM's own balancer of data-parallel engines adds the same (vllm/v1/engine/core_client.py).
//
// What waited at the poll was either own or foreign. Of the own, no more can wait than has still had no first byte.
//
// The rest fades as requests are placed: by one for each that a replica of that weight got on average since the poll. So
// a queue that was seen costs its replica as many requests as waited, as in Dahlin's "Interpreting stale load information"
// (TPDS 2000), instead of all until the next poll; four lbds that do not know of each other would else herd away from it.
func (s *sight) waiting(faded int64) int64 {
	if s.gauge == 0 {
		return s.since
	}
	queue := min(s.gauge, s.before+min(s.gauge, s.foreign))
	return max(queue-faded*s.weight>>fadedShift, 0) + s.since
}

// key takes for unknown what is typical. Own requests without a first byte say nothing there: without a poll to count
// from, every request that does not stream would be one.
func (s *sight) key(ty *typical) key {
	if !s.told {
		return key{ty.waiting * s.weight, s.inflight + ty.foreign*s.weight, s.weight}
	}
	return key{s.waiting(ty.faded), s.inflight + s.foreign, s.weight}
}

// leastWaitingFrom is the index of the first least key from start on, around the end.
func leastWaitingFrom(sights []sight, start int, ty *typical) int {
	best, bestKey := start, sights[start].key(ty)
	for n, i := 1, start; n < len(sights); n++ {
		if i++; i == len(sights) {
			i = 0
		}
		if k := sights[i].key(ty); k.less(bestKey) {
			best, bestKey = i, k
		}
	}
	return best
}

// typical is what a pick knows of all candidates together. Waiting and foreign are the means of the replicas that tell,
// per weight and rounded down: what one that does not tell is taken to have. The mean neither draws requests there, as
// zero would, nor keeps them away. Both are zero if none tells: then own load alone decides.
type typical struct {
	waiting, foreign int64
	tick             int64 // when the newest poll was answered
	faded            int64 // requests since the tick, per weight, with fadedShift binary places

	sights         []sight
	weight, silent int64 // of all, of those that do not tell
}

// fadedShift leaves room for 2^47 requests between two polls, and spares a division per replica.
const fadedShift = 16

func typicalOf(sights []sight) typical {
	ty := typical{sights: sights}
	for i := range sights {
		s := &sights[i]
		ty.weight += s.weight
		if s.told {
			ty.tick = max(ty.tick, s.tick)
		} else {
			ty.silent += s.weight
		}
	}
	return ty
}

// fade says how many requests were sent since the tick, which completes the picture. Means are only made where somebody
// needs them.
func (ty *typical) fade(sent int64) {
	ty.faded = sent << fadedShift / ty.weight
	if ty.silent == 0 || ty.silent == ty.weight {
		return
	}
	for i := range ty.sights {
		if s := &ty.sights[i]; s.told {
			ty.waiting += s.waiting(ty.faded)
			ty.foreign += s.foreign
		}
	}
	ty.waiting /= ty.weight - ty.silent
	ty.foreign /= ty.weight - ty.silent
}
