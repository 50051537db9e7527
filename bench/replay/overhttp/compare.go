package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"lbd/bench/replay"
)

// medium is the measurements of all rounds in one medium, by strategy, in order of the requests.
type medium map[string]*served

func (r *results) medium(of func(*round) []served) medium {
	m := medium{}
	for i := range r.Rounds {
		for _, one := range of(&r.Rounds[i]) {
			all := m[one.Strategy]
			if all == nil {
				all = &served{Strategy: one.Strategy}
				m[one.Strategy] = all
			}
			all.TTFT = append(all.TTFT, one.TTFT...)
			all.TPOT = append(all.TPOT, one.TPOT...)
			all.Failed += one.Failed
			all.Refused += one.Refused
			all.HitRate += one.HitRate / float64(len(r.Rounds))
			all.LateMS = max(all.LateMS, one.LateMS)
		}
	}
	return m
}

// ranking is the strategies by mean TTFT, the best first.
func (m medium) ranking() (names []string) {
	for name := range m {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		if x, y := mean(m[a].TTFT), mean(m[b].TTFT); x != y {
			if x < y {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	return names
}

func mean(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(max(len(v), 1))
}

func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(v))
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

// good is the share of requests within the limits.
func (s *served) good(l replay.Limits) float64 {
	n := 0
	for i := range s.TTFT {
		if s.TTFT[i] <= millis(l.TTFT) && s.TPOT[i] <= millis(l.TPOT) {
			n++
		}
	}
	return float64(n) / float64(max(len(s.TTFT), 1))
}

// difference of the mean TTFT of two strategies, in milliseconds, with its interval.
type difference struct{ mean, low, high float64 }

// Blocks of so many consecutive requests are drawn together: five seconds of the slice, in which they meet the same queues.
const (
	blockLength = 25
	resamples   = 2000
)

// differ compares two strategies request by request.
func differ(a, b []float64) difference {
	n := min(len(a), len(b))
	if n < 2*blockLength {
		return difference{math.NaN(), math.NaN(), math.NaN()}
	}
	d := make([]float64, n)
	for i := range d {
		d[i] = a[i] - b[i]
	}
	rng := rand.New(rand.NewPCG(1, 1))
	means := make([]float64, resamples)
	for i := range means {
		drawn := 0
		for drawn < n {
			start := rng.IntN(n)
			for k := range min(blockLength, n-drawn) {
				means[i] += d[(start+k)%n] / float64(n)
				drawn++
			}
		}
	}
	slices.Sort(means)
	return difference{mean(d), means[resamples*25/1000], means[resamples*975/1000]}
}

// sign is which of the two is better: -1 the first, 1 the second, 0 that it is not shown.
func (d difference) sign() int {
	switch {
	case d.high < 0:
		return -1
	case d.low > 0:
		return 1
	}
	return 0
}

func (d difference) String() string {
	return fmt.Sprintf("%+.0f (%+.0f to %+.0f)", d.mean, d.low, d.high)
}

// pair is two strategies in both media.
type pair struct {
	a, b         string
	replay, http difference
}

func (r *results) pairs(inReplay, overHTTP medium) (all []pair) {
	names := r.Setup.Strategies
	for i, a := range names {
		for _, b := range names[i+1:] {
			if inReplay[a] == nil || inReplay[b] == nil || overHTTP[a] == nil || overHTTP[b] == nil {
				continue
			}
			all = append(all, pair{a, b, differ(inReplay[a].TTFT, inReplay[b].TTFT), differ(overHTTP[a].TTFT, overHTTP[b].TTFT)})
		}
	}
	return all
}

// verdict says whether the media agree on a pair.
func (p *pair) verdict() string {
	switch x, y := p.replay.sign(), p.http.sign(); {
	case x*y < 0:
		return "**contradict**"
	case x == y && x != 0:
		return "agree"
	case x == y:
		return "neither decides"
	case x == 0:
		return "only HTTP decides"
	}
	return "only replay decides"
}

// markdown is the text of overhttp.md.
func (r *results) markdown() string {
	b := &strings.Builder{}
	inReplay := r.medium(func(rd *round) []served { return rd.Replay })
	overHTTP := r.medium(func(rd *round) []served { return rd.HTTP })
	fmt.Fprintf(b, preface, r.Setup.Requests, length.Seconds(), r.Setup.Replicas, r.Setup.Speed, len(r.Rounds), 100*warm, longest)
	if r.refuses() {
		r.refusals(b)
		r.figures(b, inReplay, overHTTP)
		return b.String()
	}
	pairs := r.pairs(inReplay, overHTTP)
	contradictions := 0
	for i := range pairs {
		if pairs[i].replay.sign()*pairs[i].http.sign() < 0 {
			contradictions++
		}
	}
	fmt.Fprintf(b, "Ranking in replay: %s. Over HTTP: %s. Pairs that contradict each other: %d of %d.\n\n",
		strings.Join(inReplay.ranking(), ", "), strings.Join(overHTTP.ranking(), ", "), contradictions, len(pairs))
	r.figures(b, inReplay, overHTTP)
	b.WriteString("\n## Pairs\n\nMean TTFT of the first less that of the second, in ms, with 95 % intervals.\n\n| pair | replay | HTTP | |\n|---|---|---|---|\n")
	for i := range pairs {
		p := &pairs[i]
		fmt.Fprintf(b, "| %s - %s | %s | %s | %s |\n", p.a, p.b, p.replay, p.http, p.verdict())
	}
	return b.String()
}

const preface = `# Replay against HTTP: is the ranking the same?

Made by ` + "`go run ./bench/replay/overhttp`" + `. %d requests of the Mooncake trace in %.0f s of real time, %d simulated replicas for each
strategy, trace speed %g, %d rounds; the first %.0f %% of each are not counted, requests over %d tokens left out. HTTP is the client
of lbd bench, an lbd process and the servers of lbd sim, in real time; replay is the same strategy code on the same arrivals
in virtual time. Replicas are simulated in both: what is checked here is replay's picture of lbd, HTTP and time, not the
picture of a GPU (bench/sim/README.md).

`

func (r *results) refuses() bool { return r.Setup.MaxTTFT > 0 || r.Setup.MaxTPOT > 0 }

// refusals says what is refused, and with which command.
func (r *results) refusals(b *strings.Builder) {
	var flags, what []string
	if d := r.Setup.MaxTTFT; d > 0 {
		flags = append(flags, fmt.Sprintf(" -admission-max-ttft %v", d))
		what = append(what, fmt.Sprintf("have its first token later than %v (admission_max_ttft)", d))
	}
	if d := r.Setup.MaxTPOT; d > 0 {
		flags = append(flags, fmt.Sprintf(" -admission-max-tpot %v", d))
		what = append(what, fmt.Sprintf("take more than %v for each further one (admission_max_tpot)", d))
	}
	fmt.Fprintf(b, refusing, strings.Join(r.Setup.Strategies, ","), r.Setup.Speed, len(r.Rounds), strings.Join(flags, ""),
		strings.Join(what, "\nor to "), limits.TTFT, limits.TPOT)
}

const refusing = "With `-out FILE -strategies %s -speed %g -rounds %d%s`.\n" + `Both refuse what is predicted to %s, which only least-cost
predicts. A request is good with a first token within %v and %v per further one; refused ones are not, and times are of those
that were served. There is no ranking here.

`

// answered are the times of the requests that got an answer.
func (s *served) answered() (ttft, tpot []float64) {
	for i, v := range s.TTFT {
		if v != failed {
			ttft, tpot = append(ttft, v), append(tpot, s.TPOT[i])
		}
	}
	return ttft, tpot
}

func (r *results) figures(b *strings.Builder, inReplay, overHTTP medium) {
	b.WriteString("| strategy | medium | TTFT mean ms | p50 | p90 | p99 | TPOT mean | good % | hit % | failed | refused | client late by |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, name := range r.Setup.Strategies {
		for _, side := range []struct {
			word string
			m    medium
		}{{"replay", inReplay}, {"HTTP", overHTTP}} {
			s := side.m[name]
			if s == nil {
				continue
			}
			ttft, tpot := s.TTFT, s.TPOT
			if r.refuses() {
				ttft, tpot = s.answered()
			}
			fmt.Fprintf(b, "| %s | %s | %.0f | %.0f | %.0f | %.0f | %.1f | %.1f | %.1f | %d | %d | %.0f ms |\n", name, side.word, mean(ttft), quantile(ttft, .5),
				quantile(ttft, .9), quantile(ttft, .99), mean(tpot), 100*s.good(limits), 100*s.HitRate, s.Failed, s.Refused, s.LateMS)
		}
	}
}
