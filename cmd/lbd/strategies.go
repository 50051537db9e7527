package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"lbd/balancer/strategy"
)

// strategyNames are what --strategy and the key strategy may say.
func strategyNames() []string { return strategy.Names() }

func newStrategiesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "strategies",
		Short: "List the strategies that --strategy can name",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "STRATEGY\tWHAT IT DOES\tWHAT IT LOOKS AT")
			for _, s := range strategy.Table {
				// The table marks metric names for README.md.
				fmt.Fprintf(w, "%s\t%s\t%s\n", s.Name, s.Summary, strings.ReplaceAll(s.Inputs, "`", ""))
			}
			return w.Flush()
		},
	}
}
