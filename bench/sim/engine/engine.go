package engine

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"
)

// Request is one generation.
type Request struct {
	ID           uint64 // of the caller's choice, not used by another live request
	PromptTokens int
	OutputTokens int // tokens it generates before it ends
	// Blocks is the hash chain of the prompt's full blocks; nil = nothing to share. The engine reads it until the
	// request ends.
	Blocks []uint64
	// External is how many leading prompt tokens need no computing because their KV comes from elsewhere at no cost (a
	// connector, a limit to compare with). They take blocks like any others.
	External int
}

// Event is what a step did for one request; it takes effect at the step's end.
type Event struct {
	ID        uint64
	Tokens    int  // generated since the last event of the request
	First     bool // the first token is among them
	Finished  bool // the last token is among them; the engine has forgotten the request
	Preempted bool // it lost its KV cache and waits again

	CachedTokens int           // on First: prompt tokens found in the prefix cache at admission
	Queued       time.Duration // on First: engine time between Submit and the first admission
}

// Stats are the engine's gauges now and its counters since New or Reset.
type Stats struct {
	Running, Waiting int
	Swapped          int     // always 0: preemption is by recompute
	KVUsage          float64 // share of blocks that are referenced, 0 to 1; cached ones count as free
	NumBlocks        int
	UsedBlocks       int // referenced blocks
	CachedTokens     int // tokens in blocks nobody references

	PromptTokens     uint64 // of requests that got their first token
	GenerationTokens uint64
	Preemptions      uint64
	PrefixQueries    uint64 // prompt tokens looked up, once per request (vLLM counts resumed requests apart)
	PrefixHits       uint64 // of those, found

	PrefillTokens uint64 // computed in prefill chunks, recomputation included
	Evictions     uint64 // cached blocks given up
	Finished      uint64 // requests
	Aborted       uint64 // requests
	Steps         uint64
	Busy          time.Duration // sum of step durations: the engine's clock
}

// Engine is one vLLM engine. It is not safe for concurrent use.
type Engine struct {
	cfg       Config
	preset    Preset
	chunked   bool
	caching   bool
	sharing   bool // of blocks within a step
	v0        bool
	watermark int

	rng      *rand.Rand
	pool     pool
	byID     map[uint64]*sequence
	waiting  list
	running  list
	idle     []*sequence // ended ones, for reuse
	admitted uint64      // admissions so far

	prefills []*sequence // admitted, prompt not computed yet, in order of admission
	rounds   uint64      // decode rounds so far
	decodes  int         // decoding sequences
	kvTokens int         // their tokens in the KV cache
	growth   []list      // decoding sequences by the round, modulo block size, in which they start a block
	due      dueHeap

	// The step under way.
	chunks  []chunk
	round   bool        // the decoding sequences get a token
	decoded int         // how many they were
	bumped  []*sequence // preempted, last admitted first
	hits    []int32
	events  []Event

	count Stats // counters only
}

// chunk is a part of a prompt computed in one step.
type chunk struct {
	s      *sequence
	tokens int
}

// New returns an idle engine.
func New(cfg Config) (*Engine, error) {
	cfg, preset, err := cfg.resolved()
	if err != nil {
		return nil, err
	}
	e := &Engine{
		cfg: cfg, preset: preset, chunked: *cfg.ChunkedPrefill, caching: *cfg.PrefixCaching,
		sharing: *cfg.PrefixCaching && *cfg.ShareInStep,
		v0:      cfg.Profile == ProfileV0, watermark: cfg.watermark(),
	}
	e.Reset()
	return e, nil
}

// Reset is a restart: no requests, nothing cached, counters zero. Events of requests that were live never come.
func (e *Engine) Reset() {
	maxCache := -1
	if e.cfg.MaxCachedTokens > 0 {
		maxCache = e.cfg.MaxCachedTokens / e.cfg.BlockSize
	}
	*e = Engine{
		cfg: e.cfg, preset: e.preset, chunked: e.chunked, caching: e.caching, sharing: e.sharing, v0: e.v0, watermark: e.watermark,
		rng:     rand.New(rand.NewPCG(e.cfg.Seed, 0x6C62642D656E6769)),
		pool:    newPool(e.cfg.NumBlocks, maxCache),
		byID:    make(map[uint64]*sequence),
		waiting: list{kind: inOrder},
		running: list{kind: inOrder},
		growth:  make([]list, e.cfg.BlockSize),
	}
	for i := range e.growth {
		e.growth[i].kind = inGrowth
	}
}

