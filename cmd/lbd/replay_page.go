package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"lbd/bench/replay"
	"lbd/bench/report/page"
)

// runs are the results of one strategy on one fleet, one for each seed.
type runs struct {
	mean replay.Result
	all  []*replay.Result
}

func grouped(results []*replay.Result) (all []runs) {
	means := replay.Means(results)
	for i := range means {
		g := runs{mean: means[i]}
		for _, r := range results {
			if r.Policy == g.mean.Policy && r.Fleet == g.mean.Fleet {
				g.all = append(g.all, r)
			}
		}
		all = append(all, g)
	}
	return all
}

func (o *replayOptions) page(results []*replay.Result) page.Page {
	all := grouped(results)
	fleets, strategies := o.partition(all)
	p := page.Page{
		Title: "What if: " + o.traffic(),
		Lead: fmt.Sprintf("%d requests, replayed in virtual time against simulated replicas. A request is good with a TTFT up to %v%s and %v per further token.",
			all[0].mean.Requests, o.ttft, o.perToken(), o.tpot),
		Warnings: []string{"Simulated: this ranks strategies on one model of vLLM; it is no measurement of a GPU. bench/sim/README.md has the model's errors against real servers."},
		Verdict:  o.verdict(all, fleets),
		Notes:    o.notes(),
	}
	p.Sections = append(p.Sections, page.Section{Title: "Figures", Tables: []page.Table{figureTable(all)}})
	if len(fleets) > 1 {
		p.Sections = append(p.Sections, page.Section{Title: "Sizes of the fleet", Charts: fleetCharts(all, fleets, strategies)})
	}
	for _, f := range fleets {
		p.Sections = append(p.Sections, page.Section{Title: fleetTitle(f), Charts: curves(all, f, strategies)})
	}
	return p
}

// partition lists the fleets and strategies there are, in their order.
func (o *replayOptions) partition(all []runs) (fleets, strategies []string) {
	for i := range all {
		if r := &all[i].mean; !slices.Contains(fleets, r.Fleet) {
			fleets = append(fleets, r.Fleet)
		}
		if r := &all[i].mean; !slices.Contains(strategies, r.Policy) {
			strategies = append(strategies, r.Policy)
		}
	}
	return fleets, strategies
}

func (o *replayOptions) traffic() string {
	if o.made != "" {
		return fmt.Sprintf("%s, %g requests per second", o.made, o.rate)
	}
	if o.traceSpeed != 1 {
		return fmt.Sprintf("%s at %g times its speed", o.traceFile, o.traceSpeed)
	}
	return o.traceFile
}

func (o *replayOptions) perToken() string {
	if o.ttftPerToken == 0 {
		return ""
	}
	return fmt.Sprintf(" and %v per prompt token", o.ttftPerToken)
}

// verdict names the strategy with the most good requests on each fleet, and of equals the least p99 TTFT.
func (o *replayOptions) verdict(all []runs, fleets []string) page.Verdict {
	v := page.Verdict{Tone: page.Neutral}
	for _, f := range fleets {
		best := (*replay.Result)(nil)
		for i := range all {
			r := &all[i].mean
			if r.Fleet == f && (best == nil || r.Good > best.Good || r.Good == best.Good && r.TTFT.P99 < best.TTFT.P99) {
				best = r
			}
		}
		text := fmt.Sprintf("%s: most requests are good with %s, %.1f %%; its p99 TTFT is %s ms.", fleetTitle(f), best.Policy, 100*best.Good, page.Number(best.TTFT.P99))
		v.Points = append(v.Points, page.Point{Text: text})
		if v.Headline == "" {
			v.Headline = text
		}
	}
	if len(v.Points) == 1 {
		v.Points = nil
	}
	return v
}

func fleetTitle(f string) string {
	if strings.ContainsAny(f, "x@,") {
		return "Fleet " + f
	}
	if f == "1" {
		return "1 replica"
	}
	return f + " replicas"
}

func (o *replayOptions) notes() []string {
	notes := []string{
		fmt.Sprintf("The first %.0f %% of the requests are left out of the figures. %d seeds; curves and figures are means over them.", 100*o.warmup, max(o.seeds, 1)),
		"TTFT counts from the arrival at lbd to the first token, E2E to the last one, TPOT is the mean time per token after the first. ITL is every gap of every replica, warm-up included.",
		"Every strategy met the same arrivals. hit is cached prompt tokens per prompt token, busy the share of time replicas compute, its CoV how unevenly.",
	}
	if l := o.admission; l.Any() {
		notes = append(notes, "Strategies that predict it refuse "+strings.Join(refused(l), " and ")+". Refused requests are not good; times are of the others.")
	}
	if o.dropped > 0 {
		notes = append(notes, fmt.Sprintf("%d requests of more than %d tokens are left out.", o.dropped, o.maxLength))
	}
	return notes
}

// refused says in words what is.
func refused(l replay.Limits) (what []string) {
	if l.TTFT > 0 {
		what = append(what, fmt.Sprintf("first tokens later than %v and %v per prompt token (--admission-max-ttft)", l.TTFT, l.TTFTPerToken))
	}
	if l.TPOT > 0 {
		what = append(what, fmt.Sprintf("further tokens of more than %v each (--admission-max-tpot)", l.TPOT))
	}
	return what
}

