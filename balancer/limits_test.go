package balancer

import (
	"math"
	"testing"
	"time"
)

func TestLimits(t *testing.T) {
	const sec, ms = time.Second, time.Millisecond
	for _, c := range []struct {
		limits Limits
		got    Prediction
		prompt int
		misses bool
	}{
		{Limits{}, Prediction{time.Hour, time.Hour}, 10, false},
		{Limits{TTFT: sec}, Prediction{sec, time.Hour}, 10, false},
		{Limits{TTFT: sec}, Prediction{sec + 1, 0}, 10, true},
		{Limits{TTFT: sec, TTFTPerToken: ms}, Prediction{sec + 10*ms, 0}, 10, false},
		{Limits{TTFT: sec, TTFTPerToken: ms}, Prediction{sec + 10*ms + 1, 0}, 10, true},
		{Limits{TTFT: sec, TTFTPerToken: time.Hour}, Prediction{time.Hour, 0}, math.MaxInt, false}, // the product does not overflow
		{Limits{TTFTPerToken: ms}, Prediction{time.Hour, 0}, 10, false},
		{Limits{TPOT: ms}, Prediction{time.Hour, ms}, 10, false},
		{Limits{TPOT: ms}, Prediction{0, ms + 1}, 10, true},
	} {
		if got := c.limits.Misses(c.got, c.prompt); got != c.misses {
			t.Errorf("%+v of %+v with %d tokens: misses %t", c.got, c.limits, c.prompt, got)
		}
	}
	if (Limits{TTFTPerToken: ms}).Any() || !(Limits{TPOT: 1}).Any() {
		t.Error("what is added to nothing is a limit, or TPOT is none")
	}
}
