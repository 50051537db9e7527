package replay

import (
	"slices"
	"time"
)

// lbd is one instance: its router and what it believes of the replicas' health.
type lbd struct {
	router    Router
	inService []int
	health    []health
	held      []*Query
	filtered  []int
}

// health is what balancer/health would know of a replica.
type health struct {
	out      bool
	failures int           // in a row
	backOff  time.Duration // of the next ejection
}

func newLBD(router Router, replicas int) *lbd {
	l := &lbd{router: router, health: make([]health, replicas)}
	for i := range replicas {
		l.inService = append(l.inService, i)
		l.health[i].backOff = ejectionTime
	}
	return l
}

// The rules of lbd's own health checks, reduced to what happens here (balancer/health): five failures in a row eject a
// replica for ten seconds, doubled each time up to two minutes; then a probe decides.
const (
	consecutiveFailures = 5
	ejectionTime        = 10 * time.Second
	maxEjectionTime     = 2 * time.Minute
)

// candidates are the replicas in service that the request was not sent to yet.
func (l *lbd) candidates(q *Query) []int {
	if len(q.tried) == 0 {
		return l.inService
	}
	l.filtered = l.filtered[:0]
	for _, i := range l.inService {
		if !slices.Contains(q.tried, i) {
			l.filtered = append(l.filtered, i)
		}
	}
	return l.filtered
}

func (l *lbd) succeeded(replica int) { l.health[replica].failures = 0 }

// failed notes a failed attempt; it returns how long the replica is ejected for, 0 if it stays.
func (l *lbd) failed(replica int) time.Duration {
	h := &l.health[replica]
	if h.failures++; h.out || h.failures < consecutiveFailures {
		return 0
	}
	h.out = true
	d := h.backOff
	h.backOff = min(2*d, maxEjectionTime)
	l.inService = slices.DeleteFunc(slices.Clone(l.inService), func(i int) bool { return i == replica })
	return d
}

func (l *lbd) readmit(replica int) {
	l.health[replica].out, l.health[replica].failures = false, 0
	l.inService = append(slices.Clone(l.inService), replica)
	slices.Sort(l.inService)
}
