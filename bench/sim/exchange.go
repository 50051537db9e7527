package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// errEnded ends an exchange that a fault finished early but well.
var errEnded = errors.New("stream ended with an error event")

// errBroken ends an exchange whose connection a fault or the client broke.
var errBroken = errors.New("connection broken")

// exchange is one request and its answer. Its methods write what starlette
// and uvicorn would; they are called by the connection's goroutine only.
type exchange struct {
	ctx  context.Context
	c    *conn
	req  *http.Request
	body []byte
	path string

	extra     string // header lines the profile's middleware appends
	status    int
	api       bool  // an inference call
	anthropic bool  // of the Messages API, and valid
	declared  int64 // content-length of the answer, as the instrumentator reads it
	stream    bool  // chunked answer begun
	ended     bool
	broken    bool
	cut       bool // broken by a fault, not by the client
	keep      bool
	hit       *faultHit // what this request suffers
	events    int       // SSE events written
	record    *RecordedRequest
}

func newExchange(ctx context.Context, c *conn, req *http.Request, body []byte) *exchange {
	x := &exchange{ctx: ctx, c: c, req: req, body: body, path: req.URL.Path, keep: keepsAlive(req)}
	return x
}

// keepsAlive follows uvicorn: HTTP/1.0 closes unless it asks to keep, and only
// the exact value "close" closes.
func keepsAlive(req *http.Request) bool {
	v := strings.ToLower(strings.Join(req.Header.Values("Connection"), ","))
	if req.ProtoMajor == 1 && req.ProtoMinor == 0 {
		return strings.Contains(v, "keep-alive")
	}
	return !req.Close && !strings.Contains(v, "close")
}

// gone reports whether the client left or the server is being killed.
func (x *exchange) gone() bool { return x.broken || x.ctx.Err() != nil }

// finish closes what the handler left open and reports whether the connection
// can carry another request.
func (x *exchange) finish() bool {
	if x.stream && !x.ended {
		return false
	}
	return x.keep && !x.broken && x.status != 0
}

func dateServer() string {
	return "date: " + time.Now().UTC().Format(http.TimeFormat) + "\r\nserver: uvicorn\r\n"
}

// head appends status line and headers to the connection's buffer. lines is
// zero or more "name: value\r\n", in the order starlette sends them.
func (x *exchange) head(status int, lines string) []byte {
	x.status = status
	b := append(x.c.out[:0], "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(append(b, ' '), http.StatusText(status)...)
	b = append(append(b, "\r\n"...), dateServer()...)
	b = append(append(b, lines...), x.extra...)
	if x.stream {
		b = append(b, "transfer-encoding: chunked\r\n"...)
	}
	if !x.keep {
		b = append(b, "connection: close\r\n"...)
	}
	return append(b, "\r\n"...)
}

func (x *exchange) write(b []byte) error {
	x.c.out = b[:0]
	if x.broken {
		return errBroken
	}
	if _, err := x.c.nc.Write(b); err != nil {
		x.broken = true
		return err
	}
	return nil
}

// respond sends a complete answer in one write; uvicorn makes it two.
func (x *exchange) respond(status int, contentType string, body []byte, first ...string) {
	length := len(body)
	if x.api && status == http.StatusOK && x.strike(func(f *Faults) **Fault { return &f.BadLength }) {
		length += badLengthExtra
		x.keep = false
	}
	var lines strings.Builder
	for _, l := range first {
		lines.WriteString(l + "\r\n")
	}
	lines.WriteString("content-length: " + strconv.Itoa(length) + "\r\n")
	if contentType != "" {
		lines.WriteString("content-type: " + contentType + "\r\n")
	}
	b := x.head(status, lines.String())
	x.declared = int64(length)
	if x.api && status >= 400 && status < 500 {
		x.c.run.s.ledger.rejected.Add(1)
	}
	if x.req.Method != http.MethodHead {
		b = append(b, body...)
	}
	x.write(b)
}

// location is starlette's redirect.
func (x *exchange) location(to string) {
	x.write(x.head(http.StatusTemporaryRedirect, "content-length: 0\r\nlocation: "+to+"\r\n"))
}

// strike lets one of the faults hit this request.
func (x *exchange) strike(pick ...func(*Faults) **Fault) bool {
	x.hit = x.c.run.s.faults.strike(x.path, pick...)
	if x.hit != nil {
		x.c.run.s.ledger.faulted.Add(1)
	}
	return x.hit != nil
}

const jsonType = "application/json"

func (x *exchange) json(status int, v any, first ...string) {
	x.respond(status, jsonType, encodeJSON(v), first...)
}

// encodeJSON renders as starlette's JSONResponse: compact, UTF-8, unescaped.
func encodeJSON(v any) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic("BUG: encoding an answer: " + err.Error())
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
}

func (x *exchange) empty(status int) { x.respond(status, "", nil) }

// fail is uvicorn's answer to an unhandled exception; the connection closes
// after it although no header says so.
func (x *exchange) fail() {
	x.extra = ""
	x.respond(http.StatusInternalServerError, "text/plain; charset=utf-8", []byte("Internal Server Error"))
	x.keep = false
}

const streamType = "text/event-stream; charset=utf-8"

// startStream sends the head at once: StreamingResponse emits response.start
// before it asks the generator for the first token.
func (x *exchange) startStream() error {
	x.stream = true
	x.strike(func(f *Faults) **Fault { return &f.HangStream }, func(f *Faults) **Fault { return &f.ResetStream },
		func(f *Faults) **Fault { return &f.TruncateStream }, func(f *Faults) **Fault { return &f.LostDone },
		func(f *Faults) **Fault { return &f.BadChunks }, func(f *Faults) **Fault { return &f.StreamError })
	return x.write(x.head(http.StatusOK, "content-type: "+streamType+"\r\n"))
}

// chunk sends one ASGI body message: one HTTP chunk, one write.
func (x *exchange) chunk(payload []byte) error {
	if x.gone() {
		return errBroken
	}
	if err := x.hit.beforeEvent(x); err != nil {
		return err
	}
	return x.send(payload)
}

func (x *exchange) send(payload []byte) error {
	b := strconv.AppendInt(x.c.out[:0], int64(len(payload)), 16)
	b = append(append(b, "\r\n"...), payload...)
	b = append(b, "\r\n"...)
	x.events++
	return x.write(b)
}

// event sends "data: payload\n\n".
func (x *exchange) event(payload []byte) error {
	b := make([]byte, 0, len(payload)+8)
	b = append(append(b, "data: "...), payload...)
	return x.chunk(append(b, "\n\n"...))
}

func (x *exchange) endStream() {
	if x.gone() {
		return
	}
	x.ended = true
	x.write(append(x.c.out[:0], "0\r\n\r\n"...))
}

// multipartForm is a decoded multipart/form-data body; the last of several
// equal fields wins.
type multipartForm struct {
	values map[string]string
	file   []byte
}

func (x *exchange) multipart() (multipartForm, error) {
	form := multipartForm{values: make(map[string]string)}
	_, params, err := mime.ParseMediaType(x.req.Header.Get("Content-Type"))
	if err != nil {
		return form, err
	}
	mr := multipart.NewReader(bytes.NewReader(x.body), params["boundary"])
	for {
		part, err := mr.NextPart()
		if err == io.EOF {
			return form, nil
		}
		if err != nil {
			return form, err
		}
		b, err := io.ReadAll(part)
		if err != nil {
			return form, err
		}
		if part.FileName() != "" {
			form.file = b
		} else {
			form.values[part.FormName()] = string(b)
		}
	}
}
