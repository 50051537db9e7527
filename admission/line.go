package admission

import (
	"cmp"
	"slices"
	"time"

	"lbd/balancer"
)

// waiter is one request in the line.
type waiter struct {
	req    Request
	client string
	class  Class
	cost   float64 // tokens
	bytes  int64
	since  time.Time
	// timeout is how long the client waits; 0 is unknown.
	timeout time.Duration
	out     chan outcome

	start   float64 // tag
	seq     uint64
	flow    *flow
	prefers *balancer.Replica // nil is any
	passed  int               // how often others were placed before it for their replica's sake
	waits   bool              // it is in the line
}

// line is what waits for one model, in the order in which it is served. It does no
// waiting itself and reads no clock.
type line struct {
	lanes [classes]lane
	n     int
	bytes int64
	seq   uint64
}

// lane is a class: start-time fair queueing between its clients. A request that
// comes starts at the virtual time, or where the one of its client before it ends,
// whichever is later; who starts first is served first. The virtual time is the
// start of the request served last. With costs c, two clients that have something
// waiting get the same work but for max c of the one and max c of the other
// (theorem 1 of the paper).
type lane struct {
	order []*waiter // by start, then as they came
	flows map[string]*flow
	hogs  [measures]hogs
	now   float64 // virtual time
	cost  float64 // of all
}

// flow is a client in a lane.
type flow struct {
	lane    *lane
	client  string
	finish  float64 // where the next one starts
	waiters []*waiter
	cost    float64       // of those
	bytes   int64         // likewise
	at      [measures]int // in the lane's hogs, while something waits
}

func earlier(a, b *waiter) int {
	return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.seq, b.seq))
}

// start is where a request of the client would start.
func (l *lane) start(client string) float64 {
	if f := l.flows[client]; f != nil {
		return max(l.now, f.finish)
	}
	return l.now
}

// ahead is the work that would be done before a request of the client.
func (l *line) ahead(client string, class Class) (cost float64) {
	for i := range class.lane() {
		cost += l.lanes[i].cost
	}
	lane := &l.lanes[class.lane()]
	start := lane.start(client)
	for _, w := range lane.order {
		if w.start > start {
			break
		}
		cost += w.cost
	}
	return cost
}

// join puts w in.
func (l *line) join(w *waiter) {
	lane := &l.lanes[w.class.lane()]
	if lane.flows == nil {
		lane.flows = map[string]*flow{}
	}
	f := lane.flows[w.client]
	if f == nil {
		f = &flow{lane: lane, client: w.client}
		lane.flows[w.client] = f
	}
	l.seq++
	w.flow, w.seq, w.start, w.waits = f, l.seq, lane.start(w.client), true
	f.finish = w.start + w.cost
	i, _ := slices.BinarySearchFunc(lane.order, w, earlier)
	lane.order = slices.Insert(lane.order, i, w)
	f.waiters = append(f.waiters, w)
	f.cost += w.cost
	f.bytes += w.bytes
	lane.rank(f, len(f.waiters)-1)
	lane.cost += w.cost
	l.n++
	l.bytes += w.bytes
}

// serve takes w out because it is placed.
func (l *line) serve(w *waiter) {
	lane := w.flow.lane
	lane.now = max(lane.now, lane.order[0].start) // not w's, which may have been preferred
	l.take(w)
}

// leave takes w out without a place. What it would have cost is given back to its
// client where nothing of the client's waits behind it.
func (l *line) leave(w *waiter) {
	if f := w.flow; f.waiters[len(f.waiters)-1] == w {
		f.finish -= w.cost // what earlier ones have cost beyond their estimate stays
	}
	l.take(w)
}

func (l *line) take(w *waiter) {
	f := w.flow
	lane := f.lane
	i, ok := slices.BinarySearchFunc(lane.order, w, earlier)
	if !ok {
		panic("BUG: a waiter is not in its lane")
	}
	lane.order = slices.Delete(lane.order, i, i+1)
	i = slices.Index(f.waiters, w)
	f.waiters = slices.Delete(f.waiters, i, i+1)
	f.cost -= w.cost
	f.bytes -= w.bytes
	lane.rank(f, len(f.waiters)+1)
	lane.cost -= w.cost
	w.waits = false
	l.n--
	l.bytes -= w.bytes
	if len(lane.order) == 0 {
		// The lane is idle: all begin anew, as the paper has it.
		clear(lane.flows)
		lane.now, lane.cost = 0, 0
	}
}

// correct adds what a request of the client has cost beyond the estimate.
func (f *flow) correct(more float64) {
	if f.lane.flows[f.client] == f {
		f.finish = max(f.finish+more, f.lane.now)
	}
}

// maxDebtors bounds the clients of a lane that wait for nothing and are remembered
// because they were served ahead of others. Beyond it somebody makes up names, and
// the debt of each is a request.
const maxDebtors = 4096

// forget drops clients that owe nothing: they would start now.
func (l *line) forget() {
	for i := range l.lanes {
		lane := &l.lanes[i]
		debtors := 0
		for name, f := range lane.flows {
			switch {
			case len(f.waiters) > 0:
			case f.finish <= lane.now || debtors == maxDebtors:
				delete(lane.flows, name)
			default:
				debtors++
			}
		}
	}
}

const (
	// lookAhead is how many are asked whether they prefer the replica that has room.
	// routing.md's simulation has 32 against 1 for what heads of line cost.
	lookAhead = 32
	// mostPassed is how often one is passed over for that.
	mostPassed = 8
)

// next is who is to be placed while these replicas have room; nil when nobody
// waits. The first in line waits a little for the replica it prefers, as long as
// others behind it prefer one that has room.
func (l *line) next(room []*balancer.Replica) *waiter {
	for i := range l.lanes {
		if order := l.lanes[i].order; len(order) > 0 {
			return choose(order[:min(len(order), lookAhead)], room)
		}
	}
	return nil
}

func choose(order []*waiter, room []*balancer.Replica) *waiter {
	head := order[0]
	if head.passed >= mostPassed {
		return head
	}
	for _, w := range order {
		if w.prefers == nil || slices.ContainsFunc(room, func(r *balancer.Replica) bool { return r.ID == w.prefers.ID }) {
			if w != head {
				head.passed++
			}
			return w
		}
	}
	return head
}
