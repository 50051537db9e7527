package strategy

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"lbd/balancer"
	"lbd/balancer/prefix"
)

// The strategy is what balancer.Model.Pick and POST /pick look for.
var (
	_ balancer.Placer    = (*leastCost)(nil)
	_ balancer.Explainer = (*leastCost)(nil)
	_ balancer.Predictor = (*leastCost)(nil)
	_ balancer.Tracker   = (*costTicket)(nil)
)

// costs is least-cost for tests: coefficients stay as they are unless learn says otherwise.
func costs(learn bool) *leastCost {
	o := seeded(1)
	o.LeastCost.Frozen = !learn
	return newLeastCost(o).(*leastCost)
}

// msec is virtual time in ms.
func msec(ms float64) time.Time { return time.Unix(1000, int64(ms*1e6)) }

// words is a prompt of n bytes.
func words(n int, seed uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, 99))
	b := []byte(`[{"role":"user","content":"`)
	for len(b) < n-2 {
		b = fmt.Appendf(b, "%x ", rng.Uint32N(1<<16))
	}
	return append(b[:n-2], `"}`...)
}

func term(t *testing.T, p *leastCost, q *balancer.Request, rs []*balancer.Replica, i int, name string) float64 {
	t.Helper()
	for _, v := range p.Explain(q, rs)[i] {
		if v.Name == name {
			return v.Value.Value
		}
	}
	t.Fatalf("no term %q", name)
	return 0
}

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if math.Abs(got-want) > tolerance*math.Abs(want)+1e-9 {
		t.Errorf("%s is %.4g, want %.4g", what, got, want)
	}
}

// full makes a replica that tells everything: others hold tokens of a cache of 100,000.
func full(r *balancer.Replica, requests, tokens float64) {
	r.EndPoll(r.BeginPoll(), balancer.Sample{
		Waiting: balancer.Known(0), Running: balancer.Known(requests),
		KVUsage: balancer.Known(tokens / 100_000), KVTokens: balancer.Known(100_000),
	}, msec(0))
}

func TestCostTerms(t *testing.T) {
	p, rs := costs(false), replicas(t, 1, 1)
	full(rs[0], 0, 0)
	full(rs[1], 20, 50_000)
	q := &balancer.Request{PromptTokens: 1000, OutputTokens: 100, Stream: true, Now: msec(0)}
	pre := prior.PerToken*1000 + prior.PerPair*1000*500
	step := prior.Step + prior.PerSequence*20 + prior.PerResident*50_000
	near(t, "prefill", term(t, p, q, rs, 0, "prefill"), pre, 1e-9)
	near(t, "first token when idle", term(t, p, q, rs, 0, "first_token"), prior.Overhead+pre+prior.Step, 1e-9)
	near(t, "first token when busy", term(t, p, q, rs, 1, "first_token"), prior.Overhead+pre+step, 1e-9)
	near(t, "decoding", term(t, p, q, rs, 1, "decode"), 100*(step+prior.PerSequence+prior.PerResident*1050), 1e-9)
	near(t, "stalls", term(t, p, q, rs, 1, "stalls"), 20*pre, 1e-9)
	near(t, "slowed", term(t, p, q, rs, 1, "slowed"), 20*100*(prior.PerSequence+prior.PerResident*1050), 1e-9)
	near(t, "stalls of nobody", term(t, p, q, rs, 0, "stalls"), 0, 0)
	near(t, "waste where nobody has the prompt", term(t, p, q, rs, 1, "waste"), 0, 0)
	near(t, "weight of others", term(t, p, q, rs, 0, "weight_of_others"), 0, 0)

	near(t, "weight of decoding", term(t, p, q, rs, 0, "weight_of_decoding"), 0, 0)

	// 8 seconds of prefill on one of two replicas are sixteen times the scale.
	long := &balancer.Request{PromptTokens: 200_000, OutputTokens: 1, Stream: true}
	res := rs[0].Place(balancer.Work{Prompt: 200_000, Uncached: 200_000, Pairs: 2e10, Prefill: 1}, new(balancer.Placement), &costTicket{p: p, st: p.states["r0:8000"]})
	near(t, "queue", term(t, p, long, rs, 0, "queue"), prior.PerToken*200_000+prior.PerPair*2e10, 1e-9)
	near(t, "weight of others when busy", term(t, p, q, rs, 0, "weight_of_others"), othersWeight, 0)
	near(t, "weight of decoding when busy", term(t, p, q, rs, 0, "weight_of_decoding"), 1, 0)
	if steps := term(t, p, q, rs, 0, "steps"); steps < 24*prior.Step {
		t.Errorf("steps %v of a queue of 25 steps", steps)
	}
	_ = res
}

