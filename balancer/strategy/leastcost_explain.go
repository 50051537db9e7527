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

// Predict implements balancer.Predictor for the replica that a pick chooses: TTFT is the
// term first_token, TPOT is per_token, for streams only. Another replica may be faster for
// this request alone; the strategy has it wait for the sake of all, and that is what the
// client would see.
//
// A replica at which this lbd has nothing is not said to be slow: if streams were refused for
// that everywhere, none would be left to show that it is over.
func (p *leastCost) Predict(q *balancer.Request, candidates []*balancer.Replica) (got balancer.Prediction, ok bool) {
	if len(candidates) == 0 {
		return got, false
	}
	w := p.workspaces.Get().(*workspace)
	defer p.workspaces.Put(w)
	p.look(w, q, candidates)
	i := p.best(w)
	first := p.cost(w, i).first
	got.TTFT = duration(first)
	if q.Stream && q.MaxTokens != 1 && w.sights[i].own > 0 {
		got.TPOT = duration(w.perToken(i))
	}
	return got, first >= 0
}

// duration is so many ms, as far as a duration reaches.
func duration(ms float64) time.Duration {
	return time.Duration(min(ms, longestMs) * float64(time.Millisecond))
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
		known("per_token", w.perToken(i)),
		known("prefill_share", s.st.arrivals.share(a.now)),
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
