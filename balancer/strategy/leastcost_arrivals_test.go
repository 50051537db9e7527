package strategy

import (
	"math"
	"testing"
	"time"

	"lbd/balancer"
)

// Tokens take a decode step, stretched by the prefills that were sent to the replica of late. One prompt counts up to a
// bound, and what has come fades.
func TestPerToken(t *testing.T) {
	p, rs := costs(false), replicas(t, 1)
	full(rs[0], 0, 0)
	q := &balancer.Request{PromptTokens: 10_000, OutputTokens: 100, Stream: true, Now: msec(0)}
	first := p.Place(q, rs)
	pre := prior.PerToken*10_000 + prior.PerPair*10_000*5_000
	near(t, "share of one", term(t, p, q, rs, 0, "prefill_share"), pre/2000, 1e-6)
	q.PromptTokens = 100_000
	second := p.Place(q, rs)
	share := (pre + arrivalMost) / 2000
	near(t, "share with a long one", term(t, p, q, rs, 0, "prefill_share"), share, 1e-6)

	q.PromptTokens = 1000
	step := prior.Step + 3*prior.PerSequence + prior.PerResident*(10_000+100_000+1000+50)
	near(t, "per token", term(t, p, q, rs, 0, "per_token"), growth*step/(1-share), 1e-6)
	q.Now = msec(2000)
	near(t, "share after 2 s", term(t, p, q, rs, 0, "prefill_share"), share/math.E, 1e-6)
	q.Now = time.Time{}
	near(t, "share without a time", term(t, p, q, rs, 0, "prefill_share"), 0, 0)

	q.Now = msec(0)
	var others []balancer.Reservation
	for range 10 {
		others = append(others, p.Place(&balancer.Request{PromptTokens: 100_000, OutputTokens: 1, Stream: true, Now: msec(0)}, rs))
	}
	near(t, "share of more than there is", term(t, p, q, rs, 0, "prefill_share"), mostShare, 0)
	for _, v := range append(others, first, second) {
		v.End(balancer.Finished, msec(100))
	}
}

// Who would not see slow tokens is not told of them, and where nothing runs nobody is: the first one shows how fast it is.
func TestWhoseTokensArePredicted(t *testing.T) {
	p, rs := costs(true), replicas(t, 1)
	full(rs[0], 0, 0)
	now := 0.0
	tpot := func(stream bool, most int) time.Duration {
		d, ok := p.Predict(&balancer.Request{PromptTokens: 100, MaxTokens: most, Stream: stream, Now: msec(now)}, rs)
		if !ok {
			t.Error("no prediction")
		}
		return d.TPOT
	}
	place := func() balancer.Reservation {
		v := p.Place(&balancer.Request{PromptTokens: 100, Stream: true, Now: msec(now)}, rs)
		v.FirstToken(msec(now + 10))
		return v
	}
	if d := tpot(true, -1); d != 0 {
		t.Errorf("%v predicted at a replica that runs nothing", d)
	}
	v := place()
	for range 100 { // it is slow
		now += 200
		v.Tokens(1, msec(now))
	}
	if d := tpot(true, -1); d < 100*time.Millisecond {
		t.Errorf("%v predicted where a token takes 200 ms", d)
	}
	if tpot(false, -1) != 0 || tpot(true, 1) != 0 {
		t.Error("tokens predicted of an answer that does not stream, or has none after the first")
	}
	v.End(balancer.Finished, msec(now))
	if d := tpot(true, -1); d != 0 {
		t.Errorf("%v predicted at a replica that runs nothing", d)
	}
	v = place() // it has recovered
	for range 3000 {
		now += 10
		v.Tokens(1, msec(now))
	}
	if d := tpot(true, -1); d > 50*time.Millisecond {
		t.Errorf("%v predicted where a token takes 10 ms again", d)
	}
	v.End(balancer.Finished, msec(now))
}
