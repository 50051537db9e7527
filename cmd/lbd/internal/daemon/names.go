package daemon

import (
	"fmt"
	"net"

	"lbd/balancer"
	"lbd/names"
)

// nameEvent tells where a name has moved. What answers there now may serve other
// models.
func (d *Daemon) nameEvent(e names.Event) {
	if e.Kind == names.Members {
		d.tellMembers(e)
		return
	}
	ev, reason := d.opt.Log.Info(), ""
	if e.Kind == names.Failed {
		ev, reason = d.opt.Log.Warn(), e.Err.Error()
	}
	was, is := "", ""
	if e.Kind == names.Moved {
		was, is = fmt.Sprint(e.Old), fmt.Sprint(e.New)
	}
	d.tell(ev, "names", e.Kind.String(), "host", e.Host, "old", was, "new", is, "reason", reason)
	if e.Kind != names.Moved {
		return
	}
	for _, r := range d.fleet.Snapshot().Replicas {
		if hostOf(r.Endpoint) == e.Host {
			d.poller.Relearn(r.ID)
		}
	}
}

// forgetNames keeps the names of what is in the fleet.
func (d *Daemon) forgetNames(s *balancer.Snapshot) {
	hosts := make(map[string]bool, len(s.Replicas))
	for i := range s.Replicas {
		hosts[hostOf(s.Replicas[i].Endpoint)] = true
	}
	d.names.Retain(func(host string) bool { return hosts[host] })
}

func hostOf(e balancer.Endpoint) string {
	host, _, err := net.SplitHostPort(e.Addr)
	if err != nil {
		panic("BUG: endpoint " + e.String() + " has the address " + e.Addr)
	}
	return host
}
