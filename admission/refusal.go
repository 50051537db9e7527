package admission

import (
	"errors"
	"time"
)

// Reason is why a request was refused, as it appears in metric labels.
type Reason string

// The reasons.
const (
	// QueueFull: the queue was full, and nobody of a lower class or a greedier client
	// was in it; or it became full and this was the one to go.
	QueueFull Reason = "queue_full"
	// TooOld: the request has waited as long as is configured, or would have.
	TooOld Reason = "too_old"
	// Deadline: the client would have given up before.
	Deadline Reason = "deadline"
	// PredictedTTFT: the first token is predicted for later than is configured.
	PredictedTTFT Reason = "predicted_ttft"
	// PredictedTPOT: the tokens after it are predicted to take longer, each, than is
	// configured.
	PredictedTPOT Reason = "predicted_tpot"
)

// Reasons lists them.
func Reasons() []Reason { return []Reason{QueueFull, TooOld, Deadline, PredictedTTFT, PredictedTPOT} }

// Refusal is the answer to a request that is not let in.
type Refusal struct {
	Reason Reason
	// RetryAfter is when the request would have had its turn, or would have it within
	// its limit, from the work before it and the pace at which that is done. While no
	// pace is known it is as long as the queue has not been empty, 1 s at least. For
	// PredictedTTFT it is by how much the first token would have been too late. For
	// PredictedTPOT it is the wait before it, 1 s at least: when streams end nobody
	// knows, and what others send fades within seconds.
	RetryAfter time.Duration
	// Waited is how long it was in the queue.
	Waited time.Duration
	// Predicted is the time that was too long, Allowed what would not have been: to the
	// first token for PredictedTTFT, per output token for PredictedTPOT, else 0.
	Predicted, Allowed time.Duration
}

// Error implements error.
func (r *Refusal) Error() string { return "refused: " + string(r.Reason) }

// Ends of waiting without a place and without a refusal.
var (
	// ErrLeft: the client has left.
	ErrLeft = errors.New("the client has left")
	// ErrGone: nobody serves the model any more.
	ErrGone = errors.New("nobody serves the model any more")
	// ErrClosed: lbd ends.
	ErrClosed = errors.New("admission is closed")
)

// The range of Retry-After. Before drainSure requests were placed from the queue
// nobody knows how fast it empties, and the only thing to go by is how long that has
// lasted: a queue that has stood for T stands for another T as likely as not (Gott,
// Nature 363, 1993). At its very beginning that is the least.
const leastRetry, mostRetry = time.Second, 10 * time.Minute
