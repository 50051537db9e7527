//go:build linux

package main

import "math/bits"

// histSub is the number of sub-buckets per power of two: 64 keep a quantile
// within 1/64 (1.6 %) of the truth, at 4 KiB per 8 powers.
const (
	histSubBits = 6
	histSub     = 1 << histSubBits
	histPowers  = 40 // up to 2^40 ns, 18 minutes
)

// hist is a log-linear histogram of nanoseconds.
type hist struct {
	counts [histPowers * histSub]uint32
	n      int64
	max    int64
}

// bucket is the index of a value: exact below 2*histSub, then histSub buckets
// per power of two.
func bucket(v int64) int {
	if v < histSub {
		return int(max(v, 0))
	}
	shift := bits.Len64(uint64(v)) - histSubBits - 1
	return min((shift+1)*histSub+int(v>>shift)-histSub, histPowers*histSub-1)
}

// middle is the middle of the values that fall into a bucket.
func middle(i int) int64 {
	if i < histSub {
		return int64(i)
	}
	shift := i/histSub - 1
	low := int64(histSub+i%histSub) << shift
	return low + (int64(1)<<shift)/2
}

func (h *hist) add(v int64) {
	h.counts[bucket(v)]++
	h.n++
	h.max = max(h.max, v)
}

func (h *hist) reset() { *h = hist{} }

// quantile returns the value below which the share q of all values lie; 0 of an
// empty histogram.
func (h *hist) quantile(q float64) int64 {
	if h.n == 0 {
		return 0
	}
	rank := int64(q * float64(h.n))
	if rank >= h.n-1 {
		return h.max
	}
	for i, c := range h.counts {
		if rank -= int64(c); rank < 0 {
			return min(middle(i), h.max)
		}
	}
	return h.max
}
