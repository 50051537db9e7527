package rivals

import (
	"math"
	"time"

	"lbd/balancer"
	"lbd/bench/replay"
)

// Limited is a rule behind refusals like lbd's (replay.Config.Admission), with a name of its own: what would miss a limit
// at the replica that the rule chooses is refused before the rule hears that it is sent. None of these projects predicts
// for that; so that the comparison with least-cost says what the choice of a replica is worth, a knower predicts for them.
func Limited(p replay.Policy, suffix string) replay.Policy {
	inner := p.New
	p.Name += suffix
	p.What = "not shipped so: " + p.What + "; requests that would be late or slow there are refused, by one who knows the engines"
	p.New = func(s replay.Setup) replay.Router {
		r := inner(s)
		r.(interface{ limitBy(*knower) }).limitBy(&knower{Setup: s, arrivals: make([]arrivals, len(s.Replicas))})
		return r
	}
	return p
}

// knower predicts as least-cost does, knowing what it has to learn or guess: the constants of each replica's steps as
// they are simulated, faults included, what every lbd has there, and what is cached. As there, a prefill under way counts
// in whole, and what prefills will take of a replica's time is what has come of late.
type knower struct {
	replay.Setup
	arrivals []arrivals
}

// arrivals is prefill that was sent to a replica, in ms, fading. The constants are those of least-cost.
type arrivals struct {
	sum float64
	at  time.Duration
}

const (
	arrivalSpan = 2 * time.Second
	arrivalMost = 500.0
	mostShare   = .95
	growth      = 1.05
)

func (a *arrivals) until(now time.Duration) float64 {
	return a.sum * math.Exp(-float64(now-a.at)/float64(arrivalSpan))
}

func (a *arrivals) add(ms float64, now time.Duration) {
	*a = arrivals{a.until(now) + min(ms, arrivalMost), now}
}

// predict says what a request gets at a replica, and how many ms its own prefill takes.
func (k *knower) predict(now time.Duration, i int, q *replay.Query) (p balancer.Prediction, own float64) {
	info := k.Truth.Info(i)
	t := thetaOf(&info)
	running, waiting, kv := k.Truth.Load(i)
	own = t.prefill(q.Uncached, float64(q.PromptTokens))
	n, tokens, ms := running+waiting, q.Uncached, own
	k.Truth.Waiting(i, func(o *replay.Query, submitted bool) {
		if !submitted {
			n++
		}
		tokens += o.Uncached
		ms += t.prefill(o.Uncached, float64(o.PromptTokens))
	})
	step := t.step + t.perSequence*float64(n) + t.perKVToken*float64(kv)
	ms += float64(int(tokens/t.budget)+1) * step
	if over := float64(kv+q.PromptTokens+q.OutputTokens) - .9*t.kv; over > 0 {
		ms += over * kvWait
	}
	share := min(k.arrivals[i].until(now)/(1e3*arrivalSpan.Seconds()), mostShare)
	step += t.perSequence + t.perKVToken*(float64(q.PromptTokens)+float64(q.OutputTokens)/2)
	p.TTFT = time.Duration(ms * float64(time.Millisecond))
	if q.Stream {
		p.TPOT = time.Duration(growth * step / (1 - share) * float64(time.Millisecond))
	}
	return p, own
}

func (c *counts) limitBy(k *knower) { c.knower = k }

// refuses is asked by rules that Limited takes, when they have chosen a replica and changed nothing yet. What it does not
// refuse is sent there.
func (c *counts) refuses(now time.Duration, q *replay.Query, replica int) bool {
	if c.knower == nil {
		return false
	}
	q.Uncached = float64(q.PromptTokens - c.Truth.Cached(replica, q))
	p, own := c.knower.predict(now, replica, q)
	if q.Tries == 0 && c.Admission.Misses(p, q.PromptTokens) {
		return true
	}
	c.knower.arrivals[replica].add(own, now)
	return false
}
