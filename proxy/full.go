package proxy

import (
	"bytes"

	"lbd/balancer"
	"lbd/proxy/internal/relay"
)

// fullReplica recognises vLLM's refusals beyond --max-num-queued-reqs and
// --max-num-queued-tokens, which it means to be tried on another replica (v0.32,
// vllm/exceptions.py).
func fullReplica(body []byte) bool {
	return bytes.Contains(body, []byte("The engine is currently busy and cannot accept new requests.")) ||
		bytes.Contains(body, []byte("The engine has reached its prefill token backlog limit."))
}

// mayBeFull says that only the body tells a replica without room from one that is broken.
// On /v1/messages vLLM makes a 500 of its refusal.
func (x *exchange) mayBeFull() bool {
	return (x.status == 503 || x.status == 500) && x.answer.JSON && x.answer.Framing(x.isHead) == relay.Length && x.answer.Length <= bufferedBody
}

// refused decides what an answer of that kind means whose body was read.
func (x *exchange) refused(body []byte) verdict {
	if fullReplica(body) {
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
	if !x.othersLeft() {
		return verdict{}
	}
	x.dropFirst()
	return verdict{retry: "replica_full", err: &apiError{
		status: 503, kind: "overloaded", code: "overloaded", retryAfter: retryAfterSeconds,
		message: "replica " + x.replica.ID + " has no room for another request",
	}}
}

// fullStream says that a stream is nothing but the refusal of a replica that found itself
// full after it had sent its head. rest begins with the size line of its first chunk.
func (x *exchange) fullStream(rest []byte) bool {
	const head = 256 // bytes that hold a size line and the message
	rest = rest[:min(len(rest), head)]
	i := bytes.Index(rest, []byte(`{"error"`))
	return x.answer.SSE && i >= 0 && bytes.HasSuffix(rest[:i], []byte("data: ")) &&
		bytes.Count(rest[:i], []byte("data: ")) == 1 && fullReplica(rest[i:])
}
