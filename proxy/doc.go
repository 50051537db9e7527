// Package proxy is the data plane: it takes requests from clients, picks a
// replica for each and relays the answer.
//
// One request's way, and the file it goes through:
//
//	server.go    life of the listener, panics end here (internal/inbound accepts and reads)
//	access.go    who asks, between head and body
//	route.go     own page, relayed path, or refused
//	request.go   what the request wants: model, stream, limits (internal/openai)
//	admission.go waiting while every replica of the model is saturated
//	turn.go      the usual request, in turns of a loop without a goroutine
//	exchange.go  pick, reserve, attempt, retry while that is safe
//	resort.go    replicas out of service, when nobody else is left
//	head.go      the request head a replica gets
//	attempt.go   one attempt: connection, send, response head
//	respond.go   the answer: buffered, or relayed event by event (internal/relay)
//	own.go       lbd's own pages, which are fasthttp handlers (surface.go)
//	errors.go    lbd's own answers, in OpenAI's shape
//	accesslog.go the line of a request
//
// Invariants: a reservation is done exactly once on every way out; a request
// that may have run is never sent again; after the first response byte nothing
// is retried, and an answer that did not arrive whole does not look whole.
package proxy
