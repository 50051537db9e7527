package engine

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// ids in the order of their first tokens.
func firsts(evs []Event) (ids []uint64) {
	for _, ev := range evs {
		if ev.First {
			ids = append(ids, ev.ID)
		}
	}
	return ids
}

func TestIdle(t *testing.T) {
	e := start(t, Config{})
	kept := []Event{{ID: 9}}
	if d, evs := e.Step(kept); d != 0 || len(evs) != 1 {
		t.Errorf("idle step: %v, %v", d, evs)
	}
}

func TestFirstComeFirstServed(t *testing.T) {
	for name, cfg := range shapes() {
		e := start(t, cfg)
		want := []uint64{30, 10, 20, 50, 40, 60, 5, 7}
		for _, id := range want {
			submit(t, e, Request{ID: id, PromptTokens: 200, OutputTokens: 3})
		}
		if got := firsts(drain(t, e)); !slices.Equal(got, want) {
			t.Errorf("%s: first tokens in order %v, want %v", name, got, want)
		}
	}
}

// A small request behind one that does not fit waits too.
func TestNoOvertaking(t *testing.T) {
	e := start(t, steady(Config{NumBlocks: 20, MaxModelLen: 320}))
	submit(t, e, Request{ID: 1, PromptTokens: 200, OutputTokens: 40}) // 13 blocks
	step(t, e)
	submit(t, e, Request{ID: 2, PromptTokens: 300, OutputTokens: 1}, Request{ID: 3, PromptTokens: 10, OutputTokens: 1})
	if got := firsts(drain(t, e)); !slices.Equal(got, []uint64{2, 3}) {
		t.Errorf("first tokens in order %v, want [2 3]", got)
	}
}

// V1 mixes: a long prompt is cut to the budget while decodes keep their token per step.
func TestV1ChunksPrompts(t *testing.T) {
	e := start(t, steady(Config{MaxNumBatchedTokens: 2048, MaxNumSeqs: 128}))
	submit(t, e, Request{ID: 1, PromptTokens: 100, OutputTokens: 50})
	step(t, e)
	submit(t, e, Request{ID: 2, PromptTokens: 5000, OutputTokens: 5})
	for i, want := range []uint64{2047, 2047, 906} {
		before := e.Stats().PrefillTokens
		_, evs := step(t, e)
		if got := e.Stats().PrefillTokens - before; got != want {
			t.Errorf("step %d computed %d prompt tokens, want %d", i, got, want)
		}
		if tokens(evs, 1) != 1 {
			t.Errorf("step %d gave the decoding request %d tokens, want 1", i, tokens(evs, 1))
		}
		if last := i == 2; len(firsts(evs)) == 1 != last {
			t.Errorf("step %d: first tokens %v", i, firsts(evs))
		}
	}
}

// What the last chunk leaves of the budget goes to the next request in the same step.
func TestV1FillsTheBudget(t *testing.T) {
	e := start(t, steady(Config{MaxNumBatchedTokens: 1000, MaxNumSeqs: 128}))
	submit(t, e, Request{ID: 1, PromptTokens: 1500, OutputTokens: 5}, Request{ID: 2, PromptTokens: 400, OutputTokens: 5},
		Request{ID: 3, PromptTokens: 400, OutputTokens: 5})
	step(t, e)
	_, evs := step(t, e) // 500 + 400 + 100 of request 3
	if got := firsts(evs); !slices.Equal(got, []uint64{1, 2}) || e.Stats().PrefillTokens != 2000 {
		t.Errorf("first tokens %v after %d prompt tokens, want [1 2] after 2000", got, e.Stats().PrefillTokens)
	}
}

