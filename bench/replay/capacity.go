package replay

import (
	"fmt"
	"math"
)

// Search looks for the highest load at which enough requests are good.
type Search struct {
	// Config is all of a run but MaxBad, MinGood and Skip.
	Config Config
	// Workload makes the traffic at a load: requests per second, a trace's speed, conversations. Requests of it are the
	// same at every load, only closer together.
	Workload func(load float64) *Workload
	// Requests is how many there are, Good the share of them that must be good. Skip of them, the first ones, do not count.
	Requests, Skip int
	Good           float64
	// From is where to begin, Stride how many steps of the grid to go at first: few when From is a good guess; 0 means 8.
	From   float64
	Stride int
	// Whole rounds loads to whole numbers.
	Whole bool
}

// GridStep is the ratio of neighbouring loads that a Search tries: 2 %. The grid is the same for all, so two policies whose
// capacities are equal carry the same load and not the next one.
const GridStep = 1.02

// Capacity is the highest load of the grid found to be carried, and how many runs it took. A load that is carried next to
// one that is not bounds it; since more load is now and then carried where less was not, it is one such place, and which
// one may depend on From. It is 0 when not even the lowest load is carried.
func (s Search) Capacity() (load float64, runs int, err error) {
	at := s.index(s.From)
	stride := s.Stride
	if stride == 0 {
		stride = searchStride
	}
	low, high := math.MinInt, math.MaxInt // carried, not carried
	for high == math.MaxInt || low == math.MinInt || high-low > 1 {
		if runs++; runs > maxSearch {
			return 0, runs, fmt.Errorf("no load between %g and %g found that is carried beside one that is not", s.load(low), s.load(high))
		}
		ok, err := s.carries(s.load(at))
		if err != nil {
			return 0, runs, err
		}
		if ok {
			low = at
		} else {
			high = at
		}
		switch {
		case high == math.MaxInt:
			at += stride
			stride *= 2
		case low == math.MinInt && high == s.lowest():
			return 0, runs, nil
		case low == math.MinInt:
			at = max(at-stride, s.lowest())
			stride *= 2
		default:
			at = low + (high-low)/2
		}
	}
	return s.load(low), runs, nil
}

const (
	searchStride = 8
	maxSearch    = 40
)

// lowest is the lowest place of the grid: one conversation, or a load that nothing real is below.
func (s Search) lowest() int {
	if s.Whole {
		return 1
	}
	return s.index(1e-6)
}

// index is the place of the grid nearest to a load. Whole loads are their own places: steps of 2 % are less than one of
// them below 50, and little more up to 100.
func (s Search) index(load float64) int {
	if s.Whole {
		return max(1, int(math.Round(load)))
	}
	return int(math.Round(math.Log(load) / math.Log(GridStep)))
}

func (s Search) load(index int) float64 {
	if s.Whole {
		return float64(index)
	}
	return math.Pow(GridStep, float64(index))
}

func (s Search) carries(load float64) (bool, error) {
	c := s.Config
	counted := s.Requests - s.Skip
	c.Skip = s.Skip
	c.MaxBad = max(1, int((1-s.Good)*float64(counted)))
	c.MinGood = counted - c.MaxBad
	r, err := Run(c, s.Workload(load))
	if err != nil {
		return false, err
	}
	return !r.Stopped, nil
}
