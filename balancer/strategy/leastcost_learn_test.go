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
