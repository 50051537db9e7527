package strategy

import (
	"fmt"
	"testing"

	"lbd/balancer"
)

// BenchmarkLeastCost is what a pick costs, for prompts of all sizes: the index knows
// the prompt on some of the replicas.
func BenchmarkLeastCost(b *testing.B) {
	for _, n := range []int{8, 64} {
		for _, size := range []int{0, 1 << 10, 10 << 10, 100 << 10} {
			b.Run(fmt.Sprintf("%d/%dKB", n, size>>10), func(b *testing.B) {
				p, rs := newLeastCost(Options{}).(*leastCost), polledEvenly(b, n)
				q := &balancer.Request{Model: "m", Stream: true, Now: msec(0)}
				if size > 0 {
					q.Prompt = words(size, 1)
				}
				p.Pick(q, rs) // a fleet that is known, with no slow start
				for i := 0; i < n; i += 3 {
					res := p.Place(q, rs[i:i+1])
					res.FirstToken(msec(0))
					res.Done()
				}
				b.ReportAllocs()
				for b.Loop() {
					p.Pick(q, rs)
				}
			})
		}
	}
}

// BenchmarkLeastCostAnew is a pick that knows nothing from the one before: a workspace that the garbage collector has made
// necessary, or a fleet of which everything has changed.
func BenchmarkLeastCostAnew(b *testing.B) {
	for _, n := range []int{8, 64} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p, rs := newLeastCost(Options{}).(*leastCost), polledEvenly(b, n)
			q := &balancer.Request{Model: "m", Stream: true, Now: msec(0)}
			p.Pick(q, rs)
			b.ReportAllocs()
			for b.Loop() {
				w := p.workspaces.Get().(*workspace)
				clear(w.kept)
				p.workspaces.Put(w)
				p.Pick(q, rs)
			}
		})
	}
}

// BenchmarkLeastCostPlace is a pick with its reservation, of a fleet that is busy: each replica has 8 requests, a queue in a
// poll and a KV cache, and one of the requests shows its first token, another one ends before every pick.
func BenchmarkLeastCostPlace(b *testing.B) {
	for _, n := range []int{8, 64} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p, rs := newLeastCost(Options{}).(*leastCost), replicas(b, even(n)...)
			q := &balancer.Request{Model: "m", Stream: true, Now: msec(0)}
			open := make([]balancer.Reservation, 8*n)
			for i := range open {
				open[i] = p.Place(q, rs)
			}
			for i, r := range rs {
				r.EndPoll(r.BeginPoll(), balancer.Sample{
					Waiting: balancer.Known(float64(i % 2)), Running: balancer.Known(8),
					KVUsage: balancer.Known(0.3), KVTokens: balancer.Known(400_000),
				}, msec(0))
			}
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				q.Now = q.Now.Add(msec(5).Sub(msec(0)))
				open[(i+4*n)%len(open)].FirstToken(q.Now)
				open[i%len(open)].End(balancer.Finished, q.Now)
				open[i%len(open)] = p.Place(q, rs)
				i++
			}
		})
	}
}

// BenchmarkLeastCostEvents is what a stream of 160 events adds: one call each, one in 16 does more.
func BenchmarkLeastCostEvents(b *testing.B) {
	p, rs := newLeastCost(Options{}).(*leastCost), polledEvenly(b, 8)
	q := &balancer.Request{Model: "m", Prompt: words(10<<10, 1), Stream: true, Now: msec(0)}
	b.ReportAllocs()
	for b.Loop() {
		res := p.Place(q, rs)
		res.FirstToken(msec(50))
		for i := range 160 {
			res.Tokens(1, msec(50+8*float64(i)))
		}
		res.Usage(balancer.Usage{Prompt: 2500, Completion: 161, Cached: -1})
		res.End(balancer.Finished, msec(1400))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/160, "ns/event")
}