// The first token is predicted at the replica that a pick chooses, and nothing is reserved by that.
func TestPredictionIsThatOfThePick(t *testing.T) {
	p, rs := costs(false), replicas(t, 1, 1)
	full(rs[0], 40, 90_000)
	full(rs[1], 2, 0)
	for _, r := range rs {
		held := r.Reserve()
		defer held.Done()
	}
	q := &balancer.Request{PromptTokens: 1000, OutputTokens: 100, Stream: true, Now: msec(0)}
	if r := p.Pick(q, rs); r != rs[1] {
		t.Fatal("the busy replica is picked; the test does not show what it is for")
	}
	first := func(rs []*balancer.Replica) float64 {
		d, ok := p.Predict(q, rs)
		if !ok {
			t.Error("no prediction")
		}
		near(t, "per token", float64(d.TPOT)/float64(time.Millisecond), term(t, p, q, rs, len(rs)-1, "per_token"), 1e-6)
		return float64(d.TTFT) / float64(time.Millisecond)
	}
	near(t, "first token", first(rs), term(t, p, q, rs, 1, "first_token"), 1e-6)
	near(t, "first token at the busy one", first(rs[:1]), term(t, p, q, rs[:1], 0, "first_token"), 1e-6)
	if n := rs[0].InFlight() + rs[1].InFlight(); n != 2 {
		t.Errorf("%d requests reserved; want the two from before", n)
	}
	if _, ok := p.Predict(q, nil); ok {
		t.Error("a prediction for no replica")
	}
	endless := &balancer.Request{PromptTokens: math.MaxInt64, OutputTokens: 1, Now: msec(0)}
	if d, ok := p.Predict(endless, rs); ok && d.TTFT <= 0 {
		t.Errorf("a prompt without end is predicted after %v", d)
	}
	if !testing.Short() && !raceEnabled {
		if n := testing.AllocsPerRun(100, func() { p.Predict(q, rs) }); n != 0 {
			t.Errorf("%v allocations; want none", n)
		}
	}
}

// Where part of the prompt is cached somewhere, decoding counts as far, and computing it again counts as a delay of all.
func TestCostOfWaste(t *testing.T) {
	p, rs := costs(false), replicas(t, 1, 1)
	full(rs[0], 10, 0)
	full(rs[1], 30, 0)
	q := &balancer.Request{Blocks: []uint64{1, 2, 3}, BlockTokens: 1024, PromptTokens: 4096, OutputTokens: 100, Stream: true, Now: msec(0)}
	p.Pick(q, rs) // or the second one would start slowly
	home := p.Place(q, rs[:1])
	home.FirstToken(msec(100))
	near(t, "weight of decoding", term(t, p, q, rs, 0, "weight_of_decoding"), 0.75, 1e-9)
	near(t, "waste at home", term(t, p, q, rs, 0, "waste"), 0, 0)
	again := prior.PerToken*3072 + prior.PerPair*(4096*2048-1024*(4096-512))
	near(t, "waste elsewhere", term(t, p, q, rs, 1, "waste"), (11.+30)/2*again, 1e-9)
	near(t, "jam", term(t, p, q, rs, 1, "jam"), 30*prior.Overhead, 1e-9)
	total := term(t, p, q, rs, 1, "first_token") + 0.75*(term(t, p, q, rs, 1, "decode")+jamWeight*term(t, p, q, rs, 1, "jam")) +
		wasteWeight*term(t, p, q, rs, 1, "waste")
	near(t, "cost", term(t, p, q, rs, 1, "cost"), total, 1e-9)
	home.Done()
	// Nothing of another prompt is cached anywhere: its decoding does not count while the fleet is calm.
	q.Blocks = []uint64{4, 5, 6}
	near(t, "cost of a new prompt", term(t, p, q, rs, 1, "cost"), term(t, p, q, rs, 1, "first_token"), 1e-9)
}

