package proxy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"

	"lbd/balancer"
	"lbd/proxy/internal/inbound"
)

// statusClientGone is what a request counts as whose client left first (nginx's
// 499); nobody receives it.
const statusClientGone = 499

// apiError is an answer of lbd's own, in OpenAI's words; write puts it into the client's.
type apiError struct {
	status     int
	kind       string // "type" in OpenAI's words
	code       string
	param      string
	message    string
	retryAfter int    // seconds, 0 = none
	allow      string // methods, of a 405
	id         []byte // X-Request-Id, nil = none
}

func (e *apiError) Error() string { return e.message }

func badRequest(code, format string, args ...any) *apiError {
	return &apiError{status: 400, kind: "invalid_request_error", code: code, message: fmt.Sprintf(format, args...)}
}

// malformed is the code of a request that is not HTTP as lbd reads it. Others may
// see its end elsewhere, so nothing behind it on the connection is taken for a
// request (RFC 9112 section 11.2).
const malformed = "malformed_request"

func clientError(status int, code, format string, args ...any) *apiError {
	e := badRequest(code, format, args...)
	e.status = status
	return e
}

func replicaError(format string, args ...any) *apiError {
	return &apiError{status: 502, kind: "replica_error", code: "replica_error", message: fmt.Sprintf(format, args...)}
}

func timeoutError(format string, args ...any) *apiError {
	return &apiError{status: 504, kind: "timeout", code: "timeout", message: fmt.Sprintf(format, args...)}
}

// retryAfterSeconds is when a client may try again while a model has no healthy
// replica: replicas are probed every few seconds.
const retryAfterSeconds = 2

func noHealthyReplica(model string) *apiError {
	return &apiError{
		status: 503, kind: "no_healthy_replica", code: "no_healthy_replica", retryAfter: retryAfterSeconds,
		message: fmt.Sprintf("no healthy replica serves %q at the moment", model),
	}
}

// maxEcho bounds how much of a client's text comes back in an error.
const maxEcho = 128

func modelNotFound(snap *balancer.Snapshot, name []byte) *apiError {
	if nothingKnown(snap) {
		return noModelKnown(snap)
	}
	e := clientError(404, "model_not_found", "The model %q does not exist. Served here: %s.%s",
		name[:min(len(name), maxEcho)], servedNames(snap), unheard(snap))
	e.param = "model"
	return e
}

func modelRequired(snap *balancer.Snapshot) *apiError {
	switch {
	case nothingKnown(snap):
		return noModelKnown(snap)
	case len(snap.Models) == 0:
		e := badRequest("model_required", "The request names no model, and none is served.")
		e.param = "model"
		return e
	}
	e := badRequest("model_required", "The request names no model and more than one is served. Set \"model\" to one of: %s.",
		servedNames(snap))
	e.param = "model"
	return e
}

// nothingKnown says that no model is known because replicas have not said yet what
// they serve, or because there are none yet behind a name: they may still be loading. A
// 404 would tell clients not to come back.
func nothingKnown(snap *balancer.Snapshot) bool {
	return len(snap.Models) == 0 && (unlearned(snap) > 0 || len(snap.Unresolved) > 0)
}

// unlearned counts the replicas of which it is not known what they serve.
func unlearned(snap *balancer.Snapshot) (n int) {
	for i := range snap.Replicas {
		if snap.Replicas[i].Models == nil {
			n++
		}
	}
	return n
}

func noModelKnown(snap *balancer.Snapshot) *apiError {
	why := "the only replica has not said what it serves"
	switch n := len(snap.Replicas); {
	case n == 0:
		why = "no replica is there yet, and " + withoutAddress(snap)
	case n > 1:
		why = fmt.Sprintf("of %d replicas none has said what it serves", n)
	}
	return &apiError{
		status: 503, kind: "no_healthy_replica", code: "no_healthy_replica", retryAfter: retryAfterSeconds,
		message: "no model is known yet: " + why,
	}
}

// unheard is a sentence for clients of a model that a replica may serve which is
// still loading.
func unheard(snap *balancer.Snapshot) string {
	said := ""
	if n := unlearned(snap); n > 0 {
		said = fmt.Sprintf(" Not known yet: what %d of %d replicas serve.", n, len(snap.Replicas))
	}
	if len(snap.Unresolved) > 0 {
		said += " Others may serve it later: " + withoutAddress(snap) + "."
	}
	return said
}

