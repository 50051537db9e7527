package rivals

import (
	"slices"
	"time"

	"lbd/bench/replay"
)

// preble is the paper form of Preble's E2 (ICLR'25): where more is cached than new, the least busy of the replicas with the
// longest match; else the least cost: work of the last three minutes, plus this request's prefill. Eviction cost is off,
// as in its public code; its periodic rebalancing is left out.
type preble struct {
	counts
	tree    *index
	theta   []theta
	window  [][]spent
	outputs []float64 // recent output lengths
	tpot    []float64 // EWMA, ms
	first   map[uint64]time.Duration
	group   []int
	exploit float64       // share of the prompt above which the longest match decides
	span    time.Duration // of the window
}

type spent struct {
	at time.Duration
	ms float64
}

const (
	prebleWindow = 3 * time.Minute
	prebleTPOT   = 150. // ms, before any was seen
)

func newPreble(s replay.Setup) replay.Router { return makePreble(s, .5, prebleWindow) }

func makePreble(s replay.Setup, exploit float64, window time.Duration) replay.Router {
	r := &preble{
		exploit: exploit, span: window,
		counts: newCounts(s), tree: newIndex(s, 0, indexTTL), window: make([][]spent, len(s.Replicas)),
		tpot: make([]float64, len(s.Replicas)), first: map[uint64]time.Duration{},
	}
	for i := range s.Replicas {
		r.theta = append(r.theta, thetaOf(&s.Replicas[i]))
		r.tpot[i] = prebleTPOT
	}
	return r
}

func (r *preble) Pick(now time.Duration, q *replay.Query, candidates []int) int {
	m := r.tree.match(now, q)
	longest := 0
	for _, i := range candidates {
		longest = max(longest, m[i])
	}
	r.group = candidates
	if float64(longest) > r.exploit*float64(q.PromptTokens) {
		r.group = where(nil, candidates, func(i int) bool { return m[i] == longest })
	}
	prefill := func(i int) float64 { return r.theta[i].prefill(float64(q.PromptTokens-m[i]), float64(q.PromptTokens)) }
	w := r.least(r.group, func(i int) float64 {
		return r.recent(now, i) + float64(r.load[i])*r.medianOutput()*r.tpot[i] + prefill(i)
	})
	r.window[w] = append(r.window[w], spent{now, prefill(w)})
	r.tree.insert(now, q, w)
	return r.sent(q, w, float64(q.PromptTokens-m[w]), 0)
}

func (r *preble) recent(now time.Duration, i int) (sum float64) {
	old := 0
	for old < len(r.window[i]) && now-r.window[i][old].at > r.span {
		old++
	}
	r.window[i] = r.window[i][old:]
	for _, s := range r.window[i] {
		sum += s.ms
	}
	return sum
}

func (r *preble) medianOutput() float64 {
	if len(r.outputs) == 0 {
		return 0
	}
	sorted := slices.Clone(r.outputs)
	slices.Sort(sorted)
	return sorted[len(sorted)/2]
}

func (r *preble) FirstToken(now time.Duration, q *replay.Query) {
	r.first[q.ID] = now
	r.counts.FirstToken(now, q)
}

