package report

import (
	"math"
	"slices"
)

// Figure is one number of each environment, and how sure its difference is.
type Figure struct {
	Name, Unit string
	// HigherIsBetter is so for throughput.
	HigherIsBetter bool
	// Given figures follow from what was sent, not from who answered.
	Given bool
	// Repeats has each repeat's value, by environment; Means their means.
	Repeats [][]float64
	Means   []float64
	// Differences and Outcomes are by environment, against the first.
	Differences []Interval
	Outcomes    []Outcome
}

// Outcome is what the evidence says of one figure of an environment.
type Outcome string

// The outcomes.
const (
	Reference  Outcome = "reference"
	Better     Outcome = "better"
	Worse      Outcome = "worse"
	Equal      Outcome = "equal"               // the whole interval is within equalWithin
	Unshown    Outcome = "no difference shown" // the interval holds 0
	NoEvidence Outcome = "not enough evidence" // one repeat, or no interval
)

// equalWithin is the difference in percent that nobody would act on.
const equalWithin = 2

// latencyFigures are taken from single requests; -1 is the mean.
var latencyFigures = []struct {
	quantity Quantity
	qs       []float64
}{
	{TTFT, []float64{-1, .5, .9, .99}},
	{ITL, []float64{.5, .99}},
	{TPOT, []float64{.5, .99}},
	{E2E, []float64{-1, .5, .9, .99}},
}

func figureName(q Quantity, at float64) string {
	if at < 0 {
		return string(q) + " mean"
	}
	return string(q) + " p" + trimZero(100*at)
}

// scope weighs all figures of the cell's requests to one model, or to all.
func (c *Cell) scope(model string, o Options) Scope {
	s := Scope{Model: model}
	for _, l := range latencyFigures {
		s.Figures = append(s.Figures, c.latency(model, l.quantity, l.qs, o)...)
	}
	given := c.Workload.openLoop()
	for _, f := range []struct {
		name, unit string
		given      bool
		of         func(Totals) float64
	}{
		{"goodput", "requests/s", false, func(t Totals) float64 { return t.Goodput }},
		{"throughput", "requests/s", given, func(t Totals) float64 { return t.PerSecond }},
		{"output", "tokens/s", given, func(t Totals) float64 { return t.TokensPerSecond }},
	} {
		figure := c.figure(f.name, f.unit, model, func(t Totals, _ *Run) float64 { return f.of(t) })
		figure.HigherIsBetter, figure.Given = true, f.given
		if figure.known() {
			s.Figures = append(s.Figures, c.byRepeats(figure))
		}
	}
	return s
}

func (f *Figure) known() bool {
	return !slices.ContainsFunc(f.Means, func(v float64) bool { return math.IsNaN(v) || v == 0 })
}

// figure takes one value from each repeat's totals.
func (c *Cell) figure(name, unit, model string, of func(Totals, *Run) float64) Figure {
	f := Figure{Name: name, Unit: unit, Repeats: make([][]float64, len(c.Repeats)), Means: make([]float64, len(c.Repeats))}
	for e, runs := range c.Repeats {
		for _, r := range runs {
			f.Repeats[e] = append(f.Repeats[e], of(r.totals(model), r))
		}
		f.Means[e] = mean(f.Repeats[e])
	}
	return f
}

// totals are those of one model, or of all.
func (r *Run) totals(model string) Totals {
	if model == "" {
		return r.Total
	}
	return r.Models[model]
}

// latency weighs the figures of one quantity; those that no file knows are left
// out.
func (c *Cell) latency(model string, q Quantity, qs []float64, o Options) []Figure {
	var figures []Figure
	byRequests := c.samples(model, q)
	var intervals [][]Interval // by environment
	for e := range c.Repeats {
		if byRequests != nil && e > 0 {
			v := versus{byRequests[0], byRequests[e], c.Paired[e]}
			intervals = append(intervals, v.intervals(qs, o.Draws, o.Seed))
		} else {
			intervals = append(intervals, nil)
		}
	}
	for k, at := range qs {
		f := c.figure(figureName(q, at), "ms", model, func(t Totals, _ *Run) float64 { return t.Summaries[q].at(at) })
		if !f.known() {
			continue
		}
		if byRequests == nil {
			figures = append(figures, c.byRepeats(f))
			continue
		}
		f.Differences, f.Outcomes = make([]Interval, len(c.Repeats)), []Outcome{Reference}
		for e := 1; e < len(c.Repeats); e++ {
			f.Differences[e] = intervals[e][k]
			f.Outcomes = append(f.Outcomes, c.outcome(&f, e))
		}
		figures = append(figures, f)
	}
	return figures
}

// samples are the requests' values by environment and repeat; nil when a run has
// none.
func (c *Cell) samples(model string, q Quantity) [][]sample {
	all := make([][]sample, len(c.Repeats))
	for e, runs := range c.Repeats {
		for _, r := range runs {
			requests := r.Requests
			if model != "" {
				requests = splitModels(requests)[model]
			}
			s := newSample(values(requests, q))
			if len(s.order) == 0 {
				return nil
			}
			all[e] = append(all[e], s)
		}
	}
	return all
}

// byRepeats weighs a figure by the values of the repeats alone.
func (c *Cell) byRepeats(f Figure) Figure {
	f.Differences, f.Outcomes = make([]Interval, len(c.Repeats)), []Outcome{Reference}
	for e := 1; e < len(c.Repeats); e++ {
		f.Differences[e] = student(f.Repeats[0], f.Repeats[e], c.Paired[e])
		f.Outcomes = append(f.Outcomes, c.outcome(&f, e))
	}
	return f
}

func (c *Cell) outcome(f *Figure, e int) Outcome {
	d := f.Differences[e]
	switch {
	case len(c.Repeats[0]) < 2 || len(c.Repeats[e]) < 2 || math.IsNaN(d.Low):
		return NoEvidence
	case d.Low > -equalWithin && d.High < equalWithin:
		return Equal
	case !d.Excludes() || f.Given:
		return Unshown
	case (d.Low > 0) == f.HigherIsBetter:
		return Better
	}
	return Worse
}
