//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// Exit codes, as lbd's own commands have them.
const (
	exitUsage  = 1
	exitStart  = 2
	exitFailed = 3
)

// options is what the flags say.
type options struct {
	duration time.Duration
	settle   time.Duration // longest wait for the accounts to become even
	lbd      string        // binary; empty: built from the tree
	out      string        // folder of the results; empty: none are written
	keep     string        // folder for logs and configuration; empty: a temporary one
	port     int
	clients  int
	seed     uint64
	pause    time.Duration // of a client between two deeds, at most
	fill     int           // requests that fill the index of prefixes beforehand
	lull     time.Duration // without requests, at the end
	growth   float64       // of RSS, last quarter over second, as a share
	heap     int64         // of what lives at rest, from the first quarter's end to the last one's, in KiB
	speed    float64       // of the replicas
	faults   bool
}

// failed is a run that did not hold its checks.
var errFailed = errors.New("checks failed")

// startError is a run that could not begin.
type startError struct{ error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return
	}
	fmt.Fprintln(os.Stderr, "soak:", err)
	os.Exit(exitCode(err))
}

func exitCode(err error) int {
	var start startError
	switch {
	case errors.Is(err, errFailed):
		return exitFailed
	case errors.As(err, &start):
		return exitStart
	}
	return exitUsage
}

func parse(args []string) (options, error) {
	fs := flag.NewFlagSet("soak", flag.ContinueOnError)
	var o options
	fs.DurationVar(&o.duration, "duration", 10*time.Minute, "how long to churn")
	fs.DurationVar(&o.settle, "settle", 45*time.Second, "longest wait, after the clients have stopped, for everything to be as before")
	fs.StringVar(&o.lbd, "lbd", "", "binary of lbd; default: built from this tree")
	fs.StringVar(&o.out, "o", "bench/results", "folder to write soak.md, soak.json and soak.svg to; empty: none")
	fs.StringVar(&o.keep, "keep", "", "folder to keep logs and configuration in; default: a temporary one")
	fs.IntVar(&o.port, "port", 26000, "ports to use: a free block of 20 from here on")
	fs.IntVar(&o.clients, "clients", 32, "clients at a time")
	fs.Uint64Var(&o.seed, "seed", 1, "of requests and disturbances")
	fs.Float64Var(&o.growth, "growth", 0.10, "share by which RSS of the last quarter may exceed that of the second")
	fs.Int64Var(&o.heap, "heap", 256, "KiB by which the heap after garbage collection, with the clients gone, may grow from the end of the first quarter to that of the last")
	fs.DurationVar(&o.lull, "lull", time.Minute, "how long, at the end, nobody asks and replicas are polled as often as can be")
	fs.DurationVar(&o.pause, "pause", 150*time.Millisecond, "longest pause of a client between two of its deeds")
	fs.IntVar(&o.fill, "fill", filling*indexPages, "requests that fill the index of prompt prefixes before the run, so that it cannot grow in it")
	fs.Float64Var(&o.speed, "speed", 20, "how much faster than a GPU the replicas run")
	fs.BoolVar(&o.faults, "faults", true, "disturb the fleet; without, no error at all is explained")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	switch {
	case fs.NArg() > 0:
		return o, fmt.Errorf("argument %q is not wanted", fs.Arg(0))
	case o.duration < time.Second:
		return o, fmt.Errorf("-duration %v; want 1s or more", o.duration)
	case o.clients < 1 || o.growth <= 0 || o.speed <= 0:
		return o, fmt.Errorf("-clients %d, -growth %v, -speed %v; want more than 0", o.clients, o.growth, o.speed)
	case o.heap < 1 || o.pause <= 0 || o.lull <= 0 || o.fill < 0:
		return o, fmt.Errorf("-heap %d, -pause %v, -lull %v, -fill %d; want more than 0, -fill 0 or more", o.heap, o.pause, o.lull, o.fill)
	case o.port < 1024 || o.port > 60000:
		return o, fmt.Errorf("-port %d; want 1024 to 60000", o.port)
	}
	return o, nil
}

// run does one soak.
func run(ctx context.Context, args []string, out io.Writer) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	dir := o.keep
	if dir == "" {
		if dir, err = os.MkdirTemp("", "soak"); err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }()
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if o.lbd == "" {
		o.lbd = filepath.Join(dir, "lbd")
		if err := build(ctx, o.lbd); err != nil {
			return startError{err}
		}
	}
	r, err := soak(ctx, o, dir, out)
	if err != nil {
		return err
	}
	r.Command = o.command()
	if err := r.text(out); err != nil {
		return err
	}
	if o.out != "" {
		if err := r.write(o.out); err != nil {
			return err
		}
	}
	if r.failed() {
		return errFailed
	}
	return nil
}

// soak runs from the first process to the last.
func soak(ctx context.Context, o options, dir string, out io.Writer) (*report, error) {
	rig, err := newRig(ctx, o, dir)
	if err != nil {
		return nil, startError{err}
	}
	defer rig.stop()
	r := &report{Began: time.Now().UTC().Round(time.Second), Options: o.table(), Machine: machine(), Commit: commit(), Version: rig.version()}
	if r.Base, err = rig.base(ctx); err != nil {
		return nil, startError{err}
	}
	t := newTally(rig.journal)
	fmt.Fprintf(out, "soak: %d replicas, %d requests to fill the index, then %d clients for %v\n", len(rig.slots), o.fill, o.clients, o.duration)
	rig.fill(ctx, o, t)
	c := rig.churn(ctx, o, t, r.Base, out)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("interrupted: %w", ctx.Err())
	}
	r.Samples, r.Rests = c.samples, c.rests
	r.Exit = rig.end()
	t.fill(r)
	r.Acts = rig.journal.counts()
	r.Log, err = readLog(rig.lbd.log)
	r.Checks = checks(r, o)
	return r, err
}
