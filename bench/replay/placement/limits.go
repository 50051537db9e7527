package main

import (
	"fmt"
	"strings"

	"lbd/bench/replay"
	"lbd/bench/replay/rivals"
)

// Yardsticks say how much room there is in a cell for any rule. They are no rules themselves: no table but the first has
// them, and no other figure depends on them.
const (
	pooledName  = "pooled"
	ceilingName = "ceiling"
)

var yardsticks = []policy{
	{Policy: replay.Policy{Name: pooledName}, key: pooledName, limit: pooled},
	{Policy: replay.Policy{Name: ceilingName}, key: ceilingName, limit: ceiling},
}

// pooled is what one replica in place of all carries; see replay.Config.Pooled.
func pooled(w *worker, t task) (capacity float64, runs int, err error) {
	cfg := t.c.config
	cfg.Seed = t.seed
	if cfg, err = cfg.Pooled(); err != nil {
		return 0, 0, err
	}
	// Any rule does: there is one replica.
	cfg.Policy, _ = rivals.Lookup("least-request")
	return w.grid(t, cfg)
}

// ceiling is what no fleet carries for long, see replay.Ceiling; 0 in closed loop, where there is none: whoever lets a few
// conversations wait for ever serves any number of others.
func ceiling(w *worker, t task) (capacity float64, runs int, err error) {
	if t.c.whole {
		return 0, 0, nil
	}
	cfg := t.c.config
	cfg.Seed = t.seed
	capacity, err = replay.Ceiling(cfg, w.workload(t)(1), t.c.good)
	return capacity, 0, err
}

// room is a yardstick's capacity in a cell, and how far it is above a rival's.
func (g grid) room(c *cell, yardstick, rival string) (text string, r ratio) {
	r = compare(g.capacity[c.name][yardstick], g.capacity[c.name][rival])
	if r.n == 0 {
		return "-", r
	}
	return fmt.Sprintf("%.4g (%+.0f %%)", g.capacity[c.name][yardstick].mean(), 100*(r.mean-1)), r
}

// goal is how far above the best rival least-cost is meant to be in heavy cells.
const goal = 1.1

// verdict says in which of the heavy cells that have a ceiling the goal is out of reach.
func verdict(b *strings.Builder, beyond []string, heavy int) {
	if heavy == 0 {
		return
	}
	fmt.Fprintf(b, `How much room there is: the ceiling is what a fleet can carry for ever, whoever chooses, if every request is served in the
end, good or not (replay.Ceiling says why); runs of a few hundred requests per replica end before their queues are worked
off, and can pass it. Pooled is one replica as fast and as large as the whole fleet, a yardstick and no limit. In brackets is
how far each is above the best rival. Of the %d heavy cells without
mark that have a ceiling, it is less than 10 %% above the best rival in %d`, heavy, len(beyond))
	if len(beyond) > 0 {
		fmt.Fprintf(b, ": no rule that serves\nevery request can reach the goal there for long (%s)", strings.Join(beyond, ", "))
	}
	b.WriteString(`. In the others that
is open: the ceiling knows no waiting, neither behind a long prompt nor beside an idle replica.

`)
}
