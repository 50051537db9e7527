// Package admission holds requests back in front of a saturated model. vLLM never
// says no: what it cannot run waits in its own queue, first come, first served,
// without a bound. As long as that queue is short at one replica at least, this
// package does nothing. When it is long at every replica of the model, requests
// wait here instead, where they can be served fairly, by priority and in time, and
// be refused while refusing still helps.
//
// A request that waits is bound softly: it is placed when a replica has room, on
// the replica the strategy prefers if that is the one, and on any other before it
// would stand idle.
//
// Invariants: whoever is let in holds a reservation, made under the queue's lock,
// so that one place is given once. While somebody waits nobody of the model passes
// by. A request leaves the queue exactly once: placed, refused, or because its
// client has left. The way of a request that need not wait takes no lock and
// allocates nothing.
//
// The order is start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996) between
// clients, by tokens: prompt tokens and twice the output tokens, estimated at
// first and corrected by what the replica reports, as in VTC (2401.00588).
// Priority classes are strict: the lower one waits while anybody of the higher one
// does.
//
//	a := admission.New(admission.DefaultConfig(), fleet.Snapshot)
//	defer a.Close()
//	if !a.Pass(model) {
//		res, ticket, err := a.Enter(model, request, admission.Ask{Client: "alice", Prompt: 812})
//		// err is a *Refusal, ErrLeft, ErrGone or nil; then res is a place
//	}
//	// after every first byte and every end: a.Freed(replica)
package admission
