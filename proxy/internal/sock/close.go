package sock

import "time"

// LingerOnClose makes Close send what is written and read off what the peer
// still sends, for a while, so that an answer given before the whole request was
// read is not lost in a reset. Who takes nothing of it is not read off either.
func (c *Conn) LingerOnClose() { c.linger.Store(true) }

// lingerTime and lingerBytes bound how long a refused request is read off; 2 s
// covers a round trip, the bytes cover a body of the default size limit. The time
// is a variable for the tests.
var lingerTime = 2 * time.Second

const lingerBytes = 128 << 20

// Close closes the connection once; later calls return nil.
func (c *Conn) Close() error {
	if !c.closeOnce() {
		return nil
	}
	if c.linger.Load() && !c.hard.Load() && !c.stuck.Load() && c.CloseWrite() == nil {
		c.readOff()
	}
	return c.abort()
}

func (c *Conn) closeOnce() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := !c.closed
	c.closed = true
	return first
}

func (c *Conn) readOff() {
	c.SetReadDeadline(time.Now().Add(lingerTime))
	b := GetBuf()
	defer PutBuf(b)
	for left := lingerBytes; left > 0; {
		n, err := c.readPlain(b.B[:])
		if err != nil {
			return
		}
		left -= n
	}
}

// abort closes at once, also while Close reads off.
func (c *Conn) abort() error {
	c.closeOnce()
	if c.watch != nil {
		c.watch.remove(c)
	}
	return c.TCPConn.Close()
}
