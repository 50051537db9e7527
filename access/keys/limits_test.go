package keys

import (
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// begun counts how many requests are let in at once.
func begun(c *Key, prompt int64) (n int, last Refusal) {
	for n < 10_000 {
		g, refused := c.Begin(time.Now(), prompt)
		if !refused.OK() {
			return n, refused
		}
		g.End(time.Now(), prompt)
		n++
	}
	return n, last
}

func TestRequestsPerMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := identify(t, set(t, entry("alice", aliceKey, Limits{RequestsPerMinute: 60})), aliceKey)
		n, refused := begun(key, 0)
		if n != 60 || refused.Reason != Requests || refused.RetryAfter <= 0 || refused.RetryAfter > time.Second {
			t.Fatalf("%d at once, then %s, again in %v; want 60, then requests, within 1s", n, refused.Reason, refused.RetryAfter)
		}
		time.Sleep(refused.RetryAfter)
		if n, _ := begun(key, 0); n != 1 {
			t.Errorf("%d after the time that was told; want 1", n)
		}
		time.Sleep(10 * time.Second)
		if n, _ := begun(key, 0); n != 10 {
			t.Errorf("%d after 10s; want 10", n)
		}
		time.Sleep(time.Hour)
		if n, _ := begun(key, 0); n != 60 {
			t.Errorf("%d after an hour; want one minute's worth", n)
		}
	})
}

func TestMaxInFlight(t *testing.T) {
	key := identify(t, set(t, entry("alice", aliceKey, Limits{MaxInFlight: 2, RequestsPerMinute: 5})), aliceKey)
	now := time.Now()
	a, _ := key.Begin(now, 1)
	b, refused := key.Begin(now, 1)
	if !refused.OK() {
		t.Fatal(refused.Reason)
	}
	for range 10 { // these are not charged
		if _, refused := key.Begin(now, 1); refused.Reason != InFlight || refused.RetryAfterSeconds() != 1 {
			t.Fatalf("%s", refused.Reason)
		}
	}
	a.End(now, 0)
	c, refused := key.Begin(now, 1)
	if !refused.OK() {
		t.Errorf("after one ended: %s", refused.Reason)
	}
	b.End(now, 0)
	c.End(now, 0)
	if n := key.usage.inFlight.Load(); n != 0 {
		t.Errorf("%d in flight", n)
	}
}

// Usage is what counts: it is known at the end only, and may be more or less than
// was taken beforehand.
func TestTokensPerMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := identify(t, set(t, entry("alice", aliceKey, Limits{TokensPerMinute: 6000, RequestsPerMinute: 1000})), aliceKey)
		g, refused := key.Begin(time.Now(), 6000)
		if !refused.OK() {
			t.Fatal(refused.Reason)
		}
		if _, refused := key.Begin(time.Now(), 100); refused.Reason != Tokens || refused.RetryAfter.Round(time.Millisecond) != time.Second {
			t.Errorf("beside a prompt that takes all: %s, again in %v; want tokens, 1s", refused.Reason, refused.RetryAfter)
		}
		g.End(time.Now(), 600) // it was cheaper: 5400 are back
		g, refused = key.Begin(time.Now(), 5400)
		if !refused.OK() {
			t.Fatalf("what was given back is not there: %s", refused.Reason)
		}
		g.End(time.Now(), 5400+12000) // it generated two minutes' worth
		_, refused = key.Begin(time.Now(), 1)
		if wait := refused.RetryAfter; refused.Reason != Tokens || wait < 2*time.Minute || wait > 2*time.Minute+time.Second {
			t.Errorf("with a debt: %s, again in %v; want tokens, 2m", refused.Reason, wait)
		}
		time.Sleep(refused.RetryAfter)
		if _, refused := key.Begin(time.Now(), 1); !refused.OK() {
			t.Errorf("the debt is paid: %s", refused.Reason)
		}
	})
}