func TestMaxNumSeqs(t *testing.T) {
	e := start(t, steady(Config{MaxNumSeqs: 4}))
	for id := range uint64(10) {
		submit(t, e, Request{ID: id, PromptTokens: 10, OutputTokens: 20})
	}
	step(t, e)
	if st := e.Stats(); st.Running != 4 || st.Waiting != 6 || st.Swapped != 0 {
		t.Errorf("running %d waiting %d, want 4 and 6", st.Running, st.Waiting)
	}
}

// Without chunked prefill a V0 step is prompts or decodes. Streams pause for the whole prefill.
func TestV0PrefillFirst(t *testing.T) {
	e := start(t, steady(Config{Preset: "qwen2.5-7b", Profile: ProfileV0}))
	submit(t, e, Request{ID: 1, PromptTokens: 100, OutputTokens: 100})
	step(t, e)
	decode, evs := step(t, e)
	if tokens(evs, 1) != 1 {
		t.Fatalf("decode step gave %v", evs)
	}
	submit(t, e, Request{ID: 2, PromptTokens: 16000, OutputTokens: 10}, Request{ID: 3, PromptTokens: 16000, OutputTokens: 10})
	prefill, evs := step(t, e)
	if tokens(evs, 1) != 0 || len(firsts(evs)) != 2 {
		t.Errorf("prefill step gave %v, want two first tokens and nothing for the stream", evs)
	}
	if prefill < 30*decode {
		t.Errorf("the stream's ITL rises from %v to %v only", decode, prefill)
	}
	if _, evs = step(t, e); tokens(evs, 1) != 1 || tokens(evs, 2) != 1 || tokens(evs, 3) != 1 {
		t.Errorf("next step gave %v, want a token each", evs)
	}
}

// The same load in V1 keeps the stream's ITL at one chunk.
func TestV1BoundsITL(t *testing.T) {
	worst := func(profile Profile) (d time.Duration) {
		e := start(t, steady(Config{Preset: "qwen2.5-7b", Profile: profile}))
		submit(t, e, Request{ID: 1, PromptTokens: 100, OutputTokens: 100})
		step(t, e)
		submit(t, e, Request{ID: 2, PromptTokens: 32000, OutputTokens: 10})
		itl := time.Duration(0)
		for range 20 {
			took, evs := step(t, e)
			itl += took
			if tokens(evs, 1) == 1 {
				d, itl = max(d, itl), 0
			}
		}
		return d
	}
	if v0, v1 := worst(ProfileV0), worst(ProfileV1); v1*3 > v0 {
		t.Errorf("worst ITL: V0 %v, V1 %v, want V1 under a third", v0, v1)
	}
}

// Llama's 131072 context turns chunked prefill on in V0: 512 tokens a step, decodes first, blocks for the whole prompt.
func TestV0ChunkedAboveContext(t *testing.T) {
	e := start(t, steady(Config{Profile: ProfileV0}))
	if c := e.Config(); !*c.ChunkedPrefill || c.MaxNumBatchedTokens != 512 || c.MaxNumSeqs != 256 {
		t.Fatalf("defaults: chunked %v, %d tokens, %d sequences", *c.ChunkedPrefill, c.MaxNumBatchedTokens, c.MaxNumSeqs)
	}
	submit(t, e, Request{ID: 1, PromptTokens: 500, OutputTokens: 50})
	step(t, e)
	submit(t, e, Request{ID: 2, PromptTokens: 1600, OutputTokens: 5})
	_, evs := step(t, e)
	if st := e.Stats(); tokens(evs, 1) != 1 || st.PrefillTokens != 1011 || st.UsedBlocks != 32+100 {
		t.Errorf("tokens %d, computed %d, blocks %d; want 1, 1011, 132", tokens(evs, 1), st.PrefillTokens, st.UsedBlocks)
	}
}

