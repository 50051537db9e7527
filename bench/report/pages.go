package report

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"lbd/bench/report/page"
)

// Page is the comparison as a page.
func (c *Comparison) Page() page.Page {
	p := page.Page{
		Title:    strings.Join(c.Environments, " against "),
		Lead:     c.lead(),
		Warnings: c.notes,
		Verdict:  page.Verdict{Tone: c.Verdict.Tone, Headline: c.Verdict.Headline, Points: c.Verdict.Points},
		Notes:    c.howTo(),
	}
	if len(c.Environments) == 1 {
		p.Title = c.Environments[0]
	}
	p.Sections = append(p.Sections, c.loadSections()...)
	for i := range c.Cells {
		p.Sections = append(p.Sections, c.cellSections(&c.Cells[i])...)
	}
	p.Sections = append(p.Sections, c.runsSection())
	return p
}

func (c *Comparison) lead() string {
	counts := make([]string, len(c.Environments))
	tools := map[string]bool{}
	for e, name := range c.Environments {
		runs, requests := 0, 0
		for _, cell := range c.Cells {
			runs += len(cell.Repeats[e])
			for _, r := range cell.Repeats[e] {
				requests += r.Total.OK + r.Total.Failed
				tools[r.Tool] = true
			}
		}
		counts[e] = fmt.Sprintf("%s: %s, %s requests", name, plural(runs, "run"), page.Number(float64(requests)))
	}
	return "Measured with " + strings.Join(slices.Sorted(maps.Keys(tools)), " and ") + ". " + strings.Join(counts, "; ") + "."
}