// withoutAddress is a clause about names without an address. Which ones is for operators.
func withoutAddress(snap *balancer.Snapshot) string {
	if n := len(snap.Unresolved); n > 1 {
		return fmt.Sprintf("%d names of replicas have no address", n)
	}
	return "a name of replicas has no address"
}

// maxServed bounds the names of models in an error, in bytes: servers of LoRA adapters list
// thousands, and anybody can misspell a name.
const maxServed = 4 << 10

func servedNames(snap *balancer.Snapshot) string {
	var names []string
	size, more := 0, 0
	add := func(name string) {
		if size += len(name) + len(", "); size > maxServed {
			size -= len(name) + len(", ")
			more++
			return
		}
		names = append(names, name)
	}
	for _, m := range snap.Models {
		add(m.Name)
		for _, alias := range m.Aliases {
			add(alias)
		}
	}
	switch all := strings.Join(names, ", "); {
	case more > 0:
		return fmt.Sprintf("%s and %d more, which /v1/models lists", all, more)
	case all == "":
		return "no model"
	default:
		return all
	}
}

func (e *apiError) write(ctx *fasthttp.RequestCtx) {
	d := dialectOf(ctx.Request.Header.RequestURI())
	if e.code == malformed {
		ctx.SetConnectionClose()
	}
	if e.retryAfter > 0 {
		ctx.Response.Header.Set("Retry-After", strconv.Itoa(e.retryAfter))
	}
	if e.status == 401 { // RFC 9110 section 15.5.2 wants it
		ctx.Response.Header.Set("WWW-Authenticate", "Bearer")
	}
	if e.allow != "" {
		ctx.Response.Header.Set("Allow", e.allow)
	}
	if e.id != nil {
		ctx.Response.Header.SetBytesV(requestIDHeader, e.id)
		if d == anthropic {
			ctx.Response.Header.SetBytesV(messagesIDHeader, e.id)
		}
	}
	writeJSON(ctx, e.status, e.body(d))
}

func writeJSON(ctx *fasthttp.RequestCtx, status int, body []byte) {
	ctx.SetStatusCode(status)
	ctx.SetContentType("application/json")
	ctx.SetBody(body)
}

// readError is the answer to a request that could not be read.
func readError(err error, cfg *Config) *apiError {
	var bad *inbound.Malformed
	var refused *apiError // by Admit
	switch {
	case errors.As(err, &refused):
		return refused
	case errors.Is(err, inbound.ErrVersion):
		return clientError(505, "http_version_not_supported", "HTTP/1.1 and HTTP/1.0 are spoken here")
	case errors.Is(err, inbound.ErrHeadSize):
		return clientError(431, "request_head_too_large", "the request head is larger than %d bytes", cfg.MaxHeader)
	case errors.Is(err, inbound.ErrBodySize):
		return clientError(413, "request_too_large", "the request body is larger than %d bytes", cfg.MaxBody)
	case errors.Is(err, inbound.ErrMemory):
		return &apiError{
			status: 503, kind: "overloaded", code: "overloaded", retryAfter: retryAfterSeconds,
			message: "the load balancer has no memory left for the body of this request",
		}
	case errors.Is(err, inbound.ErrSlow):
		return clientError(408, "request_timeout", "the request came too slowly: its head must come within %s and its body at %d bytes per second",
			inbound.SlowTime, inbound.SlowRate)
	case errors.Is(err, inbound.ErrTimeout):
		return clientError(408, "request_timeout", "the request did not arrive within %s", cfg.ClientRead)
	case errors.Is(err, inbound.ErrCut):
		return badRequest(malformed, "the request ended before the end of its body")
	case errors.Is(err, inbound.ErrPlain):
		return badRequest(malformed, "the request came in plain text and TLS is spoken here; want https in place of http")
	case errors.As(err, &bad):
		return badRequest(malformed, "the request is not valid HTTP/1.1: %s", bad.Reason)
	}
	return badRequest(malformed, "the request could not be read")
}
