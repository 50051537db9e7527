package load

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// A histogram has buckets as HdrHistogram lays them out: below 256 µs each is
// 1 µs wide, above that each power of two is cut into 128. The middle of a bucket
// is off by at most 0.5 µs or 1/256 = 0.4 % of the value.
const (
	subBits    = 7
	subBuckets = 1 << subBits
	maxBits    = 36 // 2^36 µs is 19 hours; longer ones count as that
	buckets    = (maxBits - subBits + 1) * subBuckets
)

// histogram counts durations; any number of goroutines may observe at once.
type histogram struct {
	counts [buckets]atomic.Uint32
	sum    atomic.Int64 // ns
	max    atomic.Int64 // ns
}

// counts is a copy of a histogram's buckets, or the difference of two copies.
type counts [buckets]uint32

func bucketOf(d time.Duration) int {
	v := min(uint64(max(d, 0)/time.Microsecond), 1<<maxBits-1)
	if v < 2*subBuckets {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return shift*subBuckets + int(v>>shift)
}

// middleOf is the value that stands for the bucket.
func middleOf(bucket int) time.Duration {
	if bucket < 2*subBuckets {
		return time.Duration(bucket)*time.Microsecond + time.Microsecond/2
	}
	shift := bucket/subBuckets - 1
	low := uint64(bucket-shift*subBuckets) << shift
	width := uint64(1) << shift
	return time.Duration(low+width/2) * time.Microsecond
}

func (h *histogram) observe(d time.Duration) {
	h.counts[bucketOf(d)].Add(1)
	h.sum.Add(int64(d))
	for {
		old := h.max.Load()
		if int64(d) <= old || h.max.CompareAndSwap(old, int64(d)) {
			return
		}
	}
}

func (h *histogram) load(c *counts) {
	for i := range h.counts {
		c[i] = h.counts[i].Load()
	}
}

func (c *counts) subtract(older *counts) {
	for i := range c {
		c[i] -= older[i]
	}
}

func (c *counts) total() (n uint64) {
	for _, k := range c {
		n += uint64(k)
	}
	return n
}

// quantile is the middle of the bucket that holds the value of rank ceil(q·n).
func (c *counts) quantile(q float64) time.Duration {
	n := c.total()
	if n == 0 {
		return 0
	}
	rank := max(1, uint64(math.Ceil(q*float64(n))))
	var seen uint64
	for i, k := range c {
		if seen += uint64(k); seen >= rank {
			return middleOf(i)
		}
	}
	panic("BUG: load: histogram without its last rank")
}

// pairs lists the buckets that are not empty: the middle in milliseconds, and how
// many.
func (h *histogram) pairs() [][2]float64 {
	var all [][2]float64
	for i := range h.counts {
		if n := h.counts[i].Load(); n > 0 {
			all = append(all, [2]float64{millis(middleOf(i)), float64(n)})
		}
	}
	return all
}

// summary describes the histogram in milliseconds.
func (h *histogram) summary() Summary {
	var c counts
	h.load(&c)
	n := c.total()
	if n == 0 {
		return Summary{}
	}
	// The middle of the last bucket may lie above the largest value.
	largest := time.Duration(h.max.Load())
	at := func(q float64) float64 { return millis(min(c.quantile(q), largest)) }
	return Summary{
		Count: int(n),
		Mean:  millis(time.Duration(h.sum.Load())) / float64(n),
		P50:   at(.5),
		P90:   at(.9),
		P99:   at(.99),
		Max:   millis(largest),
	}
}
