package engine

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func flag(on bool) *bool { return &on }

// shapes are engines small enough to run out of everything.
func shapes() map[string]Config {
	small := func(c Config) Config {
		c.NumBlocks = or(c.NumBlocks, 60)
		c.MaxModelLen = or(c.MaxModelLen, 800)
		c.MaxNumSeqs = or(c.MaxNumSeqs, 16)
		return c
	}
	return map[string]Config{
		"v1":             small(Config{Profile: ProfileV1, MaxNumBatchedTokens: 128}),
		"v1 few seqs":    small(Config{Profile: ProfileV1, MaxNumSeqs: 3, MaxNumBatchedTokens: 64}),
		"v1 no cache":    small(Config{Profile: ProfileV1, MaxNumBatchedTokens: 128, PrefixCaching: flag(false)}),
		"v1 kvcached":    small(Config{Profile: ProfileV1, MaxNumBatchedTokens: 256, MaxCachedTokens: 160}),
		"v1 share":       small(Config{Profile: ProfileV1, MaxNumBatchedTokens: 256, ShareInStep: flag(true)}),
		"v1 whole":       small(Config{Profile: ProfileV1, ChunkedPrefill: flag(false)}),
		"v1 small block": small(Config{Profile: ProfileV1, BlockSize: 4, NumBlocks: 220}),
		"v1 progress":    small(Config{Profile: ProfileV1, MaxNumBatchedTokens: 128, Quiet: true, Progress: true}),
		"v1 no share":    small(Config{Profile: ProfileV1, MaxNumBatchedTokens: 256, ShareInStep: flag(false)}),
		"v1 quiet":       small(Config{Profile: ProfileV1, MaxNumBatchedTokens: 128, Quiet: true}),
		"v0":             small(Config{Profile: ProfileV0}),
		"v0 watermark":   small(Config{Profile: ProfileV0, NumBlocks: 250}),
		"v0 chunked":     small(Config{Profile: ProfileV0, ChunkedPrefill: flag(true), MaxNumBatchedTokens: 96}),
		"v0 cache":       small(Config{Profile: ProfileV0, PrefixCaching: flag(true)}),
		"v0 all":         small(Config{Profile: ProfileV0, PrefixCaching: flag(true), ChunkedPrefill: flag(true), MaxNumBatchedTokens: 64, Quiet: true}),
	}
}

// TestTokensAndBlocksConserved feeds random requests, aborts some, recounts the whole state after every step, and wants
// every token delivered once and everything at zero in the end.
func TestTokensAndBlocksConserved(t *testing.T) {
	for name, cfg := range shapes() {
		t.Run(name, func(t *testing.T) {
			preempted := uint64(0)
			for seed := range uint64(6) {
				cfg.Seed = seed
				preempted += runRandom(t, start(t, cfg), rand.New(rand.NewPCG(seed, 7)))
			}
			if preempted == 0 && name != "v1 few seqs" {
				t.Error("no run preempted: the test does not reach what it is for")
			}
		})
	}
}

func runRandom(t *testing.T, e *Engine, rng *rand.Rand) uint64 {
	t.Helper()
	const requests = 120
	sent := map[uint64]Request{}
	got := map[uint64]int{}
	state := map[uint64]string{}
	finished, aborted, prompts := 0, 0, 0
	for next := uint64(1); ; {
		for next <= requests && rng.IntN(3) > 0 {
			r := randomRequest(rng, next, e.cfg)
			submit(t, e, r)
			sent[r.ID] = r
			next++
		}
		if next > 1 && rng.IntN(10) == 0 {
			id := 1 + rng.Uint64N(next-1)
			if e.Abort(id) {
				state[id] = "aborted"
				aborted++
			}
			checkState(t, e)
		}
		d, evs := step(t, e)
		for _, ev := range evs {
			if state[ev.ID] == "finished" || state[ev.ID] == "aborted" {
				t.Fatalf("event %+v after the request has %s", ev, state[ev.ID])
			}
			if ev.First != (state[ev.ID] == "" && ev.Tokens > 0) {
				t.Fatalf("event %+v in state %q", ev, state[ev.ID])
			}
			got[ev.ID] += ev.Tokens
			if ev.First {
				state[ev.ID] = "started"
				prompts += sent[ev.ID].PromptTokens
			}
			if ev.Finished {
				state[ev.ID] = "finished"
				finished++
				if got[ev.ID] != sent[ev.ID].OutputTokens {
					t.Fatalf("request %d got %d tokens, want %d", ev.ID, got[ev.ID], sent[ev.ID].OutputTokens)
				}
			}
		}
		if d == 0 && next > requests {
			break
		}
	}
	generated := 0
	for _, n := range got {
		generated += n
	}
	st := e.Stats()
	if finished+aborted != requests || st.Finished != uint64(finished) || st.Aborted != uint64(aborted) {
		t.Errorf("finished %d aborted %d of %d; stats %+v", finished, aborted, requests, st)
	}
	// An aborted request's tokens that no event has told are generated all the same.
	if st.PromptTokens != uint64(prompts) || !e.cfg.Quiet && st.GenerationTokens != uint64(generated) {
		t.Errorf("prompt %d generation %d, events say %d %d", st.PromptTokens, st.GenerationTokens, prompts, generated)
	}
	if st.Running != 0 || st.Waiting != 0 || st.UsedBlocks != 0 || st.KVUsage != 0 || e.kvTokens != 0 {
		t.Errorf("not empty at the end: %+v", st)
	}
	return st.Preemptions
}

