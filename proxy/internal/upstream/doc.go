// Package upstream keeps the connections to the replicas.
//
// Each replica has a [Pool]: idle connections are reused last in, first out, and
// given up before the replica would close them (uvicorn does so after 5 s without
// saying it). A connection the replica has closed, or on which it has sent
// something unasked, is not handed out.
//
// Invariant: a connection is in the pool or in use, never both; one that was
// aborted, or whose last response was not read to its exact end, never comes
// back.
//
//	c := pool.Reuse(now, client.Loop())       // nil = nothing is idle
//	c, err := pool.Dial(ctx, client.Loop())   // until the client leaves
//	err = c.Send(head)                        // one write
//	pool.Put(c, now)                          // after a complete response
package upstream
