package affinity

import (
	"hash/maphash"
	"strings"
	"sync/atomic"
	"time"

	"lbd/balancer"
)

// Words of Config.Home.
const (
	// ByStrategy has the strategy choose a session's home.
	ByStrategy = "strategy"
	// ByHash has a hash choose it, the same one in every lbd.
	ByHash = "hash"
)

// Config says what a session is and how long its home lasts. All of it but Entries may change at any time.
type Config struct {
	// Headers and Fields name what a client may call its session with, the first one that is there counts; headers come first.
	// Header names are compared without case.
	Headers, Fields []string
	// Home is ByStrategy or ByHash; "" is ByStrategy.
	Home string
	// MaxLoad is the most that a home may be busier than the mean of the candidates, in percent of that mean; 0 is 150.
	MaxLoad int
	// TTL is how long a home is remembered after its last request, ResponseTTL where a response is; 0 is an hour and a day.
	TTL, ResponseTTL time.Duration
	// Entries bounds each of the two tables; 0 is 100,000, which takes 2.4 MB.
	Entries int
}

func (c Config) filled() Config {
	if c.Home == "" {
		c.Home = ByStrategy
	}
	if c.MaxLoad <= 0 {
		c.MaxLoad = 150
	}
	if c.TTL <= 0 {
		c.TTL = time.Hour
	}
	if c.ResponseTTL <= 0 {
		c.ResponseTTL = 24 * time.Hour
	}
	if c.Entries <= 0 {
		c.Entries = 100_000
	}
	headers := make([]string, len(c.Headers))
	for i, name := range c.Headers {
		headers[i] = strings.ToLower(name)
	}
	c.Headers = headers
	return c
}

// Options are what Homes is made of. Snapshot is needed.
type Options struct {
	Config Config
	// Snapshot is the fleet at present; it says why a home cannot be had.
	Snapshot func() *balancer.Snapshot
}

// Homes knows where sessions and responses are at home, for all models of a fleet. Its methods may be called by any goroutine;
// those that a pick calls neither allocate nor block for longer than another pick takes to look at eight entries.
//
// A home yields to the strategy when it is saturated, by any of three signs, or no candidate. With one candidate there is
// nothing to yield to.
//
//   - Its requests, own and foreign and with the one to place, are more than MaxLoad percent of the mean by weight, and more than
//     fewRequests. This is consistent hashing with bounded loads; 1.25 is the paper's example, 150 the percentage that HAProxy
//     documents for hash-balance-factor and the ratio at which SGLang's cache-aware router rebalances.
//   - A fresh poll says that queueLimit requests or more wait there, and that fewer wait elsewhere.
//   - A fresh poll says that its KV cache is full, and that one elsewhere is not.
type Homes struct {
	snapshot  func() *balancer.Snapshot
	cfg       atomic.Pointer[Config]
	seed      maphash.Seed
	sessions  *table
	responses *table
	counts    [kinds][results]atomic.Uint64
}

// New returns Homes that know of nothing yet.
func New(o Options) *Homes {
	c := o.Config.filled()
	h := &Homes{
		snapshot: o.Snapshot, seed: maphash.MakeSeed(),
		sessions: newTable(c.Entries, c.TTL), responses: newTable(c.Entries, c.ResponseTTL),
	}
	h.cfg.Store(&c)
	return h
}

// SetConfig applies everything but Entries to the next request.
func (h *Homes) SetConfig(c Config) {
	c = c.filled()
	h.sessions.setTTL(c.TTL)
	h.responses.setTTL(c.ResponseTTL)
	h.cfg.Store(&c)
}

// Names returns what may name a session: headers in lower case, and fields of a body.
func (h *Homes) Names() (headers, fields []string) {
	c := h.cfg.Load()
	return c.Headers, c.Fields
}

// Session is what a balancer.Request carries for a session of that name, 0 without a name. The same name means different
// sessions for different models and clients.
func (h *Homes) Session(model, client string, name []byte) uint64 {
	if len(name) == 0 {
		return 0
	}
	var s uint64
	if h.cfg.Load().Home == ByHash {
		s = stable(stableString(stableString(prime1, model), client), name)
	} else {
		s = h.private(model) ^ fold(h.private(client), prime1) ^ fold(maphash.Bytes(h.seed, name), prime2)
	}
	return max(s, 1)
}

func (h *Homes) private(s string) uint64 { return maphash.String(h.seed, s) }

// fewRequests is a load that saturates nobody: vLLM's decode step for 8 requests takes 2 % longer than for one (7.1 ms + 23 µs
// each, Llama-3-8B on one H100, LambdaLabs' vllm-benchmark), while a prompt of 8,000 tokens that is computed again elsewhere costs
// 200 ms.
const fewRequests = 8

// queueLimit and fullCache are the thresholds of a saturated server in llm-d's saturation detector (queueDepthThreshold 5) and
// the use of the KV cache at which vLLM soon preempts.
const (
	queueLimit = 5
	fullCache  = 0.95
)

// saturated says whether a home should yield to another candidate.
func (h *Homes) saturated(home *balancer.Replica, candidates []*balancer.Replica) bool {
	if len(candidates) < 2 {
		return false
	}
	return h.busy(home, candidates) || crowded(home, candidates)
}

func (h *Homes) busy(home *balancer.Replica, candidates []*balancer.Replica) bool {
	load := home.Requests() + 1
	if load <= fewRequests*home.Weight {
		return false
	}
	total, weight := int64(1), int64(0)
	for _, r := range candidates {
		total += r.Requests()
		weight += r.Weight
	}
	return float64(load*weight)*100 > float64(h.cfg.Load().MaxLoad)*float64(total*home.Weight)
}

// crowded goes by the polls. A replica that does not tell is neither crowded nor better.
func crowded(home *balancer.Replica, candidates []*balancer.Replica) bool {
	queue, full := queues(home), cacheFull(home)
	if !queue.yes && !full.yes {
		return false
	}
	for _, r := range candidates {
		if r == home {
			continue
		}
		if queue.yes && queues(r).no || full.yes && cacheFull(r).no {
			return true
		}
	}
	return false
}

// sign is what a poll says; neither yes nor no is unknown.
type sign struct{ yes, no bool }

func queues(r *balancer.Replica) sign {
	p := r.Polled()
	if p == nil || p.Stale || !p.Waiting.Known {
		return sign{}
	}
	return sign{p.Waiting.Value >= queueLimit, p.Waiting.Value < queueLimit}
}

func cacheFull(r *balancer.Replica) sign {
	p := r.Polled()
	if p == nil || p.Stale || !p.KVUsage.Known {
		return sign{}
	}
	return sign{p.KVUsage.Value >= fullCache, p.KVUsage.Value < fullCache}
}

// absence says why a home is no candidate.
func (h *Homes) absence(replica uint64) Result {
	snap := h.snapshot()
	for i := range snap.Replicas {
		r := &snap.Replicas[i]
		if mark(r.Replica) != replica {
			continue
		}
		switch {
		case r.Draining:
			return Draining
		case !r.Available():
			return Down
		}
		return Failed
	}
	return Gone
}
