// Package balancer holds the words every placement decision is made of: a
// [Replica] and its live [Load], the [Request] to place, the immutable
// [Snapshot] of the fleet, the [Picker] seam that strategies fill, and the
// [Reservation] that keeps own load exact.
//
// Invariant: own load is the number of reservations that are not done. It is
// changed only by [Replica.Reserve] and [Reservation.Done], never by health
// checks, polls, ejections or reloads, so nothing but the end of a request can
// lower it.
//
// The package imports the standard library only and does no I/O: strategies run
// unchanged in a simulation without a network.
//
//	m := fleet.Snapshot().Model([]byte("meta-llama/Llama-3.1-8B-Instruct"))
//	res, err := m.Pick(&req, nil) // one atomic load, no lock, no allocation
//	defer res.Done()
package balancer
