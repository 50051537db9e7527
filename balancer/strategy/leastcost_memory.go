package strategy

import (
	"sync/atomic"

	"lbd/balancer"
)

// memory is how much of a replica's KV cache is in use, each block counted once.
// Requests that begin with the same cached prompt hold its blocks together: with
// 150 system prompts of 6,000 tokens the sum of the contexts is three times what is
// held, and a replica that is half empty would look full. What a decode step reads
// is the sum of the contexts all the same, see costSight.resident.
type memory struct {
	// shared is what own requests found cached, in tokens, as far as was predicted.
	shared atomic.Int64
	// beyond is what is held beside the tokens that own requests had computed there:
	// blocks they share, others' requests, and how far the prediction is off. The
	// gauge tells it with every poll.
	beyond number
}

// own is what own requests hold that nobody shares with them, in tokens.
func (m *memory) own(r *balancer.Replica) int64 { return max(r.Resident()-m.shared.Load(), 0) }

// heldWith is held, with so many tokens of own requests.
func (m *memory) heldWith(resident int64) float64 {
	return max(float64(max(resident-m.shared.Load(), 0))+m.beyond.load(), 0)
}

// poll compares with the gauge. Prefill that has not ended is held or not: the
// gauge cannot be off by that. It is not smoothed: what it shows is there.
func (m *memory) poll(r *balancer.Replica, p *balancer.Polled) {
	used, told := p.KVUsed()
	if p.Stale || p.Elastic || !told {
		m.beyond.store(0)
		return
	}
	own := float64(m.own(r))
	computed := own - float64(r.PrefillTokens())
	m.beyond.store(max(used-own, 0) + min(used-computed, 0))
}

// held is what is in use now, in tokens.
func (m *memory) held(r *balancer.Replica) float64 {
	return m.heldWith(r.Resident())
}

// What a replica keeps of prompts, in tokens, where nobody tells: kvcached's
// default KVCACHED_MAX_CACHED_TOKENS for a pool that is shared, and a quarter of
// what an 80 GB device holds of an 8B model for one that tells nothing.
const (
	elasticCache = 16_000
	unknownCache = 100_000
)

// room is how many tokens of prompts the replica can keep beyond those in use.
// Prefill that waits is not in use yet; the owner's clock counts it already.
func (m *memory) room(r *balancer.Replica) int64 {
	p := r.Polled()
	switch {
	case r.CacheTokens > 0:
		return r.CacheTokens
	case p == nil:
		return unknownCache
	case p.PrefixCaching.Known && p.PrefixCaching.Value == 0:
		return 0
	case p.Elastic:
		return elasticCache
	case p.KVTokens.Known:
		return max(int64(p.KVTokens.Value+0.5)-int64(max(m.held(r)-float64(r.PrefillTokens()), 0)), 0)
	}
	return unknownCache
}
