package admission

import (
	"errors"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lbd/balancer"
)

// Below saturation nobody waits; at it the next one does, and gets the place of the
// one that ends.
func TestWaitsForAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, inFlight(1), 2)
		a, b := r.sent(Ask{}), r.sent(Ask{})
		synctest.Wait()
		c := r.begin(Ask{})
		synctest.Wait()
		if !a.runs() || !b.runs() || c.over() {
			t.Fatalf("run: %t %t %t; want the first two", a.runs(), b.runs(), c.over())
		}
		if n := r.Stats("m").Waiting; n != 1 {
			t.Errorf("%d wait; want 1", n)
		}
		time.Sleep(3 * time.Second)
		at := a.res.Replica()
		a.finish()
		synctest.Wait()
		if !c.runs() || c.res.Replica() != at {
			t.Fatalf("c runs: %t, at %v; want at %s", c.runs(), c.res.Replica(), at.ID)
		}
		if c.ticket.Waited != 3*time.Second {
			t.Errorf("waited %s; want 3s", c.ticket.Waited)
		}
		b.finish()
		c.finish()
	})
}

// One place wakes one request, whoever and however many tell of it.
func TestNoHerd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, inFlight(2), 1)
		run := []*held{r.sent(Ask{}), r.sent(Ask{})}
		synctest.Wait()
		var wait []*held
		for range 50 {
			wait = append(wait, r.begin(Ask{}))
			synctest.Wait()
		}
		for n := range wait {
			run[n].finish()
			rep := r.model.Replicas[0]
			for range 3 {
				go r.Freed(rep)
			}
			time.Sleep(sweepEvery)
			synctest.Wait()
			if got := rep.InFlight(); got != 2 {
				t.Fatalf("%d run after %d ends; want 2", got, n+1)
			}
			if !wait[n].runs() {
				t.Fatalf("the one that came as number %d was passed over", n)
			}
			run = append(run, wait[n])
		}
		for _, h := range run[50:] {
			h.finish()
		}
	})
}

// A request that comes while others wait waits behind them, even if there is room.
func TestNobodyBarges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, inFlight(1), 1)
		a := r.begin(Ask{})
		synctest.Wait()
		b := r.begin(Ask{Client: "b"})
		synctest.Wait()
		a.res.Done() // and nobody is told yet
		if r.Pass(r.model) {
			t.Error("one passes by who waits")
		}
		time.Sleep(sweepEvery) // the sweep looks anyway
		synctest.Wait()
		if !b.runs() {
			t.Fatal("b is not placed")
		}
		b.finish()
	})
}

// The gauge decides without a configured number, and first bytes are room.
func TestGaugeWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, DefaultConfig(), 1)
		if !r.Pass(r.model) {
			t.Fatal("a replica that was never polled is saturated; want unknown")
		}
		rep := r.model.Replicas[0]
		var own []balancer.Reservation
		for range 20 {
			own = append(own, rep.Reserve())
		}
		r.poll(10, 10)
		if !r.Pass(r.model) {
			t.Error("10 of 16 wait there, and nobody passes")
		}
		for range 6 {
			own = append(own, rep.Reserve())
		}
		if r.Pass(r.model) {
			t.Error("16 wait there, and one passes")
		}
		w := r.begin(Ask{})
		synctest.Wait()
		if w.over() {
			t.Fatal("does not wait")
		}
		own[0].FirstByte()
		r.Freed(rep)
		synctest.Wait()
		if !w.runs() {
			t.Error("a response has begun, and nobody is placed")
		}
		r.poll(100, 20)
		if !r.Pass(r.model) {
			t.Error("a quarter of those that run may wait; 20 of 25 do, and nobody passes")
		}
		r.poll(10, 20)
		rep.MarkStale()
		if !r.Pass(r.model) {
			t.Error("a stale gauge holds somebody back")
		}
		r.poll(10, 20)
		for i := range own {
			own[i].Done()
		}
		w.finish()
		r.poll(10, 200)
		if !r.Pass(r.model) {
			t.Error("a replica without own requests takes none: a gauge that is stuck would stop everything")
		}
	})
}

