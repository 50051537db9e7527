package replay

import (
	"time"

	"lbd/balancer"
)

// Router is one lbd at work for one model: what picks, and all it gets to know. The shipped strategies stand behind
// Shipped; the rules of other projects are Routers of their own, since they want to know more than a Picker is told.
// Replicas are numbers from 0.
type Router interface {
	// Pick chooses one of the candidates, which are never none and in order, and reserves it; the harness sends the
	// request there. Hold puts it off until a replica's state changes, Refuse answers that it would be too late.
	Pick(now time.Duration, q *Query, candidates []int) int
	// FirstToken tells of the first token of a streamed request, Tokens of further n, Done of the end of any. ok is false
	// when the replica failed.
	FirstToken(now time.Duration, q *Query)
	Tokens(now time.Duration, q *Query, n int)
	Done(now time.Duration, q *Query, ok bool)
	// Poll tells what a replica's metrics say.
	Poll(now time.Duration, replica int, s *balancer.Sample)
	// Restarted tells that a replica is back in service after it was gone.
	Restarted(now time.Duration, replica int)
}

// What Pick returns instead of a replica.
const (
	Hold   = -1 // the request is to wait at lbd
	Refuse = -2 // it is to be answered 429, and nothing of it is reserved
)

// Query is a request on its way.
type Query struct {
	Request
	// Stream says that the answer is streamed.
	Stream bool
	// Estimate is the length of the prompt as lbd sees it, see Config.PromptError.
	Estimate int
	// Replica is where it was sent, Tries how often it was sent so far.
	Replica, Tries int
	// CachedTokens is known with the first token where the replica tells it (usage.prompt_tokens_details), else with
	// Done: prompt tokens found in its prefix cache.
	CachedTokens int
	// Charge is the router's own: what it has put on the replica's account, to take it back.
	Charge [4]float64
	// Uncached is for those that know the engines: prompt tokens to compute where it was sent.
	Uncached float64

	reservation balancer.Reservation
	lbd         int
	slot        int
	generation  uint32 // of the sending, so that what was scheduled for an earlier one is void
	frontEnd    time.Duration
	sent        bool // to a replica, and not ended
	submitted   bool
	good        bool     // ended within the limits
	bad         bool     // is sure not to, and counted
	waits       bool     // among lbd.held
	chain       []uint64 // block hashes for the engine
	first       time.Duration
	tried       []int
	preempted   int
}

// Begun says whether the first token is there.
func (q *Query) Begun() bool { return q.first >= 0 }

// Setup is what a Router is made with.
type Setup struct {
	Replicas []ReplicaInfo
	// LBD counts from 0, of LBDs.
	LBD, LBDs int
	// Poll is the period of polls.
	Poll time.Duration
	// Admission is for routers that predict what a request will get.
	Admission Limits
	// BlockTokens is Workload.BlockTokens.
	BlockTokens int
	// Uint64 is a seeded source of randomness of this router alone.
	Uint64 func() uint64
	// Truth looks into the replicas, for what no router can know: oracles.
	Truth *Truth
}

// Policy makes the routers of a run.
type Policy struct {
	Name string
	New  func(Setup) Router
	// Tokens asks for Router.Tokens, which costs time to tell.
	Tokens bool
	// Poll is the rule's own poll period, where its project has one; 0 means the run's.
	Poll time.Duration
	// What says where the rule comes from and what was read into it, for tables and docs.
	What string
}

// ignored is a Router's indifference to what it may ignore.
type ignored struct{}

func (ignored) Tokens(time.Duration, *Query, int)         {}
func (ignored) Poll(time.Duration, int, *balancer.Sample) {}
func (ignored) Restarted(time.Duration, int)              {}
