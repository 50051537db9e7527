package admin

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lbd/balancer"
)

// refusal is an error as the proxy makes them.
type refusal struct {
	status            int
	code, kind, param string
}

func (e refusal) Error() string { return "no " + e.code }
func (e refusal) Status() int   { return e.status }
func (e refusal) Code() string  { return e.code }
func (e refusal) Type() string  { return e.kind }
func (e refusal) Param() string { return e.param }

// explained is what a dry run was asked.
type explained struct {
	contentType, body string
}

func explainSite(t *testing.T, answer func() (*balancer.Replica, error)) (*site, *explained) {
	f := newFleet(t, "http://a:1", "http://b:1", "http://c:1", "http://d:1")
	f.SetHealth("b:1", balancer.Health{State: balancer.Ejected, Reason: "connection refused"})
	f.SetHealth("c:1", balancer.Health{State: balancer.Unknown})
	if err := f.Drain("d:1"); err != nil {
		t.Fatal(err)
	}
	seen := &explained{}
	return start(t, Options{Fleet: f, MaxPickBody: 1000, Explain: func(head http.Header, body []byte) (balancer.Decision, error) {
		*seen = explained{head.Get("Content-Type"), string(body)}
		picked, err := answer()
		m := f.Snapshot().Model([]byte("m"))
		if err != nil && picked == nil && strings.Contains(err.Error(), "model") {
			m = nil
		}
		d := balancer.Decision{Model: m, Picked: picked}
		if m != nil {
			for range m.Available {
				d.Terms = append(d.Terms, []balancer.Term{{Name: "cost_ms", Value: balancer.Metric{Value: 7, Known: true}}, {Name: "kv", Value: balancer.Metric{}}})
			}
		}
		return d, err
	}}), seen
}

// The terms of a strategy that shows them stand beside each candidate, null where
// they are unknown.
func TestPickShowsTheStrategysTerms(t *testing.T) {
	a := balancer.NewReplica(balancer.Endpoint{Addr: "a:1"}, "", 1)
	s, _ := explainSite(t, func() (*balancer.Replica, error) { return a, nil })
	got := s.do("POST", "/pick", `{"model":"m"}`, "Content-Type", "application/json")
	terms := decode[pickView](t, got.body).Replicas[0].Strategy
	if cost := terms["cost_ms"]; cost == nil || *cost != 7 {
		t.Error(got.body)
	}
	if kv, ok := terms["kv"]; !ok || kv != nil {
		t.Error(got.body)
	}
}

func TestPick(t *testing.T) {
	a := balancer.NewReplica(balancer.Endpoint{Addr: "a:1"}, "", 1)
	s, seen := explainSite(t, func() (*balancer.Replica, error) { return a, nil })
	got := s.do("POST", "/pick", `{"model":"m"}`, "Content-Type", "application/json; charset=utf-8")
	if got.status != 200 || *seen != (explained{"application/json; charset=utf-8", `{"model":"m"}`}) {
		t.Errorf("status %d, explained %+v", got.status, seen)
	}
	v := decode[pickView](t, got.body)
	if v.Model != "m" || v.Strategy != "first" || v.Picked == nil || *v.Picked != "a:1" || v.Error != nil {
		t.Errorf("%s", got.body)
	}
	for i, want := range []candidateView{
		{ID: "a:1", Candidate: true},
		{ID: "b:1", WhyNot: "ejected: connection refused"},
		{ID: "c:1", WhyNot: "unknown"},
		{ID: "d:1", WhyNot: "draining"},
	} {
		want.Terms.Weight = 1
		v.Replicas[i].Strategy = nil // TestPickShowsTheStrategysTerms
		if !cmp.Equal(v.Replicas[i], want) {
			t.Errorf("replica %d: %+v; want %+v", i, v.Replicas[i], want)
		}
	}
	wantContains(t, got.body, `"in_flight": 0`, `"pending": 0`, `"waiting": null`, `"running": null`, `"foreign": null`, `"stale": null`)
}

// waiting is what strategies see: the gauge and what was sent since.
func TestPickTerms(t *testing.T) {
	f := newFleet(t, "http://a:1")
	r := f.Snapshot().Replicas[0].Replica
	r.EndPoll(r.BeginPoll(), balancer.Sample{Waiting: balancer.Known(3), Running: balancer.Known(2)}, f.Snapshot().Replicas[0].Health.Since)
	res := r.Reserve()
	defer res.Done()
	got := viewTerms(r)
	if got.InFlight != 1 || got.Pending != 1 || *got.Waiting != 4 || *got.Running != 2 || *got.Foreign != 5 || *got.Stale {
		t.Errorf("%+v: waiting %d, running %v, foreign %d", got, *got.Waiting, *got.Running, *got.Foreign)
	}
}

func TestPickErrors(t *testing.T) {
	var err error
	s, _ := explainSite(t, func() (*balancer.Replica, error) { return nil, err })

	err = refusal{404, "model_not_found", "invalid_request_error", "model"}
	wantError(t, s.do("POST", "/pick", `{"model":"x"}`), 404, "model_not_found")
	wantContains(t, s.do("POST", "/pick", `{"model":"x"}`).body, `"param": "model"`)

	err = errors.New("model of the wrong kind")
	wantError(t, s.do("POST", "/pick", ""), 500, "internal_error")

	// The model is known: the error stands beside the reasons.
	err = refusal{503, "no_healthy_replica", "no_healthy_replica", ""}
	a := s.do("POST", "/pick", `{}`)
	v := decode[pickView](t, a.body)
	if a.status != 503 || v.Error == nil || v.Error.Code != "no_healthy_replica" || v.Error.Param != nil || v.Picked != nil || len(v.Replicas) != 4 {
		t.Errorf("answer %d %s", a.status, a.body)
	}

	wantError(t, s.get("/pick"), 405, "method_not_allowed")
}

func TestPickRefusesHugeBodies(t *testing.T) {
	s, seen := explainSite(t, func() (*balancer.Replica, error) { return nil, nil })
	wantError(t, s.do("POST", "/pick", strings.Repeat(" ", 1001)), 413, "request_too_large")
	if seen.body != "" {
		t.Error("a body over the limit was explained")
	}
}

// The limit is the main listener's, which a reload may change.
func TestPickLimitChanges(t *testing.T) {
	a := balancer.NewReplica(balancer.Endpoint{Addr: "a:1"}, "", 1)
	s, _ := explainSite(t, func() (*balancer.Replica, error) { return a, nil })
	body := `{"model":"m"}` + strings.Repeat(" ", 1000)
	s.SetMaxPickBody(2000)
	if got := s.do("POST", "/pick", body); got.status != 200 {
		t.Errorf("below the new limit: %d %s", got.status, got.body)
	}
	s.SetMaxPickBody(1000)
	wantError(t, s.do("POST", "/pick", body), 413, "request_too_large")
}

func TestWhyNotAlwaysSaysSomething(t *testing.T) {
	r := balancer.NewReplica(balancer.Endpoint{Addr: "a:1"}, "", 1)
	healthy := balancer.Health{State: balancer.Healthy}
	for want, state := range map[string]*balancer.ReplicaState{
		"left the fleet":               nil,
		"its models are not known yet": {Replica: r, Health: healthy},
		"came back just now":           {Replica: r, Health: healthy, Models: []balancer.ModelInfo{{ID: "m"}}},
	} {
		if got := whyNot(state); got != want {
			t.Errorf("%q; want %q", got, want)
		}
	}
}