func plural(n int, what string) string {
	if n == 1 {
		return "one " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// curve is where percentile curves have their points.
var curve = func() []float64 {
	var qs []float64
	for p := 1; p < 100; p++ {
		qs = append(qs, float64(p)/100)
	}
	for p := 1; p < 10; p++ {
		qs = append(qs, .99+float64(p)/1000)
	}
	return qs
}()

func (c *Comparison) cellSections(cell *Cell) []page.Section {
	title := "All requests"
	if cell.Name != "" {
		title = "All requests, " + cell.Name
	}
	sections := []page.Section{{
		Title:  title,
		Lead:   c.pairing(cell),
		Charts: c.curves(cell, ""),
		Tables: []page.Table{c.table(cell, cell.Scopes[0])},
	}}
	if charts := c.replicaCharts(cell); len(charts) > 0 {
		sections = append(sections, page.Section{
			Title:  join("Load of the replicas", cell.Name),
			Lead:   "The first repeat, as the client saw it. Lines that stay together are an even load.",
			Charts: charts,
		})
	}
	for _, s := range cell.Scopes[1:] {
		sections = append(sections, page.Section{
			Title:  join(s.Model, cell.Name),
			Charts: c.curves(cell, s.Model),
			Tables: []page.Table{c.table(cell, s)},
		})
	}
	return sections
}

// pairing says how the repeats belong together.
func (c *Comparison) pairing(cell *Cell) string {
	if len(c.Environments) < 2 {
		return ""
	}
	for _, paired := range cell.Paired {
		if !paired {
			return "The environments were not sent the same requests one for one, so that chance weighs more in the differences."
		}
	}
	return "Each repeat sent the same requests to every environment; what they have in common cancels out in the differences."
}

// curves are the percentile curves of the quantities that are known.
func (c *Comparison) curves(cell *Cell, model string) []page.Chart {
	var charts []page.Chart
	for _, q := range []struct {
		quantity Quantity
		words    string
	}{
		{TTFT, "Time to first token"}, {ITL, "Time between tokens, every gap"},
		{TPOT, "Time per output token, by request"}, {E2E, "Whole answer"},
	} {
		if chart, ok := c.curve(cell, model, q.quantity, q.words); ok {
			charts = append(charts, chart)
		}
	}
	if len(charts) == 4 {
		// The mean time per token says little beside every gap.
		charts = slices.Delete(charts, 2, 3)
	}
	return charts
}

func (c *Comparison) curve(cell *Cell, model string, q Quantity, words string) (page.Chart, bool) {
	chart := page.Chart{
		Title: words + " (" + string(q) + ")",
		X:     page.Axis{Label: "percentile of requests", Scale: page.Percentile},
		Y:     page.Axis{Label: "time", Unit: "ms"},
	}
	if q == ITL {
		chart.X.Label = "percentile of gaps"
	}
	low, high := math.Inf(1), 0.0
	for e, name := range c.Environments {
		points := meanCurve(cell.Repeats[e], model, q)
		if len(points) == 0 {
			return chart, false
		}
		for _, p := range points {
			if p.Y > 0 {
				low, high = min(low, p.Y), max(high, p.Y)
			}
		}
		chart.Series = append(chart.Series, page.Series{Name: name, Colour: e, Dash: e, Points: points})
	}
	if high > 30*low {
		chart.Y.Scale = page.Log // else all but the tail lies flat on the axis
		chart.Y.Label += ", logarithmic"
	}
	chart.Description = "Lower is better. Each line is the mean of " + c.repeatsWords(cell) + "."
	return chart, true
}

func (c *Comparison) repeatsWords(cell *Cell) string {
	n := len(cell.Repeats[0])
	for _, runs := range cell.Repeats {
		if len(runs) != n {
			return "the repeats"
		}
	}
	return repeats(n)
}

// meanCurve is the mean over repeats of each percentile.
func meanCurve(runs []*Run, model string, q Quantity) []page.XY {
	sums, n := make([]float64, len(curve)), 0
	for _, r := range runs {
		for k, v := range r.curve(model, q) {
			sums[k] += v
		}
		n++
	}
	var points []page.XY
	for k, sum := range sums {
		if !math.IsNaN(sum) {
			points = append(points, page.XY{X: math.Round(1000*curve[k]) / 10, Y: sum / float64(n)})
		}
	}
	return points
}

// curve is the run's percentiles, NaN where they are not known.
func (r *Run) curve(model string, q Quantity) []float64 {
	ys := make([]float64, len(curve))
	requests := r.Requests
	if model != "" {
		requests = splitModels(requests)[model]
	}
	vs := numbers(values(requests, q))
	if q == ITL {
		vs = gaps(requests)
	}
	slices.Sort(vs)
	summary := r.totals(model).Summaries[q]
	for k, at := range curve {
		if len(vs) > 0 {
			ys[k] = quantile(vs, at)
		} else {
			ys[k] = summary.at(at)
		}
	}
	return ys
}

func (c *Comparison) table(cell *Cell, s Scope) page.Table {
	t := page.Table{Title: "Figures, means over the repeats", Columns: []page.Column{{Name: ""}}}
	if s.Model != "" {
		t.Title += ", " + s.Model
	}
	for _, name := range c.Environments {
		t.Columns = append(t.Columns, page.Column{Name: name, Number: true})
	}
	for _, name := range c.Environments[1:] {
		t.Columns = append(t.Columns, page.Column{Name: name + ", difference", Number: true},
			page.Column{Name: "95 % interval"}, page.Column{Name: "evidence says"})
	}
	last := ""
	for _, f := range s.Figures {
		group, _, _ := strings.Cut(f.Name, " ")
		row := page.Row{Break: last != "" && group != last && f.Unit == "ms" || f.Name == "throughput", Cells: []page.Cell{{Text: f.Name + ", " + f.Unit}}}
		last = group
		for _, m := range f.Means {
			row.Cells = append(row.Cells, page.Cell{Text: page.Number(m)})
		}
		for e := 1; e < len(f.Means); e++ {
			row.Cells = append(row.Cells, f.cells(e)...)
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

func (f *Figure) cells(e int) []page.Cell {
	d, tone := f.Differences[e], f.Outcomes[e].tone()
	if f.Given {
		tone = page.Neutral
	}
	interval := page.Cell{Text: f.interval(d), Tone: tone}
	if !math.IsNaN(d.Low) {
		interval.Interval = &page.Interval{Low: d.Low, Mid: d.Mid, High: d.High}
	}
	return []page.Cell{{Text: signed(d.Mid), Tone: tone}, interval, {Text: f.words(e), Tone: tone}}
}

// runsSection lists what was read.
func (c *Comparison) runsSection() page.Section {
	t := page.Table{Columns: []page.Column{
		{Name: "file"}, {Name: "environment"}, {Name: "tool"}, {Name: "load"}, {Name: "started"}, {Name: "answered", Number: true}, {Name: "failed", Number: true},
		{Name: "seconds", Number: true},
	}}
	for _, cell := range c.Cells {
		for e, runs := range cell.Repeats {
			for _, r := range runs {
				started := "–"
				if !r.Started.IsZero() {
					started = r.Started.UTC().Format("2006-01-02 15:04:05")
				}
				t.Rows = append(t.Rows, page.Row{Cells: []page.Cell{
					{Text: r.name()}, {Text: c.Environments[e]}, {Text: r.Tool}, {Text: r.Workload.Load.String()}, {Text: started},
					{Text: page.Number(float64(r.Total.OK))}, {Text: page.Number(float64(r.Total.Failed))}, {Text: page.Number(r.Seconds)},
				}})
			}
		}
	}
	s := page.Section{Title: "Runs", Tables: []page.Table{t, c.workloadTable()}}
	return s
}

// workloadTable says what was asked for.
func (c *Comparison) workloadTable() page.Table {
	t := page.Table{Title: "Workload", Columns: []page.Column{{Name: ""}}}
	names := map[string]bool{}
	for _, cell := range c.Cells {
		t.Columns = append(t.Columns, page.Column{Name: cell.Name})
		for _, f := range cell.Workload.Fields {
			names[f.Name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		row := page.Row{Cells: []page.Cell{{Text: name}}}
		for _, cell := range c.Cells {
			text := "–"
			for _, f := range cell.Workload.Fields {
				if f.Name == name {
					text = f.Value
				}
			}
			row.Cells = append(row.Cells, page.Cell{Text: text})
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

func (c *Comparison) howTo() []string {
	notes := []string{
		"TTFT is the time from when a request should have been sent to its first content; ITL is every gap between two pieces of content; " +
			"TPOT is the mean time per output token after the first, one value for each request; E2E is the time to the last byte.",
	}
	if len(c.Environments) > 1 {
		notes = append(notes,
			"Differences are in percent of "+c.Environments[0]+". A 95 % interval holds the true difference in 95 of 100 such measurements. It is the wider of a bootstrap "+
				"over repeats and blocks of consecutive requests, and Student's interval over the repeats.",
			fmt.Sprintf("“No difference shown” means that the interval includes 0, not that there is no difference: more repeats make it narrower. “Equal” means that the whole interval is within %d %%.", equalWithin),
			"Many figures are tested at once: of twenty without any true difference, one will look different by chance.",
		)
	}
	return append(notes, c.Notes...)
}
