package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"lbd/bench/replay"
)

type options struct {
	dir, lbd, out, strategies string
	replicas, rounds          int
	speed                     float64
	write                     bool
	refused                   replay.Limits
}

func main() {
	var o options
	flag.StringVar(&o.dir, "data", "", "`directory` of the traces")
	flag.StringVar(&o.lbd, "lbd", "", "lbd `binary` to measure (default: built from this tree)")
	flag.StringVar(&o.out, "out", "bench/results/overhttp", "`path` of the results, without .json and .md")
	flag.StringVar(&o.strategies, "strategies", "cycle,least-inflight,least-waiting,least-cost", "`names` to compare")
	flag.IntVar(&o.replicas, "replicas", 4, "replicas of each strategy")
	flag.Float64Var(&o.speed, "speed", 3.2, "speed of the trace: near what the replicas can carry")
	flag.IntVar(&o.rounds, "rounds", 1, "rounds there should be")
	flag.DurationVar(&o.refused.TTFT, "admission-max-ttft", 0, "let lbd and replay refuse what is predicted later, where the strategy predicts; take another -out for it")
	flag.DurationVar(&o.refused.TPOT, "admission-max-tpot", 0, "... and streams whose tokens are predicted to take longer, each")
	flag.BoolVar(&o.write, "write", false, "measure nothing, only write the table")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := o.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "overhttp:", err)
		os.Exit(1)
	}
}

func (o *options) run(ctx context.Context) error {
	r, err := openResults(o.out + ".json")
	if err != nil {
		return err
	}
	if !o.write {
		if err := o.measure(ctx, r); err != nil {
			return err
		}
	}
	return os.WriteFile(o.out+".md", []byte(r.markdown()), 0o644)
}

// measure adds the rounds that are missing, and a replay for each.
func (o *options) measure(ctx context.Context, r *results) error {
	s, err := openSlice(o.dir, o.speed)
	if err != nil {
		return err
	}
	s.refused = o.refused
	names := strings.Split(o.strategies, ",")
	if err := r.belongsTo(setup{Requests: len(s.arrivals), Replicas: o.replicas, Speed: o.speed, Strategies: names, MaxTTFT: o.refused.TTFT, MaxTPOT: o.refused.TPOT}); err != nil {
		return err
	}
	binary, remove, err := o.binary(ctx)
	if err != nil {
		return err
	}
	defer remove()
	for n := len(r.Rounds) + 1; n <= o.rounds; n++ {
		rd := round{Seed: uint64(n)}
		if rd.Replay, err = s.replay(names, o.replicas, rd.Seed); err != nil {
			return err
		}
		if rd.HTTP, err = s.http(ctx, binary, names, o.replicas, rd.Seed); err != nil {
			return err
		}
		r.Rounds = append(r.Rounds, rd)
		if err := r.save(); err != nil {
			return err
		}
	}
	return nil
}
