package engine

import (
	"math/rand/v2"
	"testing"
	"time"
)

// steady is a configuration without jitter.
func steady(c Config) Config {
	c.Jitter = -1
	return c
}

func start(t testing.TB, c Config) *Engine {
	t.Helper()
	e, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func submit(t testing.TB, e *Engine, rs ...Request) {
	t.Helper()
	for _, r := range rs {
		if err := e.Submit(r); err != nil {
			t.Fatal(err)
		}
	}
}

// step runs one step and checks the pool.
func step(t testing.TB, e *Engine) (time.Duration, []Event) {
	t.Helper()
	d, evs := e.Step(nil)
	checkState(t, e)
	return d, evs
}

// drain steps until idle and returns all events in order.
func drain(t testing.TB, e *Engine) []Event {
	t.Helper()
	var all []Event
	for {
		d, evs := step(t, e)
		if d == 0 {
			return all
		}
		all = append(all, evs...)
	}
}

// tokens sums the tokens of one request.
func tokens(evs []Event, id uint64) (n int) {
	for _, ev := range evs {
		if ev.ID == id {
			n += ev.Tokens
		}
	}
	return n
}

// first returns the first-token event of a request.
func first(t testing.TB, evs []Event, id uint64) Event {
	t.Helper()
	for _, ev := range evs {
		if ev.ID == id && ev.First {
			return ev
		}
	}
	t.Fatalf("request %d has no first token in %+v", id, evs)
	return Event{}
}

// chainOf builds n block hashes of a prompt known by seed.
func chainOf(seed uint64, n int) []uint64 {
	chain := make([]uint64, n)
	parent := seed
	for i := range chain {
		parent = Chain(parent, uint64(i))
		chain[i] = parent
	}
	return chain
}

// checkState recounts everything the engine keeps incrementally.
func checkState(t testing.TB, e *Engine) {
	t.Helper()
	p := &e.pool
	checkWatch(t, e)
	if p.private < 0 || p.pinned < 0 || p.cached < 0 || p.private+p.pinned+p.cached > p.capacity {
		t.Fatalf("private %d + pinned %d + cached %d, want at most %d", p.private, p.pinned, p.cached, p.capacity)
	}
	if p.maxCache >= 0 && p.cached > p.maxCache {
		t.Fatalf("%d blocks cached, want at most %d", p.cached, p.maxCache)
	}
	refs := make(map[int32]int32)
	private, decodes, kv, order := 0, 0, 0, uint64(0)
	for s := e.running.head; s != nil; s = s.links[inOrder].next {
		if s.order <= order {
			t.Fatalf("running out of order of admission: %d after %d", s.order, order)
		}
		order = s.order
		computed := s.computed
		if s.state == decoding {
			computed += int(e.rounds - s.joined)
			decodes++
			kv += computed
		}
		if s.blocks < e.blocksFor(computed) {
			t.Fatalf("request %d: %d blocks for %d tokens", s.id, s.blocks, computed)
		}
		pins := 0
		for _, n := range s.published {
			if n != none {
				refs[n]++
				pins++
			}
		}
		if pins != s.pins {
			t.Fatalf("request %d: pins %d, want %d", s.id, s.pins, pins)
		}
		private += s.blocks - pins
	}
	if private != p.private || len(refs) != p.pinned || decodes != e.decodes || kv != e.kvTokens {
		t.Fatalf("private %d pinned %d decodes %d kv %d, recounted %d %d %d %d",
			p.private, p.pinned, e.decodes, e.kvTokens, private, len(refs), decodes, kv)
	}
	checkCache(t, p, refs)
	checkGrowth(t, e)
	if len(e.byID) != e.running.n+e.waiting.n || len(e.prefills)+e.decodes != e.running.n || len(e.due) != e.decodes {
		t.Fatalf("live %d running %d waiting %d prefills %d decodes %d due %d",
			len(e.byID), e.running.n, e.waiting.n, len(e.prefills), e.decodes, len(e.due))
	}
}

func checkCache(t testing.TB, p *pool, refs map[int32]int32) {
	t.Helper()
	for n, want := range refs {
		if p.nodes[n].refs != want {
			t.Fatalf("node %d: %d references, want %d", n, p.nodes[n].refs, want)
		}
	}
	cached := 0
	for n := p.oldest; n != none; n = p.nodes[n].next {
		cached++
		if found, ok := p.lookup(p.nodes[n].hash); p.nodes[n].refs != 0 || !ok || found != n {
			t.Fatalf("cached node %d: %d references, found %d %v", n, p.nodes[n].refs, found, ok)
		}
	}
	if cached != p.cached || p.known.n != cached+p.pinned {
		t.Fatalf("cached %d, recounted %d; known %d, want %d", p.cached, cached, p.known.n, cached+p.pinned)
	}
}

// checkGrowth: startRound relies on growth lists in order of admission.
func checkGrowth(t testing.TB, e *Engine) {
	t.Helper()
	for slot := range e.growth {
		order := uint64(0)
		for s := e.growth[slot].head; s != nil; s = s.links[inGrowth].next {
			if s.order <= order || s.slot != slot {
				t.Fatalf("growth list %d: order %d after %d, slot %d", slot, s.order, order, s.slot)
			}
			order = s.order
		}
	}
}

// checkWatch looks up again what is watched.
func checkWatch(t testing.TB, e *Engine) {
	t.Helper()
	watched := 0
	for i := range e.pool.nodes {
		if e.pool.nodes[i].watched {
			watched++
		}
	}
	w := e.pool.watch
	if w.s == nil && watched > 0 || w.valid && watched != len(e.hits) {
		t.Fatalf("%d blocks are marked as watched, %d hits are kept", watched, len(e.hits))
	}
	if !w.valid {
		return
	}
	found, used := 0, 0
	for ; e.caching && found < (w.s.total()-1)/e.cfg.BlockSize; found++ {
		n, ok := e.pool.lookup(w.s.block(found))
		if !ok {
			break
		}
		if e.hits[found] != n {
			t.Fatalf("block %d is watched as node %d, and is %d", found, e.hits[found], n)
		}
		if e.pool.nodes[n].refs > 0 {
			used++
		}
	}
	if found != len(e.hits) || used != w.used {
		t.Fatalf("watching %d blocks, %d of them referenced; looked up again they are %d and %d", len(e.hits), w.used, found, used)
	}
}

// A request waits for memory with a prefix in the cache, while others come, go and share it: what is watched for it stays
// what a look-up would find.
func TestWatchedHitsAreThoseOfALookUp(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	hit := 0
	for round := range 200 {
		e := start(t, steady(Config{NumBlocks: 40, MaxModelLen: 600, MaxNumBatchedTokens: 128, MaxNumSeqs: 16}))
		for id := range uint64(30) {
			n := 1 + rng.IntN(30)
			submit(t, e, Request{ID: id, PromptTokens: 16*n + rng.IntN(16), OutputTokens: 1 + rng.IntN(100), Blocks: chainOf(rng.Uint64N(3), n)})
			for range rng.IntN(12) {
				step(t, e)
				if e.pool.watch.valid && len(e.hits) > 0 {
					hit++
				}
				if rng.IntN(20) == 0 {
					e.Abort(rng.Uint64N(id + 1))
					checkState(t, e)
				}
			}
		}
		if drain(t, e); e.Stats().Waiting+e.Stats().Running > 0 {
			t.Fatalf("round %d: %+v left", round, e.Stats())
		}
	}
	if hit < 100 {
		t.Errorf("only %d steps with blocks to watch; the test shows nothing", hit)
	}
}
