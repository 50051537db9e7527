package affinity

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"lbd/balancer"
)

// twoModels has m on r0 and r1, n on r1 and r2.
func twoModels(t *testing.T) (s *site, m, n *balancer.Model) {
	s = newSite(t, Config{}, 3)
	all := s.replicas
	s.model.Replicas, s.model.Available = all[:2], all[:2]
	n = &balancer.Model{Name: "n", Replicas: all[1:], Available: all[1:], Picker: s.Wrap(first{}), Strategy: "first"}
	s.more = []*balancer.Model{n}
	return s, s.model, n
}

func TestFindsWhereAResponseIs(t *testing.T) {
	s, m, n := twoModels(t)
	now := time.Now()
	s.Learn([]byte("resp_1"), s.replicas[1], "n", now)
	for _, c := range []struct {
		named, want *balancer.Model
	}{{nil, n}, {m, m}, {n, n}} {
		f := s.Find([]byte("resp_1"), c.named, nil, now)
		if f.Model.Name != c.want.Name || !slices.Equal(f.Model.Available, s.replicas[1:2]) || f.Asked || f.Any {
			t.Errorf("found %+v of model %s", f, f.Model.Name)
		}
		s.Count(f)
	}
	if len(n.Available) != 2 || len(m.Available) != 2 {
		t.Error("a snapshot was changed")
	}
	s.want(t, Response, map[Result]uint64{Hit: 3})
	s.Forget([]byte("resp_1"))
	if f := s.Find([]byte("resp_1"), nil, nil, now); !f.Asked {
		t.Error("forgotten, but not asked for")
	}
}

func TestUnknownResponseIsAskedFor(t *testing.T) {
	s, m, n := twoModels(t)
	now := time.Now()
	if f := s.Find([]byte("x"), m, nil, now); f.Model != m || !f.Asked || f.Any {
		t.Errorf("of a model: %+v", f)
	}
	s.states[1].Draining = true
	s.states[0].Health.State = balancer.Ejected
	f := s.Find([]byte("x"), nil, nil, now)
	if !slices.Equal(f.Model.Available, s.replicas[1:]) || !f.Asked || !f.Any {
		t.Errorf("of any model: %+v, %v; want those that answer, draining or not", f, f.Model.Available)
	}
	var tried []*balancer.Replica
	for range 2 {
		v, err := f.Model.Pick(&balancer.Request{}, tried)
		if err != nil {
			t.Fatal(err)
		}
		tried = append(tried, v.Replica())
	}
	if _, err := f.Model.Pick(&balancer.Request{}, tried); err == nil {
		t.Error("one was asked twice")
	}
	only := func(m *balancer.Model) bool { return m.Name == "n" }
	if f := s.Find([]byte("x"), nil, only, now); f.Any || f.Model.Name != n.Name || !slices.Equal(f.Model.Available, s.replicas[1:]) {
		t.Errorf("of an allowed model: %+v", f)
	}
	if f := s.Find([]byte("x"), nil, func(*balancer.Model) bool { return false }, now); f.Model != nil {
		t.Errorf("nothing is allowed: %+v", f)
	}
	s.Count(f)
	s.want(t, Response, map[Result]uint64{Miss: 1})
}

func TestResponseOfAReplicaOutOfService(t *testing.T) {
	for want, change := range map[Result]func(*site){
		Draining: func(s *site) { s.states[1].Draining = true },
		Down:     func(s *site) { s.states[1].Health.State = balancer.Ejected },
		Gone:     func(s *site) { s.states = s.states[:1] },
	} {
		s := newSite(t, Config{}, 3)
		s.Learn([]byte("resp_1"), s.replicas[1], "m", time.Now())
		change(s)
		f := s.Find([]byte("resp_1"), nil, nil, time.Now())
		s.Count(f)
		if n := s.counted(Response, want); n != 1 {
			t.Errorf("%s is not counted", want)
		}
		switch got := f.Model.Available; want {
		case Draining:
			if !slices.Equal(got, s.replicas[1:2]) || f.Asked {
				t.Errorf("draining: %+v", f)
			}
		case Down:
			if len(got) != 0 || f.Asked {
				t.Errorf("down: %+v", f)
			}
		case Gone:
			if !f.Asked || !slices.Equal(got, s.replicas[:1]) {
				t.Errorf("gone: %+v", f)
			}
		}
	}
}

// A replica that serves something else now still has what it made.
func TestResponseOfAModelThatMoved(t *testing.T) {
	s, _, _ := twoModels(t)
	s.Learn([]byte("resp_1"), s.replicas[2], "m", time.Now())
	if f := s.Find([]byte("resp_1"), nil, nil, time.Now()); f.Asked || f.Model.Name != "n" || f.Model.Available[0] != s.replicas[2] {
		t.Errorf("found %+v", f)
	}
	if f := s.Find([]byte("resp_1"), s.model, nil, time.Now()); !f.Asked { // r2 cannot go on with m
		t.Errorf("found %+v", f)
	}
}

func TestResponsesExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, Config{TTL: time.Second, ResponseTTL: time.Hour}, 2)
		s.Learn([]byte("resp_1"), s.replicas[1], "m", time.Now())
		time.Sleep(59 * time.Minute)
		if f := s.Find([]byte("resp_1"), nil, nil, time.Now()); f.Asked {
			t.Error("forgotten early")
		}
		time.Sleep(61*time.Minute + time.Second)
		if f := s.Find([]byte("resp_1"), nil, nil, time.Now()); !f.Asked {
			t.Error("remembered late")
		}
	})
}
