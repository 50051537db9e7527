package affinity

import (
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lbd/balancer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site is Homes over a fleet of one model, m.
type site struct {
	*Homes
	model    *balancer.Model
	replicas []*balancer.Replica
	states   []balancer.ReplicaState
	more     []*balancer.Model
}

func newReplica(t testing.TB, name string, weight int) *balancer.Replica {
	t.Helper()
	e, err := balancer.ParseEndpoint("http://" + name)
	if err != nil {
		t.Fatal(err)
	}
	return balancer.NewReplica(e, "", weight)
}

// newSite has n replicas r0:80, r1:80 and so on behind a strategy that takes the first candidate.
func newSite(t testing.TB, c Config, n int) *site {
	t.Helper()
	s := &site{}
	for i := range n {
		s.replicas = append(s.replicas, newReplica(t, fmt.Sprintf("r%d", i), 1))
		s.states = append(s.states, healthy(s.replicas[i]))
	}
	s.Homes = New(Options{Config: c, Snapshot: s.snapshot})
	s.model = &balancer.Model{Name: "m", Replicas: s.replicas, Available: s.replicas, Picker: s.Wrap(first{}), Strategy: "first"}
	return s
}

func healthy(r *balancer.Replica) balancer.ReplicaState {
	return balancer.ReplicaState{Replica: r, Health: balancer.Health{State: balancer.Healthy}, Models: []balancer.ModelInfo{{ID: "m"}}}
}

func (s *site) snapshot() *balancer.Snapshot {
	return balancer.NewSnapshot(1, s.states, append([]*balancer.Model{s.model}, s.more...))
}

func (s *site) named(name string) uint64 { return s.Session("m", "", []byte(name)) }

// place places a request of a session among the replicas with these numbers, and leaves it there.
func (s *site) place(t testing.TB, session uint64, now time.Time, among ...int) *balancer.Replica {
	t.Helper()
	m := *s.model
	if among != nil {
		m.Available = nil
		for _, i := range among {
			m.Available = append(m.Available, s.replicas[i])
		}
	}
	v, err := m.Pick(&balancer.Request{Model: "m", Session: session, Now: now}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return v.Replica()
}

// busy puts n requests on a replica.
func (s *site) busy(i, n int) {
	for range n {
		s.replicas[i].Reserve()
	}
}

func (s *site) polled(i int, sample balancer.Sample) {
	r := s.replicas[i]
	r.EndPoll(r.BeginPoll(), sample, time.Now())
}

func (s *site) counted(k Kind, r Result) uint64 { return s.Stats(time.Now())[k].Results[r] }

func (s *site) want(t testing.TB, k Kind, want map[Result]uint64) {
	t.Helper()
	for r, n := range s.Stats(time.Now())[k].Results {
		if n != want[r] {
			t.Errorf("%d %s of %s; want %d", n, r, k, want[r])
		}
	}
}

type first struct{}

func (first) Pick(_ *balancer.Request, candidates []*balancer.Replica) *balancer.Replica {
	if len(candidates) == 0 {
		return nil
	}
	return candidates[0]
}

// last also reserves work, and explains.
type last struct{ seen *[]int }

func (l last) Pick(_ *balancer.Request, candidates []*balancer.Replica) *balancer.Replica {
	*l.seen = append(*l.seen, len(candidates))
	if len(candidates) == 0 {
		return nil
	}
	return candidates[len(candidates)-1]
}

func (l last) Place(q *balancer.Request, candidates []*balancer.Replica) balancer.Reservation {
	r := l.Pick(q, candidates)
	if r == nil {
		return balancer.Reservation{}
	}
	t := &tracked{}
	return r.Place(balancer.Work{Prompt: 100, Uncached: 100}, &t.Placement, t)
}

func (last) Explain(_ *balancer.Request, candidates []*balancer.Replica) [][]balancer.Term {
	terms := make([][]balancer.Term, len(candidates))
	for i := range terms {
		terms[i] = []balancer.Term{{Name: "place", Value: balancer.Known(float64(i))}}
	}
	return terms
}

// Predict says where it is by the time it takes: a millisecond for each candidate.
func (last) Predict(_ *balancer.Request, candidates []*balancer.Replica) (balancer.Prediction, bool) {
	return balancer.Prediction{TTFT: time.Duration(len(candidates)) * time.Millisecond}, len(candidates) > 0
}

type tracked struct{ balancer.Placement }

func (*tracked) FirstToken(time.Time)              {}
func (*tracked) Tokens(int, time.Time)             {}
func (*tracked) Usage(balancer.Usage)              {}
func (t *tracked) Done(balancer.Ending, time.Time) { t.Placement.Done() }
