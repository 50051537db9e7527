package balancer

import (
	"math"
	"sync/atomic"
	"time"
)

// load is what a replica is known to be busy with. Own load is counted here
// event by event; polled load is replaced as a whole by each poll.
type load struct {
	// One cache line: every pick on every core reads and writes these.
	_        [64]byte
	changes  atomic.Uint64 // see Watch
	inflight atomic.Int64
	pending  atomic.Int64
	// What Placements add up to.
	prefillTokens, prefillPairs, prefillTime, resident atomic.Int64
	number                                             atomic.Uint64 // of polled

	epoch       atomic.Pointer[epoch]
	polled      atomic.Pointer[Polled]
	incarnation atomic.Uint64
	group       atomic.Pointer[[]*Replica] // those on the same device
	_           [96]byte                   // 256 in all, which the allocator aligns
}

// A Watch tells whether what is known of a replica's load is still so: what Placements
// add up to, requests in flight, the poll, the process and the neighbours on the device. It
// says nothing of response bytes (Pending), of which there are more than picks.
//
// The count grows after a change: who has taken the watch first and read the load then
// has missed nothing as long as the watch stands.
type Watch struct {
	load *load
	at   uint64
}

// Watch begins to watch the replica, which With and At do not make another one.
func (r *Replica) Watch() Watch { return Watch{r.load, r.load.changes.Load()} }

// Stands says whether nothing has changed since. The zero Watch watches nothing and
// must not be asked.
func (w *Watch) Stands() bool { return w.load.changes.Load() == w.at }

// changed ends what watches say.
func (l *load) changed() { l.changes.Add(1) }

// An epoch counts the requests that were sent between two polls. Requests keep
// a pointer to the epoch they were sent in, so what was sent since a poll stays
// exact however long they run.
type epoch struct {
	inflight atomic.Int64 // sent in this epoch, not done
	pending  atomic.Int64 // of those, without a first response byte
	resident atomic.Int64 // tokens of those in the KV cache
	next     atomic.Pointer[epoch]
}

// Metric is a polled value that may be missing. Missing means unknown, never
// zero: a replica started with --disable-log-stats exports nothing and is not
// idle.
type Metric struct {
	Value float64
	Known bool
}

// Known returns a metric that was read.
func Known(v float64) Metric { return Metric{Value: v, Known: true} }

// Sample is what one poll of a replica's /metrics page said.
type Sample struct {
	// Waiting and Running are the gauges vllm:num_requests_waiting and
	// vllm:num_requests_running, in requests, summed over engines.
	Waiting, Running Metric
	// KVUsage is vllm:kv_cache_usage_perc (V1) or vllm:gpu_cache_usage_perc
	// (V0), 0 to 1, the largest of the engines. Under kvcached it moves with the
	// neighbours on the device: a guard, not a load.
	KVUsage Metric
	// KVMean is the mean of the engines, where there are several: those of a data-parallel
	// server are as large as each other and each as full as its own requests make it.
	KVMean Metric
	// KVTokens is how many tokens the KV cache holds: num_gpu_blocks times
	// block_size of vllm:cache_config_info. Under kvcached it is the virtual size,
	// which the device cannot hold.
	KVTokens Metric
	// PrefixCaching is enable_prefix_caching of the same: 1 when prompts stay cached,
	// 0 when they do not.
	PrefixCaching Metric
	// PrefixQueries and PrefixHits are the counters
	// vllm:prefix_cache_{queries,hits}_total, in tokens (V1).
	PrefixQueries, PrefixHits Metric
	// PromptTokens and GenerationTokens are the counters
	// vllm:{prompt,generation}_tokens_total. They show whether the engine moves.
	PromptTokens, GenerationTokens Metric
	// StartTime is process_start_time_seconds, Unix seconds (full page of a
	// single-process server only). A change means the replica was restarted.
	StartTime Metric
}

// KVUsed is how many tokens of the KV cache are in use, over all engines; ok is false
// when the gauges do not tell.
func (s *Sample) KVUsed() (tokens float64, ok bool) {
	use := s.KVUsage
	if s.KVMean.Known {
		use = s.KVMean
	}
	return use.Value * s.KVTokens.Value, use.Known && s.KVTokens.Known
}

