package report

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// A draw of weights gives the statistics of the values written out.
func TestWeightedStatistics(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	qs := []float64{-1, 0, .5, .9, .99, 1}
	for range 500 {
		n := 1 + random.IntN(30)
		values, weights := make([]float64, n), make([]int, n)
		var written []float64
		for i := range values {
			values[i], weights[i] = math.Round(10*random.Float64()), random.IntN(4)
			if random.IntN(5) == 0 {
				values[i] = math.NaN()
				continue
			}
			for range weights[i] {
				written = append(written, values[i])
			}
		}
		got := make([]float64, len(qs))
		newSample(values).statistics(weights, qs, got)
		slices.Sort(written)
		for k, q := range qs {
			want := mean(written)
			if q >= 0 {
				want = quantile(written, q)
			}
			if !close(got[k], want, 1e-9) {
				t.Fatalf("q %v of %v weighted %v = %v; want %v", q, values, weights, got[k], want)
			}
		}
	}
}

func TestDrawBlocksKeepsTheNumber(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 2, 3, 10, 997} {
		weights := make([]int, n)
		drawBlocks(weights, random)
		sum := 0
		for _, w := range weights {
			sum += w
		}
		if sum != n {
			t.Errorf("%d draws of %d", sum, n)
		}
	}
}

// Values worked out by hand: ratios 0.8 and 0.9 by their logarithms.
func TestStudent(t *testing.T) {
	got := student([]float64{100, 100}, []float64{80, 90}, true)
	middle := (math.Log(.8) + math.Log(.9)) / 2
	half := 12.706 * math.Abs(math.Log(.9)-math.Log(.8)) / 2
	want := Interval{percent(middle - half), -15, percent(middle + half)}
	if !close(got.Low, want.Low, 1e-6) || !close(got.Mid, want.Mid, 1e-6) || !close(got.High, want.High, 1e-6) {
		t.Errorf("student = %v; want %v", got, want)
	}
	if one := student([]float64{100}, []float64{80}, true); !math.IsNaN(one.Low) || !close(one.Mid, -20, 1e-9) {
		t.Errorf("one repeat has the interval %v; want none", one)
	}
	if zero := student([]float64{100, 0}, []float64{80, 1}, true); !math.IsNaN(zero.Low) {
		t.Errorf("a figure of 0 has the interval %v; want none", zero)
	}
}

// The interval holds the true difference about as often as it says, for queues
// whose repeats differ, with as few repeats as people have. A bootstrap over three
// repeats alone does not reach this.
func TestIntervalsHoldTheTruth(t *testing.T) {
	if testing.Short() {
		t.Skip("simulates a thousand runs")
	}
	for _, paired := range []bool{true, false} {
		misses, tried := 0, 150
		for k := range tried {
			var v versus
			v.paired = paired
			for i := range 3 {
				seed := uint64(1000*k + i)
				other := seed
				if !paired {
					other += 500
				}
				queue := traffic{service: .07, rate: 10, n: 300}
				a, b := queue.run(seed, 7), queue.run(other, 8)
				v.a, v.b = append(v.a, newSample(values(a.Requests, TTFT))), append(v.b, newSample(values(b.Requests, TTFT)))
			}
			if v.intervals([]float64{.5}, 200, 1)[0].Excludes() {
				misses++
			}
		}
		// 5 % of 150 are 7.5; more than 15 come by chance once in 200 times.
		if misses > 15 {
			t.Errorf("paired %v: a difference is seen in %d of %d measurements without one; want at most 15", paired, misses, tried)
		}
	}
}

func TestIntervalsAreRepeatable(t *testing.T) {
	queue := traffic{service: .07, rate: 10, n: 200}
	v := versus{paired: true}
	for seed := range uint64(3) {
		v.a = append(v.a, newSample(values(queue.run(seed, 1).Requests, E2E)))
		v.b = append(v.b, newSample(values(queue.run(seed, 2).Requests, E2E)))
	}
	a, b := v.intervals([]float64{-1, .99}, 100, 5), v.intervals([]float64{-1, .99}, 100, 5)
	if !slices.Equal(a, b) {
		t.Errorf("equal seeds give %v and %v", a, b)
	}
}
