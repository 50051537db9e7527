package admission

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lbd/balancer"
)

// The way of a request that need not wait costs nothing but loads: the pick that
// follows writes own load.
func TestAllocPass(t *testing.T) {
	r := newRig(t, DefaultConfig(), 8)
	r.poll(100, 0)
	if n := testing.AllocsPerRun(100, func() {
		if !r.Pass(r.model) {
			t.Fatal("does not pass")
		}
		r.Freed(r.model.Replicas[0])
	}); n != 0 {
		t.Errorf("%v allocations; want 0", n)
	}
}

func BenchmarkPass(b *testing.B) {
	for _, c := range []struct {
		name     string
		waiting  float64
		inFlight int
		replicas int
	}{{"free", 0, 0, 8}, {"gauges_above_zero", 3, 0, 8}, {"in_flight", 0, 64, 8}, {"last_of_64_free", -1, 0, 64}} {
		b.Run(c.name, func(b *testing.B) {
			cfg := DefaultConfig()
			cfg.MaxInFlight = c.inFlight
			r := newRig(b, cfg, c.replicas)
			r.poll(100, max(c.waiting, 0))
			if c.waiting < 0 {
				r.poll(100, 100)
				var held []balancer.Reservation
				for _, rep := range r.model.Replicas {
					held = append(held, rep.Reserve())
				}
				last := r.model.Replicas[c.replicas-1]
				last.EndPoll(last.BeginPoll(), balancer.Sample{Waiting: balancer.Known(0)}, time.Now())
				b.Cleanup(func() {
					for i := range held {
						held[i].Done()
					}
				})
			}
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if !r.Pass(r.model) {
						b.Fatal("does not pass")
					}
					r.Freed(r.model.Replicas[0])
				}
			})
		})
	}
}

// BenchmarkWait is the whole way of a request that waits behind a thousand others,
// of the hundred that end and make room for it.
func BenchmarkWait(b *testing.B) {
	cfg := DefaultConfig()
	cfg.MaxInFlight = 100
	r := newRig(b, cfg, 1)
	rep := r.model.Replicas[0]
	var wg sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ReportAllocs()
	b.ResetTimer()
	for i := range 1100 {
		wg.Go(func() {
			a, what := &ask{r: r}, Ask{Client: string(rune('a' + i%20)), Prompt: 500, MaxTokens: 100}
			for left.Add(-1) >= 0 {
				res, ticket, err := r.Enter(r.model, a, what)
				if err != nil {
					b.Error(err)
					return
				}
				res.Done()
				ticket.Settle(500, 90)
				r.Freed(rep)
			}
		})
	}
	wg.Wait()
}

// Everything at once: nothing is lost, nothing is given twice, nobody stays.
func TestAtOnce(t *testing.T) {
	cfg := inFlight(3)
	cfg.MaxLength = 40
	r := newRig(t, cfg, 4)
	var most, served, refused, left atomic.Int64
	stop := make(chan struct{})
	var others sync.WaitGroup
	others.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			next := *r.model
			next.Available = r.model.Replicas[i%2:]
			r.serve(&next)
			c := cfg
			c.MaxInFlight = 3 - i%2
			r.SetConfig(c)
			r.poll(3, float64(i%3))
			r.Stats("m")
			r.Retain()
			time.Sleep(time.Millisecond)
		}
	})
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for n := range 60 {
				a := &ask{r: r}
				if (i+n)%7 == 0 {
					go a.leave(true)
				}
				m := r.holder.Load().Model([]byte("m"))
				if r.Pass(m) {
					res, err := a.Place(m, nil)
					if err != nil {
						t.Error(err)
						return
					}
					r.work(&res, &most)
					served.Add(1)
					continue
				}
				res, ticket, err := r.Enter(m, a, Ask{Client: string(rune('a' + i%5)), Class: Class(i%3 - 1), Prompt: int64(n), Timeout: time.Second})
				switch err.(type) {
				case nil:
					r.work(&res, &most)
					ticket.Settle(n, 10)
					served.Add(1)
				case *Refusal:
					refused.Add(1)
				default:
					if err != ErrLeft {
						t.Error(err)
					}
					left.Add(1)
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	others.Wait()
	if sum := served.Load() + refused.Load() + left.Load(); sum != 64*60 || served.Load() == 0 {
		t.Errorf("%d served, %d refused, %d left; want %d in all", served.Load(), refused.Load(), left.Load(), 64*60)
	}
	t.Logf("%d served, %d refused, %d left, at most %d at a replica", served.Load(), refused.Load(), left.Load(), most.Load())
}

// work is a request at its replica.
func (r *rig) work(res *balancer.Reservation, most *atomic.Int64) {
	rep := res.Replica()
	for n := rep.InFlight(); ; {
		old := most.Load()
		if n <= old || most.CompareAndSwap(old, n) {
			break
		}
	}
	time.Sleep(50 * time.Microsecond)
	res.FirstByte()
	r.Freed(rep)
	res.Done()
	r.Freed(rep)
}
