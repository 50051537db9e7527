package daemon

import (
	"time"

	"github.com/rs/zerolog"

	"lbd/balancer"
	"lbd/balancer/fleet"
	"lbd/balancer/health"
	"lbd/metrics/poll"
)

func (d *Daemon) fleetEvent(e fleet.Event) {
	ev := d.opt.Log.Info()
	switch e.Kind {
	case fleet.ModelsMismatch, fleet.PickerFailed, fleet.ModelsVoid:
		ev = d.opt.Log.Warn()
	}
	d.tell(ev, "fleet", e.Kind.String(), "replica", e.Replica, "of", e.Of, "model", e.Model, "old", e.Old, "new", e.New, "reason", e.Reason)
}

// tell writes one line with the fields that say something.
func (d *Daemon) tell(ev *zerolog.Event, component, message string, fields ...string) {
	ev = ev.Str("component", component)
	for i := 0; i < len(fields); i += 2 {
		if fields[i+1] != "" {
			ev = ev.Str(fields[i], fields[i+1])
		}
	}
	ev.Msg(message)
}

func (d *Daemon) healthEvent(e health.Event) {
	ev := d.opt.Log.Info()
	switch e.Kind {
	case health.Ejected:
		d.metrics.Ejected(e.Replica, e.Reason)
		ev = d.opt.Log.Warn().Dur("backoff_ms", e.Backoff).Int("ejections", e.Ejections)
	case health.Down, health.Spared:
		ev = d.opt.Log.Warn()
	}
	if e.New == balancer.Ejected {
		d.doubt(e.Replica)
	}
	d.tell(ev, "health", e.Kind.String(), "replica", e.Replica, "reason", e.Reason, "detail", e.Detail, "state", e.New.String())
}

// pollEvent warns of a replica that is in service and cannot be read. One that
// is down does not answer polls either; health has said so. A refusal is told
// whatever health knows yet: without models nothing is served, and the first
// reading does not wait for the first probe.
func (d *Daemon) pollEvent(e poll.Event) {
	ev := d.opt.Log.Info()
	switch e.Kind {
	case poll.Failed, poll.ModelsFailed:
		ev = d.opt.Log.Warn()
		if r := d.fleet.Snapshot().Replica(e.Replica); !e.Refused && (r == nil || r.Health.State != balancer.Healthy) {
			ev = d.opt.Log.Debug()
		}
	case poll.Stale:
		ev = d.opt.Log.Warn()
	}
	d.tell(ev, "poll", e.Kind.String(), "replica", e.Replica, "reason", e.Reason)
}

// housekeepingInterval is how soon series and connections of replicas and models
// that have left are dropped, and renewed certificates are read: a stat of each file.
const housekeepingInterval = 2 * time.Second

func (d *Daemon) housekeeping() {
	t := time.NewTicker(housekeepingInterval)
	defer t.Stop()
	for {
		d.forget(d.fleet.Snapshot())
		d.refreshFiles()
		select {
		case <-d.done:
			return
		case <-t.C:
		}
	}
}

// forget keeps series and connections of what is in the fleet. Requests that still
// run hold some of what has left, so it runs whether or not the fleet has changed.
func (d *Daemon) forget(s *balancer.Snapshot) {
	models, replicas, listed := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for i := range s.Replicas {
		replicas[s.Replicas[i].ID] = true
		listed[s.Replicas[i].Listed] = true
	}
	for _, m := range s.Models {
		models[m.Name] = true
	}
	d.metrics.Retain(models, replicas)
	d.proxy.Forget(func(id string) bool { return replicas[id] })
	d.outward.Retain(func(id string) bool { return listed[id] })
	d.forgetNames(s)
}