// A poll that shows an empty queue lets in what may wait there, not everybody.
func TestQuietPollIsNoFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := DefaultConfig()
		r := newRig(t, c, 1)
		rep := r.model.Replicas[0]
		first := rep.Reserve()
		r.poll(1, 50)
		var all []*held
		for range 100 {
			all = append(all, r.begin(Ask{}))
			synctest.Wait()
		}
		runs := func() (n int) {
			for _, h := range all {
				if h.runs() {
					n++
				}
			}
			return n
		}
		if n := runs(); n != 0 {
			t.Fatalf("%d run; want none", n)
		}
		r.poll(1, 0)
		time.Sleep(sweepEvery)
		synctest.Wait()
		if n := runs(); n != c.MaxWaiting {
			t.Errorf("%d run after a quiet poll; want %d", n, c.MaxWaiting)
		}
		c.On = false
		r.SetConfig(c)
		time.Sleep(sweepEvery)
		synctest.Wait()
		if n := runs(); n != 100 {
			t.Errorf("%d run with admission off; want all", n)
		}
		first.Done()
		for _, h := range all {
			h.finish()
		}
	})
}

// A client that leaves while it waits is out at once, or within a sweep where the
// watch does not hear it; the place goes to the next one.
func TestClientLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, inFlight(1), 1)
		a := r.begin(Ask{})
		synctest.Wait()
		b, c, d := r.sent(Ask{}), r.sent(Ask{}), r.sent(Ask{})
		synctest.Wait()
		b.leave(true)
		synctest.Wait()
		if !b.over() || !errors.Is(b.err, ErrLeft) {
			t.Fatalf("b: over %t, %v; want it out", b.over(), b.err)
		}
		b.left() // again: nothing happens
		c.left() // bytes came: it has not left
		synctest.Wait()
		if c.over() {
			t.Fatalf("c has not left: %v", c.err)
		}
		d.leave(false)
		time.Sleep(sweepEvery)
		synctest.Wait()
		if !errors.Is(d.err, ErrLeft) {
			t.Fatalf("d: %v; want it out after a sweep", d.err)
		}
		a.finish()
		synctest.Wait()
		c.left()
		c.leave(true) // too late: it has its place, and its request path hears of it
		c.finish()
	})
}

// Waiting has an end: the configured one, or the client's if that is earlier.
func TestTooOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := inFlight(1)
		c.MaxWait = 10 * time.Second
		r := newRig(t, c, 1)
		a := r.begin(Ask{})
		synctest.Wait()
		patient, hasty, long := r.begin(Ask{}), r.begin(Ask{Timeout: 2 * time.Second}), r.begin(Ask{Timeout: time.Hour})
		time.Sleep(2*time.Second + sweepEvery)
		synctest.Wait()
		if f := hasty.refused(); f.Reason != Deadline || f.Waited < 2*time.Second || f.Waited > 2*time.Second+sweepEvery {
			t.Errorf("%+v; want the client's deadline after 2s", f)
		}
		if patient.over() || long.over() {
			t.Fatal("the others do not wait")
		}
		time.Sleep(8 * time.Second)
		synctest.Wait()
		for _, h := range []*held{patient, long} {
			if f := h.refused(); f.Reason != TooOld || f.RetryAfter != f.Waited {
				t.Errorf("%+v; want too old, and as long again as nothing was placed", f)
			}
		}
		a.finish()
	})
}

