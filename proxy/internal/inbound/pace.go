package inbound

import (
	"errors"
	"os"
	"time"
)

// A request that has not come in one piece must keep a pace, or a client could hold a
// connection, a goroutine and buffers for the whole of Limits.Read with a few bytes
// (Slowloris). The head has SlowTime; of the body SlowRate times SlowTime must come in
// every SlowTime.
const (
	// SlowTime is nginx's client_header_timeout and client_body_timeout.
	SlowTime = time.Minute
	// SlowRate is Apache's MinRate for bodies (mod_reqtimeout), in bytes per second.
	SlowRate = 500
)

// pace is how a request comes, from when it is known not to have come in one piece.
// Clocks are read and deadlines set once for a head, a body and each SlowTime.
type pace struct {
	limited bool      // a read deadline is set
	inBody  bool      // and it is that of the body
	until   time.Time // when all of the request must have come
	came    int       // bytes of the body since the deadline was set
}

// slowTime is SlowTime, or less where the whole request has less.
func (l *Limits) slowTime() time.Duration {
	if l.slow > 0 {
		return min(l.slow, l.Read)
	}
	return min(SlowTime, l.Read)
}

// slowBytes are what must come of a body in slowTime.
func (l *Limits) slowBytes() int { return int(l.slowTime() * SlowRate / time.Second) }

// limit sets the deadline of a head, or of the body behind it.
func (c *Conn) limit(lim *Limits, inBody bool) {
	p := &c.pace
	if lim.Read <= 0 || p.limited && p.inBody == inBody {
		return
	}
	now := time.Now()
	if !p.limited {
		p.until = now.Add(lim.Read)
	}
	p.limited, p.inBody = true, inBody
	c.limitFrom(now, lim)
}

func (c *Conn) limitFrom(now time.Time, lim *Limits) {
	t := now.Add(lim.slowTime())
	if t.After(c.pace.until) {
		t = c.pace.until
	}
	c.pace.came = 0
	c.SetReadDeadline(t) // fails on a closed connection only, as the next read will
}

// readHead reads more of a head.
func (c *Conn) readHead(p []byte, lim *Limits) (int, error) {
	c.limit(lim, false)
	return c.Read(p)
}

// readBody reads more of a body.
func (c *Conn) readBody(p []byte, lim *Limits) (int, error) {
	c.limit(lim, true)
	for {
		n, err := c.Read(p)
		c.pace.came += n
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || !c.keepsPace(lim) {
			return n, err
		}
	}
}

// keepsPace says, when the deadline of a body has passed, that it may go on.
func (c *Conn) keepsPace(lim *Limits) bool {
	now := time.Now()
	if !c.pace.inBody || c.pace.came < lim.slowBytes() || !now.Before(c.pace.until) {
		return false
	}
	c.limitFrom(now, lim)
	return true
}

// unlimited takes the deadline off when a request has been read, or has not.
func (c *Conn) unlimited(err error) error {
	p := c.pace
	if p.limited {
		c.pace = pace{}
		c.SetReadDeadline(time.Time{}) // fails on a closed connection only, as the next read will
	}
	switch {
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case p.limited && time.Now().Before(p.until):
		return ErrSlow
	}
	return ErrTimeout
}
