// Package sock holds the TCP connections of the data plane: those of clients,
// accepted by [Listen], and those to replicas, made by [Dial].
//
// It adds five things to net.TCPConn. Reads and writes are non-blocking raw system
// calls, which keep the goroutine's processor where a blocking call would hand it
// over (measured: 17 to 20 % of the CPU per relayed event). A [Watch] hears at once
// when a peer leaves, also while nobody reads. A write that makes no progress for too
// long fails, without a deadline to re-arm per write. And on Linux the watch's loops
// carry live streams: while a goroutine waits in [Conn.Pump], a loop reads what comes
// and writes it to the client, without waking the goroutine for each event. And a
// connection may rest ([Conn.Rest]) without any goroutine: in a [Turn] a loop reads
// what came to all its connections, hands it on and writes the answers.
//
// Invariant: a file descriptor is only used while it is counted as in use, so that
// it cannot have been closed and given to another connection meanwhile. A loop never
// waits for one connection: what would have to, it leaves to the goroutine whose
// connection it is.
//
//	ln, err := sock.Listen("127.0.0.1:8080", watch, 5*time.Minute)
//	c, err := ln.Accept()            // *sock.Conn
//	c.(*sock.Conn).WhenGone(cancel)  // when the client leaves, Dial(ctx, ...) ends
//	if !c.(*sock.Conn).Bind(up) { }  // when the client leaves, up is closed
package sock