// A limit that a reload sets holds for those that wait already, and so does none.
func TestMaxWaitAtReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := inFlight(1)
		c.MaxWait = 0
		r := newRig(t, c, 1)
		a := r.begin(Ask{})
		synctest.Wait()
		w := r.begin(Ask{})
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if w.over() {
			t.Fatal("ended without a limit")
		}
		c.MaxWait = time.Minute
		r.SetConfig(c)
		time.Sleep(2 * sweepEvery)
		synctest.Wait()
		if f := w.refused(); f.Reason != TooOld {
			t.Errorf("%+v; want too old", f)
		}
		w = r.begin(Ask{})
		time.Sleep(time.Minute / 2)
		c.MaxWait = 0
		r.SetConfig(c)
		time.Sleep(time.Minute)
		synctest.Wait()
		if w.over() {
			t.Errorf("ended by a limit that was taken back: %v", w.err)
		}
		a.finish()
		synctest.Wait()
		w.finish()
	})
}

// steady has one request end every so often, so that the pace is known: one slot,
// the queue never empty.
func (r *rig) steady(n int, every time.Duration) *held {
	r.t.Helper()
	run := r.begin(Ask{Client: "steady", Prompt: 600})
	synctest.Wait()
	for range n {
		next := r.begin(Ask{Client: "steady", Prompt: 600})
		time.Sleep(every)
		synctest.Wait()
		run.finish()
		synctest.Wait()
		run = next
	}
	return run
}

// Retry-After is the work before over the pace at which it is done.
func TestRetryAfterIsBacklogOverPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := inFlight(1)
		c.MaxLength = 10
		r := newRig(t, c, 1)
		run := r.steady(100, 500*time.Millisecond) // two requests a second
		var wait []*held
		for range 10 {
			wait = append(wait, r.begin(Ask{Client: "steady", Prompt: 600}))
			synctest.Wait()
		}
		s := r.Stats("m")
		if s.Waiting != 10 || s.Clients != 1 || s.Tokens != 10*1000 || s.PerSecond < 1900 || s.PerSecond > 2100 {
			t.Fatalf("stats %+v; want 10 of 1 client, 10000 tokens at 2000 a second", s)
		}
		f := r.begin(Ask{Client: "steady", Prompt: 600})
		synctest.Wait()
		if got := f.refused(); got.Reason != QueueFull || got.RetryAfter < 5*time.Second || got.RetryAfter > 6*time.Second {
			t.Errorf("%+v; want a full queue and the 5.5 s that 11 requests take", got)
		}
		hasty := r.begin(Ask{Client: "steady", Prompt: 600, Timeout: 3 * time.Second})
		synctest.Wait()
		if got := hasty.refused(); got.Reason != Deadline || got.Waited != 0 || got.RetryAfter < 2*time.Second || got.RetryAfter > 3*time.Second {
			t.Errorf("%+v; want a refusal at once, for a wait of 5.5 s and a patience of 3", got)
		}
		other := r.begin(Ask{Client: "other", Prompt: 600, Timeout: 3 * time.Second})
		synctest.Wait()
		if other.over() {
			t.Errorf("%v; want another client's request to wait: its turn comes sooner", other.err)
		}
		run.finish()
		for i := 0; i < len(wait); i++ {
			synctest.Wait()
			if other.runs() {
				other.finish()
				synctest.Wait()
				other = wait[0]
			}
			if wait[i].runs() {
				wait[i].finish()
			}
		}
	})
}

