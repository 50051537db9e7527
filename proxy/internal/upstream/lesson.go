package upstream

import "time"

// lesson is what a replica has shown of how long its connections may wait for
// another request. The limit of the configuration is meant for uvicorn; a replica
// with a shorter one, or something between that drops connections, would cost
// requests: one that meets the moment at which the replica closes is reset, and
// after a reset it is not sent again.
//
// It belongs to the pool, under its lock.
type lesson struct {
	limit time.Duration // 0 = connections are not used again
	until time.Time     // when it is tried with more; zero = nothing was learned

	distrust   time.Duration // the last one
	distrusted time.Time     // when it ended
}

const (
	// lessonTime is how long a learned limit holds before it is doubled: what was
	// learned may have been the replica's end, or its configuration has changed.
	lessonTime = time.Minute
	// leastDistrust is how long connections are not used again after one of them was
	// reset. It doubles, up to mostDistrust, when that happens again as soon as they
	// are. A replica that gets 1,000 requests/s leaves 10,000 ports in TIME_WAIT so;
	// Linux has 28,232 (ip_local_port_range).
	leastDistrust = 10 * time.Second
	mostDistrust  = 5 * time.Minute
)

// most returns how long a connection may have waited to be used again.
func (l *lesson) most(now time.Time, configured time.Duration) time.Duration {
	if l.until.IsZero() {
		return configured
	}
	if now.Before(l.until) {
		return l.limit
	}
	if l.limit *= 2; l.limit == 0 || l.limit >= configured {
		l.until = time.Time{}
		return configured
	}
	l.until = now.Add(lessonTime)
	return l.limit
}

// closed notes that the replica ended a connection that had waited so long, or less:
// half of that is safe, whenever within it that was.
func (l *lesson) closed(now time.Time, waited, configured time.Duration) {
	if limit := l.most(now, configured); waited/2 < limit {
		l.limit, l.until = waited/2, now.Add(lessonTime)
	}
}

// reset notes that a request on a connection that had been used before met a reset.
// How long it had waited says nothing: the request itself may have been what the
// replica does not take, or it was about to end.
func (l *lesson) reset(now time.Time) {
	switch {
	case now.Before(l.distrusted):
		return // one that was in use when the first was reset
	case now.Sub(l.distrusted) < l.distrust:
		l.distrust = min(2*l.distrust, mostDistrust)
	default:
		l.distrust = leastDistrust
	}
	l.distrusted = now.Add(l.distrust)
	l.limit, l.until = 0, l.distrusted
}

// forget is for a replica that takes no connections: what comes next is another
// process.
func (l *lesson) forget() { *l = lesson{} }

// Closed tells that the replica had closed c when it was to be used again.
func (p *Pool) Closed(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lesson.closed(time.Now(), c.waited, p.cfg.IdleTimeout)
}

// Reset tells that c, used before, was reset when it was used again.
func (p *Pool) Reset(*Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lesson.reset(time.Now())
}
