package page

import (
	"math"
	"strconv"
)

// scale maps the values of one axis to 0..1.
type scale struct {
	axis      Axis
	low, high float64
}

// tick is a mark on an axis.
type tick struct {
	At    float64 // 0..1
	Label string
}

// maxNines is where a percentile axis ends: 99.9 %.
const maxNines = 3

// newScale spans the values. Those it cannot show are left out.
func newScale(axis Axis, values []float64) scale {
	s := scale{axis: axis, low: math.Inf(1), high: math.Inf(-1)}
	if axis.Scale == Percentile {
		return scale{axis, 0, maxNines}
	}
	for _, v := range values {
		if s.shows(v) {
			s.low, s.high = min(s.low, v), max(s.high, v)
		}
	}
	if axis.To > 0 {
		s.high = max(s.high, axis.To)
	}
	if s.low > s.high {
		s.low, s.high = 0, 1
		if axis.Scale == Log {
			s.low = 0.1
		}
	}
	switch {
	case axis.Scale == Log:
		s.roundLog()
	case axis.Fit:
		s.high = max(s.high, s.low+1e-9)
	default:
		s.low = min(s.low, 0)
		s.high = roundUp(s.low, s.high)
	}
	return s
}

// roundLog widens to 1, 2 or 5 times a power of ten.
func (s *scale) roundLog() {
	s.low, s.high = logStep(s.low, false), logStep(s.high, true)
	if s.high <= s.low {
		s.high = 10 * s.low
	}
}

func logStep(v float64, up bool) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	steps := []float64{1, 2, 5, 10}
	for i, step := range steps {
		if v <= step*power*(1+1e-12) {
			if up || v >= step*power*(1-1e-12) {
				return step * power
			}
			return steps[max(i-1, 0)] * power
		}
	}
	return 10 * power
}

// roundUp ends an axis at a tick.
func roundUp(low, high float64) float64 {
	if high <= low {
		return low + 1
	}
	step := niceStep(high - low)
	return math.Ceil(high/step-1e-9) * step
}

// niceStep is 1, 2 or 5 times a power of ten, four to eight of which fill the
// span.
func niceStep(span float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(span)))
	for _, step := range []float64{.1, .2, .5, 1} {
		if span/(step*power) <= 6.5 {
			return step * power
		}
	}
	return 2 * power
}

// leastLog keeps powers of ten from becoming 0; no latency is as short.
const leastLog = 1e-9

func (s scale) shows(v float64) bool {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return false
	}
	return s.axis.Scale != Log || v > leastLog
}

// at is where a value lies; 0 is the low end.
func (s scale) at(v float64) float64 {
	switch s.axis.Scale {
	case Log:
		return math.Log(v/s.low) / math.Log(s.high/s.low)
	case Percentile:
		return min(nines(v), s.high) / s.high
	}
	return (v - s.low) / (s.high - s.low)
}

// nines is how often a percentile divides the rest by ten: 90 is 1, 99 is 2.
func nines(percentile float64) float64 {
	return -math.Log10(max(1-percentile/100, 1e-12))
}

func (s scale) ticks() []tick {
	switch s.axis.Scale {
	case Log:
		return s.logTicks()
	case Percentile:
		return s.percentileTicks()
	}
	var ticks []tick
	step := niceStep(s.high - s.low)
	first := math.Ceil(s.low/step - 1e-9)
	for i := 0.; (first+i)*step <= s.high+step*1e-9; i++ {
		v := (first+i)*step + 0 // 0 and not -0
		ticks = append(ticks, tick{s.at(v), tickLabel(v, step)})
	}
	return ticks
}

// tickLabel writes as many decimals as the step has.
func tickLabel(v, step float64) string {
	return commas(strconv.FormatFloat(v, 'f', max(0, -int(math.Floor(math.Log10(step)+1e-9))), 64))
}

func (s scale) logTicks() []tick {
	steps := []float64{1, 2, 5}
	if math.Log10(s.high/s.low) > 2.5 {
		steps = steps[:1]
	}
	var ticks []tick
	for power := math.Pow(10, math.Floor(math.Log10(s.low))); power <= s.high; power *= 10 {
		for _, step := range steps {
			if v := step * power; v >= s.low*(1-1e-9) && v <= s.high*(1+1e-9) {
				ticks = append(ticks, tick{s.at(v), tickLabel(v, min(v, 1))})
			}
		}
	}
	return ticks
}

// tickPercentiles are marked on a percentile axis, and the rows of its table.
var tickPercentiles = []float64{0, 50, 75, 90, 95, 99, 99.9}

func (s scale) percentileTicks() []tick {
	var ticks []tick
	for _, p := range tickPercentiles {
		label := "p" + strconv.FormatFloat(p, 'f', -1, 64)
		if p == 0 {
			label = "min"
		}
		ticks = append(ticks, tick{s.at(p), label})
	}
	return ticks
}
