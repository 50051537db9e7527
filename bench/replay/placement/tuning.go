package main

import (
	"fmt"
	"strings"

	"lbd/bench/replay/rivals"
)

// tuningSeeds is how many seeds settings are tried with.
const tuningSeeds = 2

// tuning is what each setting of a rule reached: its capacity over that of the best setting of any rule, the mean over
// tuning cells and seeds; 0 where one is missing.
func tuning(s *store, t *rivals.Tunable) []float64 {
	scores := make([]float64, len(t.Tried))
	for k := range t.Tried {
		scores[k] = score(s, t.Policy(k).Name)
	}
	return scores
}

func score(s *store, key string) (sum float64) {
	n := 0
	for i := range cells {
		c := &cells[i]
		for seed := uint64(1); c.tuned && seed <= tuningSeeds; seed++ {
			o, ok := s.get(job{cell: c.name, policy: key, rev: c.rev, seed: seed})
			if !ok {
				return 0
			}
			sum += o.Capacity / bestSetting(s, c, seed)
			n++
		}
	}
	return sum / float64(n)
}

func bestSetting(s *store, c *cell, seed uint64) (best float64) {
	for _, p := range settings() {
		o, _ := s.get(job{cell: c.name, policy: p.key, rev: c.rev, seed: seed})
		best = max(best, o.Capacity)
	}
	return best
}

// tuningTable shows what was tried.
func tuningTable(b *strings.Builder, s *store) {
	fmt.Fprintf(b, "## What -tuned means\n\nSettings tried for each rule, on the cells marked * alone, %d seeds: capacity in per cent of the best setting of any\n"+
		"rule there, the mean over cells and seeds. The one in bold is the rule's -tuned.\n\n| rule | settings tried |\n|---|---|\n", tuningSeeds)
	for i := range rivals.Tunables {
		t := &rivals.Tunables[i]
		var row []string
		for k, score := range tuning(s, t) {
			cell := fmt.Sprintf("%s: %.1f", t.Tried[k].Label, 100*score)
			if k == t.Taken {
				cell = "**" + cell + "**"
			}
			row = append(row, cell)
		}
		fmt.Fprintf(b, "| %s | %s |\n", t.Name, strings.Join(row, "; "))
	}
	b.WriteString("\n")
}
