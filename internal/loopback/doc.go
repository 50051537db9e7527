// Package loopback is where the tests listen: at addresses of this machine where nobody
// else does. Tests of several packages run at the same time, and those that watch a
// server go on asking for a while at a port of 127.0.0.1 that was theirs, where another
// test listens by then.
//
// Invariant: only tests import it.
//
//	ln := loopback.Listen(t)
//	err := server.Start(loopback.Address())
package loopback
