package proxy

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"lbd/balancer"
	"lbd/metrics"
)

// few is a fleet of a model "m" with replicas a, b, c ..., and its health.
type few struct {
	broken
	snap   *balancer.Snapshot
	asked  []string // of health
	likely []string
}

func (f *few) Snapshot() *balancer.Snapshot { return f.snap }

func (f *few) LastResort(rs []*balancer.Replica) []*balancer.Replica {
	f.asked = ids(rs)
	return only(rs, func(r *balancer.Replica) bool { return slices.Contains(f.likely, r.ID) })
}

func ids(rs []*balancer.Replica) (ids []string) {
	for _, r := range rs {
		ids = append(ids, r.ID)
	}
	return ids
}

// first picks the first candidate.
type first struct{}

func (first) Pick(_ *balancer.Request, from []*balancer.Replica) *balancer.Replica {
	if len(from) == 0 {
		return nil
	}
	return from[0]
}

// fewOf makes replicas in these states; one that is healthy is in service unless it drains.
func fewOf(states ...balancer.ReplicaState) *few {
	m := &balancer.Model{Name: "m", Strategy: "first", Picker: first{}}
	for i := range states {
		s := &states[i]
		if s.Replica == nil {
			s.Replica = balancer.NewReplica(balancer.Endpoint{Addr: string(rune('a' + i))}, "", 1)
		}
		m.Replicas = append(m.Replicas, s.Replica)
		if s.Available() {
			m.Available = append(m.Available, s.Replica)
		}
	}
	return &few{snap: balancer.NewSnapshot(1, states, []*balancer.Model{m})}
}

func in(state balancer.State) balancer.ReplicaState {
	return balancer.ReplicaState{Health: balancer.Health{State: state}, Models: []balancer.ModelInfo{{ID: "m"}}}
}

// wants is an exchange that wants the model "m".
func (f *few) wants() *exchange {
	s := &Server{opt: Options{Fleet: f, Health: f, Metrics: metrics.New(prometheus.NewRegistry(), "test")}}
	x := &exchange{s: s, cfg: &Config{MaxAttempts: 3}}
	x.want.model, x.want.peek.HasModel = f.snap.Model([]byte("m")), true
	return x
}

// picked picks for the next attempt, which fails.
func (x *exchange) picked() string {
	res, err := x.pick()
	if err != nil {
		return err.Error()
	}
	defer res.End(balancer.Failed, x.now)
	x.replica = res.Replica()
	x.tried = append(x.tried, x.replica)
	return x.replica.ID + " by " + x.want.model.Strategy
}

// Those in service come first, then what health says, from among all that are out but do
// not drain and were not tried.
func TestPickTheLastResort(t *testing.T) {
	drains := in(balancer.Ejected)
	drains.Draining = true
	unlearned := in(balancer.Healthy)
	unlearned.Models = nil // it was restarted
	f := fewOf(in(balancer.Healthy), in(balancer.Ejected), drains, in(balancer.Unknown), unlearned)
	x := f.wants()
	if got := x.picked(); got != "a by first" {
		t.Errorf("first %s", got)
	}
	f.likely = []string{"b"}
	if got := x.picked(); got != "b by last-resort" {
		t.Errorf("then %s", got)
	}
	if diff := cmp.Diff([]string{"b", "d", "e"}, f.asked); diff != "" {
		t.Errorf("candidates (-want +got):\n%s", diff)
	}
	f.likely = []string{"e", "d"}
	if got := x.picked(); got != "d by last-resort" {
		t.Errorf("then %s", got)
	}
	f.likely, f.asked = nil, nil
	if got := x.picked(); got != "e by last-resort" || f.asked != nil {
		t.Errorf("then %s, health was asked about %v; want e, as likely as d", got, f.asked)
	}
	if got := x.picked(); got != balancer.ErrNoReplica.Error() {
		t.Errorf("then %s", got)
	}
	for _, r := range f.snap.Replicas {
		if n := r.InFlight(); n != 0 {
			t.Errorf("own load of %s is %d; want 0", r.ID, n)
		}
	}
}

// Who has come into service since the request began is no last resort, and who was tried is
// known again under another address.
func TestPickWhoIsBackInService(t *testing.T) {
	f := fewOf(in(balancer.Healthy), in(balancer.Ejected))
	x := f.wants()
	x.picked()
	moved, back := in(balancer.Healthy), in(balancer.Healthy)
	moved.Replica = f.snap.Replicas[0].At(balancer.Endpoint{Addr: "elsewhere"})
	back.Replica = f.snap.Replicas[1].Replica
	f.snap = fewOf(moved, back).snap
	if got := x.picked(); got != "b by first" {
		t.Errorf("picked %s; want b, in service by now", got)
	}
	if got := x.picked(); got != balancer.ErrNoReplica.Error() {
		t.Errorf("picked %s; want nobody, all are tried", got)
	}
}

// What is about a response on another replica is not asked of this one, what names no model
// might get the wrong one, and a model that nobody is known for any more has nobody.
func TestNoLastResort(t *testing.T) {
	f := fewOf(in(balancer.Ejected))
	f.likely = []string{"a"}
	x := f.wants()
	x.stored.id = []byte("resp_1")
	if got := x.picked(); got != balancer.ErrNoReplica.Error() {
		t.Errorf("about a response: %s", got)
	}
	x = f.wants()
	x.stored.id, x.stored.home = []byte("resp_1"), f.snap.Replicas[0].Replica
	if got := x.picked(); got != "a by last-resort" {
		t.Errorf("about a response of a's: %s", got)
	}
	if got := x.picked(); got != balancer.ErrNoReplica.Error() {
		t.Errorf("about a response of a's, which was tried: %s", got)
	}
	x = f.wants()
	x.want.peek.HasModel = false
	if got := x.picked(); got != balancer.ErrNoReplica.Error() {
		t.Errorf("of a model that is not named: %s", got)
	}
	x = f.wants()
	f.snap = balancer.NewSnapshot(2, nil, nil)
	if got := x.picked(); got != balancer.ErrNoReplica.Error() {
		t.Errorf("of a model that is gone: %s", got)
	}
}

// othersLeft counts on who is out of service as well, and ends with the attempts.
func TestOthersLeft(t *testing.T) {
	f := fewOf(in(balancer.Healthy), in(balancer.Ejected))
	f.likely = []string{"b"}
	x := f.wants()
	x.replica = f.snap.Replicas[0].Replica
	if !x.othersLeft() {
		t.Error("nobody left; want b")
	}
	x.cfg.MaxAttempts = 1
	if x.othersLeft() {
		t.Error("another attempt than the only one")
	}
	x.cfg.MaxAttempts, f.likely = 3, nil
	if x.othersLeft() {
		t.Error("somebody left whom health does not expect to answer")
	}
}
