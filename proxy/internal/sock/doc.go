// Package sock holds the TCP connections of the data plane: those of clients,
// accepted by [Listen], and those to replicas, made by [Dial].
//
// It adds three things to net.TCPConn. Reads and writes are non-blocking raw
// system calls inside the runtime's poller callbacks, which keeps the goroutine's
// processor where a blocking call would hand it over (measured: 17 to 20 % of
// the CPU per relayed event). A [Watch] hears at once when a peer leaves, also
// while nobody reads. And a write that makes no progress for too long fails,
// without a deadline to re-arm per write.
//
// Invariant: a file descriptor is only used inside a poller callback, so that it
// cannot have been closed and given to another connection meanwhile.
//
//	ln, err := sock.Listen("127.0.0.1:8080", watch, 5*time.Minute)
//	c, err := ln.Accept()            // *sock.Conn
//	if !c.(*sock.Conn).Bind(up) { }  // when the client leaves, up is closed
package sock
