package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// strategies is what lbd strategies prints and what --strategy may name.
var strategies = []struct{ Name, Summary, Inputs string }{
	{"cycle", "the next turn (per model)", "-"},
	{"random", "a random one", "-"},
	{"two-choices", "the less loaded of two random ones", "load"},
	{"least-inflight", "fewest requests in flight", "own load"},
	{"least-waiting", "fewest waiting, then fewest running + in flight, then rotation", "load"},
	{"least-cost", "smallest predicted time to first token and delay for others", "load, prefix"},
}

func strategyNames() []string {
	names := make([]string, len(strategies))
	for i, s := range strategies {
		names[i] = s.Name
	}
	return names
}

func newStrategiesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "strategies",
		Short: "List the strategies that --strategy can name",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "STRATEGY\tPICKS THE REPLICA WITH\tINPUTS")
			for _, s := range strategies {
				fmt.Fprintf(w, "%s\t%s\t%s\n", s.Name, s.Summary, s.Inputs)
			}
			return w.Flush()
		},
	}
}
