package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"lbd/bench/report/page"
)

// Verdict is the answer in words.
type Verdict struct {
	Tone     page.Tone
	Headline string
	Points   []page.Point
}

// headlines are the figures a verdict is made of; the others are in the tables.
var headlines = []string{"TTFT p50", "TTFT p99", "ITL p99", "TPOT p50", "E2E p50", "E2E p99", "goodput", "output"}

func trimZero(v float64) string { return strconv.FormatFloat(math.Round(v*100)/100, 'f', -1, 64) }

// judge says which environment did better.
func (c *Comparison) judge() Verdict {
	v := Verdict{Tone: page.Neutral}
	switch {
	case len(c.Faults) > 0:
		v.Tone = page.Failed
		v.Headline = "The measurements failed their own checks; their figures are not to be trusted."
		for _, fault := range c.Faults {
			v.Points = append(v.Points, page.Point{Tone: page.Failed, Text: fault})
		}
		return v
	case len(c.Environments) < 2:
		v.Headline = fmt.Sprintf("%s alone: there is nothing to compare it with.", c.Environments[0])
		return v
	}
	var texts []string
	var tones []page.Tone
	for e := 1; e < len(c.Environments); e++ {
		text, tone, points := c.judgeOne(e)
		texts, tones = append(texts, text), append(tones, tone)
		v.Points = append(v.Points, points...)
	}
	v.Headline, v.Tone = strings.Join(texts, " "), tones[0]
	if slices.ContainsFunc(tones, func(t page.Tone) bool { return t != tones[0] }) {
		v.Tone = page.Mixed
	}
	return v
}

// judgeOne compares one environment with the reference.
func (c *Comparison) judgeOne(e int) (string, page.Tone, []page.Point) {
	var points []page.Point
	best := map[Outcome][]string{}
	for i := range c.Cells {
		cell := &c.Cells[i]
		by := cell.outcomes(e)
		for outcome, texts := range by {
			if cell.Name != "" {
				texts = prefixed(cell.Name, texts)
			}
			best[outcome] = append(best[outcome], texts...)
		}
		of := cell.points(e, c.Environments)
		if len(c.Cells) > 1 {
			of = shorten(cell.Name, of, by)
		}
		points = append(points, of...)
	}
	a, b := c.Environments[0], c.Environments[e]
	better, worse := strings.Join(firstFew(best[Better]), ", "), strings.Join(firstFew(best[Worse]), ", ")
	switch {
	case better != "" && worse != "":
		return fmt.Sprintf("%s did better than %s in some figures and worse in others. Better: %s. Worse: %s.", b, a, better, worse), page.Mixed, points
	case better != "":
		return fmt.Sprintf("%s did better than %s: %s.", b, a, better), page.Good, points
	case worse != "":
		return fmt.Sprintf("%s did worse than %s: %s.", b, a, worse), page.Bad, points
	case len(best[NoEvidence]) > 0:
		return c.whyNoEvidence(e), page.Unclear, points
	case len(best[Unshown]) == 0 && len(best[Equal]) > 0:
		return fmt.Sprintf("%s and %s are equal: no figure differs by more than %d %%.", b, a, equalWithin), page.Neutral, points
	}
	return fmt.Sprintf("No difference between %s and %s is shown: the interval of every figure includes 0.", b, a), page.Unclear, points
}

func (c *Comparison) whyNoEvidence(e int) string {
	a, b := c.Environments[0], c.Environments[e]
	for i := range c.Cells {
		if na, nb := len(c.Cells[i].Repeats[0]), len(c.Cells[i].Repeats[e]); na < 2 || nb < 2 {
			return fmt.Sprintf("Not enough evidence to tell %s from %s: %s of %s and %s of %s. Want at least two of each, better five.",
				b, a, repeats(na), a, repeats(nb), b)
		}
	}
	return fmt.Sprintf("Not enough evidence to tell %s from %s.", b, a)
}

func repeats(n int) string {
	if n == 1 {
		return "one repeat"
	}
	return fmt.Sprintf("%d repeats", n)
}

