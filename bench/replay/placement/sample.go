package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
)

const ours = "least-cost"

// notRivals are in the table and out of the contest: they know what nobody can know.
func notRival(name string) bool { return strings.HasPrefix(name, "oracle") }

// sample is the capacities of one policy in one cell, by seed.
type sample map[uint64]float64

func (s sample) mean() float64 {
	if len(s) == 0 {
		return 0
	}
	sum := 0.0
	for _, seed := range s.seeds() {
		sum += s[seed]
	}
	return sum / float64(len(s))
}

func (s sample) seeds() []uint64 {
	var seeds []uint64
	for seed := range s {
		seeds = append(seeds, seed)
	}
	slices.Sort(seeds)
	return seeds
}

// common keeps the seeds both have.
func common(a, b sample) (inA, inB sample) {
	inA, inB = sample{}, sample{}
	for seed, x := range a {
		if y, ok := b[seed]; ok {
			inA[seed], inB[seed] = x, y
		}
	}
	return inA, inB
}

// ratio compares two policies on the seeds both have.
type ratio struct {
	n               int
	mean, low, high float64
}

func compare(a, b sample) (r ratio) {
	var ratios []float64
	for _, seed := range a.seeds() {
		if b[seed] > 0 {
			ratios = append(ratios, a[seed]/b[seed])
		}
	}
	r.n = len(ratios)
	if r.n == 0 {
		return r
	}
	r.mean = average(ratios)
	r.low, r.high = bootstrap(ratios)
	return r
}

func average(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}

const (
	resamples   = 2000
	enoughSeeds = 3 // for an interval
)

// bootstrap is the 95 % interval of the mean, NaN with fewer than three values.
func bootstrap(v []float64) (low, high float64) {
	if len(v) < enoughSeeds {
		return math.NaN(), math.NaN()
	}
	rng := rand.New(rand.NewPCG(1, 1))
	means := make([]float64, resamples)
	for i := range means {
		for range v {
			means[i] += v[rng.IntN(len(v))] / float64(len(v))
		}
	}
	slices.Sort(means)
	return means[resamples*25/1000], means[resamples*975/1000]
}

func (r ratio) String() string {
	switch {
	case r.n == 0:
		return "-"
	case math.IsNaN(r.low):
		return fmt.Sprintf("%+.1f %%", 100*(r.mean-1))
	}
	return fmt.Sprintf("%+.1f %% (%+.1f to %+.1f)", 100*(r.mean-1), 100*(r.low-1), 100*(r.high-1))
}

// spearman is the correlation of the ranks, those of equals being their mean.
func spearman(a, b []standing) float64 {
	x, y := ranks(a), ranks(b)
	var sxy, sxx, syy float64
	mx, my := average(x), average(y)
	for i := range x {
		sxy += (x[i] - mx) * (y[i] - my)
		sxx += (x[i] - mx) * (x[i] - mx)
		syy += (y[i] - my) * (y[i] - my)
	}
	if sxx == 0 || syy == 0 {
		return math.NaN()
	}
	return sxy / math.Sqrt(sxx*syy)
}

func ranks(all []standing) []float64 {
	r := make([]float64, len(all))
	for i := range all {
		for k := range all {
			switch {
			case all[k].capacity < all[i].capacity:
				r[i]++
			case all[k].capacity == all[i].capacity && k != i:
				r[i] += .5
			}
		}
	}
	return r
}
