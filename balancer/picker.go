package balancer

import (
	"errors"
	"slices"
)

// ErrNoReplica says that a model has no replica that could take the request
// now: all are ejected, draining or already tried.
var ErrNoReplica = errors.New("no healthy replica")

// Request is what a strategy may know of a request. Every field is optional; a
// strategy does something sensible without it.
type Request struct {
	// Model is the served name the request was resolved to.
	Model string
	// Stream says that the answer is wanted as server-sent events.
	Stream bool
	// MaxTokens is the limit on generated tokens, -1 when the request has none.
	MaxTokens int
	// Prompt is the raw range of messages, prompt or input in the body. It is
	// only valid during the pick.
	Prompt []byte
}

// Picker is a strategy at work for one model.
type Picker interface {
	// Pick chooses one of the candidates, nil only when there are none. It is
	// called by many goroutines at once; it must not block, allocate, do I/O or
	// keep the slice. Candidates are in the order of the configuration, which
	// means nothing. Own load is reserved by the caller.
	Pick(q *Request, candidates []*Replica) *Replica
}

// Pick chooses one of the model's available replicas that is not in tried and
// reserves it. The error is ErrNoReplica.
func (m *Model) Pick(q *Request, tried []*Replica) (Reservation, error) {
	candidates := m.Available
	if len(tried) > 0 {
		candidates = without(candidates, tried)
	}
	r := m.Picker.Pick(q, candidates)
	if r == nil {
		return Reservation{}, ErrNoReplica
	}
	return r.Reserve(), nil
}

// without allocates: only retries get here.
func without(rs, tried []*Replica) []*Replica {
	return slices.DeleteFunc(slices.Clone(rs), func(r *Replica) bool { return slices.Contains(tried, r) })
}
