package workload

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// Think is a distribution of the times between an answer and the next turn.
type Think struct {
	// Low and High bound a uniform draw; equal ones make it fixed.
	Low, High time.Duration
	// Mean above 0 makes it exponential instead.
	Mean time.Duration
}

// ParseThink reads "5s", "2s..8s" (uniform) or "exponential:5s" (mean).
func ParseThink(s string) (Think, error) {
	bad := fmt.Errorf("think time %q; want one like 5s, 2s..8s or exponential:5s", s)
	if mean, ok := strings.CutPrefix(s, "exponential:"); ok {
		d, err := time.ParseDuration(mean)
		if err != nil || d <= 0 {
			return Think{}, bad
		}
		return Think{Mean: d}, nil
	}
	low, high, ok := strings.Cut(s, "..")
	if !ok {
		high = low
	}
	from, err := time.ParseDuration(low)
	to, err2 := time.ParseDuration(high)
	if err != nil || err2 != nil || from < 0 || to < from {
		return Think{}, bad
	}
	return Think{Low: from, High: to}, nil
}

// String is what ParseThink reads.
func (t Think) String() string {
	switch {
	case t.Mean > 0:
		return "exponential:" + t.Mean.String()
	case t.High > t.Low:
		return t.Low.String() + ".." + t.High.String()
	}
	return t.Low.String()
}

func (t Think) draw(r *rand.Rand) time.Duration {
	switch {
	case t.Mean > 0:
		return time.Duration(r.ExpFloat64() * float64(t.Mean))
	case t.High > t.Low:
		return t.Low + time.Duration(r.Int64N(int64(t.High-t.Low)+1))
	}
	return t.Low
}
