package engine

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// A second request with the same first 64 blocks computes only what follows them.
func TestPrefixHit(t *testing.T) {
	e := start(t, steady(Config{}))
	shared := chainOf(1, 64)
	submit(t, e, Request{ID: 1, PromptTokens: 1024, OutputTokens: 2, Blocks: shared})
	cold := first(t, drain(t, e), 1)
	if cold.CachedTokens != 0 {
		t.Errorf("cold request hit %d tokens", cold.CachedTokens)
	}
	computed := e.Stats().PrefillTokens
	submit(t, e, Request{ID: 2, PromptTokens: 1100, OutputTokens: 2, Blocks: append(slices.Clone(shared), chainOf(2, 4)...)})
	if warm := first(t, drain(t, e), 2); warm.CachedTokens != 1024 {
		t.Errorf("warm request hit %d tokens, want 1024", warm.CachedTokens)
	}
	st := e.Stats()
	if st.PrefillTokens-computed != 76 || st.PrefixQueries != 2124 || st.PrefixHits != 1024 {
		t.Errorf("computed %d, queries %d, hits %d, want 76, 2124, 1024",
			st.PrefillTokens-computed, st.PrefixQueries, st.PrefixHits)
	}
}

// The last token of a prompt is always computed, and blocks are hit whole: the same 1024 tokens again hit 1008.
func TestHitLeavesOneTokenToCompute(t *testing.T) {
	e := start(t, steady(Config{}))
	for id, want := range []int{0, 1008} {
		submit(t, e, Request{ID: uint64(id), PromptTokens: 1024, OutputTokens: 1, Blocks: chainOf(1, 64)})
		if ev := first(t, drain(t, e), uint64(id)); ev.CachedTokens != want {
			t.Errorf("request %d hit %d tokens, want %d", id, ev.CachedTokens, want)
		}
	}
}

// Chained hashes: a block is only found behind the blocks it was computed behind.
func TestHitEndsAtTheFirstMiss(t *testing.T) {
	e := start(t, steady(Config{}))
	chain := chainOf(1, 10)
	submit(t, e, Request{ID: 1, PromptTokens: 160, OutputTokens: 1, Blocks: chain})
	drain(t, e)
	broken := slices.Clone(chain)
	broken[3] = 99
	submit(t, e, Request{ID: 2, PromptTokens: 161, OutputTokens: 1, Blocks: broken})
	if ev := first(t, drain(t, e), 2); ev.CachedTokens != 48 {
		t.Errorf("hit %d tokens, want the 48 before the miss", ev.CachedTokens)
	}
}

// Blocks are visible chunk by chunk: to a request scheduled later in the step that computes them with ShareInStep, else
// from the end of that step.
func TestBlocksAreVisibleWhenComputed(t *testing.T) {
	for share, want := range map[bool]int{false: 0, true: 256} {
		e := start(t, steady(Config{ShareInStep: &share}))
		chain := chainOf(1, 16)
		submit(t, e, Request{ID: 1, PromptTokens: 260, OutputTokens: 1, Blocks: chain},
			Request{ID: 2, PromptTokens: 260, OutputTokens: 1, Blocks: chain})
		if ev := first(t, drain(t, e), 2); ev.CachedTokens != want {
			t.Errorf("share %v: same step hit %d tokens, want %d", share, ev.CachedTokens, want)
		}
	}
	for share, want := range map[bool]int{false: 64, true: 80} {
		e := start(t, steady(Config{MaxNumBatchedTokens: 64, MaxNumSeqs: 8, ShareInStep: &share}))
		chain := chainOf(1, 16)
		submit(t, e, Request{ID: 1, PromptTokens: 90, OutputTokens: 50, Blocks: chain[:5]})
		step(t, e) // computes 64 tokens of request 1; the next one computes the rest of it, and begins request 2
		submit(t, e, Request{ID: 2, PromptTokens: 260, OutputTokens: 1, Blocks: chain})
		if ev := first(t, drain(t, e), 2); ev.CachedTokens != want {
			t.Errorf("share %v: hit %d tokens of a prompt under way, want %d", share, ev.CachedTokens, want)
		}
	}
}

// What vLLM does is the default of each generation.
func TestShareInStepDefault(t *testing.T) {
	for profile, want := range map[Profile]bool{ProfileV0: false, ProfileV1: true} {
		if got := *start(t, Config{Profile: profile}).Config().ShareInStep; got != want {
			t.Errorf("%s: %v, want %v", profile, got, want)
		}
	}
}

// KV that comes from elsewhere is not computed, and takes its blocks.
func TestExternal(t *testing.T) {
	e := start(t, steady(Config{}))
	submit(t, e, Request{ID: 1, PromptTokens: 1000, OutputTokens: 2, External: 1000})
	evs := drain(t, e)
	if got := e.Stats().PrefillTokens; got != 8 || first(t, evs, 1).CachedTokens != 992 {
		t.Errorf("%d tokens computed, %d cached, want the last 8 of 1000 and 992", got, first(t, evs, 1).CachedTokens)
	}
	if st := e.Stats(); st.CachedTokens != 992 {
		t.Errorf("%d tokens cached in the end, want 992", st.CachedTokens)
	}
}

