//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// quarters of a run. Each ends with a rest.
const quarters = 4

// rest is lbd with nothing to do: the clients have gone, the fleet is well again, the
// configuration is the first one, and the garbage is collected. What it holds then it
// holds for good, so that two rests can be compared to some ten KiB, where under load
// the requests that happen to be there make megabytes of difference.
type rest struct {
	sample
	After string   `json:"after"`
	Heap  heap     `json:"heap"`
	Left  []string `json:"left,omitempty"` // what is not as before the clients came
}

// crowd is the clients, who outlive the rests with all they have drawn.
type crowd struct {
	rig     *rig
	o       options
	tally   *tally
	out     io.Writer
	began   time.Time
	clients []*client
	samples []sample
	rests   []rest
}

// churn runs clients and disturbances for the duration, in quarters, and samples
// meanwhile.
func (r *rig) churn(ctx context.Context, o options, t *tally, base sample, out io.Writer) *crowd {
	c := &crowd{rig: r, o: o, tally: t, out: out, began: time.Now()}
	for i := range o.clients {
		c.clients = append(c.clients, &client{addr: r.addr, tally: t, pause: o.pause, rng: rand.New(rand.NewPCG(o.seed, uint64(i)))})
	}
	for q := range quarters {
		c.quarter(ctx, q)
		if ctx.Err() != nil {
			return c
		}
		c.rest(ctx, fmt.Sprintf("quarter %d", q+1), base)
	}
	c.lull(ctx, base)
	return c
}

// quarter lets everybody loose for a quarter of the time.
func (c *crowd) quarter(ctx context.Context, q int) {
	from := time.Now()
	ctx, cancel := context.WithDeadline(ctx, from.Add(c.o.duration/quarters))
	defer cancel()
	var clients, others sync.WaitGroup
	for _, k := range c.clients {
		clients.Go(func() { k.run(ctx) })
	}
	if c.o.faults {
		others.Go(func() { c.rig.disturb(ctx, rand.New(rand.NewPCG(c.o.seed, 1<<32+uint64(q))), c.tally.fail) })
	}
	for n := 1; sleep(ctx, time.Until(from.Add(time.Duration(n)*time.Second))); n++ {
		s, err := c.rig.look()
		if err != nil {
			c.tally.fail("sample: " + err.Error())
			continue
		}
		s = c.stamp(s)
		c.samples = append(c.samples, s)
		if n%30 == 0 {
			_, _ = fmt.Fprintf(c.out, "%5.0f s  %d requests, %d errors, RSS %.1f MiB, %d goroutines, %d descriptors\n",
				s.At, s.Requests, s.Errors, mib(s.RSS), s.Goroutines, s.Descriptors)
		}
	}
	clients.Wait()
	others.Wait()
}

// stamp notes when a sample was taken and what had been done by then.
func (c *crowd) stamp(s sample) sample {
	s.At = math.Round(time.Since(c.began).Seconds()*10) / 10
	s.Requests, s.Errors = c.tally.counts()
	return s
}

// rest waits until lbd has nothing to do and looks at what it holds.
func (c *crowd) rest(ctx context.Context, after string, base sample) {
	s := rest{After: after}
	s.sample, s.Left = c.rig.settle(ctx, c.o.settle, base)
	s.sample = c.stamp(s.sample)
	h, err := c.rig.heap(ctx)
	if err != nil {
		s.Left = append(s.Left, err.Error())
	}
	s.Heap = h
	c.rests = append(c.rests, s)
	_, _ = fmt.Fprintf(c.out, "%5.0f s  at rest after %s: %.3f MiB live, RSS %.1f MiB, %d goroutines, %d descriptors\n",
		s.At, after, mib(h.Live), mib(s.RSS), s.Goroutines, s.Descriptors)
}

// often is how often replicas are polled and probed in the lull: the least that lbd
// takes.
const often = 50 * time.Millisecond

// lull is a while without requests. What lbd keeps of each poll until the next request
// lets go of it is nothing under load, and a leak at night.
func (c *crowd) lull(ctx context.Context, base sample) {
	c.rig.every = often
	err := c.rig.save()
	if err == nil {
		err = c.rig.reload(ctx, "the lull", c.rig.hurried)
	}
	if err != nil {
		c.tally.fail("lull: " + err.Error())
	}
	sleep(ctx, c.o.lull)
	c.rig.every = usually
	if err := c.rig.save(); err != nil {
		c.tally.fail("lull: " + err.Error())
	}
	c.rest(ctx, "the lull", base)
}

// hurried tells whether lbd polls as often as in the lull.
func (r *rig) hurried() bool {
	_, page, err := r.get("http://" + r.admin + "/config")
	return err == nil && strings.Contains(page, fmt.Sprintf(`"metrics_poll_interval": "%v"`, often))
}

// indexPages are the pages of the index of prompt prefixes (balancer/prefix,
// DefaultBytes). It is one allocation from its first entry on, and its pages become
// resident one by one as prompts differ, over days under little load: growth that has
// an end, and is best over before anything is measured.
const indexPages = 64 << 20 / 4096

// filling is how often each page of the index is written to, on average, by as many
// prompts of one block each at random places: all but exp(-3), a twentieth, once or
// more.
const filling = 3

// fill has the index reach its size.
func (r *rig) fill(ctx context.Context, o options, t *tally) {
	var all sync.WaitGroup
	const at = 16 // clients at a time
	for i := range at {
		c := &client{addr: r.addr, tally: t, rng: rand.New(rand.NewPCG(o.seed, 1<<33+uint64(i)))}
		all.Go(func() {
			defer c.hangUp()
			for n := i; n < o.fill && ctx.Err() == nil; n += at {
				// 300 bytes hold one block (shortBlock in balancer/prefix/hash.go).
				c.exchange("to fill the index", request{model: pinned, tokens: 1, prompt: 300, own: fmt.Sprintf("%016x", c.rng.Uint64())}, atOnce)
			}
		})
	}
	all.Wait()
}