// A refusal for tokens costs no request.
func TestTokensRefusedAreNoRequests(t *testing.T) {
	key := identify(t, set(t, entry("alice", aliceKey, Limits{TokensPerMinute: 10, RequestsPerMinute: 3, MaxInFlight: 1})), aliceKey)
	now := time.Now()
	g, _ := key.Begin(now, 10)
	g.End(now, 10)
	for range 20 {
		if _, refused := key.Begin(now, 1); refused.Reason != Tokens {
			t.Fatalf("%s", refused.Reason)
		}
	}
	if full := key.usage.requests.full.Load() - key.keys.clock(now); full != price(1, 3) {
		t.Errorf("%v of the requests' minute are used; want that of one", time.Duration(full))
	}
}

// A prompt larger than a minute's worth is let in when the bucket is full, or it
// never would be.
func TestPromptLargerThanTheBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := identify(t, set(t, entry("alice", aliceKey, Limits{TokensPerMinute: 1000})), aliceKey)
		g, refused := key.Begin(time.Now(), 5000)
		if !refused.OK() {
			t.Fatal(refused.Reason)
		}
		g.End(time.Now(), 5000)
		_, refused = key.Begin(time.Now(), 1)
		if refused.Reason != Tokens || refused.RetryAfter < 4*time.Minute {
			t.Errorf("after five minutes' worth: %s, %v", refused.Reason, refused.RetryAfter)
		}
	})
}

// Whatever is charged, the clock does not overflow and time heals.
func TestExtremes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, limit := range []int64{1, 7, maxLimit} {
			key := identify(t, set(t, entry("alice", aliceKey, Limits{TokensPerMinute: limit})), aliceKey)
			for range 20 {
				g, refused := key.Begin(time.Now(), math.MaxInt64)
				if !refused.OK() {
					continue
				}
				g.End(time.Now(), math.MaxInt64)
			}
			if full := key.usage.tokens.full.Load(); full < 0 {
				t.Errorf("limit %d: overflow to %d", limit, full)
			}
			time.Sleep(32 * 24 * time.Hour)
			if _, refused := key.Begin(time.Now(), 1); !refused.OK() {
				t.Errorf("limit %d: still refused after a month: %s", limit, refused.Reason)
			}
		}
	})
}

// Over any time, a bucket gives what the limit says and one minute's worth more.
func TestBucketHoldsTheRate(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		limit := 1 + r.Int64N(100_000)
		var b bucket
		var now, given int64
		for range 5000 {
			now += r.Int64N(int64(2*time.Second) / (1 + limit/100))
			n := 1 + r.Int64N(1+limit/50)
			if b.take(now, n, limit) == 0 {
				given += n
			}
			if most := float64(limit) * (1 + float64(now)/float64(minute)); float64(given) > most*1.001+1 {
				t.Fatalf("limit %d: %d given after %v; want at most %.0f", limit, given, time.Duration(now), most)
			}
		}
	}
}

// End of a request that needed no leave does nothing.
func TestZeroGrant(t *testing.T) {
	var g Grant
	g.End(time.Now(), 5)
	if g.Client() != "" {
		t.Error(g.Client())
	}
}

func TestEstimate(t *testing.T) {
	for bytes, want := range map[int]int64{0: 0, 1: 1, 4: 1, 5: 2, 4000: 1000} {
		if got := Estimate(bytes); got != want {
			t.Errorf("%d bytes: %d", bytes, got)
		}
	}
}

// The largest prompt a body can hold, under the largest limit there is, is charged like
// any other: it neither overflows into credit nor locks its client out.
func TestLargestPrompt(t *testing.T) {
	key := identify(t, set(t, entry("alice", aliceKey, Limits{TokensPerMinute: maxLimit})), aliceKey)
	now := time.Now()
	for _, prompt := range []int64{Estimate(1 << 30), Estimate(4 << 30), math.MaxInt64} {
		before := key.usage.tokens.full.Load()
		g, refused := key.Begin(now, prompt)
		if !refused.OK() {
			t.Fatalf("a prompt of %d tokens is refused for %s", prompt, refused.Reason)
		}
		if after := key.usage.tokens.full.Load(); after <= max(before, key.keys.clock(now)) {
			t.Errorf("a prompt of %d tokens moves the bucket from %d to %d", prompt, before, after)
		}
		g.End(now, 0)
	}
}
