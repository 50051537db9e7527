//go:build linux

package main

import (
	"math"
	"slices"
)

// median of the values that are numbers; NaN of none.
func median(v []float64) float64 {
	v = numbers(v)
	if len(v) == 0 {
		return math.NaN()
	}
	m := len(v) / 2
	if len(v)%2 == 1 {
		return v[m]
	}
	return (v[m-1] + v[m]) / 2
}

// numbers returns the values that are not NaN, sorted.
func numbers(v []float64) []float64 {
	var out []float64
	for _, x := range v {
		if !math.IsNaN(x) {
			out = append(out, x)
		}
	}
	slices.Sort(out)
	return out
}

// spread is the smallest and the largest value.
func spread(v []float64) (low, high float64) {
	v = numbers(v)
	if len(v) == 0 {
		return math.NaN(), math.NaN()
	}
	return v[0], v[len(v)-1]
}

// ratios divides round by round. Figures of different rounds are never put
// together: the machine is another one an hour later.
func ratios(a, b []float64) []float64 {
	out := make([]float64, min(len(a), len(b)))
	for i := range out {
		out[i] = math.NaN()
		if b[i] > 0 {
			out[i] = a[i] / b[i]
		}
	}
	return out
}
