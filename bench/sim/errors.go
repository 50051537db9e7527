package sim

import (
	"fmt"
	"net/http"
)

// apiError is vLLM's ErrorResponse.
type apiError struct {
	message string
	kind    string // type
	param   string // v0.19 only
	code    int
}

func (e *apiError) Error() string { return e.message }

// badRequest is create_error_response's default. v0.19 names the parameter,
// in the message as well (VLLMValidationError.__str__).
func (r *run) badRequest(message, param string, value any) *apiError {
	if r.cfg.Profile == ProfileV064 {
		param = ""
	}
	if param != "" && value != nil {
		message += fmt.Sprintf(" (parameter=%s, value=%v)", param, value)
	} else if param != "" {
		message += fmt.Sprintf(" (parameter=%s)", param)
	}
	return &apiError{message: message, kind: "BadRequestError", param: param, code: http.StatusBadRequest}
}

func notFound(model string) *apiError {
	return &apiError{
		message: fmt.Sprintf("The model `%s` does not exist.", model),
		kind:    "NotFoundError", param: "model", code: http.StatusNotFound,
	}
}

type errorInfo struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    int     `json:"code"`
}

type flatError struct {
	Object string `json:"object"`
	errorInfo
}

type nestedError struct {
	Error errorInfo `json:"error"`
}

// reject answers with the profile's error shape: flat up to v0.10.0, nested
// since.
func (r *run) reject(x *exchange, e *apiError) {
	info := errorInfo{Message: e.message, Type: e.kind, Code: e.code}
	if r.cfg.Profile == ProfileV064 {
		x.json(e.code, flatError{Object: "error", errorInfo: info})
		return
	}
	if x.anthropic {
		x.json(e.code, newMessagesError(e.kind, e.message))
		return
	}
	if e.param != "" {
		info.Param = &e.param
	}
	x.json(e.code, nestedError{info})
}

// invalid answers a failed request validation. v0.6.4 prints FastAPI's error
// list; v0.19 prints str(exc) and the list. The file and line FastAPI adds to
// the former are left out.
func (r *run) invalid(x *exchange, param string, details ...string) {
	list := "["
	for i, d := range details {
		if i > 0 {
			list += ", "
		}
		if d != "" && d[0] != '{' {
			d = reprString(d)
		}
		list += d
	}
	list += "]"
	e := &apiError{message: list, kind: "BadRequestError", code: http.StatusBadRequest}
	if r.cfg.Profile == ProfileV019 {
		plural := "s"
		if len(details) == 1 {
			plural = ""
		}
		text := fmt.Sprintf("%d validation error%s:", len(details), plural)
		for _, d := range details {
			text += "\n  " + d
		}
		e = &apiError{message: text + " " + list, kind: "Bad Request", param: param, code: http.StatusBadRequest}
	}
	r.reject(x, e)
}

// failStatus answers an API call with a server error in the profile's shape;
// a dead V0 engine sends no body.
func (r *run) failStatus(x *exchange, code int) {
	if r.cfg.Profile == ProfileV064 && code == http.StatusInternalServerError {
		x.empty(code)
		return
	}
	r.reject(x, &apiError{message: http.StatusText(code), kind: "InternalServerError", code: code})
}

// generationFailed is what a stream ends with when the engine fails. V0 takes it for the
// client's fault.
func (r *run) generationFailed() *apiError {
	e := &apiError{message: "Internal server error", kind: "InternalServerError", code: http.StatusInternalServerError}
	if r.cfg.Profile == ProfileV064 {
		e.kind, e.code = "BadRequestError", http.StatusBadRequest
	}
	return e
}

// errorEvent ends a stream as vLLM does when something fails after the head is out: an
// error event, [DONE], and a proper end. The JSON is json.dumps', with its spaces.
func (x *exchange) errorEvent(e *apiError) error {
	body := fmt.Sprintf(`"message": %q, "type": %q, "param": null, "code": %d}`, e.message, e.kind, e.code)
	if x.c.run.cfg.Profile == ProfileV064 {
		body = `"object": "error", ` + body
	}
	events := []string{`data: {"error": {` + body + "}", "data: [DONE]"}
	if x.anthropic { // message_stream_converter
		events[0] = "event: error\ndata: " + string(encodeJSON(newMessagesError("internal_error", e.message)))
	}
	for _, event := range events {
		if err := x.send([]byte(event + "\n\n")); err != nil {
			return err
		}
	}
	x.endStream()
	return errEnded
}
