package replay

import (
	"fmt"
	"slices"
	"time"

	"lbd/balancer"
	"lbd/balancer/strategy"
)

// Shipped makes a policy of one of lbd's own strategies: balancer.Model.Pick over a balancer.Snapshot, own load by
// balancer.Reservation, foreign load by BeginPoll and EndPoll, as in the daemon.
func Shipped(e strategy.Entry) Policy {
	p := Policy{Name: e.Name, New: func(s Setup) Router { return newShipped(e, s) }}
	_, p.Tokens = e.New(strategy.Options{Uint64: func() uint64 { return 0 }}).(balancer.Placer)
	return p
}

const modelName = "model"

type shipped struct {
	replicas    []*balancer.Replica
	number      map[*balancer.Replica]int
	admission   Limits
	picker      balancer.Picker
	name        string
	blockTokens int
	holder      balancer.Holder
	current     []int // numbers of the published candidates
	tried       []*balancer.Replica
}

func newShipped(e strategy.Entry, s Setup) *shipped {
	r := &shipped{name: e.Name, number: make(map[*balancer.Replica]int, len(s.Replicas)), blockTokens: s.BlockTokens, admission: s.Admission}
	for i, info := range s.Replicas {
		rep := balancer.NewReplica(balancer.Endpoint{Addr: info.ID, Host: info.ID}, "", info.Weight)
		r.replicas = append(r.replicas, rep)
		r.number[rep] = i
	}
	r.picker = e.New(strategy.Options{Uint64: s.Uint64})
	return r
}

// origin of virtual time as strategies see it. Any instant does; the zero time would look unset.
var origin = time.Unix(1_700_000_000, 0)

func (r *shipped) Pick(now time.Duration, q *Query, candidates []int) int {
	r.tried = r.tried[:0]
	for _, i := range q.tried {
		r.tried = append(r.tried, r.replicas[i])
	}
	if len(q.tried) > 0 {
		candidates = slices.Concat(candidates, q.tried) // Pick takes them out again
		slices.Sort(candidates)
	}
	if !slices.Equal(candidates, r.current) {
		r.publish(candidates)
	}
	req := balancer.Request{
		Model: modelName, Stream: q.Stream, MaxTokens: -1, PromptTokens: q.Estimate, Now: origin.Add(now),
	}
	if r.blockTokens > 0 {
		req.Blocks, req.BlockTokens = q.Blocks[:min(len(q.Blocks), q.PromptTokens/r.blockTokens)], r.blockTokens
	}
	m := r.holder.Load().Model([]byte(modelName))
	if r.admission.Any() && q.Tries == 0 {
		if p, ok := m.Predict(&req); ok && r.admission.Misses(p, q.Estimate) {
			return Refuse
		}
	}
	res, err := m.Pick(&req, r.tried)
	if err != nil {
		panic(fmt.Sprintf("BUG: %s picked none of %d candidates", r.name, len(candidates)))
	}
	q.reservation = res
	return r.number[res.Replica()]
}

// publish swaps the snapshot, as fleet does when a replica is ejected or comes back.
func (r *shipped) publish(candidates []int) {
	r.current = slices.Clone(candidates)
	m := &balancer.Model{Name: modelName, Strategy: r.name, Picker: r.picker, Replicas: r.replicas}
	for _, i := range candidates {
		m.Available = append(m.Available, r.replicas[i])
	}
	r.holder.Store(balancer.NewSnapshot(r.holder.Load().Generation+1, nil, []*balancer.Model{m}))
}

func (r *shipped) FirstToken(now time.Duration, q *Query) {
	q.reservation.FirstByte()
	q.reservation.FirstToken(origin.Add(now))
}

func (r *shipped) Tokens(now time.Duration, q *Query, n int) {
	q.reservation.Tokens(n, origin.Add(now))
}

func (r *shipped) Done(now time.Duration, q *Query, ok bool) {
	if !ok {
		q.reservation.End(balancer.Failed, origin.Add(now))
		return
	}
	if !q.Stream { // streams tell usage only when asked, and most clients do not ask
		q.reservation.Usage(balancer.Usage{Prompt: q.PromptTokens, Completion: q.OutputTokens, Cached: -1})
	}
	q.reservation.End(balancer.Finished, origin.Add(now))
}

func (r *shipped) Poll(now time.Duration, replica int, s *balancer.Sample) {
	rep := r.replicas[replica]
	rep.EndPoll(rep.BeginPoll(), *s, origin.Add(now))
}

// Restarted is what the daemon does when health finds that a replica came back from being unreachable.
func (r *shipped) Restarted(_ time.Duration, replica int) { r.replicas[replica].Restarted() }
