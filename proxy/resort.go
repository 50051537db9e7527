package proxy

import (
	"slices"

	"lbd/balancer"
)

// When all replicas in service are tried, or there are none, a request goes to those that
// are out of service, as long as it may be sent at all and has attempts left: to be ejected
// is a forecast, and an answer of lbd's own helps nobody. Envoy does so below its panic
// threshold, and nginx when all servers of a group are down.

// LastResort stands for the strategy where the pick was one among replicas that are out of
// service: in lbd_picks_total, in X-Lbd-Strategy and in the log.
const LastResort = "last-resort"

// pick reserves a replica for the next attempt.
func (x *exchange) pick() (balancer.Reservation, error) {
	res, err := x.want.model.Pick(&x.req, x.tried)
	if err == nil {
		return res, nil
	}
	m := x.others()
	if m == nil {
		return res, err
	}
	x.want.model = m
	return m.Pick(&x.req, nil)
}

// desperate says that the model stands for replicas that are out of service.
func (x *exchange) desperate() bool { return x.want.model.Strategy == LastResort }

// others is the request's model with the candidates that are left when those of its
// snapshot are not any more: replicas that are in service by now, or else the likeliest of
// those that are not. It is nil if there are none. Whoever drains is left alone. A request
// that does not name its model goes to nobody out of service: a replica may have been
// restarted with another one, and would not say so. What is about a stored response is for
// its keeper alone.
func (x *exchange) others() *balancer.Model {
	if x.stored.id != nil {
		return x.keeper()
	}
	snap := x.s.opt.Fleet.Snapshot()
	m := snap.Model([]byte(x.want.model.Name))
	if m == nil {
		return nil
	}
	o := *m
	if o.Available = only(m.Available, x.untried); len(o.Available) > 0 {
		return &o
	}
	if !x.want.peek.HasModel {
		return nil
	}
	return x.s.lastResort(m, only(notDraining(m, snap), x.untried))
}

func notDraining(m *balancer.Model, snap *balancer.Snapshot) []*balancer.Replica {
	return only(m.Replicas, func(r *balancer.Replica) bool {
		s := snap.Replica(r.ID)
		return s != nil && !s.Draining
	})
}

// keeper is the model with the replica that keeps the response which the request is about,
// if that is out of service, draining or not: nobody else has it. It is nil if there is none
// or it is tried.
func (x *exchange) keeper() *balancer.Model {
	if x.stored.home == nil || !x.untried(x.stored.home) {
		return nil
	}
	return x.s.lastResort(x.want.model, []*balancer.Replica{x.stored.home})
}

// lastResort is the model with the likeliest of those that are out of service, nil if none
// is worth asking.
func (s *Server) lastResort(m *balancer.Model, out []*balancer.Replica) *balancer.Model {
	o := *m
	o.Strategy, o.Available = LastResort, s.opt.Health.LastResort(out)
	if len(o.Available) == 0 {
		return nil
	}
	return &o
}

// untried says that the request was not sent to the replica, under whatever address.
func (x *exchange) untried(r *balancer.Replica) bool {
	same := func(o *balancer.Replica) bool { return o.ID == r.ID }
	return !slices.ContainsFunc(x.tried, same) && (x.replica == nil || !same(x.replica))
}

func only(rs []*balancer.Replica, ok func(*balancer.Replica) bool) (those []*balancer.Replica) {
	for _, r := range rs {
		if ok(r) {
			those = append(those, r)
		}
	}
	return those
}