// randomRequest shares its prompt's head with one of four families.
func randomRequest(rng *rand.Rand, id uint64, c Config) Request {
	prompt := 1 + rng.IntN(c.MaxModelLen/2)
	r := Request{ID: id, PromptTokens: prompt, OutputTokens: 1 + rng.IntN(c.MaxModelLen/3)}
	if rng.IntN(5) > 0 {
		full := prompt / c.BlockSize
		shared := rng.IntN(full + 1)
		r.Blocks = append(chainOf(rng.Uint64N(4), shared), chainOf(id*1e6, full-shared)...)
	}
	return r
}

// A run depends on nothing but its configuration and calls; another seed gives other durations.
func TestSameSeedSameRun(t *testing.T) {
	for name, cfg := range shapes() {
		run := func(seed uint64) string {
			cfg.Seed = seed
			return transcript(t, start(t, cfg))
		}
		if diff := cmp.Diff(run(1), run(1)); diff != "" {
			t.Errorf("%s: two runs differ: %s", name, diff)
		}
		if run(1) == run(2) {
			t.Errorf("%s: seeds 1 and 2 give the same run", name)
		}
	}
}

// transcript is a digest of everything a run reports.
func transcript(t *testing.T, e *Engine) string {
	t.Helper()
	h := fnv.New64a()
	rng := rand.New(rand.NewPCG(3, 3))
	for id := range uint64(25) {
		submit(t, e, randomRequest(rng, id, e.cfg))
	}
	for {
		d, evs := e.Step(nil)
		if d == 0 {
			return fmt.Sprintf("%x after %+v", h.Sum64(), e.Stats())
		}
		fmt.Fprintln(h, d, evs)
	}
}

// A reset engine is a new one, even in the middle of work.
func TestResetIsARestart(t *testing.T) {
	for name, cfg := range shapes() {
		e := start(t, cfg)
		want := transcript(t, e)
		submit(t, e, Request{ID: 1000, PromptTokens: 100, OutputTokens: 100}, Request{ID: 1001, PromptTokens: 100, OutputTokens: 100})
		step(t, e)
		e.Reset()
		if diff := cmp.Diff(Stats{NumBlocks: e.cfg.NumBlocks}, e.Stats()); diff != "" {
			t.Errorf("%s: stats after reset: %s", name, diff)
		}
		if got := transcript(t, e); got != want {
			t.Errorf("%s: the run after a reset differs from the first", name)
		}
	}
}

// Quiet leaves events out and changes nothing else.
func TestQuietRunsTheSame(t *testing.T) {
	for name, cfg := range shapes() {
		summary := func(quiet bool) string {
			cfg.Quiet = quiet
			e := start(t, cfg)
			rng := rand.New(rand.NewPCG(5, 5))
			for id := range uint64(40) {
				submit(t, e, randomRequest(rng, id, e.cfg))
			}
			marks := ""
			told := map[uint64]int{}
			for {
				d, evs := e.Step(nil)
				if d == 0 {
					return marks
				}
				for _, ev := range evs {
					told[ev.ID] += ev.Tokens
					if ev.First || ev.Preempted || ev.Finished {
						ev.Tokens = told[ev.ID]
						marks += fmt.Sprintf("%d:%+v ", e.Stats().Busy, ev)
					}
				}
			}
		}
		if loud, quiet := summary(false), summary(true); loud != quiet {
			t.Errorf("%s: loud and quiet runs differ:\n%s\n%s", name, loud, quiet)
		}
	}
}
