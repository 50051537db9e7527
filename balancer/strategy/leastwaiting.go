package strategy

import "lbd/balancer"

// leastWaiting compares first what waits: the polled gauge and what was sent since that poll and has had no first byte.
// The second part is what keeps it from the herd: without it, all of a poll period goes to one replica. vLLM's own
// balancer of data-parallel engines corrects its polled counts in the same way (vllm/v1/engine/core_client.py). The gauge
// is mostly 0 while a replica has KV blocks free, so what runs decides often: own load and what others put there.
type leastWaiting struct{ rotation rotation }

func newLeastWaiting(o Options) balancer.Picker {
	p := &leastWaiting{}
	p.rotation.next.Store(o.uint64()())
	return p
}

func (p *leastWaiting) Pick(_ *balancer.Request, candidates []*balancer.Replica) *balancer.Replica {
	return p.rotation.least(candidates, waitingKey, typicalOf(candidates))
}

// waitingKey takes for unknown what is typical, but never less than what is known to wait: own requests without an answer.
func waitingKey(r *balancer.Replica, ty typical) key {
	k := key{requests: r.InFlight(), weight: r.Weight}
	n, ok := waiting(r)
	if !ok {
		n = max(ty.waiting*r.Weight, r.Pending())
	}
	k.waiting = n
	f, ok := foreign(r)
	if !ok {
		f = ty.foreign * r.Weight
	}
	k.requests += f
	return k
}

// waiting is what waits at r, unless it is unknown. A gauge that was no count, such as NaN, is unknown, too.
func waiting(r *balancer.Replica) (n int64, ok bool) {
	n, ok = r.Waiting()
	return n, ok && n >= 0
}

// typical is the mean load of the replicas whose load is known, per weight and rounded down: what a replica that does not
// tell is taken to have. The mean neither draws requests there, as zero would, nor keeps them away.
type typical struct{ waiting, foreign int64 }

// typicalOf is zero when all tell, which is the usual case, and when none does: then own load alone decides.
func typicalOf(rs []*balancer.Replica) typical {
	for _, r := range rs {
		if !tells(r) {
			return meanOf(rs)
		}
	}
	return typical{}
}

func tells(r *balancer.Replica) bool {
	p := r.Polled()
	return p != nil && !p.Stale && p.Waiting.Known && p.Waiting.Value >= 0
}

func meanOf(rs []*balancer.Replica) (ty typical) {
	var waitingWeight, foreignWeight int64
	for _, r := range rs {
		if n, ok := waiting(r); ok {
			ty.waiting += n
			waitingWeight += r.Weight
		}
		if n, ok := foreign(r); ok {
			ty.foreign += n
			foreignWeight += r.Weight
		}
	}
	ty.waiting /= max(waitingWeight, 1)
	ty.foreign /= max(foreignWeight, 1)
	return ty
}
