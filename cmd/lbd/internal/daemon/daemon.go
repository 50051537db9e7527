package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"

	"lbd/access/certs"
	"lbd/access/keys"
	"lbd/access/outward"
	"lbd/admin"
	"lbd/affinity"
	"lbd/balancer"
	"lbd/balancer/fleet"
	"lbd/balancer/health"
	"lbd/balancer/prefix"
	"lbd/balancer/strategy"
	"lbd/cmd/lbd/internal/config"
	"lbd/cmd/lbd/internal/handover"
	"lbd/cmd/lbd/internal/lines"
	"lbd/metrics"
	"lbd/metrics/poll"
	"lbd/names"
	"lbd/proxy"
)

// Options are what a daemon needs beside its configuration.
type Options struct {
	Log zerolog.Logger
	// Lines is what Log writes to; nil = something else, which requests with a line wait
	// for.
	Lines *lines.Writer
	// Load reads the configuration again for a reload; nil = reloads fail.
	Load    func() (*config.Config, error)
	Version string
	// Lookup finds the addresses of replicas that are known by name, as net.Resolver's
	// LookupNetIP; nil = the system's.
	Lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
	// Inherited are the sockets this process was given; nil = none.
	Inherited *handover.Inherited
}

// ErrAddress is wrapped by errors of Start about an address that cannot be
// listened on.
var ErrAddress = errors.New("cannot listen")

// ConfigError is an error of New, Start or Run that only another configuration mends,
// or other files that it names. It says what its cause says.
type ConfigError struct{ error }

// Unwrap returns the cause.
func (e ConfigError) Unwrap() error { return e.error }

// Daemon is one running lbd.
type Daemon struct {
	opt Options
	cfg atomic.Pointer[config.Config]

	registry *prometheus.Registry
	metrics  *metrics.Metrics
	fleet    *fleet.Fleet
	health   *health.Checker
	poller   *poll.Poller
	names    *names.Names
	proxy    *proxy.Server
	admin    *admin.Server

	keys              *keys.Keys
	outward           *outward.Outward
	mainTLS, adminTLS *certs.Listener // nil = plain HTTP

	affinity *affinity.Homes
	prefixes *prefix.Index // of all models, so that its memory is bounded once

	sockets   []handover.Socket
	succeeded atomic.Bool // by an lbd that serves on the same sockets

	reload  sync.Mutex // held by who changes what is in force
	toDrain []string   // replicas that were drained in the lbd before and are not known yet
	stopped atomic.Bool
	done    chan struct{}
	wg      sync.WaitGroup
}

// New wires a daemon. Nothing runs and nothing listens yet.
func New(cfg *config.Config, o Options) (*Daemon, error) {
	d := &Daemon{opt: o, registry: prometheus.NewRegistry(), done: make(chan struct{})}
	d.cfg.Store(cfg)
	d.prefixes = prefix.New(prefix.Config{})
	a, err := d.newAccess(cfg)
	if err != nil {
		return nil, ConfigError{err}
	}
	d.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	d.metrics = metrics.New(d.registry, o.Version)
	d.affinity = affinity.New(affinity.Options{Config: affinityConfig(cfg), Snapshot: d.Snapshot})
	d.fleet = fleet.New(fleet.Options{NewPicker: d.newPicker, OnEvent: d.fleetEvent})
	d.names = names.New(names.Options{Lookup: o.Lookup, OnEvent: d.nameEvent, Refresh: cfg.DNSRefreshInterval})
	d.names.Follow(eachNames(cfg))
	if err := d.fleet.Configure(rosterOf(cfg, d.names.Addresses)); err != nil {
		return nil, ConfigError{err}
	}
	d.health = health.New(healthConfig(cfg), d.fleet, health.Options{OnEvent: d.healthEvent, Dial: d.names.DialContext, DialTLS: d.dialTLS, Authorization: d.outward.Authorization})
	d.poller = poll.New(d.pollConfig(cfg, a), d.fleet, poll.Options{OnEvent: d.pollEvent, Dial: d.names.DialContext, DialTLS: d.dialTLS})
	d.registry.MustRegister(metrics.NewFleetCollector(d.fleet.Snapshot, func(id string) uint64 {
		return d.poller.Failures(id) + d.poller.ModelFailures(id)
	}), metrics.NewKeyCollector(d.keyUsage), metrics.NewAffinityCollector(d.affinityUsage),
		metrics.NewConnectionCollector(func() metrics.Connections { return d.proxy.Connections() }))
	d.proxy, err = proxy.New(proxy.Options{
		Config: d.proxyConfig(cfg, a), Affinity: d.affinity, Prefixes: d.prefixes, Keys: d.keys, Outward: d.outward, Names: d.names, TLS: tlsConfig(d.mainTLS), Fleet: d.fleet, Health: d.health, Models: d.poller, Metrics: d.metrics,
		Gatherer: d.registry, Log: d.log("proxy"), Lines: o.requestLines(), Version: o.Version,
	})
	if err != nil {
		return nil, err
	}
	if cfg.AdminListen != "" {
		d.admin = admin.New(d.adminOptions(cfg, a))
	}
	d.toDrain = d.opt.Inherited.Drained()
	d.keepDrained()
	return d, nil
}

func (o *Options) requestLines() proxy.Lines {
	if o.Lines == nil {
		return nil
	}
	return o.Lines
}

