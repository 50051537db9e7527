package poll

import "errors"

// refusal is an answer that is not what was asked for, such as a 401 or a page that
// is no list. Asking again will not change it, unlike a replica that is down or
// loads.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// failing says how the last readings of a page went.
type failing uint8

const (
	answering failing = iota
	silent            // no answer, or a 5xx
	refusing          // at least once since it answered well
)

// news takes in the next reading and says whether it is worth an event: the first
// failure, and the first refusal after mere silence.
func (f *failing) news(err error) bool {
	was := *f
	var r refusal
	switch {
	case err == nil:
		*f = answering
	case errors.As(err, &r):
		*f = refusing
	case was == answering:
		*f = silent
	}
	return *f > was
}

func (p *Poller) tellFailed(k Kind, t *target, err error) {
	var r refusal
	p.opts.OnEvent(Event{Kind: k, Replica: t.replica.ID, Reason: err.Error(), Refused: errors.As(err, &r)})
}