// V0 keeps 1 % of the blocks free when it admits, V1 uses all of them.
func TestWatermark(t *testing.T) {
	for profile, want := range map[Profile]int{ProfileV0: 1, ProfileV1: 2} {
		e := start(t, steady(Config{Profile: profile, NumBlocks: 200, MaxModelLen: 3000, MaxNumBatchedTokens: 8192}))
		submit(t, e, Request{ID: 1, PromptTokens: 1600, OutputTokens: 1}, Request{ID: 2, PromptTokens: 1590, OutputTokens: 1})
		_, evs := step(t, e)
		if got := len(firsts(evs)); got != want {
			t.Errorf("%s: %d prompts of 100 blocks start in 200, want %d", profile, got, want)
		}
	}
}

// The pool runs out: the latest admitted goes to the head of waiting, ahead of those that never ran, and computes its
// prompt and what it has generated again.
func TestPreemption(t *testing.T) {
	for _, profile := range []Profile{ProfileV0, ProfileV1} {
		e := start(t, steady(Config{Profile: profile, NumBlocks: 21, MaxModelLen: 320, PrefixCaching: flag(false)}))
		submit(t, e, Request{ID: 1, PromptTokens: 150, OutputTokens: 100}, Request{ID: 2, PromptTokens: 150, OutputTokens: 100})
		step(t, e) // 10 blocks each
		submit(t, e, Request{ID: 3, PromptTokens: 150, OutputTokens: 10})
		var all []Event
		for e.Stats().Preemptions == 0 {
			_, evs := step(t, e)
			all = append(all, evs...)
		}
		if st := e.Stats(); st.Running != 1 || st.Waiting != 2 || e.waiting.head.id != 2 {
			t.Errorf("%s: running %d waiting %d head %d, want 1, 2, request 2", profile, st.Running, st.Waiting, e.waiting.head.id)
		}
		had := 1 + tokens(all, 2)
		computed := e.Stats().PrefillTokens
		for e.running.n == 0 || e.running.head.id == 1 {
			step(t, e)
		}
		if got := e.Stats().PrefillTokens - computed; int(got) < 150+had {
			t.Errorf("%s: %d tokens computed again, want the prompt and %d generated", profile, got, had)
		}
		drain(t, e)
	}
}

// No admissions in a V1 step that preempted, though budget and freed blocks would do for a first chunk.
func TestV1AdmitsNobodyWhenItPreempts(t *testing.T) {
	e := start(t, steady(Config{
		NumBlocks: 21, MaxModelLen: 320, PrefixCaching: flag(false), MaxNumBatchedTokens: 64, MaxNumSeqs: 8,
	}))
	submit(t, e, Request{ID: 1, PromptTokens: 150, OutputTokens: 100}, Request{ID: 2, PromptTokens: 150, OutputTokens: 100})
	for e.Stats().Preemptions == 0 {
		step(t, e)
	}
	if st := e.Stats(); st.Running != 1 || st.Waiting != 1 {
		t.Fatalf("running %d waiting %d in the step that preempted, want 1 and 1", st.Running, st.Waiting)
	}
	step(t, e)
	if e.Stats().Running != 2 {
		t.Error("the preempted request is not resumed in the next step")
	}
}

// A resumed request finds its own blocks and computes little again.
func TestResumeHitsTheCache(t *testing.T) {
	recomputed := func(caching bool) uint64 {
		e := start(t, steady(Config{NumBlocks: 21, MaxModelLen: 320, PrefixCaching: flag(caching)}))
		submit(t, e, Request{ID: 1, PromptTokens: 150, OutputTokens: 40}, Request{ID: 2, PromptTokens: 150, OutputTokens: 40})
		drain(t, e)
		if e.Stats().Preemptions == 0 {
			t.Fatal("nothing preempted")
		}
		if st := e.Stats(); st.PrefixHits != 0 || caching && st.PrefixQueries != 300 {
			t.Errorf("prefix queries %d hits %d, want 300 and 0: resumed requests do not count", st.PrefixQueries, st.PrefixHits)
		}
		return e.Stats().PrefillTokens - 300
	}
	if with, without := recomputed(true), recomputed(false); with*2 > without {
		t.Errorf("recomputed %d tokens with the cache, %d without", with, without)
	}
}

