package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
)

const ours = "least-cost"

// notRivals are in the table and out of the contest: they know what nobody can know.
func notRival(name string) bool { return strings.HasPrefix(name, "oracle") }

// sample is the capacities of one policy in one cell, by seed.
type sample map[uint64]float64

func (s sample) mean() float64 {
	if len(s) == 0 {
		return 0
	}
	sum := 0.0
	for _, seed := range s.seeds() {
		sum += s[seed]
	}
	return sum / float64(len(s))
}

func (s sample) seeds() []uint64 {
	var seeds []uint64
	for seed := range s {
		seeds = append(seeds, seed)
	}
	slices.Sort(seeds)
	return seeds
}

// ratio compares two policies on the seeds both have.
type ratio struct {
	n               int
	mean, low, high float64
}

func compare(a, b sample) (r ratio) {
	var ratios []float64
	for _, seed := range a.seeds() {
		if b[seed] > 0 {
			ratios = append(ratios, a[seed]/b[seed])
		}
	}
	r.n = len(ratios)
	if r.n == 0 {
		return r
	}
	r.mean = average(ratios)
	r.low, r.high = bootstrap(ratios)
	return r
}

func average(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}

const resamples = 2000

// bootstrap is the 95 % interval of the mean, NaN with fewer than three values.
func bootstrap(v []float64) (low, high float64) {
	if len(v) < 3 {
		return math.NaN(), math.NaN()
	}
	rng := rand.New(rand.NewPCG(1, 1))
	means := make([]float64, resamples)
	for i := range means {
		for range v {
			means[i] += v[rng.IntN(len(v))] / float64(len(v))
		}
	}
	slices.Sort(means)
	return means[resamples*25/1000], means[resamples*975/1000]
}

func (r ratio) String() string {
	switch {
	case r.n == 0:
		return "-"
	case math.IsNaN(r.low):
		return fmt.Sprintf("%+.1f %%", 100*(r.mean-1))
	}
	return fmt.Sprintf("%+.1f %% (%+.1f to %+.1f)", 100*(r.mean-1), 100*(r.low-1), 100*(r.high-1))
}

// grid is all outcomes that hold for the cells and rules as they are now.
type grid map[string]map[string]sample // by cell, policy

func gridOf(s *store) grid {
	g := grid{}
	rev := map[string]int{}
	for _, p := range allPolicies() {
		rev[p.Name] = s.newest(p.key)
	}
	for i := range cells {
		c := &cells[i]
		g[c.name] = map[string]sample{}
		for _, p := range allPolicies() {
			got := sample{}
			for _, o := range s.done {
				if o.Cell == c.name && o.Rev == c.rev && o.Policy == p.key && o.PolicyRev == rev[p.Name] && o.Share == 0 {
					got[o.Seed] = o.Capacity
				}
			}
			if len(got) > 0 {
				g[c.name][p.Name] = got
			}
		}
	}
	return g
}

// best is the rival, or the strategy of lbd's own, with the highest mean among those that have the seeds of ours.
func (g grid) best(cell string, own bool) (name string) {
	for _, p := range allPolicies() {
		s, ok := g[cell][p.Name]
		if !ok || p.own != own || p.Name == ours || notRival(p.Name) || len(s) < len(g[cell][ours]) {
			continue
		}
		if name == "" || s.mean() > g[cell][name].mean() {
			name = p.Name
		}
	}
	return name
}

// report is the text of placement.md.
func report(s *store) string {
	g := gridOf(s)
	b := &strings.Builder{}
	b.WriteString(preface)
	g.contest(b)
	g.losses(b)
	g.table(b)
	return b.String()
}

