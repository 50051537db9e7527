package main

import (
	"fmt"
	"strings"

	"lbd/balancer/strategy"
	"lbd/bench/replay"
	"lbd/bench/replay/rivals"
)

// limited are the rivals that are also tried behind refusals: those that are the best of some cell most often.
var limited = []string{"lmetric", "smetric", "dynamo-events"}

// refusal is by which of a cell's limits is refused.
type refusal struct {
	suffix string // of the names of policies
	by     func(replay.Limits) replay.Limits
	about  string // its section begins so, with ours twice and the reference
}

var refusals = []*refusal{
	{"-max-ttft", func(l replay.Limits) replay.Limits { l.TPOT = 0; return l }, lateAbout},
	{"-max-tpot", func(l replay.Limits) replay.Limits { return l }, slowAbout},
}

// refusing are least-cost with lbd's own limits, set to those of the cell, and rivals behind the same. They are a
// comparison of their own: a refusal is a feature, and no choice of a replica.
func refusing() (all []policy) {
	e, ok := strategy.Lookup(ours)
	if !ok {
		panic("BUG: no strategy " + ours)
	}
	for _, how := range refusals {
		p := replay.Shipped(e)
		p.Name += how.suffix
		all = append(all, policy{Policy: p, own: true, key: p.Name, refuses: how})
		for _, name := range limited {
			rival, ok := rivals.Lookup(name)
			if !ok {
				panic("BUG: no rule " + name)
			}
			p := rivals.Limited(rival, how.suffix)
			all = append(all, policy{Policy: p, key: p.Name, refuses: how})
		}
	}
	return all
}

const lateAbout = `## With requests refused that would be late

%[1]s is %[2]s with admission_max_ttft, which refuses a request with 429 when its first token is predicted later than
a limit, set to that of the cell (admission_ttft_per_token too, in agents). A refused request is not good, so a capacity at
which nine in ten have to be good leaves one in ten to refuse; what they would have cost goes to the others. Most of them
are the longest prompts. No rule of the other tables refuses anything; to tell what refusing gives from what placing gives,
the rivals that are best most often are behind refusals here as well (their projects ship none of the kind), by one who is told
what least-cost has to learn or guess: constants as they are simulated, caches, and what every lbd has sent where. Refused is
the share of all requests at the capacity of %[3]s, and p99 TTFT there is of those served; both are means over the seeds that
were run for them, 1 to 5. When it was chosen what to predict (README.md of balancer/strategy), mooncake-mixed and
mooncake-4-lbds were looked at beside the first half.

`

const slowAbout = `## With requests refused that would be late or slow

%[1]s is %[2]s with admission_max_tpot as well, set to the cell's limit of the time per output token: what is predicted to
exceed it is refused too. Rivals are behind the same two limits. When it was chosen how to predict it (README.md of
balancer/strategy), agents, azure, azure-mixed, azure-4-lbds, mooncake-4-lbds, bursty-code and those of shared prefixes were looked
at beside the cells marked *.

`

// refused is what refusals of one kind do.
func (g grid) refused(b *strings.Builder, s *store, how *refusal) {
	refused := samples(s, 1, func(o *outcome) float64 { return o.Figures.Refused })
	name, rows := ours+how.suffix, &strings.Builder{}
	heavy, above, within, n := 0, 0, 0, 0
	for i := range cells {
		c := &cells[i]
		with, ok := g.capacity[c.name][name]
		if !ok {
			continue
		}
		rival, _ := g.best(c.name, false, false)
		with, theirs := common(with, g.capacity[c.name][rival])
		r := compare(with, theirs)
		equal, e := g.bestLimited(c.name, how, with)
		fmt.Fprintf(rows, "| %s | %s | %d | %.4g %s | %s | %s | %s | %s | %s | %s |\n", c.title(), mark(c.heavy), r.n, with.mean(), c.unit,
			compare(with, g.capacity[c.name][ours]), rival+" "+r.String(), equal, e, percent(refused.capacity[c.name][name]),
			millis(g.p99[1].capacity[c.name][name]))
		if c.tuned || r.n == 0 {
			continue
		}
		if n++; r.mean >= .97 {
			within++
		}
		if c.heavy {
			if heavy++; r.mean >= goal {
				above++
			}
		}
	}
	if rows.Len() == 0 {
		return
	}
	fmt.Fprintf(b, how.about, name, ours, reference)
	fmt.Fprintf(b, "Of %d cells without mark it is at most 3 %% below the best rival, which refuses nothing, in %d; of the %d heavy ones at least 10 %%\nabove in %d.\n\n", n, within, heavy, above)
	fmt.Fprintf(b, "| cell | heavy | seeds | %s | against %s | against the best rival | best rival that refuses | against it | refused | p99 TTFT ms |\n|---|---|---|---|---|---|---|---|---|---|\n%s\n", name, ours, rows)
}

// bestLimited is the best of the rivals that refuse likewise, and ours beside it.
func (g grid) bestLimited(cell string, how *refusal, with sample) (name string, r ratio) {
	name = "-"
	for _, rival := range limited {
		theirs := rival + how.suffix
		if to := compare(with, g.capacity[cell][theirs]); to.n > 0 && (r.n == 0 || to.mean < r.mean) {
			name, r = rival, to
		}
	}
	return name, r
}

func percent(s sample) string {
	if len(s) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", 100*s.mean())
}

func millis(s sample) string {
	if len(s) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f", s.mean())
}
