package balancer

import (
	"errors"
	"slices"
	"time"
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
	// Preamble is whatever else decides the first tokens of the prompt, as raw
	// bytes: tools, cache_salt. Requests that differ in it share no prefix. It is
	// only valid during the pick.
	Preamble []byte
	// Blocks stand for the prompt where there is no text: the hash of each leading
	// block of BlockTokens tokens chained with all before it, so that equal hashes
	// mean equal prompts up to there. Only valid during the pick.
	Blocks      []uint64
	BlockTokens int
	// PromptTokens is the length of the prompt, OutputTokens that of the answer,
	// as far as the caller knows; 0 leaves it to the strategy to estimate.
	PromptTokens, OutputTokens int
	// Session stands for whatever the client calls its session, 0 for none. Requests
	// of the same session do well on the same replica; see lbd/affinity, which heeds
	// it on behalf of every strategy.
	Session uint64
	// Now is the time of the pick on the clock that the reservation is told; zero
	// is unknown. No strategy reads a clock itself.
	Now time.Time
}

// Picker is a strategy at work for one model.
type Picker interface {
	// Pick chooses one of the candidates, nil only when there are none. It is
	// called by many goroutines at once; it must not block, allocate, do I/O or
	// keep the slice. Candidates are in the order of the configuration, which
	// means nothing. Own load is reserved by the caller.
	Pick(q *Request, candidates []*Replica) *Replica
}

// Placer is a Picker that reserves more than a count. Pick remains the dry run.
type Placer interface {
	Picker
	// Place is Pick with the reservation; it is empty only when there are no
	// candidates.
	Place(q *Request, candidates []*Replica) Reservation
}

// Term is one figure that a pick depends on, for operators.
type Term struct {
	Name  string
	Value Metric
}

// Explainer is a Picker that can show its reasons.
type Explainer interface {
	// Explain returns the terms of each candidate, in their order. It allocates.
	Explain(q *Request, candidates []*Replica) [][]Term
}

// Predictor is a Picker that can say how long an answer would take.
type Predictor interface {
	// Predict is a dry run of Pick: it says what the request would get at the replica chosen.
	// ok is false when nobody can tell.
	Predict(q *Request, candidates []*Replica) (p Prediction, ok bool)
}

// Predict is what the model's strategy predicts, where it does.
func (m *Model) Predict(q *Request) (p Prediction, ok bool) {
	if strategy, predicts := m.Picker.(Predictor); predicts {
		return strategy.Predict(q, m.Available)
	}
	return Prediction{}, false
}

// Decision is what a dry run found.
type Decision struct {
	Model  *Model
	Picked *Replica // nil when there are no candidates
	// Terms are the strategy's own figures for each of Model.Available, in that
	// order; nil when it shows none.
	Terms [][]Term
}

// Decide is a dry run of Pick: nothing is reserved.
func (m *Model) Decide(q *Request) Decision {
	d := Decision{Model: m, Picked: m.Picker.Pick(q, m.Available)}
	if e, ok := m.Picker.(Explainer); ok && len(m.Available) > 0 {
		d.Terms = e.Explain(q, m.Available)
	}
	return d
}

// Pick chooses one of the model's available replicas that is not in tried and
// reserves it. The error is ErrNoReplica.
func (m *Model) Pick(q *Request, tried []*Replica) (Reservation, error) {
	candidates := m.Available
	if len(tried) > 0 {
		candidates = without(candidates, tried)
	}
	if p, ok := m.Picker.(Placer); ok {
		if v := p.Place(q, candidates); v.replica != nil {
			return v, nil
		}
		return Reservation{}, ErrNoReplica
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
