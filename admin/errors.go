package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
)

// problem is an error answer in OpenAI's shape.
type problem struct {
	status      int
	kind        string // "type" in OpenAI's words
	code, param string
	message     string
}

func badRequest(code, format string, args ...any) *problem {
	return &problem{status: http.StatusBadRequest, kind: "invalid_request_error", code: code, message: fmt.Sprintf(format, args...)}
}

func withStatus(status int, p *problem) *problem {
	p.status = status
	return p
}

func forbidden(code, format string, args ...any) *problem {
	return withStatus(http.StatusForbidden, badRequest(code, format, args...))
}

func notFound(code, format string, args ...any) *problem {
	return withStatus(http.StatusNotFound, badRequest(code, format, args...))
}

func unavailable(code, format string, args ...any) *problem {
	return &problem{status: http.StatusServiceUnavailable, kind: "unavailable", code: code, message: fmt.Sprintf(format, args...)}
}

// maxEcho bounds how much of a client's text comes back in an error, in bytes.
const maxEcho = 256

func clip(s string) string { return s[:min(len(s), maxEcho)] }

type errorBody struct {
	Error errorFields `json:"error"`
}

type errorFields struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    string  `json:"code"`
}

func (p *problem) fields() errorFields {
	f := errorFields{Message: p.message, Type: p.kind, Code: p.code}
	if p.param != "" {
		f.Param = &p.param
	}
	return f
}

func (p *problem) write(w http.ResponseWriter) { writeJSON(w, p.status, errorBody{p.fields()}) }

// writeJSON indents and leaves < and > alone: people read this with curl.
func writeJSON(w http.ResponseWriter, status int, v any) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("BUG: admin page: " + err.Error())
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(b.Bytes()) // the client may be gone; nothing to be done
}
