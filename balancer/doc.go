// Package balancer holds the words every placement decision is made of: a
// [Replica] and its live [Load], the [Request] to place, the immutable
// [Snapshot] of the fleet, the [Picker] seam that strategies fill, and the
// [Reservation] that keeps own load exact.
//
// A strategy that weighs requests reserves their [Work] as well: it implements
// [Placer] and hears, as a [Tracker], of first token, further tokens, usage and
// end from the Reservation.
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
//	res.FirstByte()                                 // the response began
//	res.FirstToken(now)                             // the first event with content
//	res.Tokens(n, now)                              // n further ones, read at once
//	res.Usage(balancer.Usage{Prompt: 812, Completion: 96, Cached: 640})
//	res.End(balancer.Finished, now)
package balancer
