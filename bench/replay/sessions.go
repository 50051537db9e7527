package replay

import (
	"math/rand/v2"
	"slices"
	"time"

	"lbd/bench/trace"
)

// Sessions offers conversations in closed loop: so many at any time, each turn after the end of the one before and the
// time to think, a new conversation when one has ended. All of them are offered once, unless turns ends it before.
type Sessions struct {
	List       []trace.Session
	Concurrent int
	// Turns ends the workload after so many requests; 0 = when all conversations have ended.
	Turns int
	// ThinkMax cuts the longest pauses, in which people sleep; 0 keeps them.
	ThinkMax time.Duration
	// Coarse joins so many blocks of the trace to one, which is faster; 0 means 1. Equal blocks of these traces stand for equal
	// prefixes, so the last one of a group names it.
	Coarse int
	// Seed draws the order of the conversations, and how far into its first pause each is at the start.
	Seed uint64
}

// Workload makes it one to run.
func (s Sessions) Workload(name string) *Workload {
	s.List = slices.DeleteFunc(slices.Clone(s.List), func(c trace.Session) bool { return len(c.Turns) == 0 })
	s.Coarse = max(s.Coarse, 1)
	return &Workload{Name: name, BlockTokens: s.Coarse * trace.SessionBlock, closed: true, open: func() source { return newClosedLoop(s) }}
}

type closedLoop struct {
	s      Sessions
	order  []int
	begun  int // conversations
	taken  uint64
	heap   agenda // who is a session's number
	active map[uint64]*conversation
}

type conversation struct {
	session *trace.Session
	cursor  *trace.Cursor
	turn    int
}

func newClosedLoop(s Sessions) *closedLoop {
	rng := rand.New(rand.NewPCG(s.Seed, streamSessions))
	c := &closedLoop{s: s, order: rng.Perm(len(s.List)), active: map[uint64]*conversation{}}
	for range min(s.Concurrent, len(s.List)) {
		c.begin(time.Duration(rng.Float64() * float64(spreadStart)))
	}
	return c
}

// spreadStart is over which time the first conversations begin.
const spreadStart = time.Minute

// begin starts the next conversation, if there is one.
func (c *closedLoop) begin(at time.Duration) {
	if c.begun == len(c.order) {
		return
	}
	session := &c.s.List[c.order[c.begun]]
	c.begun++
	number := uint64(c.begun)
	c.active[number] = &conversation{session: session, cursor: session.Blocks(number)}
	c.heap.add(event{at: at, who: int(number)})
}

func (c *closedLoop) next() time.Duration {
	if c.s.Turns > 0 && c.taken >= uint64(c.s.Turns) {
		return never
	}
	return c.heap.next()
}

func (c *closedLoop) take() Request {
	e := c.heap.pop()
	v := c.active[uint64(e.who)]
	t := &v.session.Turns[v.turn]
	v.turn++
	q := Request{
		ID: c.taken, At: e.at, PromptTokens: t.PromptTokens, OutputTokens: t.OutputTokens, Blocks: coarse(v.cursor.Next(), c.s.Coarse),
		Session: uint64(e.who),
	}
	c.taken++
	return q
}

func coarse(blocks []uint64, n int) []uint64 {
	if n == 1 {
		return blocks
	}
	joined := make([]uint64, 0, len(blocks)/n)
	for i := n - 1; i < len(blocks); i += n {
		joined = append(joined, blocks[i])
	}
	return joined
}

func (c *closedLoop) ended(q *Request, now time.Duration) {
	v := c.active[q.Session]
	if v.turn == len(v.session.Turns) {
		delete(c.active, q.Session)
		c.begin(now)
		return
	}
	think := v.session.Turns[v.turn].Think
	if c.s.ThinkMax > 0 {
		think = min(think, c.s.ThinkMax)
	}
	c.heap.add(event{at: now + think, who: int(q.Session)})
}

func (c *closedLoop) close() error { return nil }
