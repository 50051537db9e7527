package rivals

import (
	"math"
	"slices"
	"time"

	"lbd/bench/replay"
)

// prequal is Prequal (NSDI'24) for inference: RIF are own requests in flight, latency is the median of recent TTFTs at
// about that RIF. Both are known in-band, so a probe costs nothing and reads exact values; the pool and its rules stay.
// The paper's constants are from memory.
type prequal struct {
	counts
	pool   []probe
	rifs   []int // recently seen, for the quantile
	seen   int
	ttfts  []ttftSamples
	sentAt map[uint64]sentRIF
	oldest bool    // which one to remove next
	room   int     // of the pool
	hot    float64 // quantile of RIF above which a replica is hot
}

type probe struct {
	replica  int
	rif      int
	latency  float64
	at       time.Duration
	usesLeft float64
}

type sentRIF struct {
	at  time.Duration
	rif int
}

// ttftSamples are the last TTFTs of a replica with the RIF each met.
type ttftSamples struct {
	ttft, rif [16]float64
	n         int
}

const (
	prequalPool   = 16 // half the fleet where that is less, or probes would never be used up
	prequalProbes = 3  // per request
	prequalAge    = time.Second
	prequalRIFs   = 128 // samples for the quantile
)

// prequalQuantile is Q_RIF, 2^(-1/4).
var prequalQuantile = math.Pow(2, -.25)

func newPrequal(s replay.Setup) replay.Router { return makePrequal(s, prequalQuantile) }

func makePrequal(s replay.Setup, hot float64) replay.Router {
	return &prequal{hot: hot, counts: newCounts(s), room: min(prequalPool, max(2, len(s.Replicas)/2)), ttfts: make([]ttftSamples, len(s.Replicas)), sentAt: map[uint64]sentRIF{}}
}

func (r *prequal) Pick(now time.Duration, q *replay.Query, candidates []int) int {
	r.refresh(now, candidates)
	w := r.choose(candidates)
	for i := range r.pool {
		if r.pool[i].replica == w {
			r.pool[i].rif++ // compensation for own picks since
		}
	}
	r.sentAt[q.ID] = sentRIF{now, r.load[w]}
	r.sent(q, w, float64(q.PromptTokens), 0)
	for range prequalProbes {
		r.probe(now, candidates[r.below(uint64(len(candidates)))])
	}
	return w
}

// refresh drops probes that are too old or of replicas out of service, and one more.
func (r *prequal) refresh(now time.Duration, candidates []int) {
	r.pool = slices.DeleteFunc(r.pool, func(p probe) bool {
		return now-p.at > prequalAge || p.usesLeft <= 0 || !contains(candidates, p.replica)
	})
	if len(r.pool) < r.room {
		return
	}
	r.oldest = !r.oldest
	drop := 0
	for i, p := range r.pool {
		if d := r.pool[drop]; r.oldest && p.at < d.at || !r.oldest && r.worse(p, d) {
			drop = i
		}
	}
	r.pool = slices.Delete(r.pool, drop, drop+1)
}

// worse is hotter, or slower among cold ones.
func (r *prequal) worse(a, b probe) bool {
	limit := r.hotAbove()
	ha, hb := float64(a.rif) > limit, float64(b.rif) > limit
	switch {
	case ha != hb:
		return ha
	case ha:
		return a.rif > b.rif
	}
	return a.latency > b.latency
}

func (r *prequal) hotAbove() float64 {
	if len(r.rifs) == 0 {
		return math.Inf(1)
	}
	sorted := slices.Clone(r.rifs)
	slices.Sort(sorted)
	return float64(sorted[int(r.hot*float64(len(sorted)-1))])
}

// choose is hot-cold lexicographic.
func (r *prequal) choose(candidates []int) int {
	if len(r.pool) < 2 {
		return candidates[r.below(uint64(len(candidates)))]
	}
	best := 0
	for i := range r.pool {
		if r.worse(r.pool[best], r.pool[i]) {
			best = i
		}
	}
	r.pool[best].usesLeft--
	return r.pool[best].replica
}

