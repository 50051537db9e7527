package report

import (
	"math"
	"math/rand/v2"
	"slices"
)

// Interval is a difference in percent of the reference, with the range that holds
// the true one in 95 of 100 measurements. All are NaN where nothing is known.
type Interval struct{ Low, Mid, High float64 }

// Excludes tells that the interval leaves out 0.
func (i Interval) Excludes() bool { return i.Low > 0 || i.High < 0 }

var unknown = Interval{math.NaN(), math.NaN(), math.NaN()}

// confidence is the part of the bootstrap's results within the interval.
const confidence = .95

// sample is one quantity of one repeat, ready to be drawn from: a draw is a weight
// for each position, and sorting happens once.
type sample struct {
	values []float64
	order  []int // positions with a value, by value
}

func newSample(values []float64) sample {
	s := sample{values: values, order: make([]int, 0, len(values))}
	for i, v := range values {
		if !math.IsNaN(v) {
			s.order = append(s.order, i)
		}
	}
	slices.SortFunc(s.order, func(a, b int) int {
		switch {
		case values[a] < values[b]:
			return -1
		case values[a] > values[b]:
			return 1
		}
		return a - b
	})
	return s
}

// statistics are the mean (for a negative q) or the quantiles of the values, each
// counted as often as its weight says.
func (s sample) statistics(weights []int, qs, into []float64) {
	total, sum := 0, 0.0
	for _, i := range s.order {
		total += weights[i]
		sum += float64(weights[i]) * s.values[i]
	}
	for k, q := range qs {
		switch {
		case total == 0:
			into[k] = math.NaN()
		case q < 0:
			into[k] = sum / float64(total)
		default:
			into[k] = s.weighted(weights, q*float64(total-1))
		}
	}
}

// weighted interpolates at a rank of the values repeated by their weights.
func (s sample) weighted(weights []int, rank float64) float64 {
	low, part := int(rank), rank-math.Floor(rank)
	seen := 0
	for n, i := range s.order {
		if seen += weights[i]; seen <= low {
			continue
		}
		v := s.values[i]
		if part == 0 || seen > low+1 {
			return v
		}
		for _, j := range s.order[n+1:] {
			if weights[j] > 0 {
				return v + part*(s.values[j]-v)
			}
		}
		return v
	}
	return math.NaN()
}

// drawBlocks sets weights to a moving-block draw (Künsch, The jackknife and the
// bootstrap for general stationary observations, 1989): blocks of √n consecutive
// positions, so that requests which waited behind each other stay together.
func drawBlocks(weights []int, random *rand.Rand) {
	clear(weights)
	n := len(weights)
	if n == 0 {
		return
	}
	length := max(1, int(math.Sqrt(float64(n))))
	for left := n; left > 0; left -= length {
		from := random.IntN(n)
		for i := range min(length, left) {
			weights[(from+i)%n]++ // around the end, so that all positions are equally likely
		}
	}
}

// versus is the evidence on one quantity in two environments, by repeat.
type versus struct {
	a, b []sample
	// paired: repeat i of both was sent the same requests.
	paired bool
}

// intervals are those of b against a for the mean (a negative q) and quantiles,
// by draws of the two-stage bootstrap.
func (v versus) intervals(qs []float64, draws int, seed uint64) []Interval {
	random := rand.New(rand.NewPCG(seed, uint64(len(v.a)+len(v.b)<<8)))
	all := make([]Interval, len(qs))
	results := make([][]float64, len(qs))
	sumA, sumB := make([]float64, len(qs)), make([]float64, len(qs))
	for range draws {
		v.draw(random, qs, sumA, sumB)
		for k := range qs {
			if r := math.Log(sumB[k] / float64(len(v.b)) * float64(len(v.a)) / sumA[k]); !math.IsNaN(r) && !math.IsInf(r, 0) {
				results[k] = append(results[k], r)
			}
		}
	}
	for k, q := range qs {
		a, b := statisticOf(v.a, q), statisticOf(v.b, q)
		all[k] = unknown
		if len(results[k]) > draws/2 {
			slices.Sort(results[k])
			all[k] = Interval{percent(quantile(results[k], (1-confidence)/2)), 100 * (mean(b)/mean(a) - 1), percent(quantile(results[k], (1+confidence)/2))}
			all[k] = all[k].widen(student(a, b, v.paired))
		}
	}
	return all
}