// Polled is the published result of polls, immutable.
type Polled struct {
	Sample
	// At is when the replica answered.
	At time.Time
	// Foreign is the number of requests the replica reported beyond those this
	// lbd had there at the scrape instant, smoothed over polls.
	Foreign int64
	// ForeignTokens is what others hold in the KV cache, in tokens, smoothed over
	// polls. It is unknown when the gauges do not tell, and when the pool is
	// elastic: KVUsage is no load of this replica then.
	ForeignTokens Metric
	// Elastic says that KVUsage was seen above zero while the replica did nothing:
	// its pool is shared with neighbours on the device, as under kvcached.
	Elastic bool
	// Stale means that the sample is too old or does not move any more: only
	// own load counts.
	Stale bool
	// Number tells published polls apart, over all replicas; none has 0. What wants to
	// know a poll again keeps this, not the poll, which leads to every epoch after it:
	// while nobody asks for a model, one epoch a poll and replica would pile up.
	Number uint64

	foreign float64
	pending int64   // own requests that the gauges can contain and that had no response byte
	process process // what is known of the process behind the endpoint
	since   *epoch  // first epoch that the sample does not contain
}

// ForeignKnown says whether Foreign is a count. Half the gauges are not enough: a
// queue of unknown length is no short one.
func (p *Polled) ForeignKnown() bool { return !p.Stale && p.Running.Known && p.Waiting.Known }

// published counts polls.
var published atomic.Uint64

// publish makes p what Polled returns.
func (r *Replica) publish(p *Polled) {
	p.Number = published.Add(1)
	r.load.polled.Store(p)
	r.load.number.Store(p.Number)
	r.load.changed()
}

// PollNumber is the Number of the last published poll, 0 before the first one.
// Comparing it touches no more than own load does.
func (r *Replica) PollNumber() uint64 { return r.load.number.Load() }

// PollMark separates requests sent before a poll from those sent since.
type PollMark struct{ since *epoch }

// BeginPoll marks the instant a poll is sent. Only one poll of a replica may be
// under way at a time.
func (r *Replica) BeginPoll() PollMark {
	e := &epoch{}
	r.load.epoch.Swap(e).next.Store(e)
	return PollMark{since: e}
}

// foreignSmoothing is the weight of the newest poll in the moving average of
// foreign load: a time constant of two polls, 1-exp(-1/2).
const foreignSmoothing = 0.393

// EndPoll publishes what the poll begun at mark has read. Foreign load is what
// the gauges show beyond our own requests; of ours only those count that were
// sent before the mark and still run, which is the least the gauges can contain.
func (r *Replica) EndPoll(mark PollMark, s Sample, at time.Time) *Polled {
	s.Waiting, s.Running = count(s.Waiting, maxRequests), count(s.Running, maxRequests)
	s.KVTokens, s.KVUsage, s.KVMean = count(s.KVTokens, maxTokens), share(s.KVUsage), share(s.KVMean)
	p := &Polled{Sample: s, At: at, since: mark.since}
	p.pending = r.load.pending.Load() - sumPending(mark.since)
	if p.ForeignKnown() {
		own := r.load.inflight.Load() - sumInflight(mark.since)
		seen := math.Max(0, s.Running.Value+s.Waiting.Value-float64(max(own, 0)))
		p.foreign = seen
		if old := r.load.polled.Load(); old != nil && !old.Stale {
			p.foreign = old.foreign + foreignSmoothing*(seen-old.foreign)
		}
		p.Foreign = int64(math.Round(p.foreign))
	}
	r.foreignTokens(p)
	p.process = processOf(&s)
	if old := r.load.polled.Load(); old != nil {
		if p.process.follows(&old.process) {
			r.Restarted()
		} else {
			p.process.complete(&old.process)
		}
	}
	r.publish(p)
	return p
}