// A nearly full KV cache is load too.
func TestFillIsLoad(t *testing.T) {
	p, rs := costs(false), replicas(t, 1, 1)
	q := &balancer.Request{PromptTokens: 100, OutputTokens: 1, Stream: true, Now: msec(0)}
	for _, c := range []struct{ fill, w float64 }{{0.2, 0}, {0.7, 0}, {0.85, 0.5}, {1, 1}} {
		full(rs[0], 10, c.fill*100_000)
		full(rs[1], 10, c.fill*100_000)
		near(t, "weight of others", term(t, p, q, rs, 0, "weight_of_others"), c.w*othersWeight, 1e-9)
		near(t, "weight of decoding", term(t, p, q, rs, 0, "weight_of_decoding"), c.w, 1e-9)
	}
}

// What prefills hold others up counts little until more prompts wait than a fleet can catch up with, however long they take.
func TestCrowdsWeighStalls(t *testing.T) {
	for _, tokens := range []int{5_000, 50_000} {
		p, rs := costs(false), replicas(t, 1, 1)
		full(rs[0], 0, 0)
		full(rs[1], 0, 0)
		q := &balancer.Request{PromptTokens: tokens, OutputTokens: 100, Stream: true, Now: msec(0)}
		p.Pick(q, rs) // or the second one would start slowly
		for placed := range 4*crowd + 1 {
			want := othersWeight + (1-othersWeight)*min(max(float64(placed)/(2*crowd)-1, 0), 1)
			if got := term(t, p, q, rs, 0, "weight_of_others"); placed >= crowd && math.Abs(got-want) > 1e-9 {
				t.Errorf("%d prompts of %d tokens at two replicas: weight of others %v, want %v", placed, tokens, got, want)
			}
			got, left := term(t, p, q, rs, 0, "weight_of_jams"), (1-want)/(1-othersWeight)
			if placed >= crowd && math.Abs(got-jamWeight*left) > 1e-9 {
				t.Errorf("%d prompts of %d tokens at two replicas: weight of jams %v, want %v of it left", placed, tokens, got, left)
			}
			p.Place(q, rs)
		}
	}
}

// Short prompts make no crowd before they take a while, however many they are: they would be heaped on some replicas.
func TestShortPromptsAreNoCrowd(t *testing.T) {
	p, rs := costs(false), replicas(t, 1, 1)
	full(rs[0], 0, 0)
	full(rs[1], 0, 0)
	q := &balancer.Request{PromptTokens: 1000, OutputTokens: 100, Stream: true, Now: msec(0)}
	p.Pick(q, rs) // or the second one would start slowly
	each := 1000*prior.PerToken + prior.PerPair*1000*1000/2
	for placed := range 2 * int(2*prefillScale/1e6/each+1) {
		waits := float64(placed) * each / 2 * 1e6 / prefillScale
		want := othersWeight + (1-othersWeight)*min(max(waits-1, 0), 1)
		if got := term(t, p, q, rs, 0, "weight_of_others"); placed > 4*crowd && math.Abs(got-want) > 1e-9 {
			t.Errorf("%d prompts at two replicas, %.2f of a crowd: weight of others %v, want %v", placed, waits, got, want)
		}
		p.Place(q, rs)
	}
}

