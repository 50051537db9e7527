package replay

import (
	"fmt"
	"math"
	"slices"
	"time"

	"lbd/bench/sim/engine"
)

// Ceiling is how many times as fast an open workload can arrive at a fleet for ever, at most, with the given share of
// its requests good and all of them served, whichever replicas are chosen and whatever the chooser knows. It adds up the time
// that requests take of replicas at least; when that is more than there is, queues grow without end. Nothing in it hurts:
//
//   - All caches are one without end: of equal blocks only the first is computed, whoever asks for it and wherever. A request
//     computes what follows its last full cached block, as vLLM does.
//   - What replicas compute may be put anywhere and cut as one likes: only the sum counts, and no request waits.
//   - A step of m tokens takes at least floor + slope·m for any line below the preset's table Lin(m), so a prompt of x new
//     tokens adds slope·x, its attention and the CPU time of one sequence, and an answer's token adds slope, its attention
//     and the CPU time of its sequence. Several lines are tried; each gives a limit, and the least is taken.
//   - floor and the rest that every step takes, F together, is counted only as far as TPOT makes it necessary. Let g be what
//     the tokens of good answers add to step i, F + g(i) at most its length, and v what a token of answer j of n tokens adds.
//     The steps of a good answer take at most n·TPOT together. Times v and summed over answers: Σ g·(F + g) ≤ TPOT·Σ g, so
//     Σ g² ≤ (TPOT − F)·Σ g, so there are at least Σ g / (TPOT − F) steps (Cauchy and Schwarz), each with its F. The answers
//     that need not be good are taken to be those for which that is most.
//   - Where replicas differ, a request takes what it takes at the kind where that is least, with a kind's time weighed by its
//     speed.
//
// Faults are left out, and steps have their mean time. Every request is served, those that are not good as well: whoever may
// let these wait for ever, at one replica of many or at none, has the rest of the fleet for the others and is not bound by it
// (TestCeilingIsForAllRequests). A run that ends can carry more for a while, too: what is left over when the last request has
// arrived is worked off later.
func Ceiling(c Config, w *Workload, good float64) (speedUp float64, err error) {
	if w.closed {
		return 0, fmt.Errorf("workload %s: in closed loop what arrives depends on what was served", w.Name)
	}
	c.Policy = Central()
	if err := c.fill(); err != nil {
		return 0, err
	}
	servers, err := c.servers()
	if err != nil {
		return 0, err
	}
	demands, seconds, err := c.demands(w)
	if err != nil {
		return 0, err
	}
	speedUp = math.Inf(1)
	for _, steep := range []float64{.25, .5, .7, .8, .9, 1} {
		have, need := leastWork(servers, demands, steep, millis(c.Limits.TPOT), good)
		speedUp = min(speedUp, 1e3*seconds*have/need)
	}
	return speedUp, nil
}

// demand is a request: so many tokens behind those that are cached, and an answer.
type demand struct{ prompt, cached, output float64 }

// demands reads a workload, and over how many seconds it arrives.
func (c *Config) demands(w *Workload) (all []demand, seconds float64, err error) {
	src, r := w.open(), &run{cfg: *c, workload: w}
	seen := map[uint64]bool{}
	var first, last time.Duration
	for src.next() != never {
		q := Query{Request: src.take()}
		if last = q.At; len(all) == 0 {
			first = q.At
		}
		chain, n := r.chain(&q, c.BlockSize), 0
		for n < len(chain) && seen[chain[n]] {
			n++
		}
		for _, block := range chain[n:] {
			seen[block] = true
		}
		cached := min(n, (q.PromptTokens-1)/c.BlockSize) * c.BlockSize
		all = append(all, demand{float64(q.PromptTokens), float64(cached), float64(q.OutputTokens)})
	}
	if err := src.close(); err != nil {
		return nil, 0, err
	}
	if len(all) < 2 || last == first {
		return nil, 0, fmt.Errorf("workload %s: %d requests in %v; want some over a time", w.Name, len(all), last-first)
	}
	return all, (last - first).Seconds(), nil
}