const preface = `# Placement: lbd's strategies against the rules of other projects

Made by ` + "`go run ./bench/replay/placement`" + ` from bench/results/placement.jsonl; see its package comment for method and
statistics, bench/replay/rivals for what was read into each rule, bench/replay/placement/cells.go for the cells. All of it
is simulation in virtual time: it ranks rules on one model of vLLM, and is no measurement of a GPU.

Capacity is the highest load at which enough requests are good, in the cell's unit: the speed of a trace, requests per
second, or conversations at a time. Rules run with their defaults unless the name says otherwise (-tuned, -fast, -slow).
oracle rules know what nobody can know and are no rivals. A difference within the 2 % to which loads are searched is none;
cells with fewer than three seeds have no interval, and their differences are hints.

`

// contest is least-cost against the best rival of each cell.
func (g grid) contest(b *strings.Builder) {
	b.WriteString("## " + ours + " against the best rival of each cell\n\n")
	b.WriteString("The goal is never more than 3 % below, and 10 % above in heavy cells (shared prefixes, mixed hardware). The best rival\n" +
		"is chosen after the fact, per cell: no single rule is that good. Cells marked * were looked at while rules were tuned.\n\n")
	b.WriteString("| cell | heavy | seeds | " + ours + " | best rival | its | difference (95 %) | best other strategy of lbd | oracle |\n|---|---|---|---|---|---|---|---|---|\n")
	for i := range cells {
		c := &cells[i]
		own, ok := g[c.name][ours]
		rival := g.best(c.name, false)
		if !ok || rival == "" {
			continue
		}
		theirs := g[c.name][rival]
		fmt.Fprintf(b, "| %s | %s | %d | %.4g %s | %s | %.4g | %s | %s | %s |\n", c.title(), mark(c.heavy), len(own), own.mean(), c.unit,
			rival, theirs.mean(), compare(own, theirs), g.named(c.name, g.best(c.name, true)), g.named(c.name, "oracle"))
	}
	b.WriteString("\n")
}

func (c *cell) title() string {
	if c.tuned {
		return c.name + " *"
	}
	return c.name
}

func mark(yes bool) string {
	if yes {
		return "yes"
	}
	return ""
}

func (g grid) named(cell, name string) string {
	s, ok := g[cell][name]
	if !ok {
		return "-"
	}
	if name == "oracle" {
		return fmt.Sprintf("%.4g", s.mean())
	}
	return fmt.Sprintf("%s %.4g", name, s.mean())
}

// losses are the rivals that beat ours by more than 3 % anywhere.
func (g grid) losses(b *strings.Builder) {
	b.WriteString("## Cells lost\n\nEvery rival that carries over 3 % more than " + ours + ", with the difference of " + ours + " to it.\n\n")
	n := 0
	for i := range cells {
		c := &cells[i]
		for _, p := range allPolicies() {
			theirs, ok := g[c.name][p.Name]
			if !ok || p.Name == ours || notRival(p.Name) {
				continue
			}
			if r := compare(g[c.name][ours], theirs); r.n > 0 && r.mean < .97 {
				fmt.Fprintf(b, "- %s: %s, %s\n", c.title(), p.Name, r)
				n++
			}
		}
	}
	if n == 0 {
		b.WriteString("None among the cells that were run.\n")
	}
	b.WriteString("\n")
}

// table has every policy, relative to the best of its cell, oracles included.
func (g grid) table(b *strings.Builder) {
	b.WriteString("## All of them\n\nCapacity in per cent of the best of the cell.\n\n| strategy |")
	var shown []string
	for i := range cells {
		if len(g[cells[i].name]) > 0 {
			shown = append(shown, cells[i].name)
			fmt.Fprintf(b, " %s |", cells[i].title())
		}
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(shown)) + "\n")
	for _, p := range allPolicies() {
		row, any := "", false
		for _, cell := range shown {
			s, ok := g[cell][p.Name]
			if !ok {
				row += " |"
				continue
			}
			any = true
			row += fmt.Sprintf(" %.0f |", 100*s.mean()/g.top(cell))
		}
		if any {
			fmt.Fprintf(b, "| %s |%s\n", p.Name, row)
		}
	}
}

func (g grid) top(cell string) (top float64) {
	for _, s := range g[cell] {
		top = max(top, s.mean())
	}
	return top
}
