package main

import "github.com/spf13/cobra"

// subcommands lists the constructors of all subcommands. A new one is one file
// and one line here.
var subcommands = []func() *cobra.Command{
	newCheckCommand,
	newConfigCommand,
	newStrategiesCommand,
	newVersionCommand,
	newHealthCommand,
	newKeyCommand,
	newDemoCommand,
	newSimCommand,
	newBenchCommand,
	newReplayCommand,
	newReportCommand,
	newAggregateCommand,
}
