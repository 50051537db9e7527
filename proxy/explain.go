package proxy

import "lbd/balancer"

// Explain is a dry run: it says which replica of the model a request with this
// body would be sent to now, and among which. Nothing is reserved or sent. The
// error is the answer the client would get.
func (s *Server) Explain(contentType string, body []byte) (model *balancer.Model, picked *balancer.Replica, err error) {
	w, apiErr := understandBody([]byte(contentType), body, s.opt.Fleet.Snapshot())
	if apiErr != nil {
		return nil, nil, apiErr
	}
	req := w.request(body)
	picked = w.model.Picker.Pick(&req, w.model.Available)
	if picked == nil {
		return w.model, nil, noHealthyReplica(w.model.Name)
	}
	return w.model, picked, nil
}

// Status returns the HTTP status of an error from Explain.
func (e *apiError) Status() int { return e.status }

// Code returns OpenAI's code of an error from Explain.
func (e *apiError) Code() string { return e.code }

// Type returns OpenAI's type of an error from Explain.
func (e *apiError) Type() string { return e.kind }

// Param returns the field of the request that is wrong, as in OpenAI's errors.
func (e *apiError) Param() string { return e.param }
