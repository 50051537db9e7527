package daemon

import (
	"runtime"

	"golang.org/x/sys/unix"

	"lbd/cmd/lbd/internal/config"
)

// Descriptors that are not for clients: listeners, logs, files, the admin listener and
// the runtime's; an epoll set and its bell for each event loop; a poll, a probe and a
// control call to each replica at once; and those who are told that there is no room
// (maxPorch in proxy/internal/inbound).
const (
	basicFDs      = 64
	loopFDs       = 2
	replicaFDs    = 4
	porchFDs      = 128
	descriptorsOf = 2 // a client's connection and one to a replica
)

// maxConnections is how many clients may be connected: what the configuration says,
// but no more than there are descriptors for. Go raises the soft limit to the hard one
// when a program starts (go.dev/issue/46279), so what is read is all there is.
func (d *Daemon) maxConnections(c *config.Config) int {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		d.opt.Log.Warn().Err(err).Msg("the limit of descriptors is unknown, and max_connections not held against it")
		return c.MaxConnections
	}
	descriptors := uint64(lim.Cur) // signed on some systems
	most := roomFor(descriptors, len(d.fleet.Snapshot().Replicas))
	switch {
	case c.MaxConnections == 0:
		if most < fewConnections {
			d.opt.Log.Warn().Uint64("descriptors", descriptors).Int("in_force", most).
				Msg("descriptors allow few connections of clients; want a larger RLIMIT_NOFILE (LimitNOFILE=, ulimit -n)")
		}
		return most
	case c.MaxConnections > most:
		d.opt.Log.Warn().Int("max_connections", c.MaxConnections).Uint64("descriptors", descriptors).Int("in_force", most).
			Msg("max_connections is more than descriptors allow; want a larger RLIMIT_NOFILE (LimitNOFILE=, ulimit -n)")
		return most
	}
	return c.MaxConnections
}

// fewConnections is what some replicas of a small model can keep busy: whoever meets a
// limit below it has not set it and looks for the cause elsewhere.
const fewConnections = 1000

// ownFDs is how many lbd may have open beside those of replicas and clients.
func ownFDs() int { return basicFDs + loopFDs*runtime.GOMAXPROCS(0) }

// roomFor is never 0, which would mean no bound.
func roomFor(descriptors uint64, replicas int) int {
	left := int(min(descriptors, 1<<30)) - ownFDs() - porchFDs - replicaFDs*replicas
	return max(left/descriptorsOf, 1)
}
