package report

import (
	"math"
	"slices"
)

// summaryQuantiles are kept of every set of latencies.
var summaryQuantiles = []float64{.01, .05, .1, .25, .5, .75, .9, .95, .99, .999}

// summarize describes the values that are numbers.
func summarize(vs []float64) Summary {
	vs = numbers(vs)
	if len(vs) == 0 {
		return Summary{}
	}
	slices.Sort(vs)
	s := Summary{Count: len(vs), Quantiles: map[float64]float64{}}
	for _, v := range vs {
		s.Mean += v / float64(len(vs))
	}
	for _, q := range summaryQuantiles {
		s.Quantiles[q] = quantile(vs, q)
	}
	return s
}

// numbers is a copy without what is none.
func numbers(vs []float64) []float64 {
	kept := make([]float64, 0, len(vs))
	for _, v := range vs {
		if !math.IsNaN(v) {
			kept = append(kept, v)
		}
	}
	return kept
}

// quantile interpolates between the two nearest ranks of sorted values, as
// numpy.percentile does and with it lbd bench and vllm bench.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	at := q * float64(len(sorted)-1)
	low := int(math.Floor(at))
	if low+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[low] + (at-float64(low))*(sorted[low+1]-sorted[low])
}

func mean(vs []float64) float64 {
	if len(vs) == 0 {
		return math.NaN()
	}
	sum := 0.0
	for _, v := range vs {
		sum += v
	}
	return sum / float64(len(vs))
}

// deviation is the standard deviation of a sample.
func deviation(vs []float64) float64 {
	if len(vs) < 2 {
		return 0
	}
	m, sum := mean(vs), 0.0
	for _, v := range vs {
		sum += (v - m) * (v - m)
	}
	return math.Sqrt(sum / float64(len(vs)-1))
}
