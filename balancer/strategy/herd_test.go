package strategy

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"lbd/balancer"
)

// herdSim is a toy in virtual time: servers with a few slots and a queue each, Poisson arrivals, and a poll of all servers
// once a second that each lbd learns. Every lbd has its own replicas (its own load) before the same servers.
type herdSim struct {
	t       *testing.T
	now     time.Duration
	events  events
	servers []server
	lbds    []lbd
	rng     *rand.Rand

	period  []int     // arrivals per server since the last poll
	shares  []float64 // the largest share of one server, per period
	waits   []float64 // seconds from arrival to slot
	arrived int
}

type server struct {
	running int
	queue   []*job
}

type lbd struct {
	picker   balancer.Picker
	replicas []*balancer.Replica
}

type job struct {
	server  int
	arrived time.Duration
	own     balancer.Reservation
}

const (
	slots       = 4
	serviceTime = 50 * time.Millisecond
	pollPeriod  = time.Second
	utilisation = 0.8
)

// newHerdSim has n servers behind as many lbds as there are pickers.
func newHerdSim(t *testing.T, n int, pickers ...balancer.Picker) *herdSim {
	s := &herdSim{t: t, servers: make([]server, n), rng: rand.New(rand.NewPCG(11, 12)), period: make([]int, n)}
	for _, p := range pickers {
		s.lbds = append(s.lbds, lbd{p, replicas(t, even(n)...)})
	}
	return s
}

// run lets requests arrive for that long, then all finish, and checks that nothing stays reserved.
func (s *herdSim) run(length time.Duration) {
	rate := utilisation * float64(len(s.servers)*slots) / serviceTime.Seconds()
	var arrive, pollAll func()
	arrive = func() {
		s.place()
		if next := s.now + time.Duration(s.rng.ExpFloat64()/rate*float64(time.Second)); next < length {
			s.at(next, arrive)
		}
	}
	pollAll = func() {
		s.poll()
		if next := s.now + pollPeriod; next < length {
			s.at(next, pollAll)
		}
	}
	s.at(0, pollAll)
	s.at(0, arrive)
	for len(s.events) > 0 {
		e := heap.Pop(&s.events).(event)
		s.now = e.at
		e.do()
	}
	for _, l := range s.lbds {
		for _, r := range l.replicas {
			if r.InFlight() != 0 || r.Pending() != 0 {
				s.t.Errorf("%s: %d in flight after all is done", r.ID, r.InFlight())
			}
		}
	}
}

func (s *herdSim) at(when time.Duration, do func()) { heap.Push(&s.events, event{when, do}) }

// time is the virtual one; it does not begin at the zero time, which is unknown.
func (s *herdSim) time() time.Time { return time.Unix(1, 0).Add(s.now) }

func (s *herdSim) place() {
	l := s.lbds[s.rng.IntN(len(s.lbds))]
	res := place(l.picker, &balancer.Request{Stream: true, Now: s.time()}, l.replicas)
	r := res.Replica()
	j := &job{arrived: s.now, own: res}
	for l.replicas[j.server] != r {
		j.server++
	}
	s.period[j.server]++
	s.arrived++
	v := &s.servers[j.server]
	v.queue = append(v.queue, j)
	s.serve(v)
}

// serve moves what waits into free slots.
func (s *herdSim) serve(v *server) {
	for v.running < slots && len(v.queue) > 0 {
		j := v.queue[0]
		v.queue = v.queue[1:]
		v.running++
		s.waits = append(s.waits, (s.now - j.arrived).Seconds())
		j.own.FirstByte()
		j.own.FirstToken(s.time())
		s.at(s.now+serviceTime, func() {
			j.own.End(balancer.Finished, s.time())
			v.running--
			s.serve(v)
		})
	}
}

func (s *herdSim) poll() {
	total, largest := 0, 0
	for i, v := range s.servers {
		total, largest = total+s.period[i], max(largest, s.period[i])
		s.period[i] = 0
		for _, l := range s.lbds {
			pollAt(l.replicas[i], s.time(), float64(len(v.queue)), float64(v.running))
		}
	}
	if total > 0 {
		s.shares = append(s.shares, float64(largest)/float64(total))
	}
}

func (s *herdSim) meanWait() float64 {
	sum := 0.0
	for _, w := range s.waits {
		sum += w
	}
	return sum / float64(len(s.waits))
}

