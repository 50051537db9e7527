package engine

import (
	"testing"
)

// decodingBatch is an engine in which n requests decode for as long as a test cares, having no wish to finish.
func decodingBatch(t testing.TB, n int, quiet bool) *Engine {
	t.Helper()
	p := mustPreset(t, "llama-3.1-8b")
	p.MaxModelLen, p.NumBlocks = 1<<30, 1<<27
	e := start(t, Config{Model: &p, Quiet: quiet, PrefixCaching: flag(false), MaxNumSeqs: 1024})
	for id := range uint64(n) {
		submit(t, e, Request{ID: id, PromptTokens: 500 + int(id)*13, OutputTokens: 1 << 29})
	}
	for e.decodes < n {
		e.Step(nil)
	}
	return e
}

// A decode step allocates nothing, with the prefix cache taking up what it generates too.
func TestDecodeStepDoesNotAllocate(t *testing.T) {
	for _, quiet := range []bool{false, true} {
		for _, caching := range []bool{false, true} {
			e := start(t, Config{Quiet: quiet, PrefixCaching: &caching})
			for id := range uint64(64) {
				submit(t, e, Request{ID: id, PromptTokens: 500 + int(id), OutputTokens: 5000})
			}
			evs := make([]Event, 0, 256)
			for range 1200 { // the block table has grown to a size that does for the rest
				_, evs = e.Step(evs[:0])
			}
			if got := testing.AllocsPerRun(300, func() { _, evs = e.Step(evs[:0]) }); got != 0 {
				t.Errorf("quiet %v, caching %v: %v allocations per decode step, want 0", quiet, caching, got)
			}
		}
	}
}

func BenchmarkDecodeStep128(b *testing.B)      { benchmarkDecode(b, 128, false) }
func BenchmarkDecodeStep128Quiet(b *testing.B) { benchmarkDecode(b, 128, true) }

func benchmarkDecode(b *testing.B, n int, quiet bool) {
	e := decodingBatch(b, n, quiet)
	evs := make([]Event, 0, 2*n)
	b.ReportAllocs()
	for b.Loop() {
		_, evs = e.Step(evs[:0])
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "steps/s")
}

// BenchmarkRequests is a replay's view: 700-token prompts, half of them shared, 150 tokens out, some 100 running.
func BenchmarkRequests(b *testing.B) {
	e := start(b, Config{Quiet: true})
	const families = 50
	var heads [families][]uint64
	for i := range heads {
		heads[i] = chainOf(uint64(i), 22)
	}
	evs := make([]Event, 0, 256)
	id := uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		if err := e.Submit(Request{ID: id, PromptTokens: 700, OutputTokens: 150, Blocks: heads[id%families]}); err != nil {
			b.Fatal(err)
		}
		id++
		for e.running.n+e.waiting.n >= 100 {
			_, evs = e.Step(evs[:0])
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
	b.ReportMetric(float64(e.Stats().Steps)/float64(b.N), "steps/request")
}
