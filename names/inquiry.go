package names

import (
	"context"
	"sync"
	"time"
)

// inquiry has one look-up of a name under way at most. Its lock may be held when
// Names' is taken, not the reverse.
type inquiry struct {
	name  string
	names *Names

	mu     sync.Mutex
	asked  time.Time     // when the last look-up began
	asking chan struct{} // closed at the end of the one under way; nil = there is none
	err    error         // of the last look-up
}

// gone is of who does not wait for an answer.
var gone = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// inquire asks, or waits for an answer that somebody else has asked for. One that was
// asked for after since is new enough, and one of a moment ago is not asked again.
//
// The look-up itself is nobody's in particular, so that who gives up does not take the
// answer from those who wait on. It calls answered with its result.
func (q *inquiry) inquire(ctx context.Context, since time.Time, ask func(context.Context)) error {
	q.mu.Lock()
	if q.asking == nil {
		if !q.asked.IsZero() && (q.asked.After(since) || time.Since(q.asked) < minGap) {
			defer q.mu.Unlock()
			return q.err
		}
		asking := make(chan struct{})
		if !q.names.spawn(func() { q.run(ask, asking) }) {
			defer q.mu.Unlock()
			return errStopped
		}
		q.asking, q.asked = asking, time.Now()
	}
	asking := q.asking
	q.mu.Unlock()
	select {
	case <-asking:
	case <-ctx.Done():
		return ctx.Err()
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.err
}

func (q *inquiry) run(ask func(context.Context), asking chan struct{}) {
	defer close(asking)
	ctx, cancel := context.WithTimeout(q.names.ctx, lookupTimeout)
	defer cancel()
	ask(ctx)
}

// answered notes a result and returns that of before. Who calls it holds mu.
func (q *inquiry) answered(err error) (before error) {
	before = q.err
	q.asking, q.err = nil, err
	return before
}

// tell says once that look-ups fail, and once that they do not any more.
func (q *inquiry) tell(before, err error) {
	switch {
	case err != nil && before == nil:
		q.names.opt.OnEvent(Event{Kind: Failed, Host: q.name, Err: err})
	case err == nil && before != nil:
		q.names.opt.OnEvent(Event{Kind: Recovered, Host: q.name})
	}
}