// Generated tokens join the cache: a follow-up that names them hits prompt and answer.
func TestGeneratedBlocksAreCached(t *testing.T) {
	e := start(t, steady(Config{}))
	chain := chainOf(1, 2)
	submit(t, e, Request{ID: 7, PromptTokens: 40, OutputTokens: 60, Blocks: chain})
	drain(t, e)
	// 40 + 60 - 1 tokens have been computed: six full blocks, the last four with generated tokens in them.
	next := slices.Clone(chain)
	for i := 2; i < 8; i++ {
		next = append(next, PrivateBlock(7, i))
	}
	submit(t, e, Request{ID: 8, PromptTokens: 130, OutputTokens: 1, Blocks: next})
	if ev := first(t, drain(t, e), 8); ev.CachedTokens != 96 {
		t.Errorf("follow-up hit %d tokens, want 96", ev.CachedTokens)
	}
}

// Referenced blocks are shared, not copied, and never evicted.
func TestSharedBlocksCountOnce(t *testing.T) {
	e := start(t, steady(Config{NumBlocks: 100, MaxModelLen: 1600}))
	chain := chainOf(1, 50)
	submit(t, e, Request{ID: 1, PromptTokens: 801, OutputTokens: 400, Blocks: chain})
	step(t, e)
	for id := uint64(2); id < 12; id++ {
		submit(t, e, Request{ID: id, PromptTokens: 801, OutputTokens: 10, Blocks: chain})
	}
	step(t, e)
	if st := e.Stats(); st.UsedBlocks != 61 || st.Running != 11 {
		t.Errorf("%d blocks used by %d running, want 50 shared + 11 own by 11", st.UsedBlocks, st.Running)
	}
}

// LRU over requests, suffix before prefix within one.
func TestEvictionOrder(t *testing.T) {
	e := start(t, steady(Config{NumBlocks: 40, MaxModelLen: 640}))
	prompt := func(id, family uint64) Request {
		return Request{ID: id, PromptTokens: 161, OutputTokens: 1, Blocks: chainOf(family, 10)}
	}
	for id := uint64(1); id <= 3; id++ {
		submit(t, e, prompt(id, id))
		drain(t, e)
	}
	submit(t, e, prompt(4, 1)) // family 1 is now younger than 2 and 3
	drain(t, e)
	// 10 blocks each are cached. 15 blocks wanted, 10 empty: five go.
	submit(t, e, Request{ID: 5, PromptTokens: 240, OutputTokens: 1})
	drain(t, e)
	known := func(family uint64) (n int) {
		for _, h := range chainOf(family, 10) {
			if _, ok := e.pool.lookup(h); ok {
				n++
			}
		}
		return n
	}
	if known(1) != 10 || known(2) != 5 || known(3) != 10 {
		t.Errorf("families 1, 2, 3 keep %d, %d, %d blocks, want 10, 5, 10", known(1), known(2), known(3))
	}
	submit(t, e, prompt(6, 2))
	if ev := first(t, drain(t, e), 6); ev.CachedTokens != 80 {
		t.Errorf("family 2 hits %d tokens, want its first 80", ev.CachedTokens)
	}
}

// kvcached keeps a bounded number of evictable tokens.
func TestMaxCachedTokens(t *testing.T) {
	e := start(t, steady(Config{MaxCachedTokens: 16000}))
	for id := range uint64(4) {
		submit(t, e, Request{ID: id, PromptTokens: 8001, OutputTokens: 1, Blocks: chainOf(id, 500)})
		drain(t, e)
	}
	if st := e.Stats(); st.CachedTokens != 16000 || st.Evictions != 1000 {
		t.Errorf("%d tokens cached after %d evictions, want 16000 after 1000", st.CachedTokens, st.Evictions)
	}
	submit(t, e, Request{ID: 9, PromptTokens: 8001, OutputTokens: 1, Blocks: chainOf(0, 500)})
	if ev := first(t, drain(t, e), 9); ev.CachedTokens != 0 {
		t.Errorf("the oldest prompt still hits %d tokens", ev.CachedTokens)
	}
}

func TestPrefixCachingOff(t *testing.T) {
	for _, c := range []Config{{PrefixCaching: flag(false)}, {Profile: ProfileV0}} {
		e := start(t, steady(c))
		for id := range uint64(2) {
			submit(t, e, Request{ID: id, PromptTokens: 1024, OutputTokens: 20, Blocks: chainOf(1, 64)})
			if ev := first(t, drain(t, e), id); ev.CachedTokens != 0 {
				t.Errorf("%s hit %d tokens with the cache off", e.cfg.Profile, ev.CachedTokens)
			}
		}
		if st := e.Stats(); st.PrefixQueries != 0 || st.CachedTokens != 0 {
			t.Errorf("%s: cache used: %+v", e.cfg.Profile, st)
		}
	}
}

// The index agrees with a map under hashes that collide and wrap around.
func TestIndexIsAMap(t *testing.T) {
	x := newIndex()
	want, next := map[uint64]int32{}, int32(0)
	rng := rand.New(rand.NewPCG(1, 1))
	for range 20000 {
		h := rng.Uint64N(3000)
		if h%3 == 0 {
			h *= 1 << 40
		}
		_, ok := want[h]
		switch {
		case !ok:
			x.insert(next, h)
			want[h] = next
			next++
		case rng.IntN(2) == 0:
			x.remove(h)
			delete(want, h)
		}
		if x.n != len(want) {
			t.Fatalf("%d entries, want %d", x.n, len(want))
		}
	}
	for h := range uint64(3000) {
		for _, h := range []uint64{h, h << 40} {
			n, ok := want[h]
			if !ok {
				n = none
			}
			if got := x.find(h); got != n {
				t.Fatalf("find(%d) = %d, want %d", h, got, n)
			}
		}
	}
}
