// Package handover brings listening sockets into an lbd from outside, from systemd or
// from the lbd that ran before it, and passes them on to the next one.
//
// Invariant: a listening socket is open in one process or the other at every moment,
// so that no client is ever refused; and an lbd that hands over goes on as if nothing
// had happened unless the next one has said that it serves.
//
//	in, err := handover.Inherit()                      // of systemd or another lbd
//	ln := in.Take(handover.Main, cfg.Listen)           // nil: open one
//	in.Ready()                                         // the other lbd may leave
//	pid, err := handover.Start(ctx, sockets, drained)  // and later the next one
package handover
