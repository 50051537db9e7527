package sim

import (
	"bufio"
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"lbd/bench/sim/engine"
)

var errStopped = errors.New("replica stopped")

// run is one life of a replica, from Start to Stop or Kill. All state a
// restart loses is here.
type run struct {
	s          *Server
	cfg        Config
	eng        engine.Config // with every default filled in
	meters     *meters
	driver     *driver
	share      *share
	blockBytes int64        // KV bytes of one block
	sleep      atomic.Int32 // sleep level
	store      responseStore

	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup // accept loop, connections

	mu    sync.Mutex
	ln    net.Listener // nil while refusing
	port  *port        // bound, not listening: loading or refusing
	addr  string
	conns map[*conn]struct{}
	ended bool
	wake  chan struct{} // tells keeper that refusing changed
}

func newRun(s *Server, cfg Config) (*run, error) {
	r := &run{s: s, cfg: cfg, conns: make(map[*conn]struct{}), wake: make(chan struct{}, 1)}
	r.ctx, r.cancel = context.WithCancelCause(context.Background())
	eng, err := engine.New(cfg.Engine)
	if err != nil {
		return nil, err
	}
	r.eng = eng.Config()
	r.meters = newMeters(cfg, r.eng, func() bool {
		return s.faults.on(func(f *Faults) **Fault { return &f.StuckGauges })
	})
	r.driver = newDriver(cfg, eng, r.meters, s.faults)
	r.blockBytes = int64(eng.Preset().KVBytesPerToken) * int64(r.eng.BlockSize)
	return r, nil
}

// start takes the port over. With a load time it stays bound and refuses.
func (r *run) start(p *port) error {
	r.addr = p.addr.String()
	r.port = p
	if r.cfg.LoadTime == 0 {
		if err := r.open(); err != nil {
			return err
		}
	}
	r.share = r.cfg.Device.attach(r.cfg.WeightBytes, r.blockBytes)
	r.driver.device = r.share
	r.driver.start()
	r.wg.Add(1)
	go r.keep()
	return nil
}

// open turns the bound port into a listener and accepts from it.
func (r *run) open() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended || r.ln != nil {
		return nil
	}
	if r.port == nil {
		p, err := bindPort(r.addr)
		if err != nil {
			return err
		}
		r.port = p
	}
	ln, err := r.port.listen()
	r.port = nil
	if err != nil {
		return err
	}
	r.ln = ln
	r.wg.Add(1)
	go r.accept(ln)
	return nil
}

// shut stops listening but keeps the address bound, so connecting is refused.
func (r *run) shut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ln == nil || r.ended {
		return
	}
	r.ln.Close()
	r.ln = nil
	r.port, _ = bindPort(r.addr)
}

// keep opens and shuts the listener as load time and the refuse fault say.
func (r *run) keep() {
	defer r.wg.Done()
	ready := time.Now().Add(r.cfg.LoadTime)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-timer.C:
		case <-r.wake:
		}
		wait := time.Until(ready)
		refuse := r.s.faults.get().Refuse
		switch {
		case refuse != nil:
			r.shut()
			wait = 20 * time.Millisecond // its Seconds may end it
		case wait <= 0:
			if r.open() != nil { // address lost for a moment: try again
				wait = 20 * time.Millisecond
			} else {
				wait = time.Hour
			}
		}
		timer.Reset(wait)
	}
}

// applyFaults puts into effect what does not wait for a request.
func (r *run) applyFaults(f Faults) {
	if f.Refuse != nil {
		r.shut() // at once, the keeper only reopens
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
	if f.CloseIdleNow != nil {
		r.eachConn(func(c *conn) {
			if c.idle.Load() {
				c.nc.Close()
			}
		})
	}
}

func (r *run) eachConn(fn func(*conn)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		fn(c)
	}
}

// acceptRetry is asyncio's ACCEPT_RETRY_DELAY (asyncio/constants.py), on whose event
// loop uvicorn accepts: a server that lacks descriptors goes on when it has some.
const acceptRetry = time.Second

func (r *run) accept(ln net.Listener) {
	defer r.wg.Done()
	for {
		nc, err := ln.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // no descriptor is free, or the client has left already
			select {
			case <-r.ctx.Done():
			case <-time.After(acceptRetry):
			}
			continue
		}
		r.s.ledger.accepted.Add(1)
		c := &conn{run: r, nc: nc, br: bufio.NewReaderSize(nc, 8<<10)}
		if !r.adopt(c) {
			nc.Close()
			return
		}
	}
}

func (r *run) adopt(c *conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return false
	}
	r.conns[c] = struct{}{}
	r.wg.Add(1)
	go func() {
		defer r.wg.Done()
		c.serve()
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.conns, c)
	}()
	return true
}

// end stops this life; abrupt resets connections instead of closing them.
func (r *run) end(abrupt bool) {
	r.mu.Lock()
	r.ended = true
	if r.ln != nil {
		r.ln.Close()
	}
	if r.port != nil {
		r.port.release()
	}
	r.mu.Unlock()
	if abrupt {
		r.eachConn((*conn).abandon)
	}
	r.cancel(errStopped) // before any connection closes: no client left
	r.eachConn(func(c *conn) { c.nc.Close() })
	r.driver.join()
	r.wg.Wait()
	r.share.detach()
}
