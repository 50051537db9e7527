package report

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"lbd/bench/report/page"
)

// loadSections plot figures over the load where there are several loads.
func (c *Comparison) loadSections() []page.Section {
	var sections []page.Section
	for _, cells := range c.families() {
		s := page.Section{Title: "Over the load", Lead: "Points are means over the repeats, bars reach from the least to the largest repeat."}
		for _, f := range []struct{ name, title, better string }{
			{"TTFT p50", "TTFT, half of the requests", "Lower"}, {"TTFT p99", "TTFT, 99 % of the requests", "Lower"},
			{"output", "Output tokens per second", "Higher"}, {"goodput", "Goodput", "Higher"},
		} {
			if chart, ok := c.overLoad(cells, f.name, f.title, f.better); ok {
				s.Charts = append(s.Charts, chart)
			}
		}
		sections = append(sections, s)
	}
	return sections
}

// families are the cells that differ by their load only, where there are several.
func (c *Comparison) families() [][]*Cell {
	by := map[string][]*Cell{}
	for i := range c.Cells {
		if cell := &c.Cells[i]; cell.Workload.Load.Kind != "" {
			by[cell.rest()] = append(by[cell.rest()], cell)
		}
	}
	var families [][]*Cell
	for _, rest := range slices.Sorted(maps.Keys(by)) {
		if len(by[rest]) > 1 {
			families = append(families, by[rest])
		}
	}
	return families
}

func (c *Comparison) overLoad(cells []*Cell, name, title, better string) (page.Chart, bool) {
	load := cells[0].Workload.Load
	chart := page.Chart{Title: title, Description: better + " is better.", X: page.Axis{Label: "concurrency"}, Y: page.Axis{}}
	if load.Kind == "rate" {
		chart.X = page.Axis{Label: "requests per second"}
	}
	for e, env := range c.Environments {
		s := page.Series{Name: env, Colour: e, Dash: e, Marks: true}
		for _, cell := range cells {
			i := slices.IndexFunc(cell.Scopes[0].Figures, func(f Figure) bool { return f.Name == name })
			if i < 0 {
				return chart, false
			}
			f := cell.Scopes[0].Figures[i]
			chart.Y.Label, chart.Y.Unit = title, f.Unit
			s.Points = append(s.Points, page.XY{X: cell.Workload.Load.Value, Y: f.Means[e], Low: slices.Min(f.Repeats[e]), High: slices.Max(f.Repeats[e])})
		}
		chart.Series = append(chart.Series, s)
	}
	return chart, true
}

// maxReplicaLines is how many replicas one chart can show apart.
const maxReplicaLines = 8

// replicaCharts show what the replicas of each model were busy with in the first
// repeat, environment by environment on one scale.
func (c *Comparison) replicaCharts(cell *Cell) []page.Chart {
	var charts []page.Chart
	for _, model := range replicaModels(cell) {
		for e, env := range c.Environments {
			r := cell.Repeats[e][0]
			t := r.timeline()
			if t == nil {
				return nil
			}
			chart := page.Chart{
				Title: join(shortName(model), env),
				X:     page.Axis{Label: "time", Unit: "s"}, Y: page.Axis{Label: "requests in flight", Unit: ""},
			}
			names := r.replicasOf(model, t)
			if len(names) > maxReplicaLines {
				names = names[:maxReplicaLines]
				chart.Description = fmt.Sprintf("The first %d replicas by name. ", maxReplicaLines)
			}
			for i, name := range names {
				chart.Series = append(chart.Series, page.Series{
					Name: name, Colour: e, Dash: i, Points: t.points(name), Steps: true,
				})
			}
			chart.Description += evenness(t, names)
			charts = append(charts, chart)
		}
	}
	sameHeight(charts)
	return charts
}

// shortName is a model's without the organisation.
func shortName(model string) string { return model[strings.LastIndexByte(model, '/')+1:] }

// replicaModels are the models whose replicas are told apart in every run; one
// empty name when a file knows replicas but not which model each serves.
func replicaModels(cell *Cell) []string {
	if models := cell.models(); len(models) > 0 && len(cell.Repeats[0][0].Requests) > 0 {
		return models
	}
	return []string{""}
}

// replicasOf are the names of the replicas that answered for the model.
func (r *Run) replicasOf(model string, t *Timeline) []string {
	if model == "" {
		return slices.Sorted(maps.Keys(t.InFlight))
	}
	names := map[string]bool{}
	for i := range r.Requests {
		if q := &r.Requests[i]; q.Model == model && q.Replica != "" {
			names[q.Replica] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// timeline is the file's, or counted from the requests.
func (r *Run) timeline() *Timeline {
	if r.Timeline != nil {
		return r.Timeline
	}
	last := 0.0
	for i := range r.Requests {
		last = max(last, r.Requests[i].End)
	}
	const steps = 240 // as many as lbd bench writes
	t := &Timeline{Step: last / steps, InFlight: map[string][]float64{}}
	for i := range r.Requests {
		q := &r.Requests[i]
		if q.Replica == "" || q.End <= q.Sent || q.Sent < 0 {
			continue
		}
		if t.InFlight[q.Replica] == nil {
			t.InFlight[q.Replica] = make([]float64, steps+1)
		}
		t.add(q)
	}
	if len(t.InFlight) == 0 {
		return nil
	}
	return t
}

// add counts the request in each step by the part of it that it was in flight.
func (t *Timeline) add(q *Request) {
	line := t.InFlight[q.Replica]
	for i := int(q.Sent / t.Step); i < len(line) && float64(i)*t.Step < q.End; i++ {
		from, to := max(q.Sent, float64(i)*t.Step), min(q.End, float64(i+1)*t.Step)
		line[i] += (to - from) / t.Step
	}
}

func (t *Timeline) points(name string) []page.XY {
	var points []page.XY
	for i, v := range t.InFlight[name] {
		points = append(points, page.XY{X: float64(i) * t.Step, Y: v})
	}
	return points
}

// evenness is the mean over time of how far apart the replicas were.
func evenness(t *Timeline, names []string) string {
	if len(names) < 2 {
		return ""
	}
	apart, n := 0.0, 0
	for i := range t.InFlight[names[0]] {
		low, high := math.Inf(1), 0.0
		for _, name := range names {
			if i < len(t.InFlight[name]) {
				low, high = min(low, t.InFlight[name][i]), max(high, t.InFlight[name][i])
			}
		}
		apart += high - low
		n++
	}
	return fmt.Sprintf("On average the busiest had %s more requests than the idlest.", page.Number(apart/float64(max(n, 1))))
}

// sameHeight gives charts that stand beside each other one scale.
func sameHeight(charts []page.Chart) {
	highest := 0.0
	for _, chart := range charts {
		for _, s := range chart.Series {
			for _, p := range s.Points {
				highest = max(highest, p.Y)
			}
		}
	}
	for i := range charts {
		charts[i].Y.To = highest
	}
}
