package trace

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
)

// Lengths is a distribution of token counts, always within [Min, Max].
type Lengths struct {
	// Min and Max bound every draw; equal bounds make the length fixed.
	Min, Max int
	// Median and Sigma, when Median is above 0, make the distribution lognormal:
	// exp(N(ln Median, Sigma²)), clamped to the bounds. Otherwise it is uniform.
	Median, Sigma float64
}

// maxLognormal is the default upper bound of a lognormal length: the context of
// the Llama 3.1 models.
const maxLognormal = 131072

// Fixed always draws n.
func Fixed(n int) Lengths { return Lengths{Min: n, Max: n} }

// ParseLengths reads the command line's notation:
//
//	512                         always 512
//	100..2000                   uniform, both ends included
//	lognormal:512,0.8           median 512, sigma 0.8, within 1..131072
//	lognormal:512,0.8,16..4096  the same within bounds of one's own
func ParseLengths(s string) (Lengths, error) {
	l, err := parseLengths(s)
	if err == nil {
		err = l.validate()
	}
	if err != nil {
		return Lengths{}, fmt.Errorf("length distribution %q; want one like 512, 100..2000 or lognormal:512,0.8: %w", s, err)
	}
	return l, nil
}

func parseLengths(s string) (Lengths, error) {
	shape, ok := strings.CutPrefix(s, "lognormal:")
	if !ok {
		return parseRange(s)
	}
	parts := strings.SplitN(shape, ",", 3)
	if len(parts) < 2 {
		return Lengths{}, fmt.Errorf("no sigma after the median")
	}
	l := Lengths{Min: 1, Max: maxLognormal}
	var err error
	if len(parts) == 3 {
		if l, err = parseRange(parts[2]); err != nil {
			return Lengths{}, err
		}
	}
	if l.Median, err = strconv.ParseFloat(parts[0], 64); err != nil {
		return Lengths{}, fmt.Errorf("median %q is no number", parts[0])
	}
	if l.Sigma, err = strconv.ParseFloat(parts[1], 64); err != nil {
		return Lengths{}, fmt.Errorf("sigma %q is no number", parts[1])
	}
	if !(l.Median >= 1) {
		return Lengths{}, fmt.Errorf("median %v is below 1", l.Median)
	}
	return l, nil
}

func parseRange(s string) (Lengths, error) {
	low, high, ok := strings.Cut(s, "..")
	if !ok {
		high = low
	}
	first, err := strconv.Atoi(low)
	if err != nil {
		return Lengths{}, fmt.Errorf("%q is no whole number", low)
	}
	last, err := strconv.Atoi(high)
	if err != nil {
		return Lengths{}, fmt.Errorf("%q is no whole number", high)
	}
	return Lengths{Min: first, Max: last}, nil
}

func (l Lengths) validate() error {
	if l.Min < 1 || l.Max < l.Min || l.Max > maxTokens {
		return fmt.Errorf("bounds %d..%d; want 1 <= low <= high <= %d", l.Min, l.Max, maxTokens)
	}
	if !(l.Median >= 0) || l.Median > maxTokens {
		return fmt.Errorf("median %v; want at most %d", l.Median, maxTokens)
	}
	// exp(10) is a factor of 22,026 at one standard deviation: no length is like that.
	if !(l.Sigma >= 0) || l.Sigma > 10 {
		return fmt.Errorf("sigma %v; want 0 to 10", l.Sigma)
	}
	return nil
}

// Draw takes one length.
func (l Lengths) Draw(r *rand.Rand) int {
	if l.Median > 0 {
		x := math.Round(l.Median * math.Exp(l.Sigma*r.NormFloat64()))
		return int(min(max(x, float64(l.Min)), float64(l.Max)))
	}
	return l.Min + r.IntN(l.Max-l.Min+1)
}

// String is the notation [ParseLengths] reads.
func (l Lengths) String() string {
	if l.Median > 0 {
		return fmt.Sprintf("lognormal:%v,%v,%d..%d", l.Median, l.Sigma, l.Min, l.Max)
	}
	if l.Min == l.Max {
		return strconv.Itoa(l.Min)
	}
	return fmt.Sprintf("%d..%d", l.Min, l.Max)
}
