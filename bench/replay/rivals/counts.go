package rivals

import (
	"time"

	"lbd/balancer"
	"lbd/bench/replay"
)

// counts is what a router counts itself, and the last poll of each replica. Rules embed it and override what they need.
type counts struct {
	replay.Setup
	knower  *knower   // of a rule behind refusals
	load    []int     // requests sent and not ended
	prefill []float64 // of those without a first token, the prompt tokens they have to compute
	tokens  []float64 // of all in flight, prompt tokens, and generated ones as far as a rule adds them
	polled  []polled
}

// polled is the last poll of a replica.
type polled struct {
	known                bool
	at                   time.Duration
	waiting, running, kv float64
	generated            float64 // counter
	rate                 float64 // tokens generated per second between the last two polls, 0 = unknown
}

// What counts puts into Query.Charge. Rules may use the places behind.
const (
	chargePrefill = iota
	chargeTokens
	chargeOwn
	chargeOther
)

func newCounts(s replay.Setup) counts {
	n := len(s.Replicas)
	return counts{Setup: s, load: make([]int, n), prefill: make([]float64, n), tokens: make([]float64, n), polled: make([]polled, n)}
}

// sent puts a request on a replica's account: uncached prompt tokens to compute, and tokens it keeps in memory.
func (c *counts) sent(q *replay.Query, replica int, uncached, tokens float64) int {
	c.load[replica]++
	c.prefill[replica] += uncached
	c.tokens[replica] += tokens
	q.Charge[chargePrefill], q.Charge[chargeTokens] = uncached, tokens
	return replica
}

func (c *counts) FirstToken(_ time.Duration, q *replay.Query) {
	c.prefill[q.Replica] -= q.Charge[chargePrefill]
	q.Charge[chargePrefill] = 0
}

func (c *counts) Tokens(time.Duration, *replay.Query, int) {}

func (c *counts) Done(now time.Duration, q *replay.Query, _ bool) {
	c.FirstToken(now, q)
	c.tokens[q.Replica] -= q.Charge[chargeTokens]
	c.load[q.Replica]--
	q.Charge = [4]float64{}
}

func (c *counts) Poll(now time.Duration, replica int, s *balancer.Sample) {
	p := &c.polled[replica]
	was := *p
	*p = polled{
		known: true, at: now, waiting: s.Waiting.Value, running: s.Running.Value, kv: s.KVUsage.Value,
		generated: s.GenerationTokens.Value,
	}
	if d := (now - was.at).Seconds(); was.known && d > 0 && p.generated >= was.generated {
		p.rate = (p.generated - was.generated) / d
	}
}

func (c *counts) Restarted(time.Duration, int) {}

// least is the candidate with the least score; of equals a random one.
func (c *counts) least(candidates []int, score func(replica int) float64) int {
	best, bestScore, equals := candidates[0], score(candidates[0]), uint64(1)
	for _, i := range candidates[1:] {
		switch s := score(i); {
		case s < bestScore:
			best, bestScore, equals = i, s, 1
		case s == bestScore:
			if equals++; c.below(equals) == 0 {
				best = i
			}
		}
	}
	return best
}

// first is the candidate with the least score; of equals the first one.
func first(candidates []int, score func(replica int) float64) int {
	best, bestScore := candidates[0], score(candidates[0])
	for _, i := range candidates[1:] {
		if s := score(i); s < bestScore {
			best, bestScore = i, s
		}
	}
	return best
}

// below draws 0 <= k < n.
func (c *counts) below(n uint64) uint64 { return c.Uint64() % n }

// leastLoaded is the candidate with the fewest requests in flight, random among equals.
func (c *counts) leastLoaded(candidates []int) int {
	return c.least(candidates, func(i int) float64 { return float64(c.load[i]) })
}

// meanLoad is over the candidates.
func (c *counts) meanLoad(candidates []int) float64 {
	sum := 0
	for _, i := range candidates {
		sum += c.load[i]
	}
	return float64(sum) / float64(len(candidates))
}

// where keeps the candidates for which keep is true, in room.
func where(room, candidates []int, keep func(replica int) bool) []int {
	room = room[:0]
	for _, i := range candidates {
		if keep(i) {
			room = append(room, i)
		}
	}
	return room
}
