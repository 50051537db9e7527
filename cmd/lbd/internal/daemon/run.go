package daemon

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Run serves until SIGTERM, SIGINT or the end of ctx, drains, and returns.
// SIGHUP reloads. A second signal to stop ends at once.
func (d *Daemon) Run(ctx context.Context) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	if err := d.Start(); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return d.drain(signals)
		case s := <-signals:
			if s == syscall.SIGHUP {
				d.Reload() // logs its error
				continue
			}
			d.opt.Log.Info().Stringer("signal", s).Msg("stopping")
			return d.drain(signals)
		}
	}
}

// drain stops within the drain timeout or at the next signal.
func (d *Daemon) drain(signals <-chan os.Signal) error {
	timeout := d.cfg.Load().DrainTimeout
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	began := time.Now()
	stopped := make(chan error, 1)
	go func() { stopped <- d.Stop(ctx) }()
	d.opt.Log.Info().Dur("timeout_ms", timeout).Msg("draining")
	for {
		select {
		case err := <-stopped:
			ev := d.opt.Log.Info()
			if err != nil {
				ev = d.opt.Log.Warn().Err(err)
			}
			ev.Dur("took_ms", time.Since(began)).Msg("stopped")
			return nil
		case s := <-signals:
			if s != syscall.SIGHUP {
				d.opt.Log.Warn().Stringer("signal", s).Msg("stopping at once")
				cancel()
			}
		}
	}
}