// idleKVUsage is the KV use of an idle replica from which on its pool counts as
// shared. vLLM's own pool shows 0 then: cached blocks that nobody uses are free.
// Under kvcached the weights of three 8B models alone make 0.56 on 80 GB.
const idleKVUsage = 0.02

// foreignTokens fills in what others hold in the KV cache: what is in use beyond
// the tokens of our own requests that were sent before the poll.
func (r *Replica) foreignTokens(p *Polled) {
	old := r.load.polled.Load()
	idle := p.ForeignKnown() && p.Running.Value+p.Waiting.Value == 0
	switch {
	case idle && p.KVUsage.Known:
		p.Elastic = p.KVUsage.Value > idleKVUsage
	case old != nil:
		p.Elastic = old.Elastic
	}
	used, told := p.KVUsed()
	if p.Elastic || !told {
		return
	}
	own := r.load.resident.Load() - sumResident(p.since)
	seen := math.Max(0, used-float64(max(own, 0)))
	if old != nil && !old.Stale && old.ForeignTokens.Known {
		seen = old.ForeignTokens.Value + foreignSmoothing*(seen-old.ForeignTokens.Value)
	}
	p.ForeignTokens = Known(seen)
}

// process is what tells one process behind an endpoint from the next: counters only go
// up. Pages may lack any of it, a cheap one StartTime and that of a V0 server before its
// first step everything, so each is the last one that was known.
type process struct{ started, prompt, generation, queries Metric }

func processOf(s *Sample) process {
	return process{s.StartTime, s.PromptTokens, s.GenerationTokens, s.PrefixQueries}
}

// follows says whether p is younger than old. What either lacks says nothing.
func (p *process) follows(old *process) bool {
	fell := func(a, b Metric) bool { return a.Known && b.Known && b.Value < a.Value }
	started := old.started.Known && p.started.Known && old.started != p.started
	return started || fell(old.prompt, p.prompt) || fell(old.generation, p.generation) || fell(old.queries, p.queries)
}

// complete takes over what p lacks from an earlier page of the same process.
func (p *process) complete(old *process) {
	fill := func(to *Metric, from Metric) {
		if !to.Known {
			*to = from
		}
	}
	fill(&p.started, old.started)
	fill(&p.prompt, old.prompt)
	fill(&p.generation, old.generation)
	fill(&p.queries, old.queries)
}

// maxRequests and maxTokens are far beyond what a replica can have, and within int64 also
// after a sum, and the first one after what strategies multiply it with: two weights of up
// to a million each.
const (
	maxRequests = 1 << 22
	maxTokens   = 1 << 48
)

// count makes a value unknown that is no number of so many at most: it would spoil the
// moving average for good, or become a negative integer and draw all requests.
func count(m Metric, most float64) Metric {
	if m.Value >= 0 && m.Value <= most {
		return m
	}
	return Metric{} // NaN too
}

// share is a part of a whole: more than all of it is all of it.
func share(m Metric) Metric {
	m = count(m, math.MaxFloat64)
	m.Value = min(m.Value, 1)
	return m
}

// MarkStale publishes the last poll again as one not to be trusted: its foreign
// part is dropped, its values stay visible to operators. It reports whether that
// changed anything.
func (r *Replica) MarkStale() bool {
	old := r.load.polled.Load()
	if old == nil || old.Stale {
		return false
	}
	p := *old
	p.Stale, p.Foreign, p.foreign, p.ForeignTokens = true, 0, 0, Metric{}
	p.since = nil // or the epochs of a replica that never answers again would pile up
	r.publish(&p)
	return true
}

// Polled returns the last published poll, nil before the first one.
func (r *Replica) Polled() *Polled { return r.load.polled.Load() }

// InFlight returns own load: requests sent by this lbd and not done.
func (r *Replica) InFlight() int64 { return r.load.inflight.Load() }

// Pending returns how many own requests have had no response byte yet.
func (r *Replica) Pending() int64 { return r.load.pending.Load() }

// Requests returns own plus foreign requests. Without a current poll the foreign
// part is zero.
func (r *Replica) Requests() int64 {
	n := r.load.inflight.Load()
	if p := r.load.polled.Load(); p != nil {
		n += p.Foreign
	}
	return n
}

