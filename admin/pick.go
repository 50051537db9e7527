package admin

import (
	"errors"
	"net/http"
	"slices"

	"lbd/balancer"
)

// pickView is the answer of POST /pick; doc.go explains the fields.
type pickView struct {
	Error    *errorFields    `json:"error,omitempty"`
	Model    string          `json:"model"`
	Strategy string          `json:"strategy"`
	Picked   *string         `json:"picked"`
	Replicas []candidateView `json:"replicas"`
}

type candidateView struct {
	ID        string    `json:"id"`
	Candidate bool      `json:"candidate"`
	WhyNot    string    `json:"why_not"`
	Terms     termsView `json:"terms"`
	// Strategy are the strategy's own terms, null where one is unknown.
	Strategy map[string]*float64 `json:"strategy_terms,omitempty"`
}

type termsView struct {
	InFlight int64    `json:"in_flight"`
	Pending  int64    `json:"pending"`
	Waiting  *int64   `json:"waiting"`
	Running  *float64 `json:"running"`
	Foreign  *int64   `json:"foreign"`
	Stale    *bool    `json:"stale"`
	Weight   int64    `json:"weight"`
}

func (s *Server) pickPage(w http.ResponseWriter, r *http.Request) {
	body, p := readBody(w, r, s.picks.Load())
	if p != nil {
		p.write(w)
		return
	}
	d, err := s.opt.Explain(r.Header, body)
	status := http.StatusOK
	var v pickView
	if err != nil {
		p = problemOf(err)
		if d.Model == nil {
			p.write(w)
			return
		}
		v.Error, status = new(p.fields()), p.status
	}
	v.fill(d, s.opt.Fleet.Snapshot())
	writeJSON(w, status, v)
}

// problemOf keeps what an error of the data plane says about itself.
func problemOf(err error) *problem {
	var own interface {
		Status() int
		Code() string
		Type() string
	}
	if !errors.As(err, &own) {
		return &problem{status: http.StatusInternalServerError, kind: "internal_error", code: "internal_error", message: err.Error()}
	}
	p := &problem{status: own.Status(), kind: own.Type(), code: own.Code(), message: err.Error()}
	if with, ok := own.(interface{ Param() string }); ok {
		p.param = with.Param()
	}
	return p
}

func (v *pickView) fill(d balancer.Decision, snap *balancer.Snapshot) {
	m := d.Model
	v.Model, v.Strategy, v.Replicas = m.Name, m.Strategy, []candidateView{}
	if d.Picked != nil {
		v.Picked = &d.Picked.ID
	}
	for _, r := range m.Replicas {
		at := slices.Index(m.Available, r)
		c := candidateView{ID: r.ID, Candidate: at >= 0, Terms: viewTerms(r)}
		if c.Candidate && at < len(d.Terms) {
			c.Strategy = map[string]*float64{}
			for _, t := range d.Terms[at] {
				c.Strategy[t.Name] = value(t.Value)
			}
		}
		if !c.Candidate {
			c.WhyNot = whyNot(snap.Replica(r.ID))
		}
		v.Replicas = append(v.Replicas, c)
	}
}

func viewTerms(r *balancer.Replica) termsView {
	t := termsView{InFlight: r.InFlight(), Pending: r.Pending(), Weight: r.Weight}
	if n, ok := r.Waiting(); ok && n >= 0 {
		t.Waiting = &n
	}
	if p := r.Polled(); p != nil {
		t.Running, t.Foreign, t.Stale = value(p.Running), foreign(p), &p.Stale
	}
	return t
}

// whyNot is nil-safe and never empty: the fleet may have changed since the pick.
func whyNot(r *balancer.ReplicaState) string {
	switch {
	case r == nil:
		return "left the fleet"
	case r.Draining:
		return "draining"
	case r.Health.State != balancer.Healthy && r.Health.Reason != "":
		return r.Health.State.String() + ": " + r.Health.Reason
	case r.Health.State != balancer.Healthy:
		return r.Health.State.String()
	case len(r.Models) == 0:
		return "its models are not known yet"
	}
	return "came back just now"
}
