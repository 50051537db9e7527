package daemon

import (
	"context"
	"net"
	"slices"
	"time"

	"lbd/balancer"
	"lbd/cmd/lbd/internal/config"
	"lbd/cmd/lbd/internal/handover"
)

// An lbd that takes listeners over serves only when it knows its fleet: until then
// clients are in better hands with the lbd before, or wait in the queue of a socket
// that systemd keeps.

// socket returns the listening socket for a key: inherited, or opened. addr is where
// it listens in the words of whoever opened it.
func (d *Daemon) socket(name, address string, cfg *config.Config) (ln *net.TCPListener, addr string, err error) {
	ln, fixed := d.opt.Inherited.Take(name, address)
	addr = address
	switch {
	case ln == nil:
		if ln, err = handover.Listen(address, cfg.ListenReuseport); err != nil {
			return nil, "", err
		}
	case fixed:
		address, addr = "", ln.Addr().String()
	}
	d.sockets = append(d.sockets, handover.Socket{Name: name, Address: address, Listener: ln})
	return ln, addr, nil
}

// settlePatience bounds how long an lbd waits for its first picture of the fleet, and
// settleEnough how long it waits for a replica that does not answer when every model
// has one that does. A probe that fails takes health_timeout, 5s by default.
const (
	settlePatience = 10 * time.Second
	settleEnough   = 2 * time.Second
	settleLook     = 5 * time.Millisecond
)

// settle waits until every replica was heard of.
func (d *Daemon) settle() {
	t := time.NewTicker(settleLook)
	defer t.Stop()
	for began := time.Now(); !d.settled(time.Since(began)); {
		select {
		case <-d.done:
			return
		case <-t.C:
		}
	}
}

func (d *Daemon) settled(waited time.Duration) bool {
	if known(d.fleet.Snapshot()) && d.fleet.Settled() {
		return true
	}
	ready, missing := d.fleet.Ready()
	if waited > settlePatience {
		d.opt.Log.Warn().Strs("missing", missing).Msg("serving without having heard of every replica")
		return true
	}
	return ready && waited > settleEnough
}

// known says that each replica was probed, and its models read if it is up.
func known(s *balancer.Snapshot) bool {
	for i := range s.Replicas {
		if r := &s.Replicas[i]; r.Health.State == balancer.Unknown || r.Health.State == balancer.Healthy && len(r.Models) == 0 {
			return false
		}
	}
	return true
}

// keepDrained takes replicas out that an operator had taken out of the lbd before, also
// those that are addresses of names, when they are known. None was probed by then.
func (d *Daemon) keepDrained() {
	awaited := d.fleet.Awaits()
	d.toDrain = slices.DeleteFunc(d.toDrain, func(id string) bool {
		err := d.fleet.Drain(id)
		if err != nil && !awaited {
			d.opt.Log.Warn().Err(err).Str("replica", id).Msg("drained in the lbd before, and not known to this one")
		}
		return err == nil || !awaited
	})
}

// drained are the replicas that an operator has taken out.
func (d *Daemon) drained() (ids []string) {
	for _, r := range d.fleet.Snapshot().Replicas {
		if r.Draining {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

// succeedPatience is how long a new lbd may take until it serves: settlePatience, and
// some for reading keys and certificates.
const succeedPatience = 30 * time.Second

// HandOver starts a new lbd on this one's sockets and returns when it serves; this one
// is then to be stopped. With an error this one goes on as if nothing had happened.
func (d *Daemon) HandOver(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, succeedPatience)
	defer cancel()
	began := time.Now()
	pid, err := handover.Start(ctx, d.sockets, d.drained())
	if err != nil {
		d.opt.Log.Error().Err(err).Msg("not handed over, this lbd goes on")
		return err
	}
	d.succeeded.Store(true)
	d.told(handover.NotifyMain(pid))
	d.opt.Log.Info().Int("pid", pid).Dur("took_ms", time.Since(began)).Msg("handed over")
	return nil
}

// told notes what could not be said to systemd.
func (d *Daemon) told(err error) {
	if err != nil {
		d.opt.Log.Warn().Err(err).Msg("the service manager was not told")
	}
}
