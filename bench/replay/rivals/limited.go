package rivals

import (
	"time"

	"lbd/bench/replay"
)

// Limited is a rule behind refusals like lbd's (replay.Config.Admission). None of these projects predicts first tokens for
// that; so that the comparison with least-cost says what the choice of a replica is worth, theirs are predicted with
// everything known: constants of the step time, content of the caches, state of the engines.
func Limited(p replay.Policy) replay.Policy {
	inner := p.New
	p.Name += "-max-ttft"
	p.What = "not shipped so: " + p.What + "; requests whose first token would be late there are refused, by one who knows the engines"
	p.New = func(s replay.Setup) replay.Router {
		return &limited{Router: inner(s), setup: s, known: makeOracle(s, true), charges: map[uint64]charge{}}
	}
	return p
}

type limited struct {
	replay.Router
	setup   replay.Setup
	known   *oracle
	charges map[uint64]charge // by request, until the first token
}

// charge is what a request has put on its replica's account: Query.Charge is the inner rule's.
type charge struct {
	replica       int
	work, prefill float64 // ms, tokens
}

func (l *limited) Pick(now time.Duration, q *replay.Query, candidates []int) int {
	i := l.Router.Pick(now, q, candidates)
	if i < 0 {
		return i
	}
	first, c := l.known.first(i, q)
	if q.Tries == 0 && l.setup.Admission.Refuses(time.Duration(first*float64(time.Millisecond)), q.PromptTokens) {
		q.Replica = i
		l.Router.Done(now, q, false)
		return replay.Refuse
	}
	l.known.work[i] += c.work
	l.known.prefill[i] += c.prefill
	l.charges[q.ID] = c
	return i
}

func (l *limited) FirstToken(now time.Duration, q *replay.Query) {
	l.begun(q)
	l.Router.FirstToken(now, q)
}

func (l *limited) Done(now time.Duration, q *replay.Query, ok bool) {
	l.begun(q)
	l.Router.Done(now, q, ok)
}

// begun takes the prefill of a request off the account.
func (l *limited) begun(q *replay.Query) {
	c, ok := l.charges[q.ID]
	if !ok {
		return
	}
	delete(l.charges, q.ID)
	l.known.work[c.replica] -= c.work
	l.known.prefill[c.replica] -= c.prefill
}
