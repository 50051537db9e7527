package strategy

import (
	"time"

	"lbd/balancer"
)

// Explain shows what a pick would go by: lengths and load first, then the terms of
// the cost, all in ms but for those that say otherwise.
func (p *leastCost) Explain(q *balancer.Request, candidates []*balancer.Replica) [][]balancer.Term {
	if len(candidates) == 0 {
		return nil
	}
	w := p.workspaces.Get().(*workspace)
	defer p.workspaces.Put(w)
	p.look(w, q, candidates)
	all := make([][]balancer.Term, len(candidates))
	for i := range candidates {
		all[i] = p.terms(w, i)
	}
	return all
}

// FirstToken implements balancer.Predictor: the term first_token of the replica that a
// pick chooses. Another one may be faster for this request alone; the strategy has it
// wait for the sake of all, and it is what the client would see.
func (p *leastCost) FirstToken(q *balancer.Request, candidates []*balancer.Replica) (d time.Duration, ok bool) {
	if len(candidates) == 0 {
		return 0, false
	}
	w := p.workspaces.Get().(*workspace)
	defer p.workspaces.Put(w)
	p.look(w, q, candidates)
	first := p.cost(w, p.best(w)).first
	return time.Duration(min(first, longestMs) * float64(time.Millisecond)), first >= 0
}

// longestMs bounds a prediction to what a duration holds.
const longestMs = float64(1<<62) / float64(time.Millisecond)

// terms are those of one candidate. What is not known is shown as unknown.
func (p *leastCost) terms(w *workspace, i int) []balancer.Term {
	s, a, f := &w.sights[i], &w.asked, &w.fleet
	k, c := &s.rates, p.cost(w, i)
	known := func(name string, v float64) balancer.Term { return balancer.Term{Name: name, Value: balancer.Known(v)} }
	capacity, room := balancer.Term{Name: "kv_capacity_tokens"}, balancer.Term{Name: "prefix_cache_tokens"}
	if s.capacity > 0 {
		capacity.Value = balancer.Known(s.capacity)
	}
	if s.st.owner != nil {
		room.Value = balancer.Known(float64(s.st.owner.Room()))
	}
	return []balancer.Term{
		known("cost", c.total),
		known("first_token", c.first),
		known("queue", k.trust*c.queue),
		known("prefill", k.trust*c.prefill),
		known("steps", c.steps*s.cycle),
		known("kv_wait", c.wait),
		known("overdue", c.overdue),
		known("decode", c.own),
		known("slowed", c.slowed),
		known("stalls", c.stalls),
		known("jam", c.jam),
		known("waste", c.waste),
		known("penalty", c.penalty),
		known("weight_of_others", f.others),
		known("weight_of_decoding", f.decoding),
		known("weight_of_jams", f.jams),
		known("fleet_load", f.load),
		known("prompt_tokens", a.prompt),
		known("cached_tokens", a.prompt-w.computes(i)),
		known("output_tokens", a.output),
		known("requests", s.requests),
		known("prefill_tokens", s.tokens),
		known("kv_tokens", s.resident),
		known("kv_used_tokens", s.occupied),
		capacity, room,
		known("trust", k.trust),
		known("doubt", c.doubt),
		known("us_per_prompt_token", 1000*k.token),
		known("decode_step", s.cycle),
	}
}
