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
	now   float64 // virtual time
	cost  float64 // of all
}

// flow is a client in a lane.
type flow struct {
	lane    *lane
	client  string
	finish  float64 // where the next one starts
	waiters []*waiter
	cost    float64 // of those
	bytes   int64   // likewise
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

// bounds are what the line may hold.
type bounds struct {
	n     int
	bytes int64
}

// victims are those who have to go so that w fits in: the newest of the client with
// most work waiting, or most bytes where only those are short, of the lowest class
// first. ok is false when that is w's own client, or nobody but of a higher class is
// there.
func (l *line) victims(w *waiter, most bounds) (out []*waiter, ok bool) {
	n, bytes := l.n+1, l.bytes+w.bytes
	gone := map[*flow]int{}
	for n > most.n || bytes > most.bytes {
		v := l.greediest(w, gone, n <= most.n)
		if v == nil {
			return nil, false
		}
		out = append(out, v)
		gone[v.flow]++
		n, bytes = n-1, bytes-v.bytes
	}
	return out, true
}

// greediest is the next victim, with so many of each flow gone already. In its own
// class a request finds none if its own client has most, itself included.
func (l *line) greediest(w *waiter, gone map[*flow]int, inBytes bool) *waiter {
	own := w.class.lane()
	for i := classes - 1; i >= own; i-- {
		lane := &l.lanes[i]
		worst, most := lane.greediest(gone, inBytes)
		if i == own && most <= lane.flows[w.client].holds(0, inBytes)+w.size(inBytes) {
			return nil
		}
		if worst != nil {
			return worst.waiters[len(worst.waiters)-gone[worst]-1]
		}
	}
	return nil
}

// size is what w takes of the line, in bytes or in work.
func (w *waiter) size(inBytes bool) float64 {
	if inBytes {
		return float64(w.bytes)
	}
	return w.cost
}

// holds is what the client's waiters take but for the newest few that are gone; a
// client that is not there, nil, has none.
func (f *flow) holds(gone int, inBytes bool) float64 {
	if f == nil {
		return 0
	}
	sum := f.cost
	if inBytes {
		sum = float64(f.bytes)
	}
	for _, w := range f.waiters[len(f.waiters)-gone:] {
		sum -= w.size(inBytes)
	}
	return sum
}

// greediest is the client that holds most; of several the first by name, so that it
// is always the same.
func (l *lane) greediest(gone map[*flow]int, inBytes bool) (worst *flow, most float64) {
	for _, f := range l.flows {
		if len(f.waiters) == gone[f] {
			continue
		}
		holds := f.holds(gone[f], inBytes)
		if worst == nil || holds > most || holds == most && f.client < worst.client {
			worst, most = f, holds
		}
	}
	return worst, most
}
