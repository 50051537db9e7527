package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	benchreport "lbd/bench/report"
)

// reportOptions are the flags of lbd report.
type reportOptions struct {
	html, json   string
	notes        []string
	maxErrorRate float64
	draws        int
	seed         uint64
}

func newReportCommand() *cobra.Command {
	o := &reportOptions{}
	cmd := &cobra.Command{
		Use:   "report DIR... [flags]",
		Short: "Compare results: verdict, tables and one HTML file with plots",
		Long: `Read the results of lbd bench, genai-perf, aiperf, guidellm and vllm bench serve
below each DIR and compare the environments, the first one being the reference.
Runs of equal workload in one DIR are repeats. The verdict says what is better
or worse with 95 % intervals, and when the evidence does not suffice.

Exits with 1 when the workloads differ, and says how; with 3 when a measurement
failed its own checks.`,
		Example: `  lbd report results/baseline results/managed
  lbd report results/baseline results/managed --html report.html --json report.json`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, dirs []string) error { return o.run(cmd, dirs) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.html, "html", "", "write the page to this `file` (default: report.html beside the first DIR; - for none)")
	f.StringVar(&o.json, "json", "", "write the figures to this `file`; - for standard output, instead of the text")
	f.StringArrayVar(&o.notes, "note", nil, "`text` to put above all figures; repeatable")
	f.Float64Var(&o.maxErrorRate, "max-error-rate", .01, "largest part of the requests that may fail")
	f.IntVar(&o.draws, "draws", 1000, "draws of the bootstrap")
	f.Uint64Var(&o.seed, "seed", 1, "seed of the bootstrap: equal seeds give equal intervals")
	return cmd
}

func (o *reportOptions) run(cmd *cobra.Command, dirs []string) error {
	if o.draws < 100 {
		return usagef("--draws %d; want at least 100", o.draws)
	}
	if !(o.maxErrorRate >= 0 && o.maxErrorRate <= 1) {
		return usagef("--max-error-rate %v; want 0 to 1", o.maxErrorRate)
	}
	environments, err := benchreport.FindAll(dirs)
	if err != nil {
		return err
	}
	c, err := benchreport.Compare(environments, benchreport.Options{Draws: o.draws, Seed: o.seed, MaxErrorRate: o.maxErrorRate, Notes: o.notes})
	if err != nil {
		return err
	}
	if err := o.write(cmd, c, dirs); err != nil {
		return err
	}
	if n := len(c.Faults); n > 0 {
		return exitError{exitMeasure, fmt.Errorf("not to be trusted: %d of the runs' own checks failed", n)}
	}
	return nil
}

func (o *reportOptions) write(cmd *cobra.Command, c *benchreport.Comparison, dirs []string) error {
	if o.json == "-" {
		if err := c.WriteJSON(cmd.OutOrStdout()); err != nil {
			return err
		}
	} else if err := c.WriteText(cmd.OutOrStdout()); err != nil {
		return err
	}
	if o.json != "" && o.json != "-" {
		if err := writeWhole("json", o.json, c.WriteJSON); err != nil {
			return err
		}
	}
	if o.html == "-" {
		return nil
	}
	path := o.html
	if path == "" {
		path = filepath.Join(filepath.Dir(filepath.Clean(dirs[0])), "report.html")
	}
	if err := writeWhole("html", path, c.Page().WriteHTML); err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "page: %s\n", path)
	return nil
}
