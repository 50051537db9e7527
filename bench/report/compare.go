package report

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
)

// Environment is what was measured, and its runs.
type Environment struct {
	Name string
	Runs []*Run
}

// Options are how the evidence is weighed.
type Options struct {
	// Draws of the bootstrap (0: 1000) and the seed of its chance.
	Draws int
	Seed  uint64
	// MaxErrorRate is the largest part of requests that may fail.
	MaxErrorRate float64
	// Notes are shown above all figures.
	Notes []string
}

// defaultDraws settle the ends of a 95 % interval to a few percent of its width.
const defaultDraws = 1000

// Comparison is environments side by side; the first is the reference.
type Comparison struct {
	Environments []string
	Cells        []Cell
	// Faults are why the measurements are not to be trusted, by run.
	Faults []string
	// Notes are what a reader of the figures should know.
	Notes   []string
	Verdict Verdict

	notes []string // Options.Notes
}

// Cell is one workload: each environment's repeats of it.
type Cell struct {
	Name     string // what sets it apart from the other cells; empty if it is the only one
	Workload Workload
	Repeats  [][]*Run // by environment
	// Paired tells for each environment whether its repeats were sent the same
	// requests as the reference's.
	Paired []bool
	Scopes []Scope
}

// Scope is the figures over all requests of a cell, or over one model's.
type Scope struct {
	Model   string // empty: all
	Figures []Figure
}

// Compare groups repeats and weighs the evidence. Its error is a *WorkloadError
// when the runs cannot be compared.
func Compare(environments []Environment, o Options) (*Comparison, error) {
	c := &Comparison{notes: o.Notes}
	o.Draws = cmp.Or(o.Draws, defaultDraws)
	for _, e := range environments {
		c.Environments = append(c.Environments, e.Name)
		c.examine(e, o.MaxErrorRate)
	}
	cells, err := group(environments)
	if err != nil {
		return nil, err
	}
	for i := range cells {
		cells[i].pair()
		cells[i].weigh(o)
	}
	c.Cells = cells
	nameCells(cells)
	c.Verdict = c.judge()
	return c, nil
}

// examine collects what the runs say against themselves.
func (c *Comparison) examine(e Environment, maxErrorRate float64) {
	for _, r := range e.Runs {
		for _, fault := range append(slices.Clone(r.Faults), r.failures(maxErrorRate)...) {
			c.Faults = append(c.Faults, fmt.Sprintf("%s, %s: %s", e.Name, r.name(), fault))
		}
		for _, note := range r.Notes {
			c.note(fmt.Sprintf("%s, %s: %s", e.Name, r.name(), note))
		}
	}
}

func (c *Comparison) note(text string) {
	if !slices.Contains(c.Notes, text) {
		c.Notes = append(c.Notes, text)
	}
}

// name is the file that the run came from.
func (r *Run) name() string {
	if len(r.Files) == 0 {
		return r.Tool
	}
	return r.Files[0]
}

func (r *Run) failures(maxErrorRate float64) []string {
	n := r.Total.OK + r.Total.Failed
	if r.Total.OK == 0 {
		return []string{"no request succeeded"}
	}
	if rate := float64(r.Total.Failed) / float64(n); rate > maxErrorRate {
		return []string{fmt.Sprintf("%d of %d requests failed (%.2f %%); want at most %.2f %%", r.Total.Failed, n, 100*rate, 100*maxErrorRate)}
	}
	return nil
}

