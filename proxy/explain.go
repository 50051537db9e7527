package proxy

import (
	"net/http"
	"time"

	"lbd/balancer"
)

// Explain is a dry run: it says which replica of the model a request with this
// head and body would be sent to now, among which, and what the strategy goes by.
// Nothing is reserved or sent. The error is the answer the client would get; a model that is
// known comes with it.
func (s *Server) Explain(head http.Header, body []byte) (balancer.Decision, error) {
	var w want
	if err := w.understandBody([]byte(head.Get("Content-Type")), body, s.opt.Fleet.Snapshot()); err != nil {
		return balancer.Decision{}, err
	}
	var req balancer.Request
	w.request(&req, body)
	req.Now = time.Now()
	req.Preamble, _ = w.peek.Preamble(body, nil)
	s.explained(&w, &req, head, body)
	d := w.model.Decide(&req)
	if d.Picked == nil {
		return d, noHealthyReplica(w.model.Name)
	}
	return d, nil
}

// Status returns the HTTP status of an error from Explain.
func (e *apiError) Status() int { return e.status }

// Code returns OpenAI's code of an error from Explain.
func (e *apiError) Code() string { return e.code }

// Type returns OpenAI's type of an error from Explain.
func (e *apiError) Type() string { return e.kind }

// Param returns the field of the request that is wrong, as in OpenAI's errors.
func (e *apiError) Param() string { return e.param }
