package poll

import (
	"sync"
	"sync/atomic"
	"time"

	"lbd/balancer"
)

// target is what the poller knows of one replica.
type target struct {
	failures, modelFailures atomic.Uint64
	answeredAt              atomic.Pointer[time.Time]

	mu      sync.Mutex
	replica *balancer.Replica
	metrics metricsState
	models  modelsState

	// Of the one poll under way.
	buf  []byte
	page page
}

// metricsState is guarded by target.mu.
type metricsState struct {
	underWay bool
	failing  failing
	// full: the cheap form gave nothing, last tried at fullSince.
	full      bool
	fullSince time.Time
	toldFull  bool
	noMetrics bool
	stale     bool
	// last holds the newest known value of each metric; movedAt and kvMovedAt are
	// when requests or tokens, and KV use, last changed.
	last               balancer.Sample
	answered           bool
	movedAt, kvMovedAt time.Time
}

// cheap says whether the next poll tries the cheap form.
func (m *metricsState) cheap(now time.Time) bool {
	return !m.full || now.Sub(m.fullSince) >= cheapRetry
}

// take compares a sample with the last one and remembers it. own is the number
// of our requests that run there.
func (m *metricsState) take(s balancer.Sample, own int64, now time.Time) (restarted, stuck bool) {
	restarted = m.answered && anotherProcess(m.last, s)
	if !m.answered || restarted || own > 0 || moved(m.last, s) {
		m.movedAt = now
	}
	if !m.answered || restarted || own > 0 || differ(m.last.KVUsage, s.KVUsage) {
		m.kvMovedAt = now
	}
	m.answered = true
	if restarted {
		m.last = balancer.Sample{} // what the process before has counted says nothing of this one
	}
	remember(&m.last, s)
	busy := s.Running.Value+s.Waiting.Value > 0 // unknown is 0
	still, kvStill := now.Sub(m.movedAt) >= stuckAfter, now.Sub(m.kvMovedAt) >= stuckAfter
	return restarted, still && (busy || kvStill && s.KVUsage.Value >= guardedKV)
}

// anotherProcess says whether a sample comes from a younger process than last:
// counters only go up.
func anotherProcess(last, s balancer.Sample) bool {
	fell := func(a, b balancer.Metric) bool { return a.Known && b.Known && b.Value < a.Value }
	return differ(last.StartTime, s.StartTime) || fell(last.PromptTokens, s.PromptTokens) ||
		fell(last.GenerationTokens, s.GenerationTokens) || fell(last.PrefixQueries, s.PrefixQueries)
}

// moved says whether the engine did anything. KV use is left out: under kvcached
// it moves with the neighbours on the device.
func moved(last, s balancer.Sample) bool {
	return differ(last.Running, s.Running) || differ(last.Waiting, s.Waiting) ||
		differ(last.PromptTokens, s.PromptTokens) || differ(last.GenerationTokens, s.GenerationTokens)
}

func differ(a, b balancer.Metric) bool { return a.Known && b.Known && a.Value != b.Value }

// remember keeps what a page lacks: a full page knows more than a cheap one.
func remember(last *balancer.Sample, s balancer.Sample) {
	for _, m := range [...]struct {
		to   *balancer.Metric
		from balancer.Metric
	}{
		{&last.Waiting, s.Waiting}, {&last.Running, s.Running}, {&last.KVUsage, s.KVUsage},
		{&last.PrefixQueries, s.PrefixQueries}, {&last.PrefixHits, s.PrefixHits},
		{&last.PromptTokens, s.PromptTokens}, {&last.GenerationTokens, s.GenerationTokens}, {&last.StartTime, s.StartTime},
	} {
		if m.from.Known {
			*m.to = m.from
		}
	}
}