// Abort frees at once, between steps, in every state a request can be in.
func TestAbort(t *testing.T) {
	e := start(t, steady(Config{MaxNumBatchedTokens: 128, MaxNumSeqs: 2, PrefixCaching: flag(false)}))
	submit(t, e, Request{ID: 1, PromptTokens: 64, OutputTokens: 10}, Request{ID: 2, PromptTokens: 500, OutputTokens: 10},
		Request{ID: 3, PromptTokens: 64, OutputTokens: 10})
	step(t, e)
	for _, tc := range []struct {
		id     uint64
		blocks int
	}{{3, 8}, {1, 4}, {2, 0}} {
		if !e.Abort(tc.id) || e.Abort(tc.id) {
			t.Errorf("abort of %d: want true once", tc.id)
		}
		checkState(t, e)
		if got := e.Stats().UsedBlocks; got != tc.blocks {
			t.Errorf("%d blocks used after abort of %d, want %d", got, tc.id, tc.blocks)
		}
	}
	if d, evs := step(t, e); d != 0 || len(evs) != 0 || e.Stats().Aborted != 3 {
		t.Errorf("after all aborts: %v %v, aborted %d", d, evs, e.Stats().Aborted)
	}
	submit(t, e, Request{ID: 1, PromptTokens: 64, OutputTokens: 10})
	if got := tokens(drain(t, e), 1); got != 10 {
		t.Errorf("a reused id got %d tokens, want 10", got)
	}
}

func TestSubmitRefuses(t *testing.T) {
	e := start(t, Config{MaxModelLen: 1000})
	submit(t, e, Request{ID: 1, PromptTokens: 990, OutputTokens: 10})
	for _, tc := range []struct {
		r    Request
		want string
	}{
		{Request{ID: 2, PromptTokens: 990, OutputTokens: 11}, "990 prompt + 11 output tokens, want at most 1000"},
		{Request{ID: 2, PromptTokens: 5000, OutputTokens: 1}, "5000 prompt + 1"},
		{Request{ID: 2, PromptTokens: 1, OutputTokens: 1<<63 - 1}, "want at most 1000"},
		{Request{ID: 2, OutputTokens: 1}, "want at least 1 of each"},
		{Request{ID: 2, PromptTokens: 1}, "want at least 1 of each"},
		{Request{ID: 2, PromptTokens: 31, OutputTokens: 1, Blocks: make([]uint64, 2)}, "want at most 1 of 16"},
		{Request{ID: 1, PromptTokens: 31, OutputTokens: 1}, "request 1 is live already"},
	} {
		err := e.Submit(tc.r)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("Submit(%+v) = %v, want %q", tc.r, err, tc.want)
		}
		if long := strings.Contains(tc.want, "most 1000") || tc.r.PromptTokens == 5000; errors.Is(err, ErrTooLong) != long {
			t.Errorf("Submit(%+v): %v, is ErrTooLong %v", tc.r, err, !long)
		}
	}
	if e.Stats().Waiting != 1 {
		t.Errorf("waiting %d, want 1", e.Stats().Waiting)
	}
}

// Queued is the engine time before admission.
func TestQueued(t *testing.T) {
	e := start(t, steady(Config{MaxNumSeqs: 1}))
	submit(t, e, Request{ID: 1, PromptTokens: 100, OutputTokens: 20}, Request{ID: 2, PromptTokens: 100, OutputTokens: 1})
	busy, evs := time.Duration(0), []Event(nil)
	for range 20 {
		var d time.Duration
		d, evs = e.Step(evs)
		busy += d
	}
	evs = append(evs, drain(t, e)...)
	if got := first(t, evs, 2).Queued; got != busy || first(t, evs, 1).Queued != 0 {
		t.Errorf("queued %v, want %v", got, busy)
	}
}
