package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// grid is all outcomes that hold for the cells and rules as they are now.
type grid struct {
	capacity map[string]map[string]sample // by cell, policy
	p99      map[float64]grid             // p99 TTFT at a share of the reference's capacity
}

func gridOf(s *store) grid {
	g := samples(s, 0, func(o *outcome) float64 { return o.Capacity })
	g.p99 = map[float64]grid{}
	for _, share := range shares {
		g.p99[share] = samples(s, share, func(o *outcome) float64 { return o.Figures.TTFT99 })
	}
	return g
}

func samples(s *store, share float64, of func(*outcome) float64) grid {
	g := grid{capacity: map[string]map[string]sample{}}
	for i := range cells {
		c := &cells[i]
		g.capacity[c.name] = map[string]sample{}
		for _, p := range slices.Concat(allPolicies(), yardsticks, refusing()) {
			got, rev := sample{}, 0
			if p.own {
				rev = s.newest(p.key)
			}
			for seed := uint64(1); seed <= maxSeeds; seed++ {
				if o, ok := s.get(job{cell: c.name, policy: p.key, rev: c.rev, policyRev: rev, seed: seed, share: share}); ok {
					got[seed] = of(&o)
				}
			}
			if len(got) > 0 {
				g.capacity[c.name][p.Name] = got
			}
		}
	}
	return g
}

// maxSeeds is more than anybody runs.
const maxSeeds = 100

// best is the rival, or the strategy of lbd's own, that is best beside ours, seed by seed, among those with enough seeds in
// common with it for an interval, or else with most. Better is a higher value, or a lower one for latencies.
func (g grid) best(cell string, own, lower bool) (name string, r ratio) {
	for _, p := range allPolicies() {
		theirs, ok := g.capacity[cell][p.Name]
		if !ok || p.own != own || p.Name == ours || notRival(p.Name) {
			continue
		}
		to := compare(g.capacity[cell][ours], theirs)
		better := to.mean < r.mean
		if lower {
			better = to.mean > r.mean
		}
		if n, most := min(to.n, enoughSeeds), min(r.n, enoughSeeds); n > most || n == most && n > 0 && better {
			name, r = p.Name, to
		}
	}
	return name, r
}

// report is the text of placement.md.
func report(s *store) string {
	g := gridOf(s)
	b := &strings.Builder{}
	b.WriteString(preface)
	g.contest(b)
	g.losses(b)
	for _, how := range refusals {
		g.refused(b, s, how)
	}
	g.latency(b)
	g.survival(b)
	g.table(b, "main cells", func(c *cell) bool { return c.main })
	g.table(b, "other cells", func(c *cell) bool { return !c.main })
	tuningTable(b, s)
	g.done(b)
	return b.String()
}

const preface = `# Placement: lbd's strategies against the rules of other projects

Made by ` + "`go run ./bench/replay/placement`" + ` from bench/results/placement.jsonl; see its package comment for method and
statistics, bench/replay/rivals for what was read into each rule, bench/replay/placement/cells.go for the cells. All of it
is simulation in virtual time: it ranks rules on one model of vLLM, and is no measurement of a GPU. overhttp.md beside it
shows that the ranking is that of the daemon over HTTP.

Capacity is the highest load at which enough requests are good, in the cell's unit: the speed of a trace, requests per
second, or conversations at a time. Rules run with the settings their projects ship unless the name says otherwise (-fast
and -slow are other poll periods); -tuned ones have the settings that did best on the cells marked *. oracle rules know what
nobody can know and are no rivals. Loads are tried in steps of 2 %: a difference of one step is none. Rules with fewer than
three seeds in common have no interval, and their differences are hints.

`