// newAccess reads keys and certificates.
func (d *Daemon) newAccess(cfg *config.Config) (*access, error) {
	a, err := readAccess(cfg)
	if err != nil {
		return nil, err
	}
	if d.mainTLS, d.adminTLS, err = listenerTLS(cfg); err != nil {
		return nil, err
	}
	if d.outward, err = outward.New(a.outward); err != nil {
		return nil, err
	}
	d.keys = keys.New()
	return a, d.applyAccess(a)
}

func (d *Daemon) newPicker(name string) (balancer.Picker, error) {
	e, ok := strategy.Lookup(name)
	if !ok {
		return nil, fmt.Errorf("strategy %q is unknown; want one of %v", name, strategy.Names())
	}
	return d.affinity.Wrap(e.New(strategy.Options{Prefixes: d.prefixes})), nil
}

func (d *Daemon) log(component string) zerolog.Logger {
	return d.opt.Log.With().Str("component", component).Logger()
}

func (d *Daemon) adminOptions(cfg *config.Config, a *access) admin.Options {
	return admin.Options{
		Fleet: d.fleet, Explain: d.proxy.Explain, Held: d.held, Config: func() any { return d.cfg.Load() }, Reload: d.reloadAndTell,
		Metrics: promhttp.HandlerFor(d.registry, promhttp.HandlerOpts{}), Version: d.opt.Version,
		ReplicaAPIKey: cfg.ReplicaAPIKey.Reveal(), MaxPickBody: int64(cfg.MaxRequestBodySize), Log: d.log("admin"),
		Token: a.adminToken, TLS: tlsConfig(d.adminTLS), ReplicaKey: d.outward.Authorization, Dial: d.names.DialContext, DialTLS: d.dialTLS,
	}
}

// Start listens and begins to probe and poll; where it joins or follows others on
// their sockets, in the other order. On an error everything is stopped again.
func (d *Daemon) Start() error {
	began := time.Now()
	cfg := d.cfg.Load()
	joins := d.opt.Inherited.Any() || cfg.ListenReuseport
	if joins {
		d.observe()
		d.settle()
	}
	if err := d.listen(cfg); err != nil {
		d.Stop(context.Background())
		return err
	}
	d.warnOfAccess(cfg)
	if !joins {
		d.observe()
	}
	ev := d.opt.Log.Info().Str("listen", d.Addr().String()).Str("strategy", cfg.Strategy).
		Int("replicas", len(d.fleet.Snapshot().Replicas)).Str("version", d.opt.Version).Dur("took_ms", time.Since(began))
	if d.admin != nil {
		ev = ev.Str("admin", d.admin.Addr().String())
	}
	ev.Msg("started")
	return nil
}

// observe begins to look at the replicas.
func (d *Daemon) observe() {
	d.names.Start()
	d.health.Start()
	d.poller.Start()
	d.wg.Go(d.housekeeping)
	d.wg.Go(d.followNames)
}

// listen takes clients last: when an address is taken, none was let in.
func (d *Daemon) listen(cfg *config.Config) error {
	if d.admin != nil {
		ln, addr, err := d.socket(handover.Admin, cfg.AdminListen, cfg)
		if err == nil {
			err = d.admin.StartOn(ln, addr)
		}
		switch {
		case errors.Is(err, admin.ErrExposed): // a host name, of which only the socket tells
			return ConfigError{blame(cfg, "admin_listen", fmt.Errorf("%q: %w", cfg.AdminListen, err))}
		case err != nil:
			return addressError(handover.Admin, cfg, err)
		}
	}
	ln, _, err := d.socket(handover.Main, cfg.Listen, cfg)
	if err != nil {
		return addressError(handover.Main, cfg, err)
	}
	d.proxy.StartOn(ln)
	return nil
}

// addressError names the setting that is to be changed.
func addressError(key string, cfg *config.Config, err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	address, flag := cfg.Listen, "--listen"
	if key == "admin_listen" {
		address, flag = cfg.AdminListen, "--admin-listen"
	}
	return fmt.Errorf("%w on %q (%s, from %s): %w", ErrAddress, address, flag, cfg.Origin(key), err)
}

// Addr returns the address of the main listener.
func (d *Daemon) Addr() net.Addr { return d.proxy.Addr() }

// AdminAddr returns the address of the admin listener, nil when it is off.
func (d *Daemon) AdminAddr() net.Addr {
	if d.admin == nil {
		return nil
	}
	return d.admin.Addr()
}

// Snapshot returns the current picture of the fleet.
func (d *Daemon) Snapshot() *balancer.Snapshot { return d.fleet.Snapshot() }

// Stop takes lbd out of service: no new connections, running requests finish
// until ctx ends, then they are cut. Further calls return at once.
func (d *Daemon) Stop(ctx context.Context) error {
	if d.stopped.Swap(true) {
		return nil
	}
	close(d.done)
	var early sync.WaitGroup
	if d.succeeded.Load() && d.admin != nil {
		early.Go(func() { d.admin.Stop(ctx) }) // the next lbd's turn, and not by chance
	}
	err := d.proxy.Stop(ctx)
	early.Wait()
	if d.admin != nil {
		d.admin.Stop(ctx)
	}
	d.poller.Stop()
	d.health.Stop()
	d.names.Stop()
	d.wg.Wait()
	return err
}
