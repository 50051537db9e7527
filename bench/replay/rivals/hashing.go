package rivals

import (
	"slices"
	"sort"
	"time"

	"lbd/bench/replay"
)

// ring is a consistent hash ring.
type ring struct {
	points  []uint64
	replica []int
}

// virtualNodes per replica, as in sgl-model-gateway.
const virtualNodes = 150

func newRing(n int) *ring {
	type point struct {
		at      uint64
		replica int
	}
	var all []point
	for i := range n {
		for v := range virtualNodes {
			all = append(all, point{mix(uint64(i)<<32 | uint64(v) + 1), i})
		}
	}
	slices.SortFunc(all, func(a, b point) int {
		if a.at != b.at {
			return map[bool]int{true: -1, false: 1}[a.at < b.at]
		}
		return a.replica - b.replica
	})
	r := &ring{}
	for _, p := range all {
		r.points, r.replica = append(r.points, p.at), append(r.replica, p.replica)
	}
	return r
}

// walk yields replicas clockwise from a key, some more than once.
func (r *ring) walk(key uint64, accept func(replica int) bool) (int, bool) {
	start := sort.Search(len(r.points), func(i int) bool { return r.points[i] >= key })
	for k := range r.points {
		if i := r.replica[(start+k)%len(r.points)]; accept(i) {
			return i, true
		}
	}
	return 0, false
}

// mix is the finaliser of splitmix64 (Steele, Lea, Flood 2014).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}

// headKey stands for the head of a prompt. Without blocks it is the request itself, which makes affinity random.
func headKey(q *replay.Query) uint64 {
	if len(q.Blocks) > 0 {
		return mix(q.Blocks[0] ^ 0x5851F42D4C957F2D)
	}
	return mix(^q.ID)
}

// prefixHash is sgl-model-gateway's prefix_hash: the head of the prompt on a ring, with a bound on load 25 % above fair.
// The head is the trace's first block instead of 256 tokens.
type prefixHash struct {
	counts
	ring  *ring
	bound float64
}

const boundedLoad = 1.25

func newPrefixHash(s replay.Setup) replay.Router { return makePrefixHash(s, boundedLoad) }

func makePrefixHash(s replay.Setup, bound float64) replay.Router {
	return &prefixHash{newCounts(s), newRing(len(s.Replicas)), bound}
}

func (r *prefixHash) Pick(_ time.Duration, q *replay.Query, candidates []int) int {
	total := 0
	for _, i := range candidates {
		total += r.load[i]
	}
	bound := r.bound * float64(total+1) / float64(len(candidates))
	w, ok := r.ring.walk(headKey(q), func(i int) bool { return contains(candidates, i) })
	if !ok || float64(r.load[w]+1) > bound {
		w = r.leastLoaded(candidates)
	}
	return r.sent(q, w, float64(q.PromptTokens), 0)
}

// sessionRing is production-stack's session: consistent hashing by session without a bound; a request without one goes
// where the fewest requests went in the last minute.
type sessionRing struct {
	counts
	ring  *ring
	times [][]time.Duration // of requests in the window
}

const sessionWindow = time.Minute

func newSessionRing(s replay.Setup) replay.Router {
	return &sessionRing{newCounts(s), newRing(len(s.Replicas)), make([][]time.Duration, len(s.Replicas))}
}

func (r *sessionRing) Pick(now time.Duration, q *replay.Query, candidates []int) int {
	w := 0
	if q.Session != 0 {
		w, _ = r.ring.walk(mix(q.Session), func(i int) bool { return contains(candidates, i) })
	} else {
		w = first(candidates, func(i int) float64 { return float64(r.recent(now, i)) })
	}
	r.times[w] = append(r.times[w], now)
	return r.sent(q, w, float64(q.PromptTokens), 0)
}

func (r *sessionRing) recent(now time.Duration, i int) int {
	old := 0
	for old < len(r.times[i]) && now-r.times[i][old] > sessionWindow {
		old++
	}
	r.times[i] = r.times[i][old:]
	return len(r.times[i])
}

// dualMap is DualMap (ICLR'26): two hashes of a prefix give two candidates; the one with the longer match while its
// predicted TTFT meets the limit, else the less loaded. The prefix is as long as it takes to be rarer than one request in
// as many as there are replicas (the paper adapts the length too; its rule is not known here). Queued requests are not
// migrated.
type dualMap struct {
	counts
	tree  *index
	theta []theta
	limit float64        // of the TTFT, ms
	seen  map[uint64]int // requests by block
	n     int
}

const dualMapLimit = 2000. // ms

func newDualMap(s replay.Setup) replay.Router { return makeDualMap(s, dualMapLimit) }

func makeDualMap(s replay.Setup, limit float64) replay.Router {
	r := &dualMap{limit: limit, counts: newCounts(s), tree: newIndex(s, 0, indexTTL), seen: map[uint64]int{}}
	for i := range s.Replicas {
		r.theta = append(r.theta, thetaOf(&s.Replicas[i]))
	}
	return r
}

func (r *dualMap) Pick(now time.Duration, q *replay.Query, candidates []int) int {
	m := r.tree.match(now, q)
	k := r.key(q)
	n := uint64(len(candidates))
	a, b := candidates[mix(k+1)%n], candidates[mix(k+2)%n]
	ttft := func(i int) float64 {
		return r.theta[i].perToken*r.prefill[i] + r.theta[i].prefill(float64(q.PromptTokens-m[i]), float64(q.PromptTokens))
	}
	w, other := a, b
	if m[b] > m[a] {
		w, other = b, a
	}
	if ttft(w) > r.limit && ttft(other) < ttft(w) || m[w] == m[other] && ttft(other) < ttft(w) {
		w = other
	}
	r.tree.insert(now, q, w)
	return r.sent(q, w, float64(q.PromptTokens-m[w]), 0)
}

// key is the first block of the prompt that is rare enough.
func (r *dualMap) key(q *replay.Query) uint64 {
	r.n++
	k, found := headKey(q), false
	for _, id := range q.Blocks {
		if r.seen[id]++; !found {
			k = mix(id ^ 0x5851F42D4C957F2D)
			found = r.seen[id]*len(r.load) < r.n
		}
	}
	return k
}