// contest is least-cost against the best rival of each cell.
func (g grid) contest(b *strings.Builder) {
	fmt.Fprintf(b, "## %s against the best rival of each cell\n\nThe goal is never more than 3 %% below, and 10 %% above in heavy cells (shared prefixes, mixed hardware). The best rival\n"+
		"is chosen after the fact, per cell, tuned ones included: no single rule is that good. Cells marked * were looked at while\nrules were tuned, lbd's and others'.\n\n", ours)
	rows := &strings.Builder{}
	within, above, heavy, n, limited := 0, 0, 0, 0, 0
	var beyond []string
	for i := range cells {
		c := &cells[i]
		rival, r := g.best(c.name, false, false)
		if rival == "" {
			continue
		}
		own, theirs := common(g.capacity[c.name][ours], g.capacity[c.name][rival])
		second, _ := g.best(c.name, true, false)
		pool, _ := g.room(c, pooledName, rival)
		top, most := g.room(c, ceilingName, rival)
		fmt.Fprintf(rows, "| %s | %s | %d | %.4g %s | %s | %.4g | %s | %s | %s | %s | %s |\n", c.title(), mark(c.heavy), r.n, own.mean(), c.unit,
			rival, theirs.mean(), r, g.named(c.name, second), g.named(c.name, "oracle"), pool, top)
		if c.tuned {
			continue
		}
		n++
		if r.mean >= .97 {
			within++
		}
		if c.heavy {
			heavy++
			if r.mean >= goal {
				above++
			}
			if most.n > 0 {
				limited++
				if most.mean < goal {
					beyond = append(beyond, c.name)
				}
			}
		}
	}
	fmt.Fprintf(b, "Of %d cells without mark, %s is at most 3 %% below the best rival in %d; of the %d heavy ones among them it is at least 10 %%\nabove in %d.\n\n", n, ours, within, heavy, above)
	verdict(b, beyond, limited)
	fmt.Fprintf(b, "| cell | heavy | seeds | %s | best rival | its | difference (95 %%) | best other strategy of lbd | oracle | pooled | ceiling |\n|---|---|---|---|---|---|---|---|---|---|---|\n%s\n", ours, rows)
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
	s, ok := g.capacity[cell][name]
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
	b.WriteString("## Cells lost\n\nEvery rule that carries over 3 % more than " + ours + ", with the difference of " + ours + " to it.\n\n")
	n := 0
	for i := range cells {
		c := &cells[i]
		var lost []string
		for _, p := range allPolicies() {
			theirs, ok := g.capacity[c.name][p.Name]
			if !ok || p.Name == ours || notRival(p.Name) {
				continue
			}
			if r := compare(g.capacity[c.name][ours], theirs); r.n > 0 && r.mean < .97 {
				lost = append(lost, p.Name+" "+r.String())
			}
		}
		if n += len(lost); len(lost) > 0 {
			fmt.Fprintf(b, "- %s: %s\n", c.title(), strings.Join(lost, "; "))
		}
	}
	if n == 0 {
		b.WriteString("None among the cells that were run.\n")
	}
	b.WriteString("\n")
}

// latency is the p99 TTFT at common loads.
func (g grid) latency(b *strings.Builder) {
	fmt.Fprintf(b, "## Latency at a common load\n\np99 TTFT in ms, all rules at the capacity of %s in the cell and at 80 %% of it. The best rival is again that of the cell, here\n"+
		"with the lowest p99; the difference is that of the mean ratio (above 0: %s is slower).\n\n", reference, ours)
	fmt.Fprintf(b, "| cell | load | seeds | %s | best rival | its | difference (95 %%) | best other strategy of lbd |\n|---|---|---|---|---|---|---|---|\n", ours)
	for i := range cells {
		c := &cells[i]
		for _, share := range shares {
			at := g.p99[share]
			rival, r := at.best(c.name, false, true)
			if rival == "" {
				continue
			}
			own, theirs := common(at.capacity[c.name][ours], at.capacity[c.name][rival])
			second, _ := at.best(c.name, true, true)
			fmt.Fprintf(b, "| %s | %.0f %% | %d | %.0f | %s | %.0f | %s | %s |\n", c.title(), 100*share, r.n, own.mean(), rival, theirs.mean(), r, at.named(c.name, second))
		}
	}
	b.WriteString("\n")
}

// survival is whether rankings outlive errors of the model.
func (g grid) survival(b *strings.Builder) {
	b.WriteString("## Does the ranking survive another model of the replicas?\n\nRank correlation (Spearman) of the capacities with those in the cell without the change, over the rules run in both, and\n" +
		"the first five of each. step-error: each replica's steps by a factor of its own (lognormal, 25 %); steps-slower and -faster:\nall by 25 %; coefficient-error: each constant of the step time up to 30 % off what rules are told; length-error: what lbd\ntakes for the prompt's length (lognormal, 30 %; rivals are told the true one).\n\n" +
		"| cell | rules | correlation | first five there | first five without |\n|---|---|---|---|---|\n")
	for i := range cells {
		c := &cells[i]
		if c.like == "" {
			continue
		}
		with, without := g.both(c.name, c.like)
		if len(with) < 5 {
			continue
		}
		fmt.Fprintf(b, "| %s | %d | %.2f | %s | %s |\n", c.name, len(with), spearman(with, without), leaders(with), leaders(without))
	}
	b.WriteString("\n")
}

