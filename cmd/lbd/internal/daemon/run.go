package daemon

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"lbd/cmd/lbd/internal/handover"
)

// Run serves until SIGTERM, SIGINT or the end of ctx, drains, and returns.
// SIGHUP reloads, SIGUSR2 hands over to a new lbd. A second signal to stop ends at
// once.
func (d *Daemon) Run(ctx context.Context) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR2)
	defer signal.Stop(signals)
	if err := d.Start(); err != nil {
		return err
	}
	d.opt.Inherited.Ready()
	if !d.opt.Inherited.Follows() { // else systemd hears it from the process it knows
		d.told(handover.NotifyReady())
	}
	todo := newErrands()
	defer todo.end()
	var next succession
	for {
		select {
		case <-ctx.Done():
			next.abandon()
			return d.drain(signals, nil, todo)
		case err := <-next.done:
			next.abandon()
			if err == nil {
				return d.drain(signals, nil, todo)
			}
		case s := <-signals:
			switch s {
			case syscall.SIGHUP:
				todo.add(func() { d.Reload() }) // logs its error
			case syscall.SIGUSR2:
				next.begin(ctx, d)
			default:
				next.abandon()
				return d.drain(signals, s, todo)
			}
		}
	}
}

// errands are done one after the other by a goroutine: what may wait for the log, whose
// reader may be stuck, while signals are heeded.
type errands struct {
	todo chan func()
	done chan struct{}
}

func newErrands() *errands {
	e := &errands{todo: make(chan func(), 16), done: make(chan struct{})}
	go func() {
		defer close(e.done)
		for do := range e.todo {
			do()
		}
	}()
	return e
}

// add leaves out what there is no room for: then the log is stuck, and a reload waits.
func (e *errands) add(do func()) {
	select {
	case e.todo <- do:
	default:
	}
}

// logPatience bounds how long the end waits for a log that takes nothing.
const logPatience = 5 * time.Second

func (e *errands) end() {
	close(e.todo)
	select {
	case <-e.done:
	case <-time.After(logPatience):
	}
}

// succession is a hand-over under way, which signals do not wait for.
type succession struct {
	cancel context.CancelFunc // nil: there is none
	done   chan error
	over   chan struct{}
}

// begin does nothing while one is under way.
func (s *succession) begin(ctx context.Context, d *Daemon) {
	if s.cancel != nil {
		return
	}
	ctx, s.cancel = context.WithCancel(ctx)
	s.done, s.over = make(chan error, 1), make(chan struct{})
	go func(done chan<- error, over chan<- struct{}) {
		defer close(over)
		done <- d.HandOver(ctx)
	}(s.done, s.over)
}

// abandon waits for its end, which it hastens.
func (s *succession) abandon() {
	if s.cancel == nil {
		return
	}
	s.cancel()
	<-s.over
	*s = succession{}
}

// drain stops within the drain timeout or at the next signal. A service manager that
// stops a service signals all of its processes, so one that was succeeded takes the
// first signal as the one that it knows of already. asked is the signal to stop, nil for
// none. Nothing but the end waits for the log, whose reader may be what is stuck.
func (d *Daemon) drain(signals <-chan os.Signal, asked os.Signal, todo *errands) error {
	timeout := d.cfg.Load().DrainTimeout
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	began := time.Now()
	spared := d.succeeded.Load()
	var untold error
	if !spared {
		untold = handover.NotifyStopping()
	}
	stopped := make(chan error, 1)
	go func() { stopped <- d.Stop(ctx) }()
	todo.add(func() {
		if asked != nil {
			d.opt.Log.Info().Stringer("signal", asked).Msg("stopping")
		}
		d.told(untold)
		d.opt.Log.Info().Dur("timeout_ms", timeout).Msg("draining")
	})
	for {
		select {
		case err := <-stopped:
			took := time.Since(began)
			todo.add(func() {
				ev := d.opt.Log.Info()
				if err != nil {
					ev = d.opt.Log.Warn().Err(err)
				}
				ev.Dur("took_ms", took).Msg("stopped")
			})
			return nil
		case s := <-signals:
			switch {
			case s == syscall.SIGHUP || s == syscall.SIGUSR2:
			case spared:
				spared = false
				todo.add(func() {
					d.opt.Log.Info().Stringer("signal", s).Msg("draining already, another signal ends at once")
				})
			default:
				cancel()
				todo.add(func() { d.opt.Log.Warn().Stringer("signal", s).Msg("stopping at once") })
			}
		}
	}
}
