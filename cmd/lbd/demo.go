package main

import (
	"errors"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"lbd/bench/sim"
	"lbd/cmd/lbd/internal/daemon"
	"lbd/cmd/lbd/internal/demo"
)

// newDemoCommand returns `lbd demo`.
func newDemoCommand() *cobra.Command {
	o := demo.DefaultOptions()
	cmd := &cobra.Command{
		Use:   "demo [flags]",
		Short: "Show two environments of simulated replicas side by side, no GPU needed",
		Long: `Starts six simulated vLLM replicas (three models, two replicas each) behind a
baseline lbd that takes turns, six more behind a managed lbd that knows the
queues, sends the same requests through both and shows how they do.`,
		Example: `  lbd demo
  lbd demo --once --duration 1m`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDemo(cmd, o) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.Once, "once", false, "measure, print the comparison and exit")
	f.DurationVar(&o.Duration, "duration", o.Duration, "how long --once measures")
	f.StringVar(&o.BaselineListen, "baseline-listen", o.BaselineListen, "address of the baseline lbd")
	f.StringVar(&o.ManagedListen, "managed-listen", o.ManagedListen, "address of the managed lbd")
	f.StringVar(&o.BaselineStrategy, "baseline-strategy", o.BaselineStrategy, "strategy of the baseline")
	f.StringVar(&o.ManagedStrategy, "strategy", o.ManagedStrategy, "strategy of the managed lbd")
	f.Float64Var(&o.Rate, "rate", o.Rate, "requests per second to each environment")
	f.StringVar(&o.Prompt, "input-tokens", o.Prompt, "prompt lengths: 512, 100..2000 or lognormal:MEDIAN,SIGMA")
	f.StringVar(&o.Output, "output-tokens", o.Output, "answer lengths, written the same way")
	f.StringVar((*string)(&o.Profile), "profile", string(o.Profile), "vLLM release to simulate: v0.19 or v0.6.4")
	f.Uint64Var(&o.Seed, "seed", o.Seed, "seed of traffic and replicas")
	return cmd
}

func runDemo(cmd *cobra.Command, o demo.Options) error {
	for flag, name := range map[string]string{"baseline-strategy": o.BaselineStrategy, "strategy": o.ManagedStrategy} {
		if !slices.Contains(strategyNames(), name) {
			return usagef("--%s: strategy %q is unknown; want one of %s", flag, name, strings.Join(strategyNames(), ", "))
		}
	}
	if !slices.Contains(sim.Profiles(), o.Profile) {
		return usagef("--profile %q; want %s", o.Profile, profileNames())
	}
	if o.Rate <= 0 || o.Duration <= 0 {
		return usagef("--rate %v and --duration %v; want both above 0", o.Rate, o.Duration)
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	o.Log = cmd.ErrOrStderr()
	err := demo.Run(ctx, o, cmd.OutOrStdout())
	switch {
	case errors.Is(err, daemon.ErrAddress):
		return exitError{exitStart, err}
	case errors.Is(err, demo.ErrMeasurement):
		return exitError{exitMeasure, err}
	}
	return err
}
