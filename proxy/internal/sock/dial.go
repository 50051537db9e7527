package sock

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"time"
)

// Dial connects to a replica within timeout, unless ctx ends before. Writes fail when it
// takes nothing for stall (0 = never).
func Dial(ctx context.Context, addr string, timeout, stall time.Duration, w *Watch) (*Conn, error) {
	if to, err := netip.ParseAddrPort(addr); err == nil && watchHears && w != nil && to.Addr().Zone() == "" {
		return dialAddr(ctx, to, timeout, stall, w)
	}
	d := net.Dialer{Timeout: timeout}
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c, err := newConn(nc.(*net.TCPConn), w, stall)
	if err != nil {
		nc.Close()
		return nil, err
	}
	return c, nil
}

// interruptible does what fails soon after a call of interrupt, which it gets from another
// goroutine if ctx ends.
func interruptible(ctx context.Context, interrupt func(), do func() error) error {
	if ctx.Done() == nil {
		return do()
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		interrupt()
	})
	err := do()
	if stop() {
		return err
	}
	<-interrupted
	if err = ctx.Err(); errors.Is(err, context.DeadlineExceeded) {
		err = os.ErrDeadlineExceeded // as net tells it
	}
	return err
}
