package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	benchreport "lbd/bench/report"
)

// aggregateOptions are the flags of lbd aggregate.
type aggregateOptions struct {
	dir            string
	total, details bool
	json           bool
}

func newAggregateCommand() *cobra.Command {
	o := &aggregateOptions{}
	cmd := &cobra.Command{
		Use:   "aggregate N | FILE... [flags]",
		Short: "Add up the results of parallel guidellm or vllm bench workers",
		Long: `Add up what N workers measured that loaded one target together: 0.json to
N-1.json in --dir, or the FILEs. Rates are summed; percentiles are those of all
records merged, never means of percentiles. Warns when the workers did not run
together, and when rates and tokens over time differ by more than 5 %.

A missing or empty file is an error that names it.`,
		Example: `  lbd aggregate 4
  lbd aggregate 8 --dir results --show-details
  lbd aggregate a.json b.json --use-total`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, args) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.dir, "dir", ".", "directory of 0.json to N-1.json")
	f.BoolVar(&o.total, "use-total", false, "guidellm's figures of all requests, not of the successful ones only")
	f.BoolVar(&o.details, "show-details", false, "a line for each worker")
	f.BoolVar(&o.json, "json", false, "write JSON")
	return cmd
}

func (o *aggregateOptions) run(cmd *cobra.Command, args []string) error {
	files, err := o.files(args)
	if err != nil {
		return err
	}
	var workers []benchreport.Worker
	var errs []error
	for _, file := range files {
		w, err := benchreport.ReadWorker(file, o.total)
		if err != nil {
			errs = append(errs, err)
		}
		workers = append(workers, w)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	sum := benchreport.Add(workers)
	if o.json {
		return sum.WriteJSON(cmd.OutOrStdout())
	}
	return sum.WriteText(cmd.OutOrStdout(), o.details)
}

// maxWorkers keeps a mistyped number from being taken for files.
const maxWorkers = 10000

func (o *aggregateOptions) files(args []string) ([]string, error) {
	n, err := strconv.Atoi(args[0])
	if len(args) > 1 || err != nil {
		return args, nil
	}
	if n < 1 || n > maxWorkers {
		return nil, usagef("%d workers; want 1 to %d", n, maxWorkers)
	}
	files := make([]string, n)
	for i := range files {
		files[i] = filepath.Join(o.dir, fmt.Sprintf("%d.json", i))
	}
	return files, nil
}
