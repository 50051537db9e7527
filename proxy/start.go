package proxy

import (
	"time"

	"lbd/proxy/internal/inbound"
)

const (
	// startGrace is how long after its start lbd takes nobody's silence for an answer:
	// a replica that is up is probed and lists its models within a second, and one
	// that hangs must not hold up the answer that nobody serves a model for longer
	// than clients wait for a connection.
	startGrace = 2 * time.Second
	// startLook is the time between two looks at the fleet meanwhile.
	startLook = 10 * time.Millisecond
)

// understood reads what x is to want, but right after the start of lbd a request that nobody
// seems to serve waits until all replicas were asked: clients of an lbd that was
// restarted come back before it knows any, and what they would be told is not true.
func (x *exchange) understood(req *inbound.Request) *apiError {
	for {
		err := x.want.understand(req, x.s.opt.Fleet.Snapshot())
		unserved := err == nil && len(x.want.model.Available) == 0 ||
			err != nil && (err.code == "model_not_found" || err.code == "model_required" || err.code == "no_healthy_replica")
		if !unserved || x.s.settled() || x.client.Gone() {
			return err
		}
		time.Sleep(startLook)
		x.now = time.Now()
	}
}

// settled says that the fleet is as known as it will be.
func (s *Server) settled() bool {
	if s.known.Load() {
		return true
	}
	if !s.opt.Fleet.Settled() && time.Since(s.made) < startGrace && !s.in.Stopping() {
		return false
	}
	s.known.Store(true)
	return true
}
