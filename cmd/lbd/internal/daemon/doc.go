// Package daemon puts lbd together: fleet, health checks, poller, data plane and
// admin listener, wired to one configuration. It is the only package that sees
// everything, and the one to embed lbd with.
//
// Invariant: whatever New and Start began, Stop ends; Stop may be called at any
// time and again.
//
//	d, err := daemon.New(cfg, daemon.Options{Log: log})
//	err = d.Start()
//	defer d.Stop(ctx)
package daemon
