package proxy

import (
	"net/http"
	"time"

	"lbd/balancer"
)

// Explain is a dry run: it says which replica of the model a request with this
// head and body would be sent to now, among which, and what the strategy goes by.
// Nothing is reserved or sent, but if the request were for replicas out of service these
// are probed. The error is the answer the client would get; a model that is known comes
// with it.
func (s *Server) Explain(head http.Header, body []byte) (balancer.Decision, error) {
	var w want
	snap := s.opt.Fleet.Snapshot()
	if err := w.understandBody([]byte(head.Get("Content-Type")), body, snap); err != nil {
		return balancer.Decision{}, err
	}
	var req balancer.Request
	w.request(&req, body)
	req.Now = time.Now()
	req.Preamble, _ = w.peek.Preamble(body, nil)
	var out []*balancer.Replica
	if w.peek.HasModel {
		out = notDraining(w.model, snap)
	}
	if f := s.explained(&w, &req, head, body); f.Model != nil {
		w.model, out = f.Model, nil
		if f.Out != nil {
			out = []*balancer.Replica{f.Out}
		}
	}
	d := w.model.Decide(&req)
	if d.Picked != nil {
		return d, nil
	}
	if m := s.lastResort(w.model, out); m != nil {
		return m.Decide(&req), nil
	}
	return d, noHealthyReplica(w.model.Name)
}

// Status returns the HTTP status of an error from Explain.
func (e *apiError) Status() int { return e.status }

// Code returns OpenAI's code of an error from Explain.
func (e *apiError) Code() string { return e.code }

// Type returns OpenAI's type of an error from Explain.
func (e *apiError) Type() string { return e.kind }

// Param returns the field of the request that is wrong, as in OpenAI's errors.
func (e *apiError) Param() string { return e.param }
