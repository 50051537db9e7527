package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/mattn/go-isatty"

	"lbd/bench/load"
)

// ErrMeasurement is wrapped by the error of a run whose figures are not to be
// trusted.
var ErrMeasurement = errors.New("measurement")

// warmup fills caches and queues before anything is counted.
const warmup = 3 * time.Second

// maxErrorRate is the part of requests that may fail in a measurement.
const maxErrorRate = 0.01

// Run starts both environments, sends the same traffic through both and shows
// how they do, until ctx ends or, with Once, until the measurement is over.
func Run(ctx context.Context, o Options, out io.Writer) error {
	s := newScreen(out, o.Log)
	o.Log = s
	base, err := start(ctx, spec{"baseline", o.BaselineListen, o.BaselineStrategy, "baseline-listen"}, &o)
	if err != nil {
		return err
	}
	defer base.stop()
	managed, err := start(ctx, spec{"managed", o.ManagedListen, o.ManagedStrategy, "managed-listen"}, &o)
	if err != nil {
		return err
	}
	defer managed.stop()
	envs := []*environment{base, managed}
	duration := time.Duration(0)
	if o.Once {
		duration = warmup + o.Duration
	}
	for _, e := range envs {
		t, err := o.arrivals(duration)
		if err != nil {
			return err
		}
		if err := e.prepare(t, &o, warmup); err != nil {
			return err
		}
	}
	writeIntro(out, envs, &o)
	results, err := traffic(ctx, envs, s, !o.Once)
	if err != nil || !o.Once {
		return err
	}
	return compare(out, envs, results, &o)
}

// traffic sends until the traces or ctx end, with a picture each second.
func traffic(ctx context.Context, envs []*environment, s *screen, endless bool) ([]*load.Results, error) {
	results, errs := make([]*load.Results, len(envs)), make([]error, len(envs))
	var wg sync.WaitGroup
	for i, e := range envs {
		wg.Go(func() { results[i], errs[i] = e.runner.Run(ctx) })
	}
	ended := make(chan struct{})
	go func() { wg.Wait(); close(ended) }()
	v := newView(s, envs)
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-ended:
			if endless && ctx.Err() != nil {
				fmt.Fprintln(s.out) // behind the terminal's ^C
				return nil, nil
			}
			s.clear() // makes room for the comparison
			return results, errors.Join(errs...)
		case <-t.C:
			v.show()
		}
	}
}

// compare prints the two results side by side.
func compare(out io.Writer, envs []*environment, results []*load.Results, o *Options) error {
	writeComparison(out, envs, results, o)
	for i, r := range results {
		if err := r.Check(maxErrorRate); err != nil {
			return fmt.Errorf("%w of %s: %w", ErrMeasurement, envs[i].name, err)
		}
	}
	return nil
}

// isTerminal says whether pictures may overwrite each other.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}
