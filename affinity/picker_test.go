package affinity

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"lbd/balancer"
)

func TestSessionGoesHome(t *testing.T) {
	s := newSite(t, Config{}, 3)
	now := time.Now()
	a, b := s.named("a"), s.named("b")
	if at := s.place(t, a, now, 1, 2); at != s.replicas[1] {
		t.Fatalf("first at %s", at.ID)
	}
	s.place(t, b, now, 2, 0)
	for range 3 {
		if at := s.place(t, a, now); at != s.replicas[1] {
			t.Errorf("a at %s", at.ID)
		}
		if at := s.place(t, b, now); at != s.replicas[2] {
			t.Errorf("b at %s", at.ID)
		}
		if at := s.place(t, 0, now); at != s.replicas[0] {
			t.Errorf("nobody at %s", at.ID)
		}
	}
	s.want(t, Session, map[Result]uint64{Miss: 2, Hit: 6})
}

func TestSessionsOfModelsAndClientsAreApart(t *testing.T) {
	for _, home := range []string{ByStrategy, ByHash} {
		h := New(Options{Config: Config{Home: home}})
		seen := map[uint64]string{}
		for _, model := range []string{"m", "n", ""} {
			for _, client := range []string{"", "m", "ci"} {
				for _, name := range []string{"a", "b", "m", "12345678", "123456789", "12345678\x00"} {
					id := h.Session(model, client, []byte(name))
					what := fmt.Sprintf("%q %q %q", model, client, name)
					if other := seen[id]; other != "" || id == 0 {
						t.Errorf("%s: %s and %s are one session", home, what, other)
					}
					seen[id] = what
				}
			}
		}
		if h.Session("m", "c", nil) != 0 || h.Session("m", "c", []byte{}) != 0 {
			t.Error("no name is a session")
		}
	}
}

// Sessions in a table mean nothing to another process, those by hash mean the same.
func TestWhoAgrees(t *testing.T) {
	if a, b := New(Options{}), New(Options{}); a.Session("m", "", []byte("x")) == b.Session("m", "", []byte("x")) {
		t.Error("two processes hash sessions the same way")
	}
	c := Config{Home: ByHash}
	if got, want := New(Options{Config: c}).Session("m", "ci", []byte("session 1")), uint64(0x47261223664876fd); got != want {
		t.Errorf("the hash of a session is %#x; want %#x as in every lbd before", got, want)
	}
}

func TestSessionExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, Config{TTL: time.Minute}, 2)
		a := s.named("a")
		s.place(t, a, time.Now(), 1)
		for range 3 { // each use renews it
			time.Sleep(50 * time.Second)
			if at := s.place(t, a, time.Now()); at != s.replicas[1] {
				t.Fatalf("at %s", at.ID)
			}
		}
		if n := s.Stats(time.Now())[Session].Live; n != 1 {
			t.Errorf("%d entries; want 1", n)
		}
		time.Sleep(62 * time.Second)
		if n := s.Stats(time.Now())[Session].Live; n != 0 {
			t.Errorf("%d entries; want none", n)
		}
		if at := s.place(t, a, time.Now()); at != s.replicas[0] {
			t.Errorf("at %s after it expired", at.ID)
		}
		s.want(t, Session, map[Result]uint64{Miss: 2, Hit: 3})
		s.SetConfig(Config{TTL: time.Hour})
		time.Sleep(50 * time.Minute)
		if at := s.place(t, a, time.Now(), 1, 0); at != s.replicas[0] {
			t.Errorf("at %s with a longer TTL", at.ID)
		}
	})
}

func TestHomeYieldsByLoad(t *testing.T) {
	for _, c := range []struct {
		home, others int // in flight
		yields       bool
	}{
		{0, 0, false}, {7, 0, false}, {8, 0, true}, {8, 8, false}, {11, 8, false}, {13, 8, false}, {14, 8, true}, {150, 90, false}, {170, 90, true},
	} {
		s := newSite(t, Config{}, 4)
		a := s.named("a")
		s.place(t, a, time.Time{}, 1)
		s.busy(1, c.home-1)
		if c.home == 0 {
			s = newSite(t, Config{}, 4)
			a = s.named("a")
			v := s.model.Available[1:2]
			m := *s.model
			m.Available = v
			r, _ := m.Pick(&balancer.Request{Session: a}, nil)
			r.Done()
		}
		for _, i := range []int{0, 2, 3} {
			s.busy(i, c.others)
		}
		want := s.replicas[1]
		if c.yields {
			want = s.replicas[0]
		}
		if at := s.place(t, a, time.Time{}); at != want {
			t.Errorf("%d at home, %d elsewhere: at %s", c.home, c.others, at.ID)
		}
		if got := s.counted(Session, Saturated) == 1; got != c.yields {
			t.Errorf("%d at home, %d elsewhere: counted as yielded: %t", c.home, c.others, got)
		}
		if c.yields { // from now on it is at home there
			if at := s.place(t, a, time.Time{}, 3, 0); at != s.replicas[0] {
				t.Errorf("moved to %s, now at %s", want.ID, at.ID)
			}
		}
	}
}

