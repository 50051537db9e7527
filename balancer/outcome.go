package balancer

// Outcome is how one attempt at a replica ended, as far as the replica's health
// is concerned.
type Outcome uint8

// The outcomes of an attempt.
const (
	// Answered: a complete response head below 500; 4xx included, since the
	// client caused it.
	Answered Outcome = iota
	// ServerError: a 5xx response.
	ServerError
	// ConnectRefused: nobody listens, the host is unreachable or its name does
	// not resolve.
	ConnectRefused
	// ConnectTimeout: no connection within the connect timeout.
	ConnectTimeout
	// Reset: the connection broke before or within a response.
	Reset
	// BadResponse: bytes that are not HTTP/1.1, or a broken framing.
	BadResponse
	// Timeout: no first byte, or silence within a stream, for too long.
	Timeout
)

var outcomeNames = [...]string{
	Answered: "answered", ServerError: "server_error", ConnectRefused: "connect_refused",
	ConnectTimeout: "connect_timeout", Reset: "reset", BadResponse: "bad_response", Timeout: "timeout",
}

// String returns the outcome as it appears in metric labels and logs.
func (o Outcome) String() string { return outcomeNames[o] }
