package replay

import (
	"math"
	"time"
)

// histogram counts durations in buckets 2 % wide, from 10 us to some hours: gaps between tokens are too many to keep.
type histogram struct {
	counts [1100]uint64
	n      uint64
	sum    float64 // seconds
	last   time.Duration
	bucket int
}

const (
	histogramLow  = 1e-5 // seconds
	histogramStep = 0.02 // ln of the width of a bucket
)

func (h *histogram) add(d time.Duration, times int) {
	if times == 0 {
		return
	}
	if d != h.last {
		h.last = d
		i := math.Log(d.Seconds()/histogramLow) / histogramStep
		h.bucket = int(min(max(i, 0), float64(len(h.counts)-1)))
	}
	h.counts[h.bucket] += uint64(times)
	h.n += uint64(times)
	h.sum += d.Seconds() * float64(times)
}

// quantile is the geometric middle of the bucket the quantile falls in, in seconds.
func (h *histogram) quantile(q float64) float64 {
	rank, seen := uint64(math.Ceil(q*float64(h.n))), uint64(0)
	for i, n := range h.counts {
		if seen += n; seen >= rank && n > 0 {
			return histogramLow * math.Exp((float64(i)+.5)*histogramStep)
		}
	}
	return 0
}

func (h *histogram) spread() Spread {
	if h.n == 0 {
		return Spread{}
	}
	return Spread{
		Mean: 1e3 * h.sum / float64(h.n), P50: 1e3 * h.quantile(.5), P90: 1e3 * h.quantile(.9),
		P95: 1e3 * h.quantile(.95), P99: 1e3 * h.quantile(.99), Max: 1e3 * h.quantile(1),
	}
}
