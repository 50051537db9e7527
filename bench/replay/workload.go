package replay

import (
	"iter"
	"time"

	"lbd/bench/trace"
)

// Request is what a workload offers.
type Request struct {
	// ID counts the requests of a workload from 0 in the order they arrive.
	ID uint64
	At time.Duration
	// PromptTokens and OutputTokens are at least 1.
	PromptTokens, OutputTokens int
	// Blocks names the content of the prompt, Workload.BlockTokens tokens each; see trace.Arrival.
	Blocks []uint64
	// Session numbers the conversation from 1; 0 when the workload does not say. A request of a session in closed loop
	// follows the end of the one before it.
	Session uint64
}

// Workload is what is offered to a fleet. It can be run any number of times, and is the same each time.
type Workload struct {
	// BlockTokens is the size of one element of Request.Blocks, 0 without prefixes.
	BlockTokens int
	// Name says what it is, for tables.
	Name string

	open   func() source
	closed bool // requests may follow the end of others
}

// source is one run through a workload.
type source interface {
	// next is when the next request arrives, never when there is none (in closed loop: none yet).
	next() time.Duration
	// take removes that request.
	take() Request
	// ended tells of the end of a request, which in closed loop brings the next one about.
	ended(q *Request, now time.Duration)
	// close ends the run, and says what stopped it early.
	close() error
}

// Open offers the arrivals of a trace at their times, whatever becomes of them. The trace is read while it runs.
func Open(name string, t *trace.Trace) *Workload {
	return &Workload{Name: name, BlockTokens: t.BlockTokens, open: func() source {
		s := &openLoop{}
		s.pull, s.stop = iter.Pull2(t.Arrivals)
		s.advance()
		return s
	}}
}

type openLoop struct {
	pull  func() (trace.Arrival, error, bool)
	stop  func()
	head  trace.Arrival
	more  bool
	taken uint64
	err   error
}

func (s *openLoop) advance() {
	var err error
	s.head, err, s.more = s.pull()
	if err != nil {
		s.err, s.more = err, false
	}
}

func (s *openLoop) next() time.Duration {
	if !s.more {
		return never
	}
	return s.head.At
}

func (s *openLoop) take() Request {
	a := s.head
	q := Request{ID: s.taken, At: a.At, PromptTokens: a.PromptTokens, OutputTokens: a.OutputTokens, Blocks: a.Blocks}
	s.taken++
	s.advance()
	return q
}

func (s *openLoop) ended(*Request, time.Duration) {}

func (s *openLoop) close() error {
	s.stop()
	return s.err
}