// group puts runs of equal workloads together and holds that every environment
// has each.
func group(environments []Environment) ([]Cell, error) {
	var cells []Cell
	for e, env := range environments {
		for _, r := range env.Runs {
			i := slices.IndexFunc(cells, func(c Cell) bool { return len(Differences(c.Workload, r.Workload)) == 0 })
			if i < 0 {
				i = len(cells)
				cells = append(cells, Cell{Workload: r.Workload, Repeats: make([][]*Run, len(environments))})
			}
			cells[i].Repeats[e] = append(cells[i].Repeats[e], r)
		}
	}
	for _, cell := range cells {
		if err := cell.complete(environments); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(cells, func(a, b Cell) int {
		return cmp.Or(cmp.Compare(a.rest(), b.rest()), cmp.Compare(a.Workload.Load.Value, b.Workload.Load.Value))
	})
	return cells, nil
}

// complete finds an environment without a run of the cell and says how its most
// similar one differs.
func (c *Cell) complete(environments []Environment) error {
	has := slices.IndexFunc(c.Repeats, func(runs []*Run) bool { return len(runs) > 0 })
	for e, runs := range c.Repeats {
		if len(runs) > 0 {
			continue
		}
		err := &WorkloadError{A: environments[has].Name, B: environments[e].Name, Where: c.Workload.Load.String()}
		for _, r := range environments[e].Runs {
			if d := Differences(c.Workload, r.Workload); err.Differences == nil || len(d) < len(err.Differences) {
				err.Differences = d
			}
		}
		return err
	}
	return nil
}

// rest is the workload without its load: cells of equal rest are points of one
// curve.
func (c *Cell) rest() string {
	text := c.Workload.Load.Kind
	for _, f := range c.Workload.Fields {
		if !f.ofLoad() {
			text += "\x00" + f.Name + "\x00" + f.Value
		}
	}
	return text
}

// ofLoad tells whether the property follows from the load.
func (f Field) ofLoad() bool {
	return slices.Contains([]string{"arrival", "concurrency", "rate", "requests"}, f.Name)
}

// nameCells names each by its load and by what differs between them.
func nameCells(cells []Cell) {
	if len(cells) < 2 {
		return
	}
	differ := map[string]bool{}
	for i := range cells[1:] {
		for _, d := range Differences(cells[0].Workload, cells[i+1].Workload) {
			differ[d.Name] = true
		}
	}
	for i := range cells {
		w := cells[i].Workload
		name := w.Load.String()
		for _, f := range w.Fields {
			if differ[f.Name] && !f.ofLoad() {
				name = join(name, f.Name+" "+f.Value)
			}
		}
		cells[i].Name = cmp.Or(name, fmt.Sprintf("workload %d", i+1))
	}
}

// join puts a comma between two texts that are there.
func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + ", " + b
}

// pair orders the repeats so that those that were sent the same requests stand at
// the same place, where every repeat has its partner.
func (c *Cell) pair() {
	c.Paired = make([]bool, len(c.Repeats))
	for e, runs := range c.Repeats {
		slices.SortStableFunc(runs, func(a, b *Run) int {
			return cmp.Or(cmp.Compare(a.Fingerprint, b.Fingerprint), a.Started.Compare(b.Started))
		})
		c.Paired[e] = slices.EqualFunc(c.Repeats[0], runs, func(a, b *Run) bool {
			return a.Fingerprint != "" && a.Fingerprint == b.Fingerprint && len(a.Requests) == len(b.Requests)
		})
	}
}

// models are those that every run of the cell has figures of, if there are
// several.
func (c *Cell) models() []string {
	count, runs := map[string]int{}, 0
	for _, repeats := range c.Repeats {
		for _, r := range repeats {
			runs++
			for name := range r.Models {
				count[name]++
			}
		}
	}
	maps.DeleteFunc(count, func(_ string, n int) bool { return n < runs })
	if len(count) < 2 {
		return nil
	}
	return slices.Sorted(maps.Keys(count))
}

func (c *Cell) weigh(o Options) {
	c.Scopes = []Scope{c.scope("", o)}
	for _, model := range c.models() {
		c.Scopes = append(c.Scopes, c.scope(model, o))
	}
}

// openLoop tells whether requests were sent whatever became of those before.
func (w Workload) openLoop() bool { return w.Load.Kind == "rate" && !math.IsInf(w.Load.Value, 0) }