// leastWork is how many replicas there are, by their speed, and how many ms of one the requests take, with lines that are
// so steep, 1 as steep as any can be.
func leastWork(servers []*server, all []demand, steep, tpot, good float64) (have, need float64) {
	var lines []line
	for _, s := range servers {
		l := lineBelow(s, steep)
		have += l.weight
		if !slices.Contains(lines, l) {
			lines = append(lines, l)
		}
	}
	floors := make([]float64, len(all))
	for i := range all {
		least, floor := math.Inf(1), math.Inf(1)
		for k := range lines {
			l := &lines[k]
			work, stretch := l.of(&all[i])
			least = min(least, work*l.weight)
			// Steps that take longer than TPOT even when they are empty leave no answer good.
			floor = min(floor, stretch*l.weight*l.fixed/max(tpot-l.fixed, 1e-6))
		}
		need += least
		floors[i] = floor
	}
	slices.Sort(floors)
	for _, floor := range floors[:int(good*float64(len(all)))] {
		need += floor
	}
	return have, need
}

// line is what a step takes at least at a kind of replicas, in ms: fixed, and for what is in it.
type line struct {
	fixed, token, pair, sequence, decode, resident float64
	weight                                         float64 // of a replica's time: its speed
}

func lineBelow(s *server, steep float64) line {
	p := s.e.Preset()
	most := math.Inf(1)
	for _, at := range p.Lin {
		most = min(most, at.MS/float64(at.Tokens))
	}
	slope, floor := steep*most, math.Inf(1)
	for _, at := range p.Lin {
		floor = min(floor, at.MS-slope*float64(at.Tokens))
	}
	return line{
		fixed: (floor + p.HeadMS + p.AttentionMS + p.OverheadMS) * s.slow,
		token: slope * s.slow, pair: p.PairNS / 1e6 * s.slow, sequence: p.OverheadPerSeqUS / 1e3 * s.slow,
		decode: p.DecodeUS / 1e3 * s.slow, resident: p.KVTokenUS / 1e3 * s.slow,
		weight: 1 / (p.StepTime(engine.ProfileV1, engine.Shape{Tokens: 1024}).Seconds() * s.slow),
	}
}

// of is what a request takes, and the part of it that its answer adds to steps, without the growth of its context.
func (l *line) of(d *demand) (work, stretch float64) {
	x, n := d.prompt-d.cached, d.output-1 // the first token comes with the prompt
	stretch = n * (l.token + l.decode + l.sequence + l.resident*d.prompt)
	return l.token*x + l.pair*x*(d.cached+x/2) + l.sequence + stretch + l.resident*n*(n-1)/2, stretch
}

// Pooled is the configuration with one replica in place of all: as fast as they are together, with all their memory, and
// no faults. There is nothing left to choose, nothing queues beside an idle replica, and every hit is a hit. It is a
// yardstick and no limit, as it serves first come, first served: where replicas differ much, a good choice can pass it.
func (c Config) Pooled() (Config, error) {
	filled := c
	filled.Policy = Central()
	if err := filled.fill(); err != nil {
		return c, err
	}
	servers, err := filled.servers()
	if err != nil {
		return c, err
	}
	first := servers[0]
	speed, tokens, seqs := 0.0, 0.0, 0
	for _, s := range servers {
		speed += lineBelow(s, 1).weight
		tokens += float64(s.KVTokens()) / float64(first.KVTokens())
		seqs += s.Engine.MaxNumSeqs
	}
	one := Group{Count: 1, Preset: c.Fleet[0].Preset, Engine: c.Fleet[0].Engine}
	one.Engine.MaxNumSeqs = seqs
	one.Speed = speed / lineBelow(first, 1).weight / first.slow * filled.StepFactor
	c.Fleet, c.Faults, c.LBDs, c.StepError, c.KVFactor = Fleet{one}, nil, 1, 0, filled.KVFactor*tokens
	return c, nil
}
