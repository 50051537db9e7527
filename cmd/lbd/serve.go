package main

import (
	"errors"

	"github.com/spf13/cobra"

	"lbd/cmd/lbd/internal/config"
)

// runProxy runs the proxy until it is told to stop.
func runProxy(_ *cobra.Command, _ *config.Config) error {
	return exitError{exitStart, errors.New("the daemon is not wired yet")}
}
