package prefix

import (
	"math"
	"sync/atomic"
)

// MaxOwners is how many replicas an index tells apart.
const MaxOwners = 1023

// An Owner is what the index knows of one replica. Its clock is the number of
// tokens that the replica has computed: the age of an entry is what was computed
// since, which in an LRU cache is what has pushed it towards the end (its stack
// distance). Its methods may be called by any goroutine.
type Owner struct {
	clock atomic.Int64 // tokens, only ever up
	born  atomic.Int64 // what is older than this was another process's
	room  atomic.Int64 // tokens of cache, before trust
	trust atomic.Uint64
	// span is the present stamp and how many stamps up to it are alive, what follows
	// from the others: a match reads it for every slot it meets.
	span atomic.Uint64
	id   uint32
	refs int32 // guarded by Index.mu
	name string
}

// ID is the owner's place in [Depths].
func (o *Owner) ID() int { return int(o.id) }

// Advance notes that the replica computes so many tokens.
func (o *Owner) Advance(tokens int64) {
	o.clock.Add(max(tokens, 0))
	o.update()
}

// SetRoom tells how many tokens beyond those in use the replica can hold.
func (o *Owner) SetRoom(tokens int64) {
	if o.room.Load() != tokens {
		o.room.Store(tokens)
		o.update()
	}
}

// Room returns what SetRoom was told, corrected by what was observed.
func (o *Owner) Room() int64 { return int64(float64(o.room.Load()) * o.Trust()) }

// Trust is the factor on room that observations have led to, 1 at first.
func (o *Owner) Trust() float64 { return math.Float64frombits(o.trust.Load()) }

// Restart forgets everything: another process is behind the replica's endpoint.
func (o *Owner) Restart() {
	o.born.Store(o.clock.Add(unit))
	o.trust.Store(math.Float64bits(1))
	o.update()
}

// The bounds of trust, and how far one wrong prediction moves it. Both directions
// weigh the same: it settles where as many prefixes are wrongly taken for gone as
// are wrongly taken for cached, however noisy the observations are. The answers of
// earlier turns, which are cached but not in the index, push it up a little; the
// upper bound is where that ends.
const (
	minTrust, maxTrust = 1.0 / 32, 1.5
	trustGain          = 0.1
	// observedSlack in tokens is no difference: a block of vLLM is 16 tokens, a
	// block here about 60 or 250, and prompt lengths are estimates.
	observedSlack = 256
)

// Observe compares the cached tokens that were predicted with those that the
// replica reports. It may lose an update to another one; the next request brings
// as good a one.
func (o *Owner) Observe(predicted, cached int64) {
	if d := cached - predicted; d > observedSlack || d < -observedSlack {
		t := o.Trust() * math.Exp(trustGain*float64(d)/float64(max(predicted, cached)))
		o.trust.Store(math.Float64bits(min(max(t, minTrust), maxTrust)))
		o.update()
	}
}

// unit is how many tokens a stamp counts at once: the block size of vLLM. The 30
// bits of a stamp then wrap after 17e9 tokens, days at 50,000 tokens a second;
// an entry that lives again after that is a wrong guess once.
const (
	unit      = 1 << unitShift
	unitShift = 4
)

// update makes span from the rest. Of two at once the earlier one may win; the next
// event corrects it.
func (o *Owner) update() {
	clock := o.clock.Load()
	lasts := max((o.Room()+unit-1)>>unitShift, 0)
	sinceBirth := max((clock-o.born.Load())>>unitShift, 0) + 1
	alive := min(lasts, sinceBirth, stampMask)
	o.span.Store(uint64(clock>>unitShift)&stampMask<<stampBits | uint64(alive))
}

// stamp is the present on the owner's clock.
func (o *Owner) stamp() uint64 { return o.span.Load() >> stampBits }

// age is how many stamps ago an entry was made, and whether it is likely still
// cached.
func (o *Owner) age(stamp uint64) (age uint64, alive bool) {
	span := o.span.Load()
	age = (span>>stampBits - stamp) & stampMask
	return age, age < span&stampMask
}