// relative is a rule's capacity beside that of the reference, over the seeds both have: rules with fewer seeds than others
// would else be compared on other draws. It is 0 where there are none.
func (g grid) relative(cell, name string) float64 {
	return compare(g.capacity[cell][name], g.capacity[cell][reference]).mean
}

// standing is a rule's capacity in a cell.
type standing struct {
	name     string
	capacity float64
}

// both is the rules run in two cells, in equal order.
func (g grid) both(a, b string) (inA, inB []standing) {
	for _, p := range allPolicies() {
		x, y := g.relative(a, p.Name), g.relative(b, p.Name)
		if x > 0 && y > 0 && !notRival(p.Name) {
			inA, inB = append(inA, standing{p.Name, x}), append(inB, standing{p.Name, y})
		}
	}
	return inA, inB
}

func leaders(all []standing) string {
	sorted := slices.Clone(all)
	slices.SortStableFunc(sorted, func(a, b standing) int { return cmp.Compare(b.capacity, a.capacity) })
	var names []string
	for _, s := range sorted[:min(5, len(sorted))] {
		names = append(names, s.name)
	}
	return strings.Join(names, ", ")
}

// table has every policy, relative to the best of its cell, oracles included.
func (g grid) table(b *strings.Builder, title string, which func(*cell) bool) {
	var shown []*cell
	for i := range cells {
		if c := &cells[i]; which(c) && len(g.capacity[c.name]) > 0 {
			shown = append(shown, c)
		}
	}
	if len(shown) == 0 {
		return
	}
	fmt.Fprintf(b, "## All of them, %s\n\nCapacity in per cent of the best of the cell, each beside that of "+reference+" on the same seeds, and in brackets the number of seeds where there are fewer than five.\n\n| strategy |", title)
	for _, c := range shown {
		fmt.Fprintf(b, " %s |", c.title())
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(shown)) + "\n")
	for _, p := range allPolicies() {
		row, any := "", false
		for _, c := range shown {
			relative := g.relative(c.name, p.Name)
			if relative == 0 {
				row += " |"
				continue
			}
			any = true
			row += fmt.Sprintf(" %.0f%s |", 100*relative/g.top(c.name), few(len(g.capacity[c.name][p.Name])))
		}
		if any {
			fmt.Fprintf(b, "| %s |%s\n", p.Name, row)
		}
	}
	b.WriteString("\n")
}

func few(seeds int) string {
	if seeds < 5 {
		return fmt.Sprintf(" (%d)", seeds)
	}
	return ""
}

func (g grid) top(cell string) (top float64) {
	for _, p := range allPolicies() {
		top = max(top, g.relative(cell, p.Name))
	}
	return top
}

// done says how much of the grid there is, and what is missing.
func (g grid) done(b *strings.Builder) {
	const seeds = 5
	all := allPolicies()
	have := 0
	var missing []string
	for i := range cells {
		c := &cells[i]
		var none []string
		for _, p := range all {
			n := len(g.capacity[c.name][p.Name])
			if have += min(n, seeds); n == 0 {
				none = append(none, p.Name)
			}
		}
		switch {
		case len(none) == len(all):
			missing = append(missing, "- "+c.title()+": all of them")
		case len(none) > 0:
			missing = append(missing, "- "+c.title()+": "+strings.Join(none, ", "))
		}
	}
	fmt.Fprintf(b, "## What has been run\n\n%d of %d searches (%d cells, %d rules, %d seeds). Rules that came within a tenth of the best of a cell with the first seed\n"+
		"get their further ones first. The same command runs the rest.\n\n", have, len(cells)*len(all)*seeds, len(cells), len(all), seeds)
	if len(missing) > 0 {
		b.WriteString("Not run at all in a cell:\n\n" + strings.Join(missing, "\n") + "\n")
	}
}
