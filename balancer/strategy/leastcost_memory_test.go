package strategy

import (
	"testing"

	"lbd/balancer"
)

// use has a replica tell how many tokens of a cache of 100,000 are in use.
func use(r *balancer.Replica, tokens float64) {
	r.EndPoll(r.BeginPoll(), balancer.Sample{
		Waiting: balancer.Known(0), Running: balancer.Known(float64(max(r.InFlight(), 1))),
		KVUsage: balancer.Known(tokens / 100_000), KVTokens: balancer.Known(100_000),
	}, msec(0))
}

// Requests that begin with the same cached prompt hold it together: its blocks count once, however many they are.
func TestSharedPrefixesCountOnce(t *testing.T) {
	p, rs := costs(false), replicas(t, 1)
	use(rs[0], 0)
	q := &balancer.Request{Blocks: []uint64{1, 2, 3, 4, 5, 6}, BlockTokens: 1000, PromptTokens: 6100, OutputTokens: 1, Stream: true, Now: msec(0)}
	var open []balancer.Reservation
	for range 20 { // contexts of 122,000 tokens in a cache of 100,000
		res := p.Place(q, rs)
		res.FirstToken(msec(100))
		open = append(open, res)
	}
	if rs[0].Resident() != 20*6100 {
		t.Fatalf("contexts of %d tokens, want 122,000", rs[0].Resident())
	}
	const held = 6100 + 19*100
	near(t, "held", term(t, p, q, rs, 0, "kv_used_tokens"), held, 0.01)
	near(t, "wait", term(t, p, q, rs, 0, "kv_wait"), 0, 0)
	// The one that computed the prompt ends: the blocks stay in use, and the next poll tells.
	open[0].End(balancer.Finished, msec(200))
	use(rs[0], held-100)
	near(t, "held after the first has ended", term(t, p, q, rs, 0, "kv_used_tokens"), held-100, 0.01)
	near(t, "room", term(t, p, q, rs, 0, "prefix_cache_tokens"), 100_000-held+100, 0.01)
	for i := range open[1:] {
		open[1+i].End(balancer.Finished, msec(300))
	}
	use(rs[0], 0)
	p.Pick(q, rs)
	if n := p.states[rs[0].ID].memory.shared.Load(); n != 0 {
		t.Errorf("%d tokens are shared by nobody", n)
	}
	wantIdle(t, rs)
}

// What the gauge shows beyond own tokens is others', or a prefix that was not cached after all.
func TestOccupationFollowsTheGauge(t *testing.T) {
	r := replicas(t, 1)[0]
	var m memory
	look := func(used float64, want float64) {
		t.Helper()
		use(r, used)
		m.poll(r, r.Polled())
		near(t, "held", m.held(r), want, 1e-9)
	}
	look(30_000, 30_000)
	look(40_000, 40_000)

	place := func(prompt, uncached int64) *balancer.Placement {
		pl := new(balancer.Placement)
		r.Place(balancer.Work{Prompt: prompt, Uncached: uncached}, pl, nil)
		m.shared.Add(prompt - uncached)
		return pl
	}
	first := place(10_000, 10_000)
	look(0, 10_000) // its prefill may not have begun
	first.EndPrefill()
	look(4000, 4000) // it has ended, so that more was cached than predicted
	place(10_000, 2000)
	look(6000, 8000)     // more of it was cached than predicted; 2,000 are still to be computed
	look(20_000, 20_000) // or nothing
	// A gauge that is no load of this replica is left out.
	m.poll(r, &balancer.Polled{Sample: r.Polled().Sample, Elastic: true})
	near(t, "held of an elastic pool", m.held(r), 12_000, 0)
}

// Requests with one new prompt that come together: once it is cheaper to wait for the one that computes it, they do.
func TestPromptsCountFromPlacement(t *testing.T) {
	p, rs := costs(false), replicas(t, even(4)...)
	for _, r := range rs {
		use(r, 0)
	}
	q := &balancer.Request{Model: "m", Prompt: words(80_000, 9), Stream: true, Now: msec(0)}
	var uncached int64
	for range 40 {
		p.Place(q, rs)
	}
	for _, r := range rs {
		uncached += r.PrefillTokens()
	}
	const one = 19_000
	if uncached > 5*one {
		t.Errorf("%d tokens are computed for 40 requests with the same %d", uncached, one)
	}
}
