package replay

import "time"

// kind of an event that is not the end of an engine's step.
type kind uint8

const (
	// The order decides between events of one instant: the fleet's state first, then knowledge, then traffic.
	kindFault kind = iota
	kindPoll
	kindProbe  // a probe finds a replica that was ejected
	kindSubmit // a request leaves the API server for the engine
)

// event is something that happens at a time; who is what it happens to.
type event struct {
	at   time.Duration
	kind kind
	seq  uint64 // order of scheduling, the last resort of the order
	who  int
	// generation of the sending that a kindSubmit belongs to.
	generation uint32
}

func (a event) before(b event) bool {
	if a.at != b.at {
		return a.at < b.at
	}
	if a.kind != b.kind {
		return a.kind < b.kind
	}
	return a.seq < b.seq
}

// agenda is a binary heap of events. container/heap would box every event.
type agenda struct {
	heap []event
	seq  uint64
}

func (g *agenda) add(e event) {
	g.seq++
	e.seq = g.seq
	g.heap = append(g.heap, e)
	h := g.heap
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 2
		if !h[i].before(h[up]) {
			return
		}
		h[i], h[up] = h[up], h[i]
		i = up
	}
}

// next is the time of the earliest event, never when there is none.
func (g *agenda) next() time.Duration {
	if len(g.heap) == 0 {
		return never
	}
	return g.heap[0].at
}

func (g *agenda) pop() event {
	h := g.heap
	e := h[0]
	last := len(h) - 1
	h[0] = h[last]
	h = h[:last]
	g.heap = h
	for i := 0; ; {
		c := 2*i + 1
		if c >= len(h) {
			return e
		}
		if c+1 < len(h) && h[c+1].before(h[c]) {
			c++
		}
		if !h[c].before(h[i]) {
			return e
		}
		h[i], h[c] = h[c], h[i]
		i = c
	}
}

// never is later than everything.
const never = time.Duration(1<<63 - 1)

// steps orders replicas by the end of the step under way: a binary heap that knows where each replica is, since a step
// ends and begins far more often than anything else happens.
type steps struct {
	heap []int           // replica numbers
	at   []int           // place of each replica in heap
	ends []time.Duration // end of each replica's step, never when idle
}

func newSteps(n int) steps {
	s := steps{heap: make([]int, n), at: make([]int, n), ends: make([]time.Duration, n)}
	for i := range n {
		s.heap[i], s.at[i], s.ends[i] = i, i, never
	}
	return s
}

func (s *steps) first() (replica int, at time.Duration) { return s.heap[0], s.ends[s.heap[0]] }

// set moves a replica to where its new end belongs.
func (s *steps) set(replica int, end time.Duration) {
	s.ends[replica] = end
	i := s.at[replica]
	for i > 0 && s.less(replica, s.heap[(i-1)/2]) {
		i = s.swap(i, (i-1)/2)
	}
	for {
		c := 2*i + 1
		if c >= len(s.heap) {
			return
		}
		if c+1 < len(s.heap) && s.less(s.heap[c+1], s.heap[c]) {
			c++
		}
		if !s.less(s.heap[c], replica) {
			return
		}
		i = s.swap(i, c)
	}
}

func (s *steps) less(a, b int) bool {
	return s.ends[a] < s.ends[b] || s.ends[a] == s.ends[b] && a < b
}

func (s *steps) swap(i, j int) int {
	s.heap[i], s.heap[j] = s.heap[j], s.heap[i]
	s.at[s.heap[i]], s.at[s.heap[j]] = i, j
	return j
}