func percent(logRatio float64) float64 { return 100 * (math.Exp(logRatio) - 1) }

// draw adds up one draw of both environments.
func (v versus) draw(random *rand.Rand, qs, sumA, sumB []float64) {
	clear(sumA)
	clear(sumB)
	if v.paired {
		for range v.a {
			i := random.IntN(len(v.a))
			weights := make([]int, len(v.a[i].values))
			drawBlocks(weights, random)
			add(v.a[i], weights, qs, sumA)
			add(v.b[i], weights, qs, sumB)
		}
		return
	}
	for _, side := range []struct {
		from []sample
		sum  []float64
	}{{v.a, sumA}, {v.b, sumB}} {
		for range side.from {
			s := side.from[random.IntN(len(side.from))]
			weights := make([]int, len(s.values))
			drawBlocks(weights, random)
			add(s, weights, qs, side.sum)
		}
	}
}

func add(s sample, weights []int, qs, sum []float64) {
	var into [8]float64
	s.statistics(weights, qs, into[:len(qs)])
	for k := range qs {
		sum[k] += into[k]
	}
}

// statisticOf is the figure of each repeat.
func statisticOf(samples []sample, q float64) []float64 {
	figures := make([]float64, len(samples))
	for i, s := range samples {
		weights := make([]int, len(s.values))
		for j := range weights {
			weights[j] = 1
		}
		s.statistics(weights, []float64{q}, figures[i:i+1])
	}
	return figures
}

// student is the interval over the repeats' figures alone, by their logarithms:
// ratios are what repeats have in common. Unpaired it is Welch's.
func student(a, b []float64, paired bool) Interval {
	i := unknown
	i.Mid = 100 * (mean(b)/mean(a) - 1)
	la, lb := logs(a), logs(b)
	if la == nil || lb == nil {
		return i
	}
	var middle, err, freedom float64
	switch {
	case paired && len(a) >= 2:
		ratios := make([]float64, len(la))
		for k := range la {
			ratios[k] = lb[k] - la[k]
		}
		middle, err, freedom = mean(ratios), deviation(ratios)/math.Sqrt(float64(len(ratios))), float64(len(ratios)-1)
	case !paired && len(a) >= 2 && len(b) >= 2:
		middle = mean(lb) - mean(la)
		err, freedom = welch(la, lb)
	default:
		return i
	}
	half := err * studentQuantile(freedom)
	i.Low, i.High = min(i.Mid, percent(middle-half)), max(i.Mid, percent(middle+half))
	return i
}

// logs is nil when a value has none.
func logs(vs []float64) []float64 {
	ls := make([]float64, len(vs))
	for i, v := range vs {
		if !(v > 0) || math.IsInf(v, 0) {
			return nil
		}
		ls[i] = math.Log(v)
	}
	return ls
}

// welch is the standard error of the difference of two means and its degrees of
// freedom (Welch, The generalization of Student's problem, 1947).
func welch(a, b []float64) (err, freedom float64) {
	na, nb := float64(len(a)), float64(len(b))
	va, vb := deviation(a)*deviation(a)/na, deviation(b)*deviation(b)/nb
	if va+vb == 0 {
		return 0, na + nb - 2
	}
	return math.Sqrt(va + vb), (va + vb) * (va + vb) / (va*va/(na-1) + vb*vb/(nb-1))
}

// studentTable is the 97.5 % quantile of Student's t by degrees of freedom, from
// 1 (any book of tables).
var studentTable = []float64{
	12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
	2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
	2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
}

// studentQuantile takes the next lower degree of freedom, the wider one.
func studentQuantile(freedom float64) float64 {
	i := int(freedom) - 1
	switch {
	case i < 0:
		return studentTable[0]
	case i >= len(studentTable):
		return 1.96 + 2.5/freedom // within 0.001 from 31 on
	}
	return studentTable[i]
}

// widen holds both intervals, around the first's middle.
func (i Interval) widen(o Interval) Interval {
	if math.IsNaN(o.Low) || math.IsNaN(o.High) {
		return i
	}
	return Interval{min(i.Low, o.Low), i.Mid, max(i.High, o.High)}
}