// largestShare is the largest share of the arrivals of a poll period that one server got, over all periods but the first.
func (s *herdSim) largestShare() (largest, mean float64) {
	for _, v := range s.shares[1:] {
		largest = math.Max(largest, v)
		mean += v / float64(len(s.shares)-1)
	}
	return largest, mean
}

type event struct {
	at time.Duration
	do func()
}

// events is a heap by time.
type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].at < e[j].at }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// naive is what must not be built: the least polled gauge, nothing added, the first of equals.
type naive struct{ running bool }

func (n naive) Pick(_ *balancer.Request, rs []*balancer.Replica) *balancer.Replica {
	var best *balancer.Replica
	least := math.Inf(1)
	for _, r := range rs {
		v := 0.0
		if p := r.Polled(); p != nil {
			v = p.Waiting.Value
			if n.running {
				v += p.Running.Value
			}
		}
		if v < least {
			best, least = r, v
		}
	}
	return best
}

const herdServers = 8

// A fair share of a period's arrivals is 1/8. Whoever follows the polled gauge sends nearly all of a period to one server;
// no strategy of the table gives one more than twice its share, and none lets requests wait as long.
func TestNoHerd(t *testing.T) {
	herd := newHerdSim(t, herdServers, naive{})
	herd.run(30 * time.Second)
	largest, mean := herd.largestShare()
	t.Logf("naive: largest share %.3f, mean %.3f", largest, mean)
	if largest < 0.9 || mean < 0.8 {
		t.Errorf("the naive rule does not herd here (largest share %.2f, mean %.2f): this test shows nothing", largest, mean)
	}
	forEach(t, func(t *testing.T, e Entry) {
		s := newHerdSim(t, herdServers, e.New(seeded(1)))
		s.run(30 * time.Second)
		largest, mean := s.largestShare()
		t.Logf("%d arrivals, largest share %.3f, mean %.3f, mean wait %.1f ms (naive: %.0f ms)",
			s.arrived, largest, mean, 1000*s.meanWait(), 1000*herd.meanWait())
		if largest > 2.0/herdServers {
			t.Errorf("one server got %.2f of a period's arrivals, want at most %.2f", largest, 2.0/herdServers)
		}
		if s.meanWait() > herd.meanWait()/10 {
			t.Errorf("requests wait %.3f s, naively %.3f s", s.meanWait(), herd.meanWait())
		}
	})
}

// Waiting and running together herd as well when they are old: the better informed gauge herds harder.
func TestNaiveSumHerdsToo(t *testing.T) {
	s := newHerdSim(t, herdServers, naive{running: true})
	s.run(30 * time.Second)
	if largest, _ := s.largestShare(); largest < 0.9 {
		t.Errorf("largest share %.2f, want a herd", largest)
	}
}

// Four lbds that do not know of each other, each with a quarter of the arrivals, do not herd together either: neither to
// what the last poll saw idle nor away from what it saw busy.
func TestNoHerdOfSeveral(t *testing.T) {
	forEach(t, func(t *testing.T, e Entry) {
		s := newHerdSim(t, herdServers, e.New(seeded(1)), e.New(seeded(2)), e.New(seeded(3)), e.New(seeded(4)))
		s.run(30 * time.Second)
		largest, mean := s.largestShare()
		t.Logf("%d arrivals, largest share %.3f, mean %.3f, mean wait %.1f ms", s.arrived, largest, mean, 1000*s.meanWait())
		if largest > 2.0/herdServers {
			t.Errorf("one server got %.2f of a period's arrivals, want at most %.2f", largest, 2.0/herdServers)
		}
		if s.meanWait() > 0.030 {
			t.Errorf("requests wait %.3f s, more than with random picks", s.meanWait())
		}
	})
}

// With exact own load there is nothing to lose: a strategy that knows the load beats the blind ones.
func TestInformedBeatsBlind(t *testing.T) {
	wait := func(name string) float64 {
		e, _ := Lookup(name)
		s := newHerdSim(t, herdServers, e.New(seeded(1)))
		s.run(30 * time.Second)
		return s.meanWait()
	}
	blind := wait("random")
	for _, name := range []string{"two-choices", "least-inflight", "least-waiting"} {
		if w := wait(name); w > blind/2 {
			t.Errorf("%s: mean wait %.4f s, random %.4f s, want less than half", name, w, blind)
		}
	}
}