// A burst from one client: who is refused is not told to stay away for much longer
// than who is not refused waits, neither at once nor once some were placed. Clients are
// told whole seconds.
func TestRetryAfterOfABurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const each = 250 * time.Millisecond
		c := inFlight(8)
		c.MaxLength = 40
		r := newRig(t, c, 1)
		var wg sync.WaitGroup
		var longest time.Duration // of the answered
		var mu sync.Mutex
		send := func() *held {
			h := r.sent(Ask{Client: "one key", Prompt: 600})
			wg.Go(func() {
				<-h.done
				if h.err != nil {
					return
				}
				mu.Lock()
				longest = max(longest, h.ticket.Waited)
				mu.Unlock()
				time.Sleep(each)
				h.finish()
			})
			return h
		}
		var told []time.Duration
		refusedOf := func(n int) (refused int) {
			for range n {
				if h := send(); h.over() && h.err != nil {
					told = append(told, h.refused().RetryAfter)
					refused++
				}
			}
			return refused
		}
		if n := refusedOf(60); n != 60-8-40 {
			t.Fatalf("%d refused at once; want %d", n, 60-8-40)
		}
		time.Sleep(2*each + each/2) // two rounds of eight were placed
		if n := refusedOf(20); n != 20-16 {
			t.Fatalf("%d refused then; want %d", n, 20-16)
		}
		wg.Wait()
		for _, d := range told {
			if most := longest.Truncate(time.Second) + time.Second; d < time.Second || d > most {
				t.Errorf("told to come back in %v; want 1 s to %v, as the longest wait took %v", d, most, longest)
			}
		}
	})
}

// What the pace was before a pause it is behind it, also when somebody looks meanwhile.
func TestRetryAfterBehindAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := inFlight(1)
		c.MaxLength = 5
		r := newRig(t, c, 1)
		r.steady(100, 500*time.Millisecond).finish() // two requests a second
		for range 40 {
			time.Sleep(time.Second)
			if s := r.Stats("m"); s.PerSecond < 1900 || s.PerSecond > 2100 {
				t.Fatalf("stats %+v; want 2000 tokens a second", s)
			}
		}
		run := r.sent(Ask{Client: "steady", Prompt: 600})
		var wait []*held
		for range 5 {
			h := r.sent(Ask{Client: "steady", Prompt: 600, Timeout: 4 * time.Second})
			if h.over() {
				t.Fatalf("%v; want it to wait 2.5 s at most of its 4", h.err)
			}
			wait = append(wait, h)
		}
		if f := r.sent(Ask{Client: "steady", Prompt: 600}).refused(); f.RetryAfter < 2500*time.Millisecond || f.RetryAfter > 3500*time.Millisecond {
			t.Errorf("%+v; want the 3 s that 6 requests take", f)
		}
		for _, next := range append(wait, nil) {
			run.finish()
			synctest.Wait()
			run = next
		}
		time.Sleep(drainForget + time.Second)
		if s := r.Stats("m"); s.PerSecond != 0 {
			t.Errorf("stats %+v; want no pace any more", s)
		}
	})
}

// A request that does not fit even into an empty queue hears nothing of a past there
// is none of.
func TestRetryAfterWithoutAQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := inFlight(1)
		c.MaxBytes = 10
		r := newRig(t, c, 1)
		run := r.sent(Ask{})
		if f := r.sent(Ask{Bytes: 11}).refused(); f.Reason != QueueFull || f.RetryAfter != leastRetry {
			t.Errorf("%+v; want a full queue and %v", f, leastRetry)
		}
		run.finish()
	})
}

// A limit on the time to the first token counts the wait and the prediction.
func TestPredictedTTFT(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := inFlight(1)
		c.Limits.TTFT = 4 * time.Second
		r := newRig(t, c, 1)
		slow := r.begin(Ask{}, func(a *ask) { a.first = 5 * time.Second })
		synctest.Wait()
		if f := slow.refused(); f.Reason != PredictedTTFT || f.RetryAfter != time.Second {
			t.Errorf("%+v; want a refusal for 5 s, again after 1 s", f)
		}
		run := r.steady(40, time.Second)
		var wait []*held
		for range 2 {
			wait = append(wait, r.begin(Ask{Prompt: 600}, func(a *ask) { a.first = time.Second }))
			synctest.Wait()
		}
		late := r.begin(Ask{Prompt: 600}, func(a *ask) { a.first = 1500 * time.Millisecond })
		synctest.Wait()
		if f := late.refused(); f.Reason != PredictedTTFT {
			t.Errorf("%+v; want a refusal for 3 s of waiting and 1.5 s there", f)
		}
		run.finish()
		for _, h := range wait {
			synctest.Wait()
			h.finish()
		}
	})
}