// Of two long prompts the second does not wait for the first because the other replica has more requests that could be
// held up: those can bear it. That was most of what first tokens at the 99th percentile had lost.
func TestLongPromptsPart(t *testing.T) {
	p, rs := costs(false), replicas(t, 1, 1)
	full(rs[0], 10, 0)
	full(rs[1], 16, 0)
	q := &balancer.Request{PromptTokens: 40_000, OutputTokens: 100, Stream: true, Now: msec(0)}
	first := p.Place(q, rs)
	second := p.Place(q, rs)
	if first.Replica() == second.Replica() {
		t.Errorf("both prompts of 40,000 tokens are at %s", first.Replica().ID)
	}
}

// Tokens that do not fit wait for those that run to end.
func TestCostOfAFullCache(t *testing.T) {
	p, rs := costs(false), replicas(t, 1, 1)
	full(rs[0], 10, 95_000)
	full(rs[1], 10, 60_000)
	q := &balancer.Request{PromptTokens: 2000, OutputTokens: 100, Stream: true, Now: msec(0)}
	if w := term(t, p, q, rs, 0, "kv_wait"); w < 100 {
		t.Errorf("waits %v ms for 7,100 tokens of 95,000", w)
	}
	if w := term(t, p, q, rs, 1, "kv_wait"); w != 0 {
		t.Errorf("waits %v ms although it fits", w)
	}
	if r := p.Pick(q, rs); r != rs[1] {
		t.Error("picked the replica without room")
	}
	// The same without a known capacity: no wait is made up, none is ruled out.
	poll(rs[0], 0, 10)
	if w := term(t, p, q, rs, 0, "kv_wait"); w != 0 {
		t.Errorf("waits %v ms in a cache of unknown size", w)
	}
}

// A prefix is worth what computing it would take, from when it was sent.
func TestCostOfAPrefix(t *testing.T) {
	p, rs := costs(false), replicas(t, 1, 1, 1)
	for _, r := range rs {
		full(r, 0, 0)
	}
	prompt := words(40_000, 1)
	q := &balancer.Request{Model: "m", Prompt: prompt, Stream: true, Now: msec(0)}
	home := p.Place(q, rs)
	near(t, "cached before the first token", term(t, p, q, rs, slices.Index(rs, home.Replica()), "cached_tokens"), 40_000/usualBytes, 0.05)
	home.FirstToken(msec(300))
	r := home.Replica()
	home.End(balancer.Finished, msec(900))
	// The next turn is longer.
	q.Prompt = append(slices.Clone(prompt), bytes.ReplaceAll(words(4000, 2), []byte("["), []byte(","))...)
	i := slices.Index(rs, r)
	L := term(t, p, q, rs, i, "prompt_tokens")
	near(t, "prompt", L, 44_000/usualBytes, 0.01)
	near(t, "cached", term(t, p, q, rs, i, "cached_tokens"), 40_000/usualBytes, 0.05)
	for range 20 {
		if p.Pick(q, rs) != r {
			t.Fatal("picked a replica without the prefix")
		}
	}
	// A queue there that takes longer than computing it again.
	busy := p.Place(&balancer.Request{PromptTokens: 60_000, Stream: true}, rs[i:i+1])
	if p.Pick(q, rs) == r {
		t.Error("picked the replica with the prefix and a queue of 2.7 seconds")
	}
	busy.Done()
	// Another process has nothing.
	r.Restarted()
	full(r, 0, 0)
	if c := term(t, p, q, rs, i, "cached_tokens"); c != 0 {
		t.Errorf("%v tokens count as cached after a restart", c)
	}
}

// Given blocks count in their own tokens.
func TestCostOfGivenBlocks(t *testing.T) {
	p, rs := costs(false), replicas(t, 1, 1)
	q := &balancer.Request{Blocks: []uint64{1, 2, 3, 4, 5}, BlockTokens: 512, PromptTokens: 2600, Stream: true, Now: msec(0)}
	home := p.Place(q, rs)
	home.FirstToken(msec(60))
	i := slices.Index(rs, home.Replica())
	near(t, "cached", term(t, p, q, rs, i, "cached_tokens"), 2560, 0)
	q.PromptTokens = 2560 // the last token is always computed
	near(t, "cached of all", term(t, p, q, rs, i, "cached_tokens"), 2544, 0)
	home.Done()
}

