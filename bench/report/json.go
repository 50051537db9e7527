package report

import (
	"encoding/json"
	"io"
	"math"
)

// The JSON form of a comparison: what the tables hold, for programs.
type (
	comparisonJSON struct {
		Schema       string      `json:"schema"`
		Environments []string    `json:"environments"`
		Verdict      verdictJSON `json:"verdict"`
		Faults       []string    `json:"faults"`
		Notes        []string    `json:"notes"`
		Cells        []cellJSON  `json:"cells"`
	}
	verdictJSON struct {
		Outcome  string   `json:"outcome"` // good, bad, mixed, unclear, failed or empty
		Headline string   `json:"headline"`
		Points   []string `json:"points"`
	}
	cellJSON struct {
		Name     string            `json:"name"`
		Load     string            `json:"load"`
		Workload map[string]string `json:"workload"`
		Paired   []bool            `json:"paired"`
		Files    [][]string        `json:"files"` // by environment
		Scopes   []scopeJSON       `json:"scopes"`
	}
	scopeJSON struct {
		Model   string       `json:"model,omitempty"`
		Figures []figureJSON `json:"figures"`
	}
	figureJSON struct {
		Name           string           `json:"name"`
		Unit           string           `json:"unit"`
		HigherIsBetter bool             `json:"higher_is_better"`
		Given          bool             `json:"given"`
		Repeats        [][]*float64     `json:"repeats"` // by environment
		Means          []*float64       `json:"means"`
		Differences    []differenceJSON `json:"differences"` // of all environments but the first
	}
	differenceJSON struct {
		Environment string   `json:"environment"`
		Percent     *float64 `json:"percent"`
		Low         *float64 `json:"low"`
		High        *float64 `json:"high"`
		Outcome     Outcome  `json:"outcome"`
	}
)

// ReportSchema names the JSON form; it changes when a reader of older ones would
// misread newer ones.
const ReportSchema = "lbd-report/1"

// number is null where there is none.
func number(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

func optional(vs []float64) []*float64 {
	all := make([]*float64, len(vs))
	for i, v := range vs {
		all[i] = number(v)
	}
	return all
}

// WriteJSON writes the comparison for programs.
func (c *Comparison) WriteJSON(w io.Writer) error {
	j := comparisonJSON{
		Schema: ReportSchema, Environments: c.Environments, Faults: append([]string{}, c.Faults...), Notes: append(append([]string{}, c.notes...), c.Notes...),
		Verdict: verdictJSON{Outcome: string(c.Verdict.Tone), Headline: c.Verdict.Headline, Points: []string{}},
	}
	for _, p := range c.Verdict.Points {
		j.Verdict.Points = append(j.Verdict.Points, p.Text)
	}
	for i := range c.Cells {
		j.Cells = append(j.Cells, c.cellJSON(&c.Cells[i]))
	}
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(j)
}

func (c *Comparison) cellJSON(cell *Cell) cellJSON {
	j := cellJSON{Name: cell.Name, Load: cell.Workload.Load.String(), Workload: map[string]string{}, Paired: cell.Paired}
	for _, f := range cell.Workload.Fields {
		j.Workload[f.Name] = f.Value
	}
	for _, runs := range cell.Repeats {
		files := []string{}
		for _, r := range runs {
			files = append(files, r.Files...)
		}
		j.Files = append(j.Files, files)
	}
	for _, s := range cell.Scopes {
		sj := scopeJSON{Model: s.Model, Figures: []figureJSON{}}
		for _, f := range s.Figures {
			sj.Figures = append(sj.Figures, c.figureJSON(&f))
		}
		j.Scopes = append(j.Scopes, sj)
	}
	return j
}

func (c *Comparison) figureJSON(f *Figure) figureJSON {
	j := figureJSON{
		Name: f.Name, Unit: f.Unit, HigherIsBetter: f.HigherIsBetter, Given: f.Given,
		Means: optional(f.Means), Differences: []differenceJSON{},
	}
	for e := range f.Repeats {
		j.Repeats = append(j.Repeats, optional(f.Repeats[e]))
		if e > 0 {
			d := f.Differences[e]
			j.Differences = append(j.Differences, differenceJSON{c.Environments[e], number(d.Mid), number(d.Low), number(d.High), f.Outcomes[e]})
		}
	}
	return j
}

// AggregateSchema names the JSON form of an aggregate.
const AggregateSchema = "lbd-aggregate/1"

type (
	aggregateJSON struct {
		Schema    string                      `json:"schema"`
		Workers   []workerJSON                `json:"workers"`
		Requests  float64                     `json:"requests"`
		PerSecond float64                     `json:"requests_per_second"`
		Output    float64                     `json:"output_tokens_per_second"`
		All       float64                     `json:"tokens_per_second"`
		Check     float64                     `json:"output_tokens_over_time,omitempty"`
		Latencies map[Quantity]quantitiesJSON `json:"latencies_ms"`
		Warnings  []string                    `json:"warnings"`
	}
	workerJSON struct {
		File      string  `json:"file"`
		Tool      string  `json:"tool"`
		Requests  float64 `json:"requests"`
		PerSecond float64 `json:"requests_per_second"`
		Output    float64 `json:"output_tokens_per_second"`
		All       float64 `json:"tokens_per_second"`
	}
	quantitiesJSON struct {
		Count int      `json:"count"`
		Mean  float64  `json:"mean"`
		P50   *float64 `json:"p50"`
		P90   *float64 `json:"p90"`
		P95   *float64 `json:"p95"`
		P99   *float64 `json:"p99"`
		// Merged tells that the percentiles are those of all records together.
		Merged bool `json:"merged"`
	}
)

// WriteJSON writes the sums for programs.
func (a *Aggregate) WriteJSON(w io.Writer) error {
	j := aggregateJSON{
		Schema: AggregateSchema, Requests: a.Requests, PerSecond: a.PerSecond, Output: a.OutputPerSecond, All: a.AllPerSecond,
		Check: a.Check, Latencies: map[Quantity]quantitiesJSON{}, Warnings: append([]string{}, a.Warnings...),
	}
	for _, k := range a.Workers {
		j.Workers = append(j.Workers, workerJSON{k.File, k.Tool, k.Requests, k.PerSecond, k.OutputPerSecond, k.AllPerSecond})
	}
	for q, s := range a.Summaries {
		if s.Count > 0 {
			j.Latencies[q] = quantitiesJSON{s.Count, s.Mean, number(s.at(.5)), number(s.at(.9)), number(s.at(.95)), number(s.at(.99)), a.Merged[q]}
		}
	}
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(j)
}
