package main

import (
	"errors"
	"os/signal"
	"syscall"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"lbd/cmd/lbd/internal/config"
	"lbd/cmd/lbd/internal/daemon"
	"lbd/cmd/lbd/internal/handover"
)

// serve runs the proxy on the sockets this process was given, or its own. An lbd that
// has passed them on hears why if that fails.
func serve(cmd *cobra.Command) error {
	in, err := handover.Inherit()
	if err != nil {
		err = exitError{exitStart, err}
	} else {
		err = runProxy(cmd, in)
	}
	in.Failed(err)
	return err
}

// runProxy runs the proxy until it is told to stop.
func runProxy(cmd *cobra.Command, in *handover.Inherited) error {
	cfg, err := loadConfig(cmd)
	if err != nil {
		return err
	}
	signal.Ignore(syscall.SIGPIPE) // a log whose reader has died must not end those who are served
	log, lines := daemon.NewLogger(cmd.ErrOrStderr(), cfg)
	defer lines.Close()
	if err := logConfig(cfg, log); err != nil {
		return err
	}
	d, err := daemon.New(cfg, daemon.Options{
		Log: log, Lines: lines, Version: buildVersion().Version, Inherited: in, Load: func() (*config.Config, error) { return loadConfig(cmd) },
	})
	if err != nil {
		return startError(err)
	}
	return startError(d.Run(cmd.Context()))
}

// startError gives an error of a start its exit code: who starts lbd again tries in vain
// what is a mistake in the configuration, and not what a machine lacks at the moment.
func startError(err error) error {
	var mistake daemon.ConfigError
	if err == nil || errors.As(err, &mistake) {
		return err
	}
	return exitError{exitStart, err}
}

// logConfig writes the effective configuration, secrets redacted, so that a log
// tells what ran.
func logConfig(cfg *config.Config, log zerolog.Logger) error {
	b, err := cfg.MarshalJSON()
	if err != nil {
		return err
	}
	log.Info().RawJSON("config", b).Msg("configuration")
	return nil
}