// What is under way is partly done, but a replica that hangs does not become idle by that.
func TestPrefillProgress(t *testing.T) {
	p, rs := costs(false), replicas(t, 1)
	p.opt.Progress = true
	res := p.Place(&balancer.Request{PromptTokens: 40_000, Stream: true, Now: msec(0)}, rs)
	all := prior.PerToken*40_000 + prior.PerPair*8e8 // 1.5 s
	for _, c := range []struct{ at, left float64 }{{0, all}, {500, all - 500}, {all, 0}, {2 * all, all}, {1e6, all}} {
		q := &balancer.Request{PromptTokens: 10, Now: msec(c.at)}
		if got := term(t, p, q, rs, 0, "queue"); math.Abs(got-c.left) > 1 {
			t.Errorf("after %.0f ms %.0f ms are left, want %.0f", c.at, got, c.left)
		}
	}
	res.Done()
	near(t, "queue after the end", term(t, p, &balancer.Request{Now: msec(1)}, rs, 0, "queue"), 0, 0)
}

// Replicas on one device are in each other's way, whatever models they serve.
func TestSharedDevice(t *testing.T) {
	rs := replicas(t, 1, 1, 1)
	for i := range rs {
		rs[i] = rs[i].With([]string{"gpu0", "gpu0", "gpu1"}[i], 1)
	}
	balancer.ShareDevices(rs)
	other, p := costs(false), costs(false)
	neighbour := other.Place(&balancer.Request{PromptTokens: 8000, Stream: true, Now: msec(0)}, rs[1:2])
	mine := []*balancer.Replica{rs[0], rs[2]}
	q := &balancer.Request{PromptTokens: 100, Stream: true, Now: msec(0)}
	near(t, "queue beside a busy neighbour", term(t, p, q, mine, 0, "queue"), milliseconds(rs[1].PrefillTime()), 1e-6)
	if p.Pick(q, mine) != rs[2] {
		t.Error("picked the busy device")
	}
	neighbour.FirstToken(msec(200))
	if step := term(t, p, q, mine, 0, "decode_step"); step < 2*prior.Step {
		t.Errorf("decode step %v ms beside a neighbour that decodes", step)
	}
	neighbour.Done()
	near(t, "queue beside nobody", term(t, p, q, mine, 0, "queue"), 0, 0)
}

// The first requests to a fleet nobody knows are spread evenly, and a replica that joins later gets few at first.
func TestColdStart(t *testing.T) {
	p, rs := costs(true), replicas(t, even(4)...)
	counts := make(map[*balancer.Replica]int)
	for range 40 {
		res := p.Place(&balancer.Request{PromptTokens: 500, Stream: true, Now: msec(0)}, rs)
		counts[res.Replica()]++
		defer res.Done()
	}
	for _, r := range rs {
		if counts[r] < 8 || counts[r] > 12 {
			t.Errorf("%s got %d of 40", r.ID, counts[r])
		}
	}
	joined := replicas(t, even(5)...)
	rs = append(rs, joined[4])
	n := 0
	for range 20 {
		res := p.Place(&balancer.Request{PromptTokens: 10, OutputTokens: 1, Stream: true, Now: msec(0)}, rs)
		if res.Replica() == joined[4] {
			n++
		}
		defer res.Done()
	}
	if n == 0 || n == 20 {
		t.Errorf("the replica that joined got %d of 20", n)
	}
}

