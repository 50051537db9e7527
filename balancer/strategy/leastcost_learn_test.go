package strategy

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"lbd/balancer"
)

// samples feeds a regression with what a device of those ratios would show, with lognormal noise.
func feed(g *regression, truth vec, noise float64, n int, rng *rand.Rand, center vec, limit float64) vec {
	ratios := center
	for i := range n {
		tokens := math.Exp(rng.NormFloat64()*1.2 + 6.5)
		x := vec{prior.Overhead, prior.PerToken * tokens, prior.PerPair * tokens * tokens / 2}
		y := (x[0]*truth[0] + x[1]*truth[1] + x[2]*truth[2]) * math.Exp(rng.NormFloat64()*noise-noise*noise/2)
		if rng.IntN(50) == 0 {
			y *= 20 // a compile, a pause
		}
		if g.add(x, y, ratios, time.Unix(int64(i), 0)) {
			ratios = g.solve(center, limit)
		}
	}
	return ratios
}

// predict is what a prompt of so many tokens takes by those ratios.
func predict(r vec, tokens float64) float64 {
	return prior.Overhead*r[0] + prior.PerToken*tokens*r[1] + prior.PerPair*tokens*tokens/2*r[2]
}

// Coefficients that are off by 30 %, or by a factor, are found under noise.
func TestRegressionConverges(t *testing.T) {
	for _, truth := range []vec{{1, 1, 1}, {1.3, 0.7, 1.3}, {0.7, 1.3, 0.7}, {2, 2, 2}, {1, 0.4, 0.5}} {
		rng := rand.New(rand.NewPCG(1, 2))
		got := feed(&regression{}, truth, 0.3, 600, rng, vec{1, 1, 1}, replicaRange)
		for _, tokens := range []float64{100, 1000, 8000} {
			near(t, "prediction", predict(got, tokens), predict(truth, tokens), 0.2)
		}
	}
}

// Without news a regression stays with its center.
func TestRegressionStaysWithoutNews(t *testing.T) {
	g := &regression{}
	center := vec{2, 0.5, 1}
	for i, r := range g.solve(center, 3) {
		near(t, "ratio", r, center[i], 1e-9)
	}
	for i := range 100 { // always the same request: only their sum is known
		x := vec{7, 21.6, 0.4}
		if g.add(x, 40, center, time.Unix(int64(i), 0)) {
			center = g.solve(vec{2, 0.5, 1}, 3)
		}
	}
	near(t, "sum", center[0]*7+center[1]*21.6+center[2]*0.4, 40, 0.05)
	for i, r := range center {
		if r < []float64{2, 0.5, 1}[i]/3-1e-9 || r > []float64{2, 0.5, 1}[i]*3+1e-9 {
			t.Errorf("ratio %d is %v, beyond its range", i, r)
		}
	}
}

// A device that changes is followed, outliers are not, nonsense changes nothing.
func TestRegressionForgets(t *testing.T) {
	g, rng := &regression{}, rand.New(rand.NewPCG(3, 4))
	feed(g, vec{1, 1, 1}, 0.2, 1000, rng, vec{1, 1, 1}, replicaRange)
	got := feed(g, vec{2, 2, 2}, 0.2, 1500, rng, vec{1, 1, 1}, replicaRange)
	near(t, "prediction after a change", predict(got, 1000), 2*predict(vec{1, 1, 1}, 1000), 0.1)
	before := *g
	for _, y := range []float64{0, -1, math.NaN()} {
		if g.add(vec{1, 1, 1}, y, vec{1, 1, 1}, time.Time{}) {
			t.Errorf("took %v", y)
		}
	}
	if g.add(vec{}, 1, vec{1, 1, 1}, time.Time{}) || *g != before {
		t.Error("took a sample without features")
	}
	// What is always far off is the truth.
	g = &regression{}
	ratios := vec{1, 1, 1}
	for range 100 {
		if g.add(vec{1, 1, 1}, 3*30, ratios, time.Time{}) {
			ratios = g.solve(vec{1, 1, 1}, modelRange)
		}
	}
	near(t, "a device 30 times as slow", ratios[0]+ratios[1]+ratios[2], 90, 0.1)
}

