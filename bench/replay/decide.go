package replay

import "time"

// count adds a request that has ended to the good or the bad ones.
func (r *run) count(q *Query) {
	switch {
	case q.ID < uint64(r.cfg.Skip):
	case q.good:
		r.good++
	case !q.bad:
		q.bad = true
		r.bad++
	}
}

// overdue counts requests whose first token is late already, so that a run beyond a fleet's capacity is known for one
// before its requests have ended.
func (r *run) overdue(now time.Duration) {
	for r.late.any() && r.late.head().deadline < now {
		w := r.late.pop()
		q := r.live[w.slot]
		if q.ID == w.id && !q.Begun() && !q.bad && r.each[w.id].Failed && q.ID >= uint64(r.cfg.Skip) {
			q.bad = true
			r.bad++
		}
	}
}

// lateness is a queue of requests by arrival. A limit that grows with the prompt puts deadlines out of order; a late one
// then waits for those before it, and is counted later than it could be.
type lateness struct {
	queue []wait
	first int
}

type wait struct {
	slot     int
	id       uint64
	deadline time.Duration
}

func (l *lateness) any() bool   { return l.first < len(l.queue) }
func (l *lateness) head() *wait { return &l.queue[l.first] }

func (l *lateness) pop() wait {
	w := l.queue[l.first]
	l.first++
	if l.first == len(l.queue) {
		l.queue, l.first = l.queue[:0], 0
	}
	return w
}

func (l *lateness) add(q *Query, limit time.Duration) {
	l.queue = append(l.queue, wait{slot: q.slot, id: q.ID, deadline: q.At + limit})
}
