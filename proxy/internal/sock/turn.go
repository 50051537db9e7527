package sock

// Reader is for whom a loop reads while no goroutine waits. A connection has one owner
// at any time: who rests it (Conn.Rest, Turn.Await) gives it away until one of these
// methods is called.
type Reader interface {
	// Claim says that what has come is wanted, before it is read. After false the
	// connection belongs to nobody, and neither of the others is called.
	Claim() bool
	// Took brings what one read brought, in a buffer that is the reader's from now on.
	// n is 0 with an error, io.EOF for an end, which the next Read or ReadBuf returns
	// again; and without one when nothing was there after all. A loop calls it, so it
	// must not wait.
	Took(t *Turn, b *Buf, n int, err error)
	// Ended says that nobody waits any more: the peer has left, with or without last
	// bytes, a deadline has passed or the connection was closed. Reading tells which.
	// Anybody may call it, without Claim, so it must not wait.
	Ended()
}

// Sender hears how much of what it gave to Turn.Send or Turn.Ask was written without
// waiting: not all of it, with no error, if there was no room. A loop calls it, so it
// must not wait.
type Sender interface {
	Sent(t *Turn, n int, err error)
}

// taken is what one read brought.
type taken struct {
	r   Reader
	b   *Buf
	n   int
	err error
}

// pumping is what one read brought for a pump.
type pumping struct {
	c       *Conn
	b       *Buf
	drained bool
}

// part is a part of what a pump's client is to get.
type part struct {
	c *Conn
	p []byte
}

// sending is what is to be written.
type sending struct {
	c   *Conn
	p   []byte
	s   Sender
	ask bool // nothing may have come before it, and an answer will
	n   int
	err error
}