// A replica that fails at once looks idle: each failure makes it dearer, an answer forgives.
func TestFailuresCost(t *testing.T) {
	p, rs := costs(false), replicas(t, 1, 1)
	q := &balancer.Request{PromptTokens: 100, Stream: true, Now: msec(0)}
	for range 3 {
		res := p.Place(q, rs[:1])
		res.End(balancer.Failed, msec(0))
	}
	near(t, "penalty", term(t, p, q, rs, 0, "penalty"), 4*firstPenalty, 1e-9)
	later := &balancer.Request{PromptTokens: 100, Stream: true, Now: msec(5000)}
	near(t, "penalty after a half-life", term(t, p, later, rs, 0, "penalty"), 2*firstPenalty, 1e-9)
	if p.Pick(q, rs) != rs[1] {
		t.Error("picked the one that fails")
	}
	res := p.Place(q, rs[:1])
	res.End(balancer.Finished, msec(100))
	near(t, "penalty after an answer", term(t, p, q, rs, 0, "penalty"), 0, 0)
}

// An answer that does not stream shows no first token: its prefill ends when it should have.
func TestNonStreamingPrefillExpires(t *testing.T) {
	p, rs := costs(false), replicas(t, 1, 1)
	q := &balancer.Request{Model: "m", Prompt: words(20_000, 3), Now: msec(0)}
	first, second := p.Place(q, rs[:1]), p.Place(q, rs[:1])
	if rs[0].PrefillTokens() == 0 {
		t.Fatal("nothing was reserved")
	}
	p.Pick(&balancer.Request{Now: msec(50)}, rs)
	if rs[0].PrefillTokens() == 0 {
		t.Error("the prefill ended too early")
	}
	p.Pick(&balancer.Request{Now: msec(10_000)}, rs)
	if n := rs[0].PrefillTokens(); n != 0 {
		t.Errorf("%d tokens of prefill after ten seconds", n)
	}
	if c := term(t, p, q, rs, 0, "cached_tokens"); c == 0 {
		t.Error("the prompt does not count as cached")
	}
	second.End(balancer.Finished, msec(11_000))
	third := p.Place(q, rs[:1])
	first.Done()
	third.Done()
	wantIdle(t, rs)
}

func wantIdle(t *testing.T, rs []*balancer.Replica) {
	t.Helper()
	for _, r := range rs {
		if r.InFlight() != 0 || r.Pending() != 0 || r.PrefillTokens() != 0 || r.PrefillPairs() != 0 || r.PrefillTime() != 0 || r.Resident() != 0 {
			t.Errorf("%s: in flight %d, pending %d, prefill %d tokens, %d pairs, %v, resident %d; want 0", r.ID,
				r.InFlight(), r.Pending(), r.PrefillTokens(), r.PrefillPairs(), r.PrefillTime(), r.Resident())
		}
	}
}

// However requests end, on how many goroutines, all that was reserved is given back: run with -race.
func TestReservationsAreZeroSum(t *testing.T) {
	p, rs := costs(true), replicas(t, even(6)...)
	m := &balancer.Model{Name: "m", Picker: p, Replicas: rs, Available: rs}
	prompts := [][]byte{words(300, 1), words(5000, 2), words(30_000, 3), nil}
	var wg sync.WaitGroup
	for g := range uint64(4) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(g, 5))
			var open []balancer.Reservation
			now := 0.0
			for range 1500 {
				now += rng.Float64() * 20
				q := &balancer.Request{Model: "m", Prompt: prompts[rng.IntN(len(prompts))], Stream: rng.IntN(3) > 0, Now: msec(now), MaxTokens: rng.IntN(300) - 1}
				res, err := m.Pick(q, nil)
				if err != nil {
					t.Error(err)
					return
				}
				switch rng.IntN(6) {
				case 0: // refused: another one is tried
					tried := []*balancer.Replica{res.Replica()}
					res.End(balancer.Failed, msec(now))
					if res, err = m.Pick(q, tried); err != nil || res.Replica() == tried[0] {
						t.Error("the retry went wrong")
						return
					}
				case 1: // gone before the first token
					res.Done()
					continue
				}
				open = append(open, res)
				if rng.IntN(2) == 0 {
					v := &open[rng.IntN(len(open))]
					v.FirstByte()
					v.FirstToken(msec(now))
					v.Tokens(rng.IntN(100), msec(now+5))
				}
				if rng.IntN(50) == 0 {
					r := rs[rng.IntN(len(rs))]
					r.Restarted()
				}
				if len(open) > 20 {
					v := &open[0]
					v.Usage(balancer.Usage{Prompt: rng.IntN(9000), Completion: rng.IntN(900), Cached: rng.IntN(900) - 1})
					v.End(balancer.Ending(rng.IntN(3)), msec(now))
					open = open[1:]
				}
			}
			for i := range open {
				open[i].Done()
			}
		})
	}
	var polls sync.WaitGroup
	stop := make(chan struct{})
	polls.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				full(rs[i%len(rs)], float64(i%9), float64(i%7)*1000)
			}
		}
	})
	wg.Wait()
	close(stop)
	polls.Wait()
	wantIdle(t, rs)
	for _, st := range p.states {
		if st.unseen.head != nil || st.unseen.tail != nil || st.unseen.earliest.Load() != 0 {
			t.Errorf("%s: expiries are left", st.id)
		}
	}
}

