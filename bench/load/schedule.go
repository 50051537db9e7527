package load

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// openLoop starts each request at its time. The body is made before the wait, so
// that making it does not delay the request.
func (r *Runner) openLoop(ctx context.Context) error {
	var index int
	var last time.Duration
	timer := time.NewTimer(0)
	defer timer.Stop()
	for req := range r.o.Requests {
		if req.At < last {
			return fmt.Errorf("load: request %d at %v comes after one at %v; want time order", index, req.At, last)
		}
		if r.o.Duration > 0 && req.At >= r.o.Duration {
			return nil
		}
		if err := req.validate(); err != nil {
			return fmt.Errorf("load: request %d: %w", index, err)
		}
		last = req.At
		x := r.prepare(index, req)
		if !r.wait(ctx, timer, req.At) {
			return nil
		}
		x.rec.Scheduled = req.At
		r.requests.Go(func() { r.carry(ctx, x) })
		index++
	}
	return nil
}

// wait sleeps until the given time of the run; false means ctx has ended.
func (r *Runner) wait(ctx context.Context, timer *time.Timer, at time.Duration) bool {
	ahead := at - r.since()
	if ahead <= 0 {
		return ctx.Err() == nil
	}
	timer.Reset(ahead)
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// closedLoop keeps Concurrency requests in flight. A request is scheduled when a
// place for it is free, so its two latency clocks start together.
func (r *Runner) closedLoop(ctx context.Context) error {
	queue := make(chan *exchange)
	ramp, full := context.WithCancel(ctx)
	defer full()
	var workers sync.WaitGroup
	for i := range r.o.Concurrency {
		workers.Go(func() {
			if r.o.Ramp > 0 && !r.sleep(ramp, r.o.Ramp*time.Duration(i)/time.Duration(r.o.Concurrency)) {
				return
			}
			for x := range queue {
				x.rec.Scheduled = r.since()
				r.carry(ctx, x)
			}
		})
	}
	err := r.feed(ctx, queue)
	close(queue)
	full()
	workers.Wait()
	return err
}

func (r *Runner) feed(ctx context.Context, queue chan<- *exchange) error {
	var stop <-chan time.Time
	if r.o.Duration > 0 {
		timer := time.NewTimer(r.o.Duration)
		defer timer.Stop()
		stop = timer.C
	}
	index := 0
	for req := range r.o.Requests {
		if err := req.validate(); err != nil {
			return fmt.Errorf("load: request %d: %w", index, err)
		}
		x := r.prepare(index, req)
		select {
		case <-stop:
			return nil
		case <-ctx.Done():
			return nil
		case queue <- x:
			index++
		}
	}
	return nil
}
