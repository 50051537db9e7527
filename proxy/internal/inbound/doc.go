// Package inbound is the clients' side of the proxy: it accepts connections,
// reads requests as strictly as RFC 9112 lets a server be, and owns the
// connections until they end.
//
//	s := inbound.NewServer(handler, limits)
//	go s.Serve(listener)
//	s.Shutdown(ctx)
//
// Invariants: a connection belongs to one goroutine, or to one turn of a loop, at a
// time; bytes whose end is not certain are never taken for a request, and nothing
// behind them is; a connection that waits for a request holds no buffer and, where a
// loop can read for it, no goroutine. In TLS it has one for a second.
//
// The parser is this package's own although there are good ones: it works in the
// buffer the bytes were read into, names and values stay as they were sent, and
// what proxies and replicas are known to read differently is refused.
package inbound