func prefixed(name string, texts []string) []string {
	all := make([]string, len(texts))
	for i, t := range texts {
		all[i] = t + " at " + name
	}
	return all
}

// shorten keeps the points of a cell that say something and names the other
// figures in one: many loads would bury the verdict.
func shorten(name string, points []page.Point, by map[Outcome][]string) []page.Point {
	points = slices.DeleteFunc(points, func(p page.Point) bool { return p.Tone != page.Good && p.Tone != page.Bad })
	for _, outcome := range []Outcome{Equal, Unshown, NoEvidence} {
		if texts := by[outcome]; len(texts) > 0 {
			points = append(points, page.Point{Tone: outcome.tone(), Text: fmt.Sprintf("%s: %s: %s.", name, outcome, strings.Join(texts, ", "))})
		}
	}
	return points
}

// firstFew keeps a headline readable.
func firstFew(texts []string) []string {
	const few = 4
	if len(texts) > few {
		return append(slices.Clone(texts[:few]), fmt.Sprintf("and %d more", len(texts)-few))
	}
	return texts
}

// outcomes sorts the headline figures of the cell by what the evidence says.
func (c *Cell) outcomes(e int) map[Outcome][]string {
	by := map[Outcome][]string{}
	for _, f := range c.Scopes[0].headlineFigures() {
		by[f.Outcomes[e]] = append(by[f.Outcomes[e]], f.Name+" "+change(f.Differences[e].Mid))
	}
	return by
}

func (s *Scope) headlineFigures() []Figure {
	var figures []Figure
	for _, f := range s.Figures {
		if slices.Contains(headlines, f.Name) && !f.Given {
			figures = append(figures, f)
		}
	}
	return figures
}

// change is a difference in words.
func change(percent float64) string {
	switch {
	case math.IsNaN(percent):
		return "unknown"
	case math.Abs(percent) < .05:
		return "unchanged"
	case percent < 0:
		return fmt.Sprintf("%s %% lower", digits(-percent))
	}
	return fmt.Sprintf("%s %% higher", digits(percent))
}

// digits are two of a percentage: more would be false precision.
func digits(p float64) string {
	if p < 9.95 {
		return strconv.FormatFloat(p, 'f', 1, 64)
	}
	return strconv.FormatFloat(p, 'f', 0, 64)
}

// between is an interval in words.
func between(i Interval) string {
	switch {
	case math.IsNaN(i.Low):
		return "no interval"
	case i.High <= 0:
		return fmt.Sprintf("%s to %s %% lower", digits(-i.High), digits(-i.Low))
	case i.Low >= 0:
		return fmt.Sprintf("%s to %s %% higher", digits(i.Low), digits(i.High))
	}
	return fmt.Sprintf("%s %% lower to %s %% higher", digits(-i.Low), digits(i.High))
}

// points are one sentence for each headline figure.
func (c *Cell) points(e int, names []string) []page.Point {
	var points []page.Point
	for _, f := range c.Scopes[0].headlineFigures() {
		text := fmt.Sprintf("%s %s → %s %s", f.Name, page.Number(f.Means[0]), page.Number(f.Means[e]), f.Unit)
		if len(names) > 2 {
			text += " with " + names[e]
		}
		switch f.Outcomes[e] {
		case NoEvidence:
			text += fmt.Sprintf(": %s, but a single repeat does not show how much of that is chance", change(f.Differences[e].Mid))
		case Equal:
			text += fmt.Sprintf(": equal within %d %%", equalWithin)
		default:
			text += fmt.Sprintf(": %s (95 %% interval: %s)", change(f.Differences[e].Mid), between(f.Differences[e]))
		}
		if c.Name != "" {
			text = c.Name + ": " + text
		}
		points = append(points, page.Point{Tone: f.Outcomes[e].tone(), Text: text + "."})
	}
	return points
}

func (o Outcome) tone() page.Tone {
	switch o {
	case Better:
		return page.Good
	case Worse:
		return page.Bad
	case Unshown, NoEvidence:
		return page.Unclear
	}
	return page.Neutral
}
