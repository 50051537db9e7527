package strategy

import (
	"math"
	"sync"
	"sync/atomic"

	"lbd/balancer"
	"lbd/balancer/prefix"
)

// leastCost sends a request where it costs least time: its own until the first
// token and, the busier the fleet is, that of its decoding and the delay that it
// inflicts on what runs there. Everything is in milliseconds, so that a prefix in a
// cache, a queue, a slow device and a full KV cache can be weighed against each
// other without weights. See costOf for the terms.
type leastCost struct {
	opt    LeastCostOptions
	prior  Coefficients
	uint64 func() uint64
	index  *prefix.Index

	known atomic.Pointer[map[*balancer.Replica]*costState]
	view  atomic.Pointer[costView]
	hash  atomic.Pointer[prefix.Hasher] // of the model, named by the first request

	model         learner
	recentered    atomic.Int64 // Unix nanoseconds
	shown         atomic.Int64 // requests that have shown how fast their replica is
	regressed     regressions
	outputs       [lengthBuckets]mean // tokens
	promptMean    mean                // tokens
	bytesPerToken mean
	prefills      mean // ms, of requests as placed
	wholes        mean // logarithm of seen over predicted time of whole answers

	workspaces sync.Pool // of *workspace

	mu     sync.Mutex // guards who is known
	states map[string]*costState
}

func newLeastCost(o Options) balancer.Picker {
	p := &leastCost{opt: o.LeastCost.filled(), uint64: o.uint64(), states: make(map[string]*costState)}
	p.prior = *p.opt.Prior
	p.workspaces.New = func() any { return &workspace{opt: &p.opt, hashes: make([]uint64, 0, prefix.MaxBlocks)} }
	if !p.opt.NoPrefixes {
		if p.index = o.Prefixes; p.index == nil {
			p.index = prefix.New(prefix.Config{})
		} else {
			p.leave()
		}
	}
	p.model.reset(vec{1, 1, 1}, vec{1, 1, 1})
	known := make(map[*balancer.Replica]*costState)
	p.known.Store(&known)
	return p
}

// What is assumed of lengths before anything was seen. Chat prompts in public
// traces have a median of 500 to 1,000 tokens and answers of 100 to 250 (Azure
// 2023); English is 4 to 5 bytes a token, and JSON adds its own.
const (
	usualPrompt = 700.0
	usualOutput = 200.0
	usualBytes  = 4.2
	// mostTokens bounds lengths, whatever they are estimated by. The square of it is a
	// number of pairs.
	mostTokens = balancer.LongestContext
)

// The scales of the rule; README.md says how they were found. The load is 1 when a
// replica has prefillScale of prefill to do, on average; from LoadFrom on, decoding and
// what a prefill holds others up begin to count, loadSpan later as much as they ever do.
// A KV cache counts as load from fillFrom on: below, being fuller costs nothing.
// stepBudget is max_num_batched_tokens of vLLM V1 on devices of 70 GiB and more.
const (
	loadFrom, loadSpan = 0.4, 0.5
	prefillScale       = 250e6 // ns
	fillFrom           = 0.7
	// wasteWeight is how much of the delay counts that computing again what another
	// replica has cached puts on others: most of it is made good in quiet moments.
	wasteWeight = 0.3
	// othersWeight is how much counts what a prefill holds others up and what a context
	// slows their steps down: it is spread over the tokens of many answers, of which most
	// can bear it, while the same wait before a first token is borne by one. With more
	// than crowd prompts waiting per replica a fleet is beyond what it can carry; from
	// there to twice as many it comes to count in full. However many they are,
	// they are none before they make a load of 1: steps take several short ones at once,
	// and what a burst leaves is soon worked off. jamWeight is how much counts a
	// queue for each request that runs there. README.md has the figures.
	othersWeight, crowd = 0.1, 5
	jamWeight           = 0.1
	stepBudget          = 8192
	// kvUsable is how much of the KV cache can be filled before requests wait: vLLM
	// preempts when it is full, and what grows fills it.
	kvUsable = 0.9
	// kvGuard in ms is what a nearly full shared pool costs, fullPool the use from
	// which on it is: its neighbours may be the ones that fill it.
	kvGuard, fullPool = 1000, 0.95
	// slowStep in ms is what each request beyond those of the slow start costs.
	slowStep = 50
	// evenMs and evenPart are differences that mean nothing: a tie.
	evenMs, evenPart = 1, 0.01
)

// Pick is the dry run of Place.
func (p *leastCost) Pick(q *balancer.Request, candidates []*balancer.Replica) *balancer.Replica {
	if len(candidates) == 0 {
		return nil
	}
	w := p.workspaces.Get().(*workspace)
	p.look(w, q, candidates)
	r := candidates[p.best(w)]
	p.workspaces.Put(w)
	return r
}