// A whole fleet learns who is slow from first tokens and event gaps alone, and new replicas begin with what the model has
// learned.
func TestLearnsSpeeds(t *testing.T) {
	p, rs := costs(true), replicas(t, even(4)...)
	speed := map[*balancer.Replica]float64{rs[0]: 1, rs[1]: 1, rs[2]: 2, rs[3]: 2}
	rng := rand.New(rand.NewPCG(5, 6))
	now := 0.0
	for range 3000 {
		now += 400
		tokens := 200 + rng.IntN(6000)
		q := &balancer.Request{PromptTokens: tokens, OutputTokens: 32, Stream: true, Now: msec(now)}
		i := rng.IntN(4) // whatever is picked, all must be known
		res := p.Place(q, rs[i:i+1])
		k := speed[rs[i]]
		noise := math.Exp(rng.NormFloat64() * 0.25)
		first := now + k*noise*(predict(vec{1, 1, 1}, float64(tokens))+prior.Step)
		res.FirstToken(msec(first))
		for e := range 32 {
			res.Tokens(1, msec(first+float64(e+1)*k*(prior.Step+prior.PerSequence)))
		}
		res.End(balancer.Finished, msec(first+32*k*prior.Step))
	}
	for i, r := range rs {
		st := p.states[r.ID]
		got := predict(load(&st.prefill), 3000)
		near(t, "prefill of "+r.ID, got, speed[rs[i]]*predict(vec{1, 1, 1}, 3000), 0.15)
		near(t, "decode of "+r.ID, st.decode[0].load(), speed[rs[i]], 0.15)
	}
	joined := replicas(t, even(5)...)[4]
	p.Pick(&balancer.Request{}, append(rs, joined))
	near(t, "prefill of a new one", predict(load(&p.states[joined.ID].prefill), 3000), 1.5*predict(vec{1, 1, 1}, 3000), 0.25)
	counts := map[bool]int{}
	for range 100 {
		now += 1000
		counts[speed[p.Pick(&balancer.Request{PromptTokens: 3000, Stream: true, Now: msec(now)}, rs)] == 1]++
	}
	if counts[true] != 100 {
		t.Errorf("%d of 100 picks went to a fast replica", counts[true])
	}
}

// A first token that does not come makes a replica dear before it comes, and one that comes ends that; a client that gives up
// does not.
func TestOverdue(t *testing.T) {
	p, rs := costs(false), replicas(t, 1, 1)
	at := func(ms float64) *balancer.Request {
		return &balancer.Request{PromptTokens: 20, OutputTokens: 100, Stream: true, Now: msec(ms)}
	}
	p.Pick(at(0), rs) // or the second one would start slowly
	hung, left := p.Place(at(0), rs[:1]), p.Place(at(0), rs[:1])
	near(t, "overdue at first", term(t, p, at(0), rs, 0, "overdue"), 0, 0)
	if late := term(t, p, at(500), rs, 0, "overdue"); late < 300 || late > 500 {
		t.Errorf("%.0f ms overdue after 500", late)
	}
	left.End(balancer.Abandoned, msec(500))
	if late := term(t, p, at(1000), rs, 0, "overdue"); late < 800 {
		t.Errorf("%.0f ms overdue after 1,000: a client that leaves is no sign of life", late)
	}
	if p.Pick(at(1000), rs) != rs[1] {
		t.Error("picked the replica that hangs")
	}
	hung.FirstToken(msec(1000))
	near(t, "overdue after a first token", term(t, p, at(5000), rs, 0, "overdue"), 0, 0)
	hung.End(balancer.Finished, msec(5000))
	// What does not stream is late later.
	q := at(6000)
	q.Stream = false
	whole := p.Place(q, rs[:1])
	near(t, "overdue while an answer is made", term(t, p, at(6000+3*100*prior.Step), rs, 0, "overdue"), 0, 0)
	if late := term(t, p, at(60_000), rs, 0, "overdue"); late < 30_000 {
		t.Errorf("%.0f ms overdue after 54 s without an answer", late)
	}
	whole.End(balancer.Finished, msec(60_000))
	near(t, "overdue after an answer", term(t, p, at(70_000), rs, 0, "overdue"), 0, 0)
	for _, st := range p.states {
		if st.firsts.asked.Load() != 0 || st.ends.asked.Load() != 0 {
			t.Errorf("%s: %d first tokens and %d answers are waited for", st.id, st.firsts.asked.Load(), st.ends.asked.Load())
		}
	}
}

