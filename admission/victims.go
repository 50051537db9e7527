package admission

import (
	"cmp"
	"container/heap"
)

// bounds are what the line may hold.
type bounds struct {
	n     int
	bytes int64
}

// measure is what a client can have too much of in the line.
type measure uint8

const (
	inWork measure = iota
	inBytes
	measures
)

// size is what w takes of the line.
func (w *waiter) size(in measure) float64 {
	if in == inBytes {
		return float64(w.bytes)
	}
	return w.cost
}

// holds is what the client's waiters take but for the newest few that are gone; a
// client that is not there, nil, has none.
func (f *flow) holds(gone int, in measure) float64 {
	if f == nil {
		return 0
	}
	sum := f.cost
	if in == inBytes {
		sum = float64(f.bytes)
	}
	for _, w := range f.waiters[len(f.waiters)-gone:] {
		sum -= w.size(in)
	}
	return sum
}

// hogs are the clients of a lane that have something waiting, as a heap: on top is who
// holds most, of several the first by name, so that it is always the same.
type hogs struct {
	flows []*flow
	in    measure
}

func greedier(a *flow, holds float64, b *flow, others float64) bool {
	return cmp.Or(cmp.Compare(others, holds), cmp.Compare(a.client, b.client)) < 0
}

func (h *hogs) Len() int { return len(h.flows) }
func (h *hogs) Less(i, j int) bool {
	a, b := h.flows[i], h.flows[j]
	return greedier(a, a.holds(0, h.in), b, b.holds(0, h.in))
}
func (h *hogs) Swap(i, j int) {
	h.flows[i], h.flows[j] = h.flows[j], h.flows[i]
	h.flows[i].at[h.in], h.flows[j].at[h.in] = i, j
}
func (h *hogs) Push(f any) {
	h.flows = append(h.flows, f.(*flow))
	f.(*flow).at[h.in] = len(h.flows) - 1
}
func (h *hogs) Pop() any {
	last := len(h.flows) - 1
	f := h.flows[last]
	h.flows[last] = nil
	h.flows = h.flows[:last]
	return f
}

// rank puts f where it belongs among the lane's hogs, when it had so many waiting before.
func (l *lane) rank(f *flow, before int) {
	for in := range measures {
		h := &l.hogs[in]
		h.in = in
		switch {
		case before == 0:
			heap.Push(h, f)
		case len(f.waiters) == 0:
			heap.Remove(h, f.at[in])
		default:
			heap.Fix(h, f.at[in])
		}
	}
}

// hunt finds the greediest clients of a lane one after the other, as if what was found
// were gone. It leaves the heap as it is: whoever is looked at there brings the two below.
type hunt struct {
	hogs *hogs
	gone map[*flow]int // of each flow, in all hunts of one search
	open []quarry      // a heap; nil: it has not begun
}

type quarry struct {
	*flow
	holds float64
	place int // in hogs; -1: it was looked at
}

func (h *hunt) Len() int { return len(h.open) }
func (h *hunt) Less(i, j int) bool {
	return greedier(h.open[i].flow, h.open[i].holds, h.open[j].flow, h.open[j].holds)
}
func (h *hunt) Swap(i, j int) { h.open[i], h.open[j] = h.open[j], h.open[i] }
func (h *hunt) Push(q any)    { h.open = append(h.open, q.(quarry)) }
func (h *hunt) Pop() any {
	last := len(h.open) - 1
	q := h.open[last]
	h.open = h.open[:last]
	return q
}

// add opens a place of the heap, if it has one.
func (h *hunt) add(place int) {
	if place < len(h.hogs.flows) {
		f := h.hogs.flows[place]
		heap.Push(h, quarry{f, f.holds(0, h.hogs.in), place})
	}
}

// greediest returns who holds most of what is left, nil for nobody.
func (h *hunt) greediest() *quarry {
	if h.open == nil {
		h.add(0)
	}
	for len(h.open) > 0 {
		q := &h.open[0]
		if q.place < 0 {
			return q
		}
		place := q.place
		q.place, q.holds = -1, q.flow.holds(h.gone[q.flow], h.hogs.in)
		h.settle()
		h.add(2*place + 1)
		h.add(2*place + 2)
	}
	return nil
}

// take notes the newest of the first's waiters as gone, and returns it.
func (h *hunt) take() *waiter {
	q := &h.open[0]
	h.gone[q.flow]++
	v := q.waiters[len(q.waiters)-h.gone[q.flow]]
	q.holds -= v.size(h.hogs.in)
	h.settle()
	return v
}

// settle puts the first where it belongs when something of it is gone.
func (h *hunt) settle() {
	if q := &h.open[0]; len(q.waiters) == h.gone[q.flow] {
		heap.Pop(h)
		return
	}
	heap.Fix(h, 0)
}

// victims are those who have to go so that w fits in: the newest of the client with
// most work waiting, or most bytes where only those are short, of the lowest class
// first. ok is false when that is w's own client, or nobody but of a higher class is
// there.
func (l *line) victims(w *waiter, most bounds) (out []*waiter, ok bool) {
	n, held := l.n+1, l.bytes+w.bytes
	s := search{w: w, gone: map[*flow]int{}}
	for n > most.n || held > most.bytes {
		in := inWork
		if n <= most.n {
			in = inBytes
		}
		v := s.next(l, in)
		if v == nil {
			return nil, false
		}
		out = append(out, v)
		n, held = n-1, held-v.bytes
	}
	return out, true
}

// search is for the victims of w.
type search struct {
	w     *waiter
	gone  map[*flow]int
	in    measure
	hunts [classes]hunt
}

// next is the next victim. In its own class a request finds none if its own client has
// most, itself included.
func (s *search) next(l *line, in measure) *waiter {
	if s.in != in {
		s.in, s.hunts = in, [classes]hunt{}
	}
	own := s.w.class.lane()
	for i := classes - 1; i >= own; i-- {
		lane, h := &l.lanes[i], &s.hunts[i]
		h.hogs, h.gone = &lane.hogs[in], s.gone
		q := h.greediest()
		most := 0.0
		if q != nil {
			most = q.holds
		}
		if i == own && most <= lane.flows[s.w.client].holds(0, in)+s.w.size(in) {
			return nil
		}
		if q != nil {
			return h.take()
		}
	}
	return nil
}