// Place picks and reserves. Picks at the same instant do not see each other's
// reservations; one that finds more than a step of prefill added beside its own
// looks once more.
func (p *leastCost) Place(q *balancer.Request, candidates []*balancer.Replica) balancer.Reservation {
	if len(candidates) == 0 {
		return balancer.Reservation{}
	}
	w := p.workspaces.Get().(*workspace)
	p.look(w, q, candidates)
	i := p.best(w)
	v := p.reserve(w, i, q, candidates[i])
	if grown := candidates[i].PrefillTokens() - w.sights[i].load.prefill - int64(w.computes(i)); grown > p.opt.Budget {
		v.Done()
		p.look(w, q, candidates)
		i = p.best(w)
		v = p.reserve(w, i, q, candidates[i])
	}
	w.sights[i].st.arrivals.add(w.sights[i].trust*w.terms.prefill, w.asked.now)
	p.workspaces.Put(w)
	return v
}

// workspace is what one pick works in. The next one on the same processor finds what
// it has seen there, and reads again only what has changed since.
type workspace struct {
	// Of the candidates, in their order. What every pick goes through is apart from
	// what it seldom needs.
	kept     []kept
	bases    []basis
	parts    []part
	lowest   []float64 // what the price may be at least
	uncached []float64 // tokens of the prompt; all of them when matched is not set
	ties     []int32
	sights   []costSight

	// matched says that depths are not all zero.
	matched bool
	asked   asked
	fleet   fleetwide
	// Which candidate seems to cost least, and what it may cost at most.
	cheapest int
	limit    float64
	terms    cost // of the candidate that was asked for last

	opt     *LeastCostOptions
	view    *costView // in which the states of sights were found
	due     int64     // no prefill is to be ended before, Unix nanoseconds
	edition uint32    // of asked, when sights were made
	hashes  []uint64
	depths  prefix.Depths
}

// asked is what is known of the request.
type asked struct {
	now         int64 // Unix nanoseconds, 0 is unknown
	prompt      float64
	output      float64
	text        float64 // bytes, 0 when there is no text
	blockTokens float64 // of given blocks
	bucket      int
	// What those of others are taken to be, and how often that was another.
	usualPrompt, usualOutput float64
	edition                  uint32
}

// ask estimates lengths.
func (p *leastCost) ask(w *workspace, q *balancer.Request) {
	bucket, output, prompt, text := lengthBucket(q.MaxTokens), float64(q.OutputTokens), float64(q.PromptTokens), 0.0
	if output <= 0 {
		output = p.outputs[bucket].or(p.outputs[0].or(usualOutput))
		if q.MaxTokens > 0 {
			output = min(output, float64(q.MaxTokens))
		}
	}
	if len(q.Prompt) > 0 {
		text = textBytes(q.Prompt)
	}
	if prompt <= 0 {
		if prompt = p.promptMean.or(usualPrompt); text > 0 {
			prompt = text / p.bytesPerToken.or(usualBytes)
		}
	}
	a := &w.asked
	others, answers := p.promptMean.or(usualPrompt), p.outputs[0].or(usualOutput)
	if others != a.usualPrompt || answers != a.usualOutput {
		a.usualPrompt, a.usualOutput = others, answers
		a.edition++
	}
	a.now = 0
	if !q.Now.IsZero() {
		a.now = q.Now.UnixNano()
	}
	a.prompt, a.output, a.text, a.blockTokens, a.bucket = min(max(prompt, 1), mostTokens), min(output, mostTokens), text, 0, bucket
}

// match finds who has the prompt's prefix.
func (p *leastCost) match(w *workspace, q *balancer.Request) {
	w.hashes = w.hashes[:0]
	if w.matched {
		clear(w.depths[:])
		w.matched = false
	}
	if p.index == nil || len(q.Blocks) == 0 && len(q.Prompt) == 0 {
		return
	}
	h := p.hash.Load()
	if h == nil {
		made := p.index.Hasher(q.Model)
		h = &made
		p.hash.Store(h)
	}
	if len(q.Blocks) > 0 {
		w.asked.blockTokens = float64(q.BlockTokens)
		w.hashes = h.Blocks(w.hashes, q.Blocks)
	} else {
		w.hashes = h.Prompt(w.hashes, q.Preamble, q.Prompt)
	}
	w.matched = p.index.Match(w.hashes, &w.depths) > 0
}

// cached is how many tokens of the prompt a replica has that has so many of its
// blocks: whole blocks of vLLM, and never all of it, for the last one is computed.
func (a *asked) cached(depth int) float64 {
	if depth == 0 {
		return 0
	}
	tokens := float64(depth) * a.blockTokens
	if a.blockTokens == 0 {
		// The same bytes per token as the whole prompt, however it was estimated.
		tokens = a.prompt * float64(prefix.BlockBytes(depth)) / max(a.text, 1)
	}
	return math.Floor(min(tokens, a.prompt-1)/vllmBlock) * vllmBlock
}

// vllmBlock is block_size, 16 unless configured.
const vllmBlock = 16