func (r *preble) Done(now time.Duration, q *replay.Query, ok bool) {
	if at, begun := r.first[q.ID]; ok && begun && q.OutputTokens > 1 {
		r.tpot[q.Replica] += .1 * (millis(now-at)/float64(q.OutputTokens-1) - r.tpot[q.Replica])
		if r.outputs = append(r.outputs, float64(q.OutputTokens)); len(r.outputs) > 200 {
			r.outputs = r.outputs[1:]
		}
	}
	delete(r.first, q.ID)
	r.counts.Done(now, q, ok)
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// aibrixPrefix is AIBrix's prefix-cache with the defaults of its code: an imbalance of 8 requests restricts to the least
// loaded; else the longest match whose load is within one standard deviation of the mean.
type aibrixPrefix struct {
	counts
	tree      *index
	imbalance int
	deviation float64 // standard deviations above the mean that are borne
}

const (
	aibrixImbalance = 8
	aibrixTTL       = 20 * time.Minute
	aibrixTokens    = 200000 * 4 / charsPerToken // 200,000 blocks of 4 characters, for all replicas
)

func newAIBrixPrefix(s replay.Setup) replay.Router {
	return makeAIBrixPrefix(s, max(1, aibrixTokens/len(s.Replicas)), aibrixImbalance, 1)
}

func makeAIBrixPrefix(s replay.Setup, tokens, imbalance int, deviation float64) replay.Router {
	return &aibrixPrefix{counts: newCounts(s), tree: newIndex(s, tokens, aibrixTTL), imbalance: imbalance, deviation: deviation}
}

func (r *aibrixPrefix) Pick(now time.Duration, q *replay.Query, candidates []int) int {
	m := r.tree.match(now, q)
	low, high := r.load[candidates[0]], r.load[candidates[0]]
	for _, i := range candidates {
		low, high = min(low, r.load[i]), max(high, r.load[i])
	}
	if high-low > r.imbalance {
		candidates = where(nil, candidates, func(i int) bool { return r.load[i] == low })
	}
	w := r.choose(candidates, m)
	r.tree.insert(now, q, w)
	return r.sent(q, w, float64(q.PromptTokens-m[w]), 0)
}

func (r *aibrixPrefix) choose(candidates, m []int) int {
	mean := r.meanLoad(candidates)
	sq := 0.0
	for _, i := range candidates {
		sq += (float64(r.load[i]) - mean) * (float64(r.load[i]) - mean) / float64(len(candidates))
	}
	order := slices.Clone(candidates)
	slices.SortStableFunc(order, func(a, b int) int {
		if m[a] != m[b] {
			return m[b] - m[a]
		}
		return r.load[a] - r.load[b]
	})
	for _, i := range order {
		if over := float64(r.load[i]) - mean; m[i] > 0 && (over <= 0 || over*over <= r.deviation*r.deviation*sq) {
			return i
		}
	}
	return r.leastLoaded(candidates)
}

// leastRequest is AIBrix's least-request and everybody's: fewest own requests, random among equals.
type leastRequest struct{ counts }

func newLeastRequest(s replay.Setup) replay.Router { return &leastRequest{newCounts(s)} }

func (r *leastRequest) Pick(_ time.Duration, q *replay.Query, candidates []int) int {
	return r.sent(q, r.leastLoaded(candidates), float64(q.PromptTokens), 0)
}

// prefixAware is production-stack's: any replica of the deepest level of the trie, whatever its load; no match, any at all.
// Its trie forgets nothing.
type prefixAware struct {
	counts
	tree *index
}

func newPrefixAware(s replay.Setup) replay.Router {
	return &prefixAware{newCounts(s), newIndex(s, 0, 0)}
}

func (r *prefixAware) Pick(now time.Duration, q *replay.Query, candidates []int) int {
	m := r.tree.match(now, q)
	w := r.least(candidates, func(i int) float64 { return -float64(m[i]) })
	r.tree.insert(now, q, w)
	return r.sent(q, w, float64(q.PromptTokens-m[w]), 0)
}

// skyWalker pushes only to replicas whose polled queue was empty (EuroSys'26, "selective pushing"), the one with the
// longest match first, then the least loaded; else it holds.
type skyWalker struct {
	counts
	tree *index
	most float64 // waiting requests of a replica that is pushed to
	idle []int
}

func newSkyWalker(s replay.Setup) replay.Router { return makeSkyWalker(s, 0) }

func makeSkyWalker(s replay.Setup, most float64) replay.Router {
	return &skyWalker{counts: newCounts(s), tree: newIndex(s, 0, indexTTL), most: most}
}

func (r *skyWalker) Pick(now time.Duration, q *replay.Query, candidates []int) int {
	r.idle = where(r.idle, candidates, func(i int) bool { return r.polled[i].waiting <= r.most })
	if len(r.idle) == 0 {
		return replay.Hold
	}
	m := r.tree.match(now, q)
	longest := first(r.idle, func(i int) float64 { return -float64(m[i]) })
	w := r.least(r.idle, func(i int) float64 {
		if m[i] != m[longest] {
			return 1e9
		}
		return float64(r.load[i])
	})
	r.tree.insert(now, q, w)
	return r.sent(q, w, float64(q.PromptTokens-m[w]), 0)
}
