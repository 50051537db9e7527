package rivals

import (
	"time"

	"lbd/bench/replay"
)

// Limited is a rule behind refusals like lbd's (replay.Config.Admission): what would be late at the replica that the rule
// chooses is refused before the rule hears that it is sent. None of these projects predicts first tokens for that; so
// that the comparison with least-cost says what the choice of a replica is worth, theirs are predicted by a knower.
func Limited(p replay.Policy) replay.Policy {
	inner := p.New
	p.Name += "-max-ttft"
	p.What = "not shipped so: " + p.What + "; requests whose first token would be late there are refused, by one who knows the engines"
	p.New = func(s replay.Setup) replay.Router {
		r := inner(s)
		r.(interface{ limitBy(*knower) }).limitBy(&knower{s})
		return r
	}
	return p
}

// knower predicts first tokens as least-cost does, knowing what it has to learn or guess: the constants of each
// replica's steps as they are simulated, faults included, what every lbd has sent there, and what is cached. As there, a
// prefill under way counts in whole.
type knower struct{ replay.Setup }

// first is the time to the first token at a replica, in milliseconds.
func (k *knower) first(i int, q *replay.Query) float64 {
	info := k.Truth.Info(i)
	t := thetaOf(&info)
	running, waiting, kv := k.Truth.Load(i)
	n, tokens := running+waiting, q.Uncached
	ms := t.prefill(q.Uncached, float64(q.PromptTokens))
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
	return ms
}

func (c *counts) limitBy(k *knower) { c.knower = k }

// refuses is asked by rules that Limited takes, when they have chosen a replica and changed nothing yet.
func (c *counts) refuses(q *replay.Query, replica int) bool {
	if c.knower == nil {
		return false
	}
	q.Uncached = float64(q.PromptTokens - c.Truth.Cached(replica, q))
	first := time.Duration(c.knower.first(replica, q) * float64(time.Millisecond))
	return q.Tries == 0 && c.Admission.Refuses(first, q.PromptTokens)
}
