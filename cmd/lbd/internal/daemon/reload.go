package daemon

import (
	"errors"

	"lbd/admin"
	"lbd/cmd/lbd/internal/config"
	"lbd/cmd/lbd/internal/handover"
)

// Reload reads the configuration again and applies what needs no restart.
// Running requests do not notice. A configuration with a mistake changes
// nothing.
func (d *Daemon) Reload() error {
	_, err := d.reloadAndTell()
	return err
}

func (d *Daemon) reloadAndTell() (admin.Reloaded, error) {
	d.reload.Lock()
	defer d.reload.Unlock()
	d.told(handover.NotifyReloading())
	defer func() { d.told(handover.NotifyReady()) }() // with the new configuration or the old one
	done, err := d.tryReload()
	if err != nil {
		d.metrics.ReloadSuccessful.Set(0)
		d.opt.Log.Error().Err(err).Msg("configuration not reloaded, the old one stays")
		return done, err
	}
	d.metrics.ReloadSuccessful.Set(1)
	return done, nil
}

// dropPrefixes gives up the index of prompt prefixes, 64 MiB, when no model's strategy
// looks into it any more. One that still runs requests out may make it once more.
func (d *Daemon) dropPrefixes() {
	for _, m := range d.fleet.Snapshot().Models {
		if m.Strategy == "least-cost" {
			return
		}
	}
	d.prefixes.Clear()
}

func (d *Daemon) tryReload() (done admin.Reloaded, err error) {
	if d.opt.Load == nil {
		return done, errors.New("this lbd was started without a source to reload from")
	}
	next, err := d.opt.Load()
	if err != nil {
		return done, err
	}
	applied, restart := config.Changed(d.cfg.Load(), next)
	next = config.Reloaded(d.cfg.Load(), next)
	a, err := readAccess(next)
	if err != nil {
		return done, err
	}
	d.learnNames(next)
	defer func() { d.names.Follow(eachNames(d.cfg.Load())) }()
	if err := d.applyAccess(a); err != nil {
		return done, err
	}
	if err := d.configureFleet(next); err != nil {
		return done, err
	}
	d.dropPrefixes()
	d.affinity.SetConfig(affinityConfig(next))
	d.proxy.SetConfig(d.proxyConfig(next, a))
	d.health.SetConfig(healthConfig(next))
	d.poller.SetConfig(d.pollConfig(next, a))
	if d.admin != nil {
		d.admin.SetReplicaAPIKey(next.ReplicaAPIKey.Reveal())
		d.admin.SetMaxPickBody(int64(next.MaxRequestBodySize))
	}
	d.refreshFiles()
	d.warnOfAccess(next)
	setLevel(next.LogLevel)
	d.cfg.Store(next)
	ev := d.opt.Log.Info().Strs("applied", applied)
	if len(restart) > 0 {
		ev = ev.Strs("needs_restart", restart)
	}
	ev.Msg("configuration reloaded")
	return admin.Reloaded{Applied: applied, NeedsRestart: restart}, nil
}