func figureTable(all []runs) page.Table {
	t := page.Table{Note: "Times in milliseconds."}
	for i, name := range []string{
		"strategy", "fleet", "TTFT mean", "p50", "p90", "p99", "TPOT mean", "p99", "ITL p99", "E2E mean", "p99", "good %", "hit %", "busy %", "busy CoV", "preempted", "failed", "refused %",
	} {
		t.Columns = append(t.Columns, page.Column{Name: name, Number: i > 1})
	}
	fleet := ""
	for i := range all {
		r := &all[i].mean
		row := page.Row{Break: fleet != "" && r.Fleet != fleet, Cells: []page.Cell{{Text: r.Policy}, {Text: r.Fleet}}}
		fleet = r.Fleet
		for _, v := range []float64{
			r.TTFT.Mean, r.TTFT.P50, r.TTFT.P90, r.TTFT.P99, r.TPOT.Mean, r.TPOT.P99, r.ITL.P99, r.E2E.Mean, r.E2E.P99,
			100 * r.Good, 100 * r.HitRate, 100 * r.Busy, r.BusyCoV, float64(r.Preemptions), float64(r.Failed - r.Late + r.Unfinished), 100 * r.LateShare,
		} {
			row.Cells = append(row.Cells, page.Cell{Text: page.Number(v)})
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// fleetCharts show what another number of replicas would have meant.
func fleetCharts(all []runs, fleets, strategies []string) []page.Chart {
	chart := func(title, unit, what string, y func(*replay.Result) float64) page.Chart {
		c := page.Chart{Title: title, Description: what, X: page.Axis{Label: "replicas", Fit: true}, Y: page.Axis{Label: title, Unit: unit}}
		for k, s := range strategies {
			line := page.Series{Name: s, Colour: k, Dash: k, Marks: true}
			for i := range all {
				if r := &all[i].mean; r.Policy == s {
					line.Points = append(line.Points, page.XY{X: float64(r.Replicas), Y: y(r)})
				}
			}
			slices.SortFunc(line.Points, func(a, b page.XY) int { return cmp.Compare(a.X, b.X) })
			c.Series = append(c.Series, line)
		}
		return c
	}
	return []page.Chart{
		chart("p99 TTFT", "ms", "Lower is better.", func(r *replay.Result) float64 { return r.TTFT.P99 }),
		chart("good requests", "%", "Higher is better.", func(r *replay.Result) float64 { return 100 * r.Good }),
	}
}

// curves are percentiles of what single requests got, on one fleet.
func curves(all []runs, fleet string, strategies []string) []page.Chart {
	var charts []page.Chart
	for _, q := range []struct {
		title string
		of    func(replay.Served) (float64, bool)
	}{
		{"Time to first token (TTFT)", func(s replay.Served) (float64, bool) { return float64(s.TTFT), true }},
		{"Time per output token (TPOT)", func(s replay.Served) (float64, bool) { return float64(s.TPOT), s.Output > 1 }},
		{"Whole answer (E2E)", func(s replay.Served) (float64, bool) { return float64(s.E2E), true }},
	} {
		c := page.Chart{
			Title: q.title, Description: "Lower is better. Requests that failed or were refused are not in it.",
			X: page.Axis{Label: "percentile of requests", Scale: page.Percentile}, Y: page.Axis{Label: "time", Unit: "ms", Scale: page.Log},
		}
		for k, s := range strategies {
			for i := range all {
				if all[i].mean.Policy == s && all[i].mean.Fleet == fleet {
					c.Series = append(c.Series, page.Series{Name: s, Colour: k, Dash: k, Points: percentiles(all[i].all, q.of)})
				}
			}
		}
		charts = append(charts, c)
	}
	return charts
}

// percentiles are the means over seeds of each percentile.
func percentiles(results []*replay.Result, of func(replay.Served) (float64, bool)) (points []page.XY) {
	sorted := make([][]float64, 0, len(results))
	for _, r := range results {
		var v []float64
		for _, s := range r.Each {
			if x, ok := of(s); ok && !s.Failed && !s.Warmup {
				v = append(v, x)
			}
		}
		if slices.Sort(v); len(v) > 0 {
			sorted = append(sorted, v)
		}
	}
	if len(sorted) == 0 {
		return nil
	}
	for _, p := range percentilePlaces {
		sum := 0.0
		for _, v := range sorted {
			sum += v[max(0, int(math.Ceil(p/100*float64(len(v))))-1)]
		}
		points = append(points, page.XY{X: p, Y: sum / float64(len(sorted))})
	}
	return points
}

// percentilePlaces are each per cent, and each tenth of the last one.
var percentilePlaces = func() (all []float64) {
	for p := 1; p < 100; p++ {
		all = append(all, float64(p))
	}
	for p := 1; p < 10; p++ {
		all = append(all, 99+float64(p)/10)
	}
	return all
}()
