package replay

import (
	"fmt"
	"math"
)

// Search looks for the highest load at which enough requests are good.
type Search struct {
	// Config is all of a run but MaxBad.
	Config Config
	// Workload makes the traffic at a load: requests per second, a trace's speed, conversations. Requests of it are the
	// same at every load, only closer together.
	Workload func(load float64) *Workload
	// Requests is how many there are, Good the share of them that must be good.
	Requests int
	Good     float64
	// From is where to begin, Within the relative width of the answer; 0 means 2 %.
	From, Within float64
	// Whole rounds loads to whole numbers.
	Whole bool
}

// Capacity is the highest load found to be carried, and how many runs it took. A load that is carried next to one that is
// not bounds it; since more load is now and then carried where less was not, it is one such place, found the same way for
// every policy.
func (s Search) Capacity() (load float64, runs int, err error) {
	if s.Within == 0 {
		s.Within = .02
	}
	carried := func(load float64) bool {
		if err != nil {
			return false
		}
		runs++
		var ok bool
		ok, err = s.carries(load)
		return ok
	}
	low, high := 0.0, math.Inf(1)
	for load = s.whole(s.From); math.IsInf(high, 1) || low == 0; load = s.whole(load) {
		if runs > maxSearch {
			return 0, runs, fmt.Errorf("no load between %g and %g found that is carried beside one that is not", low, high)
		}
		if carried(load) {
			low, load = load, load*searchStep
		} else if high, load = load, load/searchStep; s.Whole && high <= 1 || err != nil {
			return 0, runs, err
		}
	}
	for high/low > 1+s.Within && !(s.Whole && high-low < 1.5) {
		if load = s.whole(math.Sqrt(low * high)); carried(load) {
			low = load
		} else {
			high = load
		}
	}
	return low, runs, err
}

const (
	searchStep = 1.3
	maxSearch  = 40
)

func (s Search) whole(load float64) float64 {
	if s.Whole {
		return max(1, math.Round(load))
	}
	return load
}

func (s Search) carries(load float64) (bool, error) {
	c := s.Config
	c.MaxBad = max(1, int((1-s.Good)*float64(s.Requests)))
	r, err := Run(c, s.Workload(load))
	if err != nil {
		return false, err
	}
	return !r.Stopped, nil
}