// A replica of twice the weight takes twice as much before it yields.
func TestHomeYieldsByWeight(t *testing.T) {
	s := newSite(t, Config{MaxLoad: 150}, 2)
	s.replicas[1].Weight = 3
	a := s.named("a")
	s.place(t, a, time.Time{}, 1)
	s.busy(1, 35)
	s.busy(0, 8)
	if at := s.place(t, a, time.Time{}); at != s.replicas[1] {
		t.Error("36 of 44 requests are no more than 1.5 times the share of three quarters")
	}
}

func TestHomeYieldsByPoll(t *testing.T) {
	queue := func(n float64) balancer.Sample {
		return balancer.Sample{Waiting: balancer.Known(n), Running: balancer.Known(0)}
	}
	full := func(u float64) balancer.Sample { return balancer.Sample{KVUsage: balancer.Known(u)} }
	for _, c := range []struct {
		name        string
		home, else_ balancer.Sample
		yields      bool
	}{
		{"no queue", queue(0), queue(0), false},
		{"short queue", queue(4), queue(0), false},
		{"queue", queue(5), queue(0), true},
		{"queues everywhere", queue(50), queue(5), false},
		{"queue elsewhere", queue(0), queue(50), false},
		{"queue, others do not tell", queue(50), balancer.Sample{}, false},
		{"home does not tell", balancer.Sample{}, queue(0), false},
		{"full", full(.96), full(.5), true},
		{"full everywhere, as where they share a device", full(.96), full(.96), false},
		{"nearly full", full(.94), full(.1), false},
	} {
		s := newSite(t, Config{MaxLoad: 1e6}, 2)
		a := s.named("a")
		s.place(t, a, time.Time{}, 1)
		s.polled(1, c.home)
		s.polled(0, c.else_)
		if at := s.place(t, a, time.Time{}); at != s.replicas[1] != c.yields {
			t.Errorf("%s: at %s", c.name, at.ID)
		}
		s.place(t, a, time.Time{}, 1) // back
		s.replicas[1].MarkStale()
		if at := s.place(t, a, time.Time{}); at != s.replicas[1] {
			t.Errorf("%s: yields by a stale poll", c.name)
		}
	}
}

func TestHomeCannotBeHad(t *testing.T) {
	for want, change := range map[Result]func(*site){
		Draining: func(s *site) { s.states[1].Draining = true },
		Down:     func(s *site) { s.states[1].Health.State = balancer.Ejected },
		Gone:     func(s *site) { s.states = append(s.states[:1:1], s.states[2]) },
		Failed:   func(*site) {},
	} {
		s := newSite(t, Config{}, 3)
		a := s.named("a")
		s.place(t, a, time.Time{}, 1)
		change(s)
		if at := s.place(t, a, time.Time{}, 0, 2); at != s.replicas[0] {
			t.Errorf("%s: at %s", want, at.ID)
		}
		if n := s.counted(Session, want); n != 1 {
			t.Errorf("%s was not counted", want)
		}
		if at := s.place(t, a, time.Time{}); at != s.replicas[0] { // the prefix is there now
			t.Errorf("%s: back at %s", want, at.ID)
		}
	}
}

func TestStrategyPlacesAtHome(t *testing.T) {
	s := newSite(t, Config{}, 3)
	var seen []int
	s.model.Picker = s.Wrap(last{&seen})
	a := s.named("a")
	s.place(t, a, time.Time{}, 0, 1)
	if at := s.place(t, a, time.Time{}); at != s.replicas[1] || at.PrefillTokens() != 200 {
		t.Errorf("at %s with %d tokens of prefill", at.ID, at.PrefillTokens())
	}
	if diff := cmp.Diff([]int{2, 2, 3, 1}, seen); diff != "" {
		t.Errorf("the strategy saw so many candidates (-want +got):\n%s\nwant all of them first whenever they are others", diff)
	}
	s.place(t, a, time.Time{})
	if len(seen) != 5 {
		t.Errorf("the strategy met the same candidates again: %v", seen)
	}
}

