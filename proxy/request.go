package proxy

import (
	"bytes"
	"errors"

	"lbd/balancer"
	"lbd/proxy/internal/inbound"
	"lbd/proxy/internal/openai"
)

// want is what a request asks for.
type want struct {
	model *balancer.Model
	peek  openai.Peek
	alias bool // the client used a name that replicas do not know
}

// understand finds the model of a request. Everything it refuses is refused
// before a replica has seen anything.
func understand(req *inbound.Request, snap *balancer.Snapshot) (want, *apiError) {
	w, err := understandBody(req.ContentType, req.Body, snap)
	if err != nil && len(req.Body) == 0 && string(req.Method) == "OPTIONS" {
		// A browser's preflight names no model; any replica can answer it.
		if m := anyModel(snap); m != nil {
			return want{model: m, peek: openai.Peek{MaxTokens: -1}}, nil
		}
	}
	return w, err
}

func anyModel(snap *balancer.Snapshot) *balancer.Model {
	for _, m := range snap.Models {
		if len(m.Available) > 0 {
			return m
		}
	}
	return nil
}

func understandBody(contentType, body []byte, snap *balancer.Snapshot) (want, *apiError) {
	peek, err := peekBody(contentType, body)
	if err != nil {
		return want{}, err
	}
	if !peek.HasModel {
		if m := snap.OnlyModel(); m != nil {
			return want{model: m, peek: peek}, nil
		}
		return want{}, modelRequired(snap)
	}
	name := peek.ModelBytes(body)
	m := snap.Model(name)
	if m == nil {
		return want{}, modelNotFound(snap, name)
	}
	return want{model: m, peek: peek, alias: string(name) != m.Name}, nil
}

// peekBody reads a form as a form and everything else as JSON: vLLM v0.6.4 does
// not look at the content type, and curl -d says it is a form.
func peekBody(contentType, body []byte) (openai.Peek, *apiError) {
	if len(body) == 0 {
		return openai.Peek{MaxTokens: -1}, nil
	}
	var peek openai.Peek
	var err error
	if isMultipart(contentType) {
		peek, err = openai.PeekMultipart(contentType, body)
	} else {
		peek, err = openai.PeekJSON(body)
	}
	switch {
	case err == nil:
		return peek, nil
	case errors.Is(err, openai.ErrModelNotString), errors.Is(err, openai.ErrModelText):
		e := badRequest("invalid_model", "%s", err)
		e.param = "model"
		return peek, e
	}
	return peek, badRequest("invalid_body", "%s", err)
}

func isMultipart(contentType []byte) bool {
	const form = "multipart/form-data"
	return len(contentType) >= len(form) && bytes.EqualFold(contentType[:len(form)], []byte(form))
}

// request turns what was understood into what a strategy may know.
func (w *want) request(body []byte) balancer.Request {
	return balancer.Request{
		Model: w.model.Name, Stream: w.peek.Stream, MaxTokens: w.peek.MaxTokens,
		Prompt: body[w.peek.PromptStart:w.peek.PromptEnd],
	}
}
