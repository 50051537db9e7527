package proxy

import (
	"bytes"
	"errors"

	"lbd/balancer"
	"lbd/metrics"
	"lbd/proxy/internal/inbound"
	"lbd/proxy/internal/openai"
	"lbd/proxy/internal/relay"
)

// want is what a request asks for.
type want struct {
	model *balancer.Model
	peek  openai.Peek
	alias bool // the client used a name that replicas do not know
	// any says that the request names none of several models, and that model stands for
	// all that could answer: neither metrics nor the log are to count it as that one's.
	any bool
	// unknown is the start of a name that nobody knows, in the request's bytes.
	unknown []byte
}

// understand finds the model of a request. Everything it refuses is refused
// before a replica has seen anything.
func (w *want) understand(req *inbound.Request, snap *balancer.Snapshot) *apiError {
	err := w.understandBody(req.ContentType, req.Body, snap)
	if err != nil && len(req.Body) == 0 && string(req.Method) == "OPTIONS" {
		// A browser's preflight names no model; any replica can answer it.
		if w.model = anyModel(snap); w.model != nil {
			w.any = true
			return nil
		}
	}
	if err != nil && err.code == "invalid_body" {
		return compressed(req, err)
	}
	return err
}

// compressed is what is wrong with a body that cannot be read, if it comes with a content
// coding: neither lbd nor vLLM undoes one, and what it hides is no JSON to either.
func compressed(req *inbound.Request, err *apiError) *apiError {
	coding := field(req, "content-encoding")
	if len(coding) == 0 || relay.EqualFold(coding, "identity") {
		return err
	}
	return badRequest("invalid_body", "body has the Content-Encoding %q; want none", coding[:min(len(coding), maxEcho)])
}

// label is the model that the request counts as.
func (w *want) label() string {
	if w.any {
		return metrics.Other
	}
	return w.model.Name
}

// nobody is the answer when no replica in service is left for the request.
func (w *want) nobody() *apiError {
	e := noHealthyReplica(w.model.Name)
	if w.any {
		e.message = "no replica that could answer this is healthy at the moment"
	}
	return e
}

func anyModel(snap *balancer.Snapshot) *balancer.Model {
	for _, m := range snap.Models {
		if len(m.Available) > 0 {
			return m
		}
	}
	return nil
}

func (w *want) understandBody(contentType, body []byte, snap *balancer.Snapshot) *apiError {
	w.model, w.alias, w.any, w.unknown = nil, false, false, nil
	if err := readBody(&w.peek, contentType, body); err != nil {
		return invalid(err)
	}
	if !w.peek.HasModel {
		if w.model = snap.OnlyModel(); w.model == nil {
			return modelRequired(snap)
		}
		return nil
	}
	name := w.peek.ModelBytes(body)
	if w.model = snap.Model(name); w.model == nil {
		w.unknown = name[:min(len(name), maxEcho)]
		return modelNotFound(snap, name)
	}
	w.alias = string(name) != w.model.Name
	return nil
}

// readBody reads a form as a form and everything else as JSON: vLLM v0.6.4 does
// not look at the content type, and curl -d says it is a form.
func readBody(p *openai.Peek, contentType, body []byte) error {
	switch {
	case len(body) == 0:
		*p = openai.Peek{MaxTokens: -1}
		return nil
	case isMultipart(contentType):
		return readForm(p, contentType, body)
	}
	return p.ReadJSON(body)
}

// readForm is kept apart from readBody: forms are rare, and its stack is not for every request.
//
//go:noinline
func readForm(p *openai.Peek, contentType, body []byte) (err error) {
	*p, err = openai.PeekMultipart(contentType, body)
	return err
}

// invalid is the answer to a body that cannot be read.
func invalid(err error) *apiError {
	if errors.Is(err, openai.ErrModelNotString) || errors.Is(err, openai.ErrModelText) {
		e := badRequest("invalid_model", "%s", err)
		e.param = "model"
		return e
	}
	return badRequest("invalid_body", "%s", err)
}

func isMultipart(contentType []byte) bool {
	const form = "multipart/form-data"
	return len(contentType) >= len(form) && bytes.EqualFold(contentType[:len(form)], []byte(form))
}

// request turns what was understood into what a strategy may know.
func (w *want) request(r *balancer.Request, body []byte) {
	*r = balancer.Request{
		Model: w.model.Name, Stream: w.peek.Stream, MaxTokens: w.peek.MaxTokens,
		Prompt: body[w.peek.PromptStart:w.peek.PromptEnd],
	}
}