// Config returns the configuration with every default filled in.
func (e *Engine) Config() Config { return e.cfg }

// Preset returns the model of the step time in use.
func (e *Engine) Preset() Preset { return e.preset.clone() }

// Submit puts a request at the end of the waiting queue. A request longer than MaxModelLen is refused with ErrTooLong;
// nothing is ever refused for load.
func (e *Engine) Submit(r Request) error {
	switch {
	case r.PromptTokens < 1 || r.OutputTokens < 1:
		return fmt.Errorf("request %d: %d prompt and %d output tokens, want at least 1 of each",
			r.ID, r.PromptTokens, r.OutputTokens)
	case r.PromptTokens > e.cfg.MaxModelLen || r.OutputTokens > e.cfg.MaxModelLen-r.PromptTokens:
		return fmt.Errorf("%w: %d prompt + %d output tokens, want at most %d",
			ErrTooLong, r.PromptTokens, r.OutputTokens, e.cfg.MaxModelLen)
	case len(r.Blocks) > r.PromptTokens/e.cfg.BlockSize:
		return fmt.Errorf("request %d: %d blocks for %d prompt tokens, want at most %d of %d tokens",
			r.ID, len(r.Blocks), r.PromptTokens, r.PromptTokens/e.cfg.BlockSize, e.cfg.BlockSize)
	case e.byID[r.ID] != nil:
		return fmt.Errorf("request %d is live already", r.ID)
	}
	s := e.fresh()
	s.begin(r, e.count.Busy)
	e.byID[r.ID] = s
	e.waiting.pushBack(s)
	return nil
}

func (e *Engine) fresh() *sequence {
	if n := len(e.idle); n > 0 {
		s := e.idle[n-1]
		e.idle = e.idle[:n-1]
		return s
	}
	return &sequence{}
}

// Abort ends a request at once and frees its blocks; false if it is not live. Events of the step that is being waited
// for may still name it, and the caller drops them.
func (e *Engine) Abort(id uint64) bool {
	s := e.byID[id]
	if s == nil {
		return false
	}
	if s.state == waiting {
		e.waiting.remove(s)
	} else {
		e.leave(s)
	}
	e.count.Aborted++
	e.forget(s)
	return true
}

// Stats returns gauges and counters. vLLM publishes its gauges once per step: sample them after Step to match.
func (e *Engine) Stats() Stats {
	st := e.count
	st.Running, st.Waiting = e.running.n, e.waiting.n
	st.NumBlocks = e.cfg.NumBlocks
	st.UsedBlocks = e.pool.private + e.pool.pinned
	st.KVUsage = float64(st.UsedBlocks) / float64(st.NumBlocks)
	st.CachedTokens = e.pool.cached * e.cfg.BlockSize
	st.Evictions = e.pool.evicted
	return st
}

// Gauges are the running and waiting requests and the blocks in use, as in Stats but cheap enough for every step.
func (e *Engine) Gauges() (running, waiting, used int) {
	return e.running.n, e.waiting.n, e.pool.private + e.pool.pinned
}

// Decoded is how many sequences the last Step gave a token that was not the first of its prompt: each waited that
// step for it.
func (e *Engine) Decoded() int { return e.decoded }

// Decoding is how many sequences have their prompt computed and wait for their next token.
func (e *Engine) Decoding() int { return e.decodes }

// leave takes a sequence out of the running ones and frees its blocks.
func (e *Engine) leave(s *sequence) {
	e.running.remove(s)
	if s.state == decoding {
		s.emitted += int(e.rounds - s.joined)
		s.computed += int(e.rounds - s.joined)
		e.decodes--
		e.kvTokens -= s.computed
		e.growth[s.slot].remove(s)
		heap.Remove(&e.due, s.heapAt)
	} else {
		e.endPrefill(s)
	}
	e.pool.release(s.published, s.blocks-s.pins)
	s.published, s.pins, s.blocks, s.computed = s.published[:0], 0, 0, 0
	s.state = waiting
}

// forget ends a sequence that is in no list.
func (e *Engine) forget(s *sequence) {
	if e.pool.watch.s == s {
		e.unwatch()
	}
	delete(e.byID, s.id)
	s.chain = nil
	e.idle = append(e.idle, s)
}

// Cached is how many leading blocks of a chain the prefix cache knows now.
func (e *Engine) Cached(chain []uint64) int {
	for i, hash := range chain {
		if _, ok := e.pool.lookup(hash); !ok {
			return i
		}
	}
	return len(chain)
}
