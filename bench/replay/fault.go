package replay

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// fault begins (even) or ends (odd) the fault e.who/2.
func (r *run) fault(e event) {
	f := r.cfg.Faults[e.who/2]
	s := r.servers[f.Replica]
	switch begins := e.who%2 == 0; {
	case f.Factor > 0 && begins:
		s.slow *= f.Factor
	case f.Factor > 0:
		s.slow /= f.Factor
	case begins:
		r.crash(e.at, s)
	default:
		s.down = false
	}
}

// crash resets every request the replica has.
func (r *run) crash(now time.Duration, s *server) {
	if s.down {
		return
	}
	s.crash()
	r.steps.set(s.number, never)
	for _, q := range r.on(s.number) {
		r.attemptFailed(now, q)
	}
}

// on lists the requests that were sent to a replica and have not ended, in order of arrival.
func (r *run) on(replica int) (qs []*Query) {
	free := make(map[int]bool, len(r.spare))
	for _, slot := range r.spare {
		free[slot] = true
	}
	for slot, q := range r.live {
		if !free[slot] && q.Tries > 0 && q.Replica == replica && !q.waits {
			qs = append(qs, q)
		}
	}
	sortByID(qs)
	return qs
}

// attemptFailed is a connection that was refused or reset.
func (r *run) attemptFailed(now time.Duration, q *Query) {
	l := r.lbds[q.lbd]
	q.sent = false
	l.router.Done(now, q, false)
	if d := l.failed(q.Replica); d > 0 {
		r.agenda.add(event{at: now + d, kind: kindProbe, who: q.lbd*maxReplicas + q.Replica})
	}
	q.generation++
	q.tried = append(q.tried, q.Replica)
	if q.Begun() && q.Stream || q.Tries >= r.cfg.MaxTries {
		r.fail(now, q)
		return
	}
	q.first, q.CachedTokens = -1, 0
	r.res.Retries++
	r.pick(now, q)
}

// probe looks whether an ejected replica is back.
func (r *run) probe(e event) {
	l, replica := r.lbds[e.who/maxReplicas], e.who%maxReplicas
	if r.servers[replica].down {
		d := l.health[replica].backOff
		l.health[replica].backOff = min(2*d, maxEjectionTime)
		r.agenda.add(event{at: e.at + d, kind: kindProbe, who: e.who})
		return
	}
	l.readmit(replica)
	l.router.Restarted(e.at, replica)
	r.release(e.at, l)
}

func sortByID(qs []*Query) {
	slices.SortFunc(qs, func(a, b *Query) int { return cmp.Compare(a.ID, b.ID) })
}

// ParseFault reads the command line's notation; replicas count from 0:
//
//	crash:3@1m          replica 3 dies after a minute
//	crash:3@1m+30s      and is back, empty, half a minute later
//	slow:3@1m+30s*2.5   its steps take 2.5 times as long meanwhile
func ParseFault(s string) (f Fault, err error) {
	fail := func() (Fault, error) {
		return Fault{}, fmt.Errorf("fault %q; want crash:REPLICA@AT[+FOR] or slow:REPLICA@AT[+FOR]*FACTOR", s)
	}
	kind, rest, _ := strings.Cut(s, ":")
	rest, factor, stretched := strings.Cut(rest, "*")
	replica, times, timed := strings.Cut(rest, "@")
	at, length, ends := strings.Cut(times, "+")
	if f.Replica, err = strconv.Atoi(replica); err != nil || f.Replica < 0 || !timed {
		return fail()
	}
	if f.At, err = time.ParseDuration(at); err != nil || f.At < 0 {
		return fail()
	}
	if ends {
		if f.For, err = time.ParseDuration(length); err != nil || f.For <= 0 {
			return fail()
		}
	}
	switch {
	case kind == "crash" && !stretched:
		return f, nil
	case kind != "slow" || !stretched:
		return fail()
	}
	if f.Factor, err = strconv.ParseFloat(factor, 64); err != nil || !(f.Factor > 0 && f.Factor <= 1e6) {
		return fail()
	}
	return f, nil
}