// A limit that grows with the prompt refuses the short ones only: time that nobody could
// do with less of is allowed.
func TestPredictedTTFTPerToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := inFlight(8)
		c.Limits.TTFT, c.Limits.TTFTPerToken = 2*time.Second, 100*time.Microsecond
		r := newRig(t, c, 1)
		for _, h := range []struct {
			prompt int64
			first  time.Duration
			late   bool
		}{
			{1000, 2100 * time.Millisecond, false},
			{1000, 2101 * time.Millisecond, true},
			{50_000, 7 * time.Second, false},
			{math.MaxInt64, 5 * time.Minute, false}, // the product does not overflow
		} {
			got := r.begin(Ask{Prompt: h.prompt}, func(a *ask) { a.first = h.first })
			synctest.Wait()
			if !h.late {
				got.finish()
				continue
			}
			if f := got.refused(); f.Reason != PredictedTTFT || f.Predicted != h.first || f.Allowed != 2100*time.Millisecond {
				t.Errorf("%+v; want a refusal of %v where 2.1 s are allowed", f, h.first)
			}
		}
	})
}

// A limit on the time per output token refuses by the prediction alone, however long the wait.
func TestPredictedTPOT(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := inFlight(1)
		c.Limits.TPOT = 50 * time.Millisecond
		r := newRig(t, c, 1)
		each := func(d time.Duration) *held {
			h := r.begin(Ask{}, func(a *ask) { a.first, a.each = time.Hour, d })
			synctest.Wait()
			return h
		}
		slow := each(51 * time.Millisecond)
		if f := slow.refused(); f.Reason != PredictedTPOT || f.Predicted != 51*time.Millisecond || f.Allowed != c.Limits.TPOT || f.RetryAfter != leastRetry {
			t.Errorf("%+v; want a refusal of 51 ms where 50 are allowed, again after %v", f, leastRetry)
		}
		runs, waits := each(50*time.Millisecond), each(0)
		if !runs.runs() || waits.over() {
			t.Error("refused with 50 ms, or without a prediction")
		}
		late := each(time.Second)
		if f := late.refused(); f.Reason != PredictedTPOT {
			t.Errorf("%+v; want one that would wait refused as well", f)
		}
		runs.finish()
		synctest.Wait()
		waits.finish()
	})
}

// A full queue refuses the greediest of the lowest class, and that may be one who
// waits already.
func TestQueueFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := inFlight(1)
		c.MaxLength = 3
		r := newRig(t, c, 1)
		run := r.begin(Ask{})
		synctest.Wait()
		var greedy []*held
		for range 3 {
			greedy = append(greedy, r.begin(Ask{Client: "greedy", Prompt: 100}))
			synctest.Wait()
		}
		more := r.begin(Ask{Client: "greedy", Prompt: 100})
		synctest.Wait()
		if f := more.refused(); f.Reason != QueueFull {
			t.Errorf("%+v", f)
		}
		modest := r.begin(Ask{Client: "modest", Prompt: 100})
		synctest.Wait()
		if f := greedy[2].refused(); f.Reason != QueueFull || modest.over() {
			t.Errorf("%+v, modest over %t; want the newest of the greedy one gone", f, modest.over())
		}
		low := r.begin(Ask{Client: "third", Class: Low, Prompt: 1})
		synctest.Wait()
		low.refused()
		high := r.begin(Ask{Client: "greedy", Class: High, Prompt: 100})
		synctest.Wait()
		if greedy[1].refused(); high.over() {
			t.Error("one of the high class does not get in")
		}
		order := []*held{high, greedy[0], modest}
		for _, h := range order {
			run.finish()
			synctest.Wait()
			run = h
		}
		run.finish()
	})
}

func TestQueueBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := inFlight(1)
		c.MaxBytes = 1000
		r := newRig(t, c, 1)
		run := r.begin(Ask{})
		synctest.Wait()
		a, b := r.begin(Ask{Client: "a", Bytes: 600, Prompt: 600}), r.begin(Ask{Client: "b", Bytes: 500, Prompt: 100})
		synctest.Wait()
		if f := a.refused(); f.Reason != QueueFull || b.over() {
			t.Errorf("a: %+v, b over: %t; want the one with more work gone", f, b.over())
		}
		if huge := r.begin(Ask{Client: "c", Bytes: 1001}); true {
			synctest.Wait()
			huge.refused()
		}
		if s := r.Stats("m"); s.Bytes != 500 {
			t.Errorf("%d bytes wait; want 500", s.Bytes)
		}
		run.finish()
		synctest.Wait()
		b.finish()
	})
}

// A model that nobody serves for a while ends the waiting; one that comes back in
// time does not, and places with its new replicas and strategy.
func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, inFlight(1), 2)
		a, b := r.sent(Ask{}), r.sent(Ask{})
		synctest.Wait()
		w := r.begin(Ask{})
		synctest.Wait()
		r.serve()
		time.Sleep(goneFor / 2)
		synctest.Wait()
		if w.over() {
			t.Fatalf("ended within the grace: %v", w.err)
		}
		next := &balancer.Model{Name: "m", Picker: least{}, Replicas: r.model.Replicas[:1], Available: r.model.Replicas[:1]}
		r.serve(next)
		time.Sleep(2 * goneFor)
		synctest.Wait()
		if w.over() {
			t.Fatalf("ended though the model is back: %v", w.err)
		}
		none := &balancer.Model{Name: "m", Picker: least{}, Replicas: r.model.Replicas}
		r.serve(none)
		if !r.Pass(none) {
			t.Error("a request for a model without a replica is held back; want it to be told")
		}
		time.Sleep(goneFor + 3*sweepEvery)
		synctest.Wait()
		if !errors.Is(w.err, ErrGone) {
			t.Fatalf("over %t, %v; want gone", w.over(), w.err)
		}
		r.Retain()
		if len(*r.queues.Load()) != 1 {
			t.Error("the queue of a model that is known was dropped")
		}
		r.serve()
		r.Retain()
		if len(*r.queues.Load()) != 0 {
			t.Error("the queue of a model that is gone stays")
		}
		r.serve(r.model)
		again := r.begin(Ask{})
		synctest.Wait()
		a.finish()
		synctest.Wait()
		again.finish()
		b.finish()
	})
}

// What Place says of a request is its answer.
func TestPlaceFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, inFlight(1), 1)
		a := r.begin(Ask{})
		synctest.Wait()
		bad, good := r.begin(Ask{}, func(a *ask) { a.err = balancer.ErrNoReplica }), r.begin(Ask{Class: Low})
		synctest.Wait()
		a.finish()
		synctest.Wait()
		if !errors.Is(bad.err, balancer.ErrNoReplica) {
			t.Errorf("%v; want what Place said", bad.err)
		}
		good.finish()
	})
}

// A panic of Place is the request's own: who freed the place goes on, and so does the
// queue.
func TestPlacePanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, inFlight(1), 1)
		a := r.begin(Ask{})
		synctest.Wait()
		bad := make(chan any, 1)
		go func() {
			defer func() { bad <- recover() }()
			r.Enter(r.model, &ask{r: r, ill: true}, Ask{})
		}()
		synctest.Wait()
		good := r.begin(Ask{})
		synctest.Wait()
		a.finish()
		synctest.Wait()
		if v, ok := (<-bad).(*Panicked); !ok || v.Value != "BUG: ill" || !strings.Contains(string(v.Stack), "(*ask).Place") {
			t.Errorf("Enter panicked with %v; want what Place panicked with, and where", v)
		}
		good.finish()
	})
}

