package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"lbd/cmd/lbd/internal/config"
)

// Exit codes; users' scripts rely on them.
const (
	exitUsage   = 1 // configuration or command line
	exitStart   = 2 // could not start: port taken ...
	exitMeasure = 3 // a measurement failed its own checks
)

// exitError is an error with an exit code. An error without one exits with
// exitUsage.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string { return e.err.Error() }
func (e exitError) Unwrap() error { return e.err }

// usageError is a mistake on the command line; it is reported with a hint.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// report tells the user what went wrong and returns the exit code.
func report(w io.Writer, cmd *cobra.Command, err error) int {
	if err == nil {
		return 0
	}
	var many config.Errors
	var usage usageError
	switch {
	case errors.As(err, &many):
		// Unprefixed, so that editors and CI find FILE:LINE at the start.
		fmt.Fprintln(w, many)
	case errors.As(err, &usage):
		fmt.Fprintf(w, "lbd: %s\nsee %s --help\n", err, cmd.CommandPath())
	default:
		fmt.Fprintf(w, "lbd: %s\n", err)
	}
	var exit exitError
	if errors.As(err, &exit) {
		return exit.code
	}
	return exitUsage
}
