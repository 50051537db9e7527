package keys

import (
	"sync/atomic"
	"time"
)

// bucket is a token bucket of one minute's worth, kept as a single number: the
// time at which it will be full again (the generic cell rate algorithm, ITU-T
// I.371 annex A, where that time is the theoretical arrival time). It fills by
// itself as time passes, so nobody has to fill it.
type bucket struct{ full atomic.Int64 } // ns on the clock of Keys

const minute = int64(time.Minute)

// price is the time it takes to earn n at so many per minute. n is at most
// maxCharge and limit at most maxLimit, so that nothing overflows.
func price(n, limit int64) int64 { return n * minute / limit }

// maxCharge is far above any context; 1e8 minutes in ns are below 2^63.
const maxCharge = 100_000_000

// take takes n out of the bucket. If it does not hold so many, nothing is taken and
// wait is the time until it will. More than it can ever hold counts as all it
// holds.
func (b *bucket) take(now, n, limit int64) (wait time.Duration) {
	cost := price(min(n, limit), limit)
	for {
		full := b.full.Load()
		next := max(full, now) + cost
		if next-now > minute {
			return time.Duration(next - now - minute)
		}
		if b.full.CompareAndSwap(full, next) {
			return 0
		}
	}
}

// maxDebt bounds what a client can owe: a month, far above any limit that is
// meant, far below where the clock overflows.
const maxDebt = int64(30 * 24 * time.Hour)

// charge takes n out even if the bucket does not hold so many, or gives back what
// is negative.
func (b *bucket) charge(now, n, limit int64) {
	if n <= 0 {
		b.full.Add(price(n, limit)) // the past is full, however far
		return
	}
	for {
		full := b.full.Load()
		if b.full.CompareAndSwap(full, min(max(full, now)+price(n, limit), now+maxDebt)) {
			return
		}
	}
}
