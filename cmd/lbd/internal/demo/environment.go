package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/pflag"

	"lbd/balancer/strategy"
	"lbd/bench/load"
	"lbd/bench/sim"
	"lbd/bench/trace"
	"lbd/cmd/lbd/internal/config"
	"lbd/cmd/lbd/internal/daemon"
)

// environment is six simulated replicas behind one lbd.
type environment struct {
	name     string
	strategy string
	replicas []*sim.Server
	lbd      *daemon.Daemon
	url      string
	runner   *load.Runner
}

// spec is what tells the two environments apart.
type spec struct{ name, listen, strategy, flag string }

// start brings replicas and lbd up and waits until lbd is ready.
func start(ctx context.Context, sp spec, o *Options) (e *environment, err error) {
	e = &environment{name: sp.name, strategy: sp.strategy}
	defer func() {
		if err != nil {
			e.stop()
		}
	}()
	if err := e.startReplicas(o); err != nil {
		return e, err
	}
	cfg, err := e.config(sp)
	if err != nil {
		return e, err
	}
	log := zerolog.New(zerolog.ConsoleWriter{Out: o.Log, TimeFormat: time.TimeOnly, NoColor: true}).
		Level(zerolog.WarnLevel).With().Timestamp().Str("lbd", sp.name).Logger()
	d, err := daemon.New(cfg, daemon.Options{Log: log, Version: "demo"})
	if err != nil {
		return e, err
	}
	if err := d.Start(); err != nil {
		return e, startError(sp, err)
	}
	e.lbd, e.url = d, "http://"+reachable(d.Addr())
	return e, e.ready(ctx)
}

// startError names the flag to change: the daemon knows its own ones only.
func startError(sp spec, err error) error {
	var errno syscall.Errno
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w: %s is taken; choose another with --%s", daemon.ErrAddress, sp.listen, sp.flag)
	case errors.Is(err, daemon.ErrAddress) && errors.As(err, &errno):
		return fmt.Errorf("%w: %s: %w; choose another with --%s", daemon.ErrAddress, sp.listen, errno, sp.flag)
	case errors.Is(err, daemon.ErrAddress):
		return fmt.Errorf("--%s: %w", sp.flag, err)
	}
	return err
}

// reachable turns a listen address into one to connect to.
func reachable(a net.Addr) string {
	host, port, _ := net.SplitHostPort(a.String())
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

func (e *environment) startReplicas(o *Options) error {
	for i, model := range models {
		for j := range replicasPerModel {
			s, err := sim.New(sim.Config{Model: model, Profile: o.Profile, Seed: o.Seed + uint64(i*replicasPerModel+j)})
			if err != nil {
				return err
			}
			if err := s.Start("127.0.0.1:0"); err != nil {
				return fmt.Errorf("simulated replica: %w", err)
			}
			e.replicas = append(e.replicas, s)
		}
	}
	return nil
}

// config is what a user would have typed.
func (e *environment) config(sp spec) (*config.Config, error) {
	var urls []string
	for _, r := range e.replicas {
		urls = append(urls, r.URL())
	}
	fs := pflag.NewFlagSet("demo", pflag.ContinueOnError)
	config.Flags(fs)
	for flag, value := range map[string]string{
		"listen": sp.listen, "admin-listen": "off", "strategy": sp.strategy, "endpoints": strings.Join(urls, ","),
		"log-level": "warn", "drain-timeout": "1s", "drain-idle-timeout": "0",
		"admission": "false", // it is strategies that are compared
	} {
		if err := fs.Set(flag, value); err != nil {
			return nil, fmt.Errorf("--%s: %w", flag, err)
		}
	}
	cfg, err := config.Load(config.Options{Flags: fs, Strategies: strategy.Names()})
	var wrong config.Errors
	if errors.As(err, &wrong) {
		for _, w := range wrong {
			if w.Origin.Name == "listen" { // what the user typed has another name here
				w.Origin.Name = sp.flag
			}
		}
	}
	return cfg, err
}

// ready waits until every model has all its replicas.
func (e *environment) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		n := 0
		for _, m := range e.lbd.Snapshot().Models {
			n += len(m.Available)
		}
		if n == len(e.replicas) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %d of %d simulated replicas in service: %w", e.name, n, len(e.replicas), ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// prepare makes the client that will send t.
func (e *environment) prepare(t *trace.Trace, o *Options, warmup time.Duration) error {
	r, err := load.New(load.Options{
		Target: e.url, Seed: o.Seed, Warmup: warmup,
		Requests: func(yield func(load.Request) bool) {
			for a, err := range t.Arrivals {
				if err != nil || !yield(load.Request{
					At: a.At, Model: a.Model, PromptTokens: a.PromptTokens, OutputTokens: a.OutputTokens, Stream: true,
				}) {
					return
				}
			}
		},
	})
	e.runner = r
	return err
}

func (e *environment) stop() {
	if e.lbd != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		e.lbd.Stop(ctx)
		cancel()
	}
	for _, r := range e.replicas {
		r.Kill()
	}
}