// How much slower a replica is than the others shows in whole answers too.
func TestLearnsFromWholeAnswers(t *testing.T) {
	p, rs := costs(true), replicas(t, 1, 1, 1)
	for i := range 60 {
		now := 1000 * float64(i)
		for k, r := range rs {
			res := p.Place(&balancer.Request{PromptTokens: 500, OutputTokens: 50, Now: msec(now)}, rs[k:k+1])
			took := 400.0
			if r == rs[1] {
				took *= 6
			}
			res.Usage(balancer.Usage{Prompt: 500, Completion: 50, Cached: -1})
			res.End(balancer.Finished, msec(now+took))
		}
	}
	if slow, usual := p.states[rs[1].ID].trust.load(), p.states[rs[0].ID].trust.load(); slow < 2*usual {
		t.Errorf("trust %.2f in the slow one and %.2f in a usual one", slow, usual)
	}
	for i := range 30 {
		if p.Pick(&balancer.Request{PromptTokens: 500, Now: msec(70_000 + float64(i))}, rs) == rs[1] {
			t.Fatal("picked the slow one")
		}
	}
}

// What is known of a replica that is not asked gets old, and what is beyond the range of ratios does so no later.
func TestForgetsWhoIsNotAsked(t *testing.T) {
	p, rs := costs(true), replicas(t, 1, 1)
	ask := func(i int, now, took float64) {
		res := p.Place(&balancer.Request{PromptTokens: 500, Stream: true, Now: msec(now)}, rs[i:i+1])
		res.FirstToken(msec(now + took))
		res.End(balancer.Finished, msec(now+took))
	}
	now := 0.0
	for i := range 60 {
		ask(0, now, 30)
		if i < 20 {
			ask(1, now, 30)
		} else {
			ask(1, now, 3000)
		}
		now += 200
	}
	q := &balancer.Request{PromptTokens: 500, Stream: true, Now: msec(now + 3000)}
	if ratio := term(t, p, q, rs, 1, "first_token") / term(t, p, q, rs, 0, "first_token"); ratio < 2 {
		t.Errorf("the slow one is taken to be %.1f times as slow", ratio)
	}
	for range 600 { // two minutes
		now += 200
		ask(0, now, 30)
	}
	q.Now = msec(now)
	first := [2]float64{term(t, p, q, rs, 0, "first_token"), term(t, p, q, rs, 1, "first_token")}
	if first[1]-first[0] > term(t, p, q, rs, 0, "doubt")+term(t, p, q, rs, 1, "doubt") {
		t.Errorf("first token in %.1f and %.1f ms: the one that nobody has asked for two minutes is surely slow", first[0], first[1])
	}
}

// Of replicas that may be equally fast the one with the fewest requests is picked, however they look.
func TestDoubtIsATie(t *testing.T) {
	p, rs := costs(true), replicas(t, 1, 1)
	q := &balancer.Request{PromptTokens: 500, Stream: true, Now: msec(0)}
	p.Pick(q, rs)
	learned := load(&p.states[rs[0].ID].prefill)
	p.states[rs[0].ID].learner.reset(scaled(learned, 0.9), vec{1, 1, 1})
	busy := p.Place(q, rs[:1])
	busy.FirstToken(msec(30))
	for range 20 {
		if p.Pick(q, rs) != rs[1] {
			t.Fatal("picked the busy one for a tenth that may be chance")
		}
	}
	p.states[rs[0].ID].learner.reset(scaled(learned, 0.3), vec{1, 1, 1})
	for range 20 {
		if p.Pick(q, rs) != rs[0] {
			t.Fatal("did not pick the one that is much faster")
		}
	}
	busy.Done()
	wantIdle(t, rs)
}