func TestDryRunBindsNothing(t *testing.T) {
	s := newSite(t, Config{}, 2)
	q := &balancer.Request{Session: s.named("a")}
	s.model.Picker.Pick(q, s.replicas[1:])
	s.model.Picker.Pick(q, s.replicas)
	s.want(t, Session, nil)
	if n := s.Stats(time.Now())[Session].Live; n != 0 {
		t.Errorf("%d entries", n)
	}
	s.place(t, q.Session, time.Time{}, 1)
	if got := s.model.Decide(q).Picked; got != s.replicas[1] {
		t.Errorf("%s would be picked", got.ID)
	}
	s.want(t, Session, map[Result]uint64{Miss: 1})
}

func TestPrefers(t *testing.T) {
	s := newSite(t, Config{}, 3)
	q := &balancer.Request{Session: s.named("a")}
	p := s.model.Picker.(Preferrer)
	if r := p.Prefers(q, s.replicas); r != nil {
		t.Errorf("a plain strategy prefers %s", r.ID)
	}
	s.place(t, q.Session, time.Time{}, 2)
	if r := p.Prefers(q, s.replicas); r != s.replicas[2] {
		t.Error("the home is not preferred")
	}
	var seen []int
	p = s.Wrap(last{&seen}).(Preferrer)
	if r := p.Prefers(&balancer.Request{}, s.replicas[:2]); r != s.replicas[1] {
		t.Error("a strategy that weighs requests has no preference")
	}
}

func TestExplain(t *testing.T) {
	s := newSite(t, Config{}, 2)
	var seen []int
	plain, explains := s.model.Picker.(balancer.Explainer), s.Wrap(last{&seen}).(balancer.Explainer)
	q := &balancer.Request{}
	if got := plain.Explain(q, s.replicas); got != nil {
		t.Errorf("without a session: %v", got)
	}
	if got := explains.Explain(q, s.replicas); len(got) != 2 || len(got[0]) != 1 {
		t.Errorf("without a session: %v", got)
	}
	q.Session = s.named("a")
	s.place(t, q.Session, time.Time{}, 1)
	s.busy(1, 20)
	term := func(name string, v float64) balancer.Term { return balancer.Term{Name: name, Value: balancer.Known(v)} }
	want := [][]balancer.Term{
		{term("affinity_home", 0), term("affinity_saturated", 0)},
		{term("affinity_home", 1), term("affinity_saturated", 1)},
	}
	if diff := cmp.Diff(want, plain.Explain(q, s.replicas)); diff != "" {
		t.Error(diff)
	}
	want[0] = append([]balancer.Term{term("place", 0)}, want[0]...)
	want[1] = append([]balancer.Term{term("place", 1)}, want[1]...)
	if diff := cmp.Diff(want, explains.Explain(q, s.replicas)); diff != "" {
		t.Error(diff)
	}
}

// A request that goes home is predicted there; any other where the strategy says.
func TestPredictedAtHome(t *testing.T) {
	s := newSite(t, Config{}, 3)
	var seen []int
	p := s.Wrap(last{&seen}).(balancer.Predictor)
	q := &balancer.Request{}
	want := func(what string, rs []*balancer.Replica, d time.Duration, known bool) {
		t.Helper()
		if got, ok := p.Predict(q, rs); got.TTFT != d || ok != known {
			t.Errorf("%s: %v, %v; want %v, %v", what, got, ok, d, known)
		}
	}
	want("no session", s.replicas, 3*time.Millisecond, true)
	q.Session = s.named("a")
	want("nowhere at home", s.replicas, 3*time.Millisecond, true)
	want("nobody there", nil, 0, false)
	s.place(t, q.Session, time.Time{}, 1)
	want("at home", s.replicas, time.Millisecond, true)
	s.busy(1, 20)
	want("the home is saturated", s.replicas, 3*time.Millisecond, true)
	if _, ok := s.Wrap(first{}).(balancer.Predictor).Predict(q, s.replicas); ok {
		t.Error("a strategy that does not predict does")
	}
}

func TestNoCandidates(t *testing.T) {
	for _, home := range []string{ByStrategy, ByHash} {
		s := newSite(t, Config{Home: home}, 1)
		q := &balancer.Request{Session: s.named("a")}
		p := s.model.Picker.(balancer.Placer)
		if r := p.Pick(q, nil); r != nil {
			t.Error("picked nobody")
		}
		if v := p.Place(q, nil); v.Replica() != nil {
			t.Error("placed nowhere")
		}
		if r := s.model.Picker.(Preferrer).Prefers(q, nil); r != nil {
			t.Error("prefers nobody")
		}
	}
}
