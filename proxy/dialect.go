package proxy

import (
	"bytes"
	"strings"
)

// dialect is whose API a client speaks, and so the shape in which it reads errors.
type dialect uint8

const (
	openAI dialect = iota
	anthropic
	dialects
)

// messagesPath is Anthropic's Messages API. What else there is below it (count_tokens)
// is theirs, too.
const messagesPath = "/v1/messages"

// messagesIDHeader is where Anthropic's SDKs look for the request's id.
const messagesIDHeader = "Request-Id"

// dialectOf decides it by the target of a request, nil where none was read. A target in
// a spelling that is refused is taken as it stands.
func dialectOf(target []byte) dialect {
	path, err := cleanPath(target)
	if err != nil {
		path = string(pathOnly(target))
	}
	if rest, ok := strings.CutPrefix(path, messagesPath); ok && (rest == "" || rest[0] == '/') {
		return anthropic
	}
	return openAI
}

// dialectIn is dialectOf for the first bytes of a request that nobody has parsed.
func dialectIn(request []byte) dialect {
	_, rest, _ := bytes.Cut(request, []byte(" "))
	target, _, whole := bytes.Cut(rest, []byte(" "))
	if !whole {
		return openAI
	}
	return dialectOf(target)
}

// errorBody is an error in OpenAI's shape.
type errorBody struct {
	Error errorFields `json:"error"`
}

type errorFields struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    string  `json:"code"`
}

// messagesError is an error in Anthropic's shape.
type messagesError struct {
	Type      string         `json:"type"` // always "error"
	Error     messagesFields `json:"error"`
	RequestID string         `json:"request_id,omitempty"`
}

type messagesFields struct {
	Type    string          `json:"type"`
	Message string          `json:"message"`
	Details messagesDetails `json:"details"`
}

// messagesDetails is where Anthropic's SDKs look for a code that names the cause.
type messagesDetails struct {
	Code string `json:"error_code"`
}

// body is the error in d.
func (e *apiError) body(d dialect) []byte {
	if d == anthropic {
		return mustJSON(messagesError{
			Type:      "error",
			Error:     messagesFields{Type: messagesType(e), Message: e.message, Details: messagesDetails{e.code}},
			RequestID: string(e.id),
		})
	}
	f := errorFields{Message: e.message, Type: e.kind, Code: e.code}
	if e.param != "" {
		f.Param = &e.param
	}
	return mustJSON(errorBody{f})
}

// messagesType is Anthropic's name for an error. They go with the status
// (docs.claude.com/en/api/errors); theirs for "come back later" is 529, which is 503
// here, and statuses without a name of their own have that of 400 or of 500.
func messagesType(e *apiError) string {
	switch e.status {
	case 401:
		return "authentication_error"
	case 403:
		return "permission_error"
	case 404:
		return "not_found_error"
	case 413:
		return "request_too_large"
	case 429:
		return "rate_limit_error"
	case 503:
		return "overloaded_error"
	case 504:
		return "timeout_error"
	}
	if e.kind == "invalid_request_error" {
		return e.kind
	}
	return "api_error"
}
