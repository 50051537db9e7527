package balancer

import (
	"math"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newTestReplica(t testing.TB) *Replica {
	t.Helper()
	e, err := ParseEndpoint("http://replica:8000")
	if err != nil {
		t.Fatal(err)
	}
	return NewReplica(e, "", 1)
}

func TestReservationCountsOnce(t *testing.T) {
	r := newTestReplica(t)
	v := r.Reserve()
	if r.InFlight() != 1 || r.Pending() != 1 {
		t.Fatalf("after Reserve: in flight %d, pending %d; want 1, 1", r.InFlight(), r.Pending())
	}
	v.FirstByte()
	v.FirstByte()
	if r.InFlight() != 1 || r.Pending() != 0 {
		t.Fatalf("after FirstByte: in flight %d, pending %d; want 1, 0", r.InFlight(), r.Pending())
	}
	v.Done()
	v.Done()
	if r.InFlight() != 0 || r.Pending() != 0 || v.Replica() != nil {
		t.Fatalf("after Done: in flight %d, pending %d; want 0, 0", r.InFlight(), r.Pending())
	}
}

// What was sent since a poll is counted on top of the gauge, what was sent
// before is in it already, however long it runs.
func TestWaitingAddsOnlyWhatWasSentSincePoll(t *testing.T) {
	r := newTestReplica(t)
	if _, ok := r.Waiting(); ok {
		t.Fatal("waiting is known before the first poll")
	}
	before := r.Reserve()
	mark := r.BeginPoll()
	since := r.Reserve()
	r.EndPoll(mark, Sample{Waiting: Known(3), Running: Known(1)}, time.Now())
	wantWaiting(t, r, 4)
	failed := r.BeginPoll() // a poll that never ends
	_ = failed
	later := r.Reserve()
	wantWaiting(t, r, 5)
	since.FirstByte()
	wantWaiting(t, r, 4)
	later.Done()
	wantWaiting(t, r, 3)
	before.Done()
	wantWaiting(t, r, 3)
	since.Done()
}

func wantWaiting(t *testing.T, r *Replica, want int64) {
	t.Helper()
	if got, ok := r.Waiting(); !ok || got != want {
		t.Fatalf("waiting is %d, %t; want %d", got, ok, want)
	}
}

// Own requests that begin after a poll have left the queue that the gauge showed,
// and those that are sent join it.
func TestQueuedFollowsOwnRequests(t *testing.T) {
	r := newTestReplica(t)
	if _, ok := r.Queued(); ok {
		t.Fatal("the queue is known without a poll")
	}
	before := []Reservation{r.Reserve(), r.Reserve(), r.Reserve()}
	mark := r.BeginPoll()
	during := r.Reserve() // after the scrape as far as anybody knows
	r.EndPoll(mark, Sample{Running: Known(1), Waiting: Known(4)}, time.Now())
	want := func(want int64) {
		t.Helper()
		if got, ok := r.Queued(); !ok || got != want {
			t.Fatalf("queued is %d, %t; want %d", got, ok, want)
		}
	}
	want(5)
	before[0].FirstByte()
	want(4)
	before[0].Done()
	want(4)
	before[1].Done()
	want(3)
	since := r.Reserve()
	want(4)
	since.Done()
	during.Done()
	before[2].Done()
	want(1)
	r.EndPoll(r.BeginPoll(), Sample{Running: Known(1), Waiting: Known(0)}, time.Now())
	want(0)
	r.MarkStale()
	if _, ok := r.Queued(); ok {
		t.Fatal("the queue is known on a stale poll")
	}
}

func TestForeignLoad(t *testing.T) {
	r := newTestReplica(t)
	own := []Reservation{r.Reserve(), r.Reserve()}
	poll := func(running float64) *Polled {
		return r.EndPoll(r.BeginPoll(), Sample{Running: Known(running), Waiting: Known(0)}, time.Now())
	}
	if p := poll(2); p.Foreign != 0 {
		t.Fatalf("foreign load is %d when the gauge shows our own requests; want 0", p.Foreign)
	}
	if p := poll(1); p.Foreign != 0 {
		t.Fatalf("foreign load is %d when the gauge shows less than our own; want 0", p.Foreign)
	}
	for range 20 {
		poll(12)
	}
	if n := r.Polled().Foreign; n != 10 {
		t.Fatalf("foreign load settles at %d; want 10", n)
	}
	if n := r.Requests(); n != 12 {
		t.Fatalf("requests are %d; want own 2 + foreign 10", n)
	}
	if !r.MarkStale() || r.MarkStale() {
		t.Fatal("MarkStale does not say that it changed something exactly once")
	}
	if n := r.Requests(); n != 2 {
		t.Fatalf("requests are %d on a stale poll; want own load only, 2", n)
	}
	if _, ok := r.Waiting(); ok {
		t.Fatal("waiting is known on a stale poll")
	}
	for i := range own {
		own[i].Done()
	}
}

func TestGaugesThatAreNoNumbers(t *testing.T) {
	r := newTestReplica(t)
	for _, bad := range []float64{math.NaN(), math.Inf(1)} {
		r.EndPoll(r.BeginPoll(), Sample{Waiting: Known(bad), Running: Known(bad)}, time.Now())
		if _, ok := r.Waiting(); ok || r.Requests() != 0 {
			t.Fatalf("gauge %v: waiting known %t, requests %d; want unknown, 0", bad, ok, r.Requests())
		}
	}
	for range 20 {
		r.EndPoll(r.BeginPoll(), Sample{Waiting: Known(0), Running: Known(4)}, time.Now())
	}
	if n := r.Requests(); n != 4 {
		t.Fatalf("requests are %d after good polls; want 4", n)
	}
}

// Reservations from many goroutines, polls and staleness at once leave nothing.
func TestLoadReturnsToZero(t *testing.T) {
	r := newTestReplica(t)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				r.EndPoll(r.BeginPoll(), Sample{Waiting: Known(1), Running: Known(1)}, time.Now())
				r.MarkStale()
			}
		}
	})
	var senders sync.WaitGroup
	for range 8 {
		senders.Go(func() {
			for range 2000 {
				v := r.Reserve()
				r.Waiting()
				v.FirstByte()
				v.Done()
			}
		})
	}
	senders.Wait()
	close(stop)
	wg.Wait()
	if r.InFlight() != 0 || r.Pending() != 0 {
		t.Fatalf("in flight %d, pending %d; want 0, 0", r.InFlight(), r.Pending())
	}
	if n := sumInflight(r.load.epoch.Load()); n != 0 {
		t.Fatalf("last epoch holds %d; want 0", n)
	}
}

func TestAllocReserve(t *testing.T) {
	r := newTestReplica(t)
	if n := testing.AllocsPerRun(100, func() {
		v := r.Reserve()
		v.Done()
	}); n != 0 {
		t.Fatalf("a reservation allocates %v times; want 0", n)
	}
}