func (r *prequal) probe(now time.Duration, i int) {
	if len(r.rifs) < prequalRIFs {
		r.rifs = append(r.rifs, r.load[i])
	} else {
		r.rifs[r.seen%prequalRIFs] = r.load[i]
	}
	r.seen++
	if len(r.pool) >= r.room {
		oldest := 0
		for k := range r.pool {
			if r.pool[k].at < r.pool[oldest].at {
				oldest = k
			}
		}
		r.pool = slices.Delete(r.pool, oldest, oldest+1)
	}
	// b_reuse = max(1, 2/((1-m/n)*3 - 1)) with delta = 1.
	reuse := max(1, 2/max((1-float64(r.room)/float64(len(r.load)))*prequalProbes-1, .1))
	r.pool = append(r.pool, probe{replica: i, rif: r.load[i], latency: r.ttfts[i].near(float64(r.load[i])), at: now, usesLeft: reuse})
}

// near is the median of the half of the samples whose RIF is nearest.
func (s *ttftSamples) near(rif float64) float64 {
	n := min(s.n, len(s.ttft))
	if n == 0 {
		return 0
	}
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		if da, db := math.Abs(s.rif[a]-rif), math.Abs(s.rif[b]-rif); da != db {
			return compare(da, db)
		}
		return a - b
	})
	var v []float64
	for _, i := range order[:(n+1)/2] {
		v = append(v, s.ttft[i])
	}
	slices.Sort(v)
	return v[len(v)/2]
}

func (r *prequal) FirstToken(now time.Duration, q *replay.Query) {
	if sent, ok := r.sentAt[q.ID]; ok {
		s := &r.ttfts[q.Replica]
		s.ttft[s.n%len(s.ttft)], s.rif[s.n%len(s.rif)] = (now - sent.at).Seconds(), float64(sent.rif)
		s.n++
		delete(r.sentAt, q.ID)
	}
	r.counts.FirstToken(now, q)
}

func (r *prequal) Done(now time.Duration, q *replay.Query, ok bool) {
	delete(r.sentAt, q.ID)
	r.counts.Done(now, q, ok)
}

// c3 is C3 (NSDI'15) for inference: response time is the TTFT, service time that by the
// requests in flight it met, the fed-back queue the polled one. Its rate limiter is left out: nothing here refuses.
type c3 struct {
	counts
	response, service []float64 // EWMA, seconds
	sentAt            map[uint64]sentRIF
}

const c3Smoothing = .9 // weight of the past, from memory

func newC3(s replay.Setup) replay.Router {
	n := len(s.Replicas)
	return &c3{
		counts: newCounts(s), response: make([]float64, n), service: make([]float64, n),
		sentAt: map[uint64]sentRIF{},
	}
}

func (r *c3) Pick(now time.Duration, q *replay.Query, candidates []int) int {
	w := r.least(candidates, func(i int) float64 {
		queue := 1 + float64(r.load[i]*r.LBDs) + r.polled[i].waiting
		return r.response[i] - r.service[i] + queue*queue*queue*max(r.service[i], 1e-3)
	})
	r.sentAt[q.ID] = sentRIF{now, r.load[w]}
	return r.sent(q, w, float64(q.PromptTokens), 0)
}

func (r *c3) FirstToken(now time.Duration, q *replay.Query) {
	if sent, ok := r.sentAt[q.ID]; ok {
		d := (now - sent.at).Seconds()
		smooth := func(v *float64, x float64) {
			if *v == 0 {
				*v = x
			}
			*v = c3Smoothing**v + (1-c3Smoothing)*x
		}
		smooth(&r.response[q.Replica], d)
		smooth(&r.service[q.Replica], d/float64(sent.rif+1))
		delete(r.sentAt, q.ID)
	}
	r.counts.FirstToken(now, q)
}

func (r *c3) Done(now time.Duration, q *replay.Query, ok bool) {
	delete(r.sentAt, q.ID)
	r.counts.Done(now, q, ok)
}