// A panic in the request's own goroutine leaves the queue usable.
func TestEnterPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, inFlight(1), 1)
		func() {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			r.Enter(r.model, &ask{r: r, ill: true}, Ask{})
		}()
		a := &ask{r: r}
		res, _, err := r.Enter(r.model, a, Ask{})
		if err != nil {
			t.Fatal(err)
		}
		res.Done()
	})
}

// A replica that lies about usage spoils neither the estimate of answers nor the
// turn of the client for good.
func TestUsageThatLies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, inFlight(1), 1)
		run := r.begin(Ask{})
		synctest.Wait()
		h := r.begin(Ask{Client: "a", Prompt: 100})
		synctest.Wait()
		waits := r.begin(Ask{Client: "b"}) // or the lane would be idle and forget
		synctest.Wait()
		run.finish()
		synctest.Wait()
		q := (*r.queues.Load())["m"]
		before := q.output
		h.ticket.Settle(999_999_999_999, 999_999_999_999)
		if q.output > 2*before {
			t.Errorf("an answer is taken for %g tokens after one report; want at most %g", q.output, 2*before)
		}
		if owes, most := q.line.lanes[Normal.lane()].flows["a"].finish, 4*float64(balancer.LongestContext); owes > most {
			t.Errorf("the client owes %g tokens; want at most %g", owes, most)
		}
		h.finish()
		synctest.Wait()
		waits.finish()
	})
}

// A prediction without an end is no prediction in the past.
func TestPredictionOverflows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := inFlight(1)
		c.Limits.TTFT = 4 * time.Second
		r := newRig(t, c, 1)
		run := r.steady(40, time.Second)
		waits := r.begin(Ask{Prompt: 600}, func(a *ask) { a.first = 1 })
		synctest.Wait()
		late := r.begin(Ask{Prompt: 600}, func(a *ask) { a.first = math.MaxInt64 })
		synctest.Wait()
		if f := late.refused(); f.Reason != PredictedTTFT || f.RetryAfter != mostRetry {
			t.Errorf("%+v", f)
		}
		run.finish()
		synctest.Wait()
		waits.finish()
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, inFlight(1), 1)
		a := r.begin(Ask{})
		synctest.Wait()
		w := r.begin(Ask{})
		synctest.Wait()
		r.Close()
		synctest.Wait()
		late := r.begin(Ask{})
		synctest.Wait()
		if !errors.Is(w.err, ErrClosed) || !errors.Is(late.err, ErrClosed) {
			t.Errorf("%v and %v; want closed", w.err, late.err)
		}
		r.Close()
		a.finish()
	})
}

// A request waits a little for the replica it prefers, if others prefer the one that
// has room, and not for ever.
func TestPrefers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, inFlight(1), 2)
		a, b := r.sent(Ask{}), r.sent(Ask{})
		synctest.Wait()
		if a.res.Replica() != r.model.Replicas[0] {
			a, b = b, a
		}
		prefer := func(i int) func(*ask) { return func(a *ask) { a.prefers = r.model.Replicas[i] } }
		head := r.begin(Ask{}, prefer(0))
		synctest.Wait()
		var others []*held
		for range mostPassed + 1 {
			others = append(others, r.begin(Ask{}, prefer(1)))
			synctest.Wait()
		}
		run := b
		for i := range mostPassed {
			run.finish()
			synctest.Wait()
			if head.over() || !others[i].runs() {
				t.Fatalf("after %d places at the other replica: head over %t, other runs %t", i+1, head.over(), others[i].runs())
			}
			run = others[i]
		}
		run.finish()
		synctest.Wait()
		if !head.runs() || head.res.Replica() != r.model.Replicas[1] {
			t.Fatal("the head was passed over once too often")
		}
		a.finish()
		synctest.Wait()
		if last := others[mostPassed]; !last.runs() || last.res.Replica() != r.model.Replicas[0] {
			t.Fatal("a replica stands idle because nobody prefers it")
		}
		head.finish()
		others[mostPassed].finish()
	})
}