// Waiting estimates the requests waiting at the replica: the polled gauge plus
// own requests sent since that poll that have had no response byte. ok is false
// when the gauge is unknown or stale.
func (r *Replica) Waiting() (n int64, ok bool) {
	p := r.load.polled.Load()
	if p == nil || p.Stale || !p.Waiting.Known {
		return 0, false
	}
	return int64(p.Waiting.Value) + p.PendingSince(), true
}

// Queued is Waiting with what has begun since the poll taken off. Each first byte is
// a request that left the replica's queue, and the end of an answer that showed none
// before has let another one leave it.
func (r *Replica) Queued() (n int64, ok bool) {
	p := r.load.polled.Load()
	if p == nil || p.Stale || !p.Waiting.Known {
		return 0, false
	}
	return max(int64(p.Waiting.Value)+r.load.pending.Load()-p.pending, 0), true
}

// PendingSince returns how many own requests were sent since the poll and have
// had no response byte.
func (p *Polled) PendingSince() int64 { return sumPending(p.since) }

func sumInflight(from *epoch) (n int64) {
	for e := from; e != nil; e = e.next.Load() {
		n += e.inflight.Load()
	}
	return n
}

func sumPending(from *epoch) (n int64) {
	for e := from; e != nil; e = e.next.Load() {
		n += e.pending.Load()
	}
	return n
}

func sumResident(from *epoch) (n int64) {
	for e := from; e != nil; e = e.next.Load() {
		n += e.resident.Load()
	}
	return n
}

// Reservation is one request's share of a replica's own load. The zero value
// holds nothing. It belongs to one goroutine.
type Reservation struct {
	replica *Replica
	epoch   *epoch
	pending bool
	tracker Tracker
	tokens  int // of Tokens, not told yet
}

// Reserve adds one request to the replica's own load.
func (r *Replica) Reserve() Reservation {
	v := r.reserve()
	r.load.changed()
	return v
}

func (r *Replica) reserve() Reservation {
	e := r.load.epoch.Load()
	r.load.inflight.Add(1)
	r.load.pending.Add(1)
	e.inflight.Add(1)
	e.pending.Add(1)
	return Reservation{replica: r, epoch: e, pending: true}
}

// Replica returns where the reservation is, nil when it is done.
func (v *Reservation) Replica() *Replica { return v.replica }

// FirstByte notes that the response has begun: the request waits no longer.
func (v *Reservation) FirstByte() {
	if !v.pending {
		return
	}
	v.pending = false
	v.epoch.pending.Add(-1)
	v.replica.load.pending.Add(-1)
}

// FirstToken notes the first event with content. Answers that do not stream have
// none.
func (v *Reservation) FirstToken(now time.Time) {
	if v.tracker != nil {
		v.tracker.FirstToken(now)
	}
}

// tokenBatch is how many events with content are told at once: what happens per
// event is an addition.
const tokenBatch = 16

// Tokens notes n further events with content, the last of them at now.
func (v *Reservation) Tokens(n int, now time.Time) {
	if v.tokens += n; v.tokens >= tokenBatch && v.tracker != nil {
		v.tracker.Tokens(v.tokens, now)
		v.tokens = 0
	}
}

// Usage notes what the replica said of the request.
func (v *Reservation) Usage(u Usage) {
	if v.tracker != nil {
		v.tracker.Usage(u)
	}
}

// Done takes the request off the replica's own load, with nothing to learn from
// it. Further calls do nothing, so it can stand behind every way out of a request.
func (v *Reservation) Done() { v.End(Abandoned, time.Time{}) }

// End is Done for a request of which it is known how and when it ended.
func (v *Reservation) End(e Ending, now time.Time) {
	if v.replica == nil {
		return
	}
	v.FirstByte()
	v.epoch.inflight.Add(-1)
	v.replica.load.inflight.Add(-1)
	v.replica.load.changed()
	if v.tracker != nil {
		v.tracker.Done(e, now)
	}
	*v = Reservation{}
}