// Replicas that come and go do not pile up, and one that stays away keeps its place in the index while it may come back.
func TestForgetsReplicas(t *testing.T) {
	o := seeded(1)
	o.Prefixes = prefix.New(prefix.Config{Bytes: 1 << 16})
	p := newLeastCost(o).(*leastCost)
	for i := range 3000 {
		var rs []*balancer.Replica
		for j := range 4 {
			rs = append(rs, balancer.NewReplica(balancer.Endpoint{Addr: fmt.Sprintf("10.0.%d.%d:8000", i, j)}, "", 1))
		}
		res := p.Place(&balancer.Request{PromptTokens: 10}, rs)
		res.Done()
	}
	if n := len(p.states); n > 200 {
		t.Errorf("%d replicas are remembered", n)
	}
	if o.Prefixes.Owner("one more") == nil {
		t.Error("the index is full of replicas that are gone")
	}
}

// Reloads that change a replica's weight give it another pointer and leave nothing behind.
func TestForgetsEarlierDescriptions(t *testing.T) {
	p, rs := costs(false), replicas(t, 1, 1)
	for i := range 3000 {
		rs[0] = rs[0].With("", 1+i%2)
		res := p.Place(&balancer.Request{PromptTokens: 10}, rs)
		defer res.Done()
	}
	if n := len(*p.known.Load()); n > 200 {
		t.Errorf("%d descriptions of two replicas are remembered", n)
	}
	if n := len(p.states); n != 2 {
		t.Errorf("%d states, want one per replica", n)
	}
}

