package proxy

import (
	"bytes"
	"encoding/json"
	"regexp"
	"slices"

	"lbd/balancer"
	"lbd/proxy/internal/openai"
	"lbd/proxy/internal/relay"
)

// saysFull is how an error begins with which vLLM refuses what is beyond --max-num-queued-reqs
// or --max-num-queued-tokens, and which it means to be tried on another replica (v0.32,
// vllm/exceptions.py), in OpenAI's shape or in Anthropic's. Other errors may quote what a
// client has sent, so its place counts.
var saysFull = regexp.MustCompile(`^\s*\{("type":\s*"error",\s*)?"error":\s*\{("type":\s*"[a-z_]*",\s*)?"message":\s*` +
	`"The engine (is currently busy and cannot accept new requests|has reached its prefill token backlog limit)\.`)

// beginsFull is a stream that begins with such an error: the size line of a chunk, if the
// body has chunks, and an event.
var beginsFull = regexp.MustCompile(`^([0-9A-Fa-f]+\r\n)?data: (` + saysFull.String()[1:] + `)`)

// mayBeFull says that only the body tells a replica without room from one that is broken.
// On /v1/messages vLLM makes a 500 of its refusal.
func (x *exchange) mayBeFull() bool {
	return (x.status == 503 || x.status == 500) && x.answer.JSON && x.answer.Framing(x.isHead) == relay.Length && x.answer.Length <= bufferedBody
}

// refused decides what an answer of that kind means whose body was read.
func (x *exchange) refused(body []byte) verdict {
	if saysFull.Match(body) {
		x.s.opt.Health.Report(x.replica, balancer.Answered)
		return x.elsewhere()
	}
	if v, ok := x.loading(); ok {
		return v
	}
	x.failed(balancer.ServerError)
	return verdict{}
}

// elsewhere has another replica take what one had no room for, if there is another: the
// request did not run, and nothing is wrong with the replica.
func (x *exchange) elsewhere() verdict {
	if x.takesTurns() || !x.othersLeft() {
		return verdict{}
	}
	x.dropFirst()
	return verdict{retry: "replica_full", err: &apiError{
		status: 503, kind: "overloaded", code: "overloaded", retryAfter: retryAfterSeconds,
		message: "replica " + x.replica.ID + " has no room for another request",
	}}
}

// takesTurns says that vLLM may have called tools for the request, each time between two
// turns of the model, of which every one needs room: then the last one was refused, and not
// the first. It does so in the responses API, with all tools but functions, which clients call.
func (x *exchange) takesTurns() bool {
	if _, ok := responsePath(x.head.target); !ok {
		return false
	}
	raw := x.want.peek.Raw(x.client.Request().Body, openai.Tools)
	if raw == nil {
		return false
	}
	var tools []map[string]json.RawMessage
	return json.Unmarshal(raw, &tools) != nil || slices.ContainsFunc(tools, func(t map[string]json.RawMessage) bool {
		return string(t["type"]) != `"function"`
	})
}

// fullStream says that a stream is nothing but the refusal of a replica that found itself
// full after it had sent its head. rest is how the body begins.
func (x *exchange) fullStream(rest []byte) bool {
	const size = 256 // bytes that hold a size line and the message
	rest = rest[:min(len(rest), size)]
	return x.answer.SSE && bytes.Contains(rest, []byte("The engine ")) && beginsFull.Match(rest)
}
