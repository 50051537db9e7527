package strategy

import (
	"sync/atomic"

	"lbd/balancer"
)

// gauges are what a pick needs of a poll, worked out once per poll instead of once
// per pick. They are read without a lock: a pick within the nanoseconds in which a
// poll is taken over may see part of the one before, which is as good a guess.
type gauges struct {
	capacity number // tokens of the KV cache, 0 is unknown
	foreign  number // requests of others
	waiting  number // those of them that wait
	tokens   number // that those hold in the KV cache
	said     atomic.Uint32
}

// What a poll has said. Without saidPoll it has said nothing that counts.
const (
	saidPoll   = 1 << iota
	saidLoad   // how many requests there are
	saidTokens // what others hold in the KV cache
	saidFull   // that the pool it shares with others is full
)

func (g *gauges) poll(p *balancer.Polled) {
	if p == nil || p.Stale {
		g.said.Store(0)
		return
	}
	said, capacity, foreign := uint32(saidPoll), 0.0, 0.0
	if p.KVTokens.Known && !p.Elastic {
		capacity = p.KVTokens.Value
	}
	if p.Elastic && p.KVUsage.Known && p.KVUsage.Value >= fullPool {
		said |= saidFull
	}
	if p.ForeignKnown() {
		said |= saidLoad
		foreign = float64(p.Foreign)
		// The gauge does not say whose requests wait.
		g.waiting.store(p.Waiting.Value / max(p.Waiting.Value+p.Running.Value, 1) * foreign)
	}
	if p.ForeignTokens.Known {
		said |= saidTokens
		g.tokens.store(p.ForeignTokens.Value)
	}
	g.capacity.store(capacity)
	g.foreign.store(foreign)
	g.said.Store(said)
}
