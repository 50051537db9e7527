package keys

import (
	"time"
)

// Reason is why a request was not let in.
type Reason uint8

// The reasons.
const (
	None Reason = iota
	// Missing: no key was sent. Unknown: a key nobody has. Ambiguous: several.
	Missing
	Unknown
	Ambiguous
	// Model: this client may not use the model.
	Model
	// InFlight, Requests and Tokens are the limits of the client.
	InFlight
	Requests
	Tokens
	reasons
)

var reasonNames = [reasons]string{
	None: "none", Missing: "missing_key", Unknown: "unknown_key", Ambiguous: "ambiguous_key", Model: "model_not_allowed",
	InFlight: "max_in_flight", Requests: "requests_per_minute", Tokens: "tokens_per_minute",
}

// String returns the reason as a label of metrics.
func (r Reason) String() string { return reasonNames[r] }

// Refusal is the answer to a request that is not let in. Its zero value lets in.
type Refusal struct {
	Reason Reason
	// RetryAfter is when the same request may be let in; 0 = never as it is.
	RetryAfter time.Duration
}

// OK says that the request is let in.
func (r Refusal) OK() bool { return r.Reason == None }

// answers are OpenAI's: the SDKs look at the status, people at the rest. A 429 of
// OpenAI has the limit in type and rate_limit_exceeded in code.
var answers = [reasons]struct {
	status              int
	kind, code, message string
}{
	Missing:   {401, "invalid_request_error", "missing_api_key", "No API key was sent. Send it as Authorization: Bearer KEY."},
	Unknown:   {401, "invalid_request_error", "invalid_api_key", "The API key is not valid here."},
	Ambiguous: {401, "invalid_request_error", "invalid_api_key", "More than one API key was sent. Send one."},
	Model:     {403, "invalid_request_error", "model_not_allowed", "The API key may not use this model."},
	InFlight:  {429, "requests", "rate_limit_exceeded", "The API key has as many requests in flight as it may have. Wait for one to end."},
	Requests:  {429, "requests", "rate_limit_exceeded", "The API key has sent as many requests per minute as it may. Try again later."},
	Tokens:    {429, "tokens", "rate_limit_exceeded", "The API key has used as many tokens per minute as it may. Try again later."},
}

// Status is the HTTP status of the answer: 401, 403 or 429.
func (r Refusal) Status() int { return answers[r.Reason].status }

// Type is the member type of OpenAI's error.
func (r Refusal) Type() string { return answers[r.Reason].kind }

// Code is the member code of OpenAI's error.
func (r Refusal) Code() string { return answers[r.Reason].code }

// Message is the member message of OpenAI's error. It names no client and no model.
func (r Refusal) Message() string { return answers[r.Reason].message }

// RetryAfterSeconds is the value of Retry-After, 0 for none: whole seconds, rounded
// up, so that a client that obeys is not refused again.
func (r Refusal) RetryAfterSeconds() int {
	return int((r.RetryAfter + time.Second - 1) / time.Second)
}