// A strategy that is given up, with its model, gives its places in a shared index back.
func TestLeavesTheIndex(t *testing.T) {
	o := seeded(1)
	o.Prefixes = prefix.New(prefix.Config{Bytes: 1 << 16})
	for i := range prefix.MaxOwners {
		p := newLeastCost(o)
		res := p.(balancer.Placer).Place(&balancer.Request{PromptTokens: 10}, []*balancer.Replica{
			balancer.NewReplica(balancer.Endpoint{Addr: fmt.Sprintf("10.0.0.%d:8000", i)}, "", 1),
		})
		res.Done()
	}
	for range 100 {
		runtime.GC() // pools are empty after the second one, and cleanups run beside
		if one := o.Prefixes.Owner("one more"); one != nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the index is full of replicas of strategies that are gone")
}

// A replica that lies about usage makes neither lengths that overflow nor ones that stay.
func TestUsageThatLies(t *testing.T) {
	const lie = 999_999_999_999
	prompt := words(8400, 1)
	answer := func(p *leastCost, rs []*balancer.Replica, u balancer.Usage) {
		res := p.Place(&balancer.Request{Model: "m", Prompt: prompt, Stream: true, MaxTokens: -1, Now: msec(0)}, rs)
		if r := res.Replica(); r.PrefillTokens() < 0 || r.PrefillPairs() < 0 || r.PrefillTime() < 0 || r.Resident() < 0 {
			t.Errorf("own work is %d tokens, %d pairs, %v, %d resident", r.PrefillTokens(), r.PrefillPairs(), r.PrefillTime(), r.Resident())
		}
		res.FirstToken(msec(100))
		res.Usage(u)
		res.End(balancer.Finished, msec(2000))
	}
	honest := balancer.Usage{Prompt: 2100, Completion: 300, Cached: -1}
	for _, c := range []struct {
		name   string
		before int
		lie    balancer.Usage
	}{
		{"first", 0, balancer.Usage{Prompt: lie, Completion: lie, Cached: lie}},
		{"tiny", 300, balancer.Usage{Prompt: 1, Completion: 1, Cached: 0}},
		{"late", 300, balancer.Usage{Prompt: lie, Completion: lie, Cached: lie}},
	} {
		p, rs := costs(true), replicas(t, 1, 1)
		for range c.before {
			answer(p, rs, honest)
		}
		answer(p, rs, c.lie)
		if c.before > 0 {
			q := &balancer.Request{Model: "m", Prompt: prompt, MaxTokens: -1}
			if n := term(t, p, q, rs, 0, "output_tokens"); n > 601 {
				t.Errorf("%s: answers are taken for %.0f tokens after one report", c.name, n)
			}
			if n := term(t, p, q, rs, 0, "prompt_tokens"); n < 1000 || n > 4500 {
				t.Errorf("%s: the prompt is taken for %.0f tokens after one report", c.name, n)
			}
		}
		for range 10 {
			answer(p, rs, honest)
		}
		wantIdle(t, rs)
	}
}

func TestTextBytes(t *testing.T) {
	text := words(60_000, 1)
	near(t, "text", textBytes(text), 60_000, 0.05)
	rng := rand.New(rand.NewPCG(1, 1))
	image := make([]byte, 600_000)
	for i := range image {
		image[i] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[rng.IntN(64)]
	}
	mixed := slices.Concat(text, []byte(`{"image_url":{"url":"data:image/png;base64,`), image, []byte(`"}}`))
	if got := textBytes(mixed); got > 100_000 || got < 20_000 {
		t.Errorf("%.0f bytes of text beside an image, want about 60,000", got)
	}
	near(t, "Chinese", textBytes(bytes.Repeat([]byte("负载均衡"), 2000)), 24_000, 0)
	near(t, "little", textBytes(image[:5000]), 5000, 0)
}

func TestLengthsAreLearned(t *testing.T) {
	p, rs := costs(true), replicas(t, 1)
	prompt := words(8400, 1) // 2,100 tokens at 4 bytes, 2,800 at 3
	for range 50 {
		for _, c := range []struct{ limit, output int }{{100, 90}, {4000, 1200}} {
			res := p.Place(&balancer.Request{Model: "m", Prompt: prompt, Stream: true, MaxTokens: c.limit, Now: msec(0)}, rs)
			res.FirstToken(msec(100))
			res.Usage(balancer.Usage{Prompt: 2800, Completion: c.output, Cached: -1})
			res.End(balancer.Finished, msec(2000))
		}
	}
	near(t, "prompt", term(t, p, &balancer.Request{Model: "m", Prompt: prompt, MaxTokens: 100}, rs, 0, "prompt_tokens"), 2800, 0.01)
	near(t, "short answers", term(t, p, &balancer.Request{MaxTokens: 100}, rs, 0, "output_tokens"), 90, 0.01)
	near(t, "long answers", term(t, p, &balancer.Request{MaxTokens: 3000}, rs, 0, "output_tokens"), 1200, 0.01)
	near(t, "the limit holds", term(t, p, &balancer.Request{MaxTokens: 70}, rs, 0, "output_tokens"), 70, 0.01)
}
