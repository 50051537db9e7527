package load

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"
)

// maxAnswer bounds what is kept of an answer that is no stream.
const maxAnswer = 64 << 20

// exchange is one request and its response. It belongs to one goroutine at a time.
type exchange struct {
	rec  Record
	body *[]byte // nil once sent: thousands of streams need not hold their prompts
	// gaps are the times between content events, added to the results when the
	// request has succeeded.
	gaps   []time.Duration
	events eventReader
	head   []byte
	talk   talk
	// text is the output so far, escaped as in JSON, and ends where each event's
	// part of it ends; kept for the next turn, or for Record.Kept.
	text []byte
	ends []int32
	keep bool // text and ends are wanted
}

var (
	exchanges = sync.Pool{New: func() any { return new(exchange) }}
	bodies    = sync.Pool{New: func() any { return new([]byte) }}
)

// prepare makes all that can be made before the request's time.
func (r *Runner) prepare(index int, q Request) *exchange {
	x := exchanges.Get().(*exchange)
	q.index = index
	x.talk = talk{request: q, past: x.talk.past[:0]}
	x.keep = r.o.KeepBytes > 0 || len(q.Turns) > 0
	x.begin(r)
	return x
}

// begin makes the request of the conversation's present turn.
func (x *exchange) begin(r *Runner) {
	q, asked := &x.talk.request, x.talk.asked()
	x.rec = Record{
		Index:       q.index,
		Turn:        x.talk.turn,
		Model:       q.Model,
		Class:       q.Class,
		Stream:      q.Stream,
		AskedPrompt: x.talk.tokens + asked.PromptTokens,
		AskedOutput: asked.OutputTokens,
	}
	x.body = bodies.Get().(*[]byte)
	*x.body = appendBody((*x.body)[:0], r.o.API, r.o.Seed, &x.talk)
	x.head = r.target.appendHead(x.head[:0], &r.o, len(*x.body), q.Stream)
	x.text, x.ends = x.text[:0], x.ends[:0]
	// Grown here, not while events arrive; what a server sends beyond the tokens
	// asked for may still grow it.
	x.gaps = slices.Grow(x.gaps[:0], min(asked.OutputTokens, maxGrow))
	if r.o.KeepBytes > 0 {
		x.rec.Kept = &Kept{Body: bytes.Clone(*x.body)}
		x.ends = slices.Grow(x.ends, min(asked.OutputTokens, maxGrow))
		x.text = slices.Grow(x.text, min(asked.OutputTokens*wordBytes*2, maxGrow))
	}
}

// maxGrow bounds what is set aside for a stream before its first event.
const maxGrow = 1 << 16

// release gives the exchange back.
func (x *exchange) release() {
	x.talk.request = Request{}
	exchanges.Put(x)
}

// hand moves what was kept into the record.
func (x *exchange) hand() {
	k := x.rec.Kept
	if k == nil {
		return
	}
	k.Gaps, k.Ends = taken(&x.gaps), taken(&x.ends)
	k.Text = bytes.Clone(x.text) // the next turn says it again
}

// taken takes the slice over.
func taken[T any](s *[]T) []T {
	whole := *s
	*s = nil
	return whole
}

func (t *target) appendHead(dst []byte, o *Options, length int, stream bool) []byte {
	path, accept := "/v1/chat/completions", "application/json"
	if o.API == Completions {
		path = "/v1/completions"
	}
	if stream {
		accept = "text/event-stream"
	}
	dst = fmt.Appendf(dst, "POST %s%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: lbd-bench\r\nAccept: %s\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n", t.path, path, t.host, accept, length)
	if o.APIKey != "" {
		dst = fmt.Appendf(dst, "Authorization: Bearer %s\r\n", o.APIKey)
	}
	return append(dst, "\r\n"...)
}

// perform sends the request, reads the answer and files the record; it tells
// whether all went well.
func (r *Runner) perform(ctx context.Context, x *exchange) bool {
	rec := &x.rec
	rec.Dispatched = r.since()
	rec.Warmup = rec.Scheduled < r.o.Warmup || rec.Index < r.o.WarmupRequests
	r.live.started()
	if err := r.attempt(ctx, x); err != nil {
		rec.fail(ctx, err)
	}
	if !rec.OK() {
		rec.End = r.since()
	}
	r.live.ended(rec)
	r.recorder.add(x)
	x.events.reset(nil)
	x.releaseBody()
	return rec.OK()
}

func (x *exchange) releaseBody() {
	if x.body != nil {
		bodies.Put(x.body)
		x.body = nil
	}
}

// failure is an error with its cause.
type failure struct {
	cause, code string
	err         error
}

func (f *failure) Error() string { return f.cause + ": " + f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func failed(cause string, err error) error { return &failure{cause: cause, err: err} }

// fail files the error. What a deadline or the end of ctx has broken off is a
// timeout or cancelled, whatever the request was doing at the time.
func (rec *Record) fail(ctx context.Context, err error) {
	var f *failure
	if !errors.As(err, &f) {
		panic("BUG: load: error without a cause: " + err.Error())
	}
	rec.Cause, rec.Code, rec.Detail = f.cause, f.code, clip([]byte(f.err.Error()))
	switch {
	case !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded) &&
		!errors.Is(err, context.Canceled) && !isTimeout(err):
	case ctx.Err() != nil:
		rec.Cause = CauseCancelled
	default:
		rec.Cause = CauseTimeout
	}
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// attempt carries the request over one connection. There is no second attempt:
// a request the proxy drops is a failed request in the score.
func (r *Runner) attempt(ctx context.Context, x *exchange) error {
	deadline := time.Now().Add(r.o.Timeout)
	c, err := r.connect(ctx, deadline)
	if err != nil {
		return failed(CauseConnect, err)
	}
	if err := c.SetDeadline(deadline); err != nil {
		c.Close()
		return failed(CauseConnect, err)
	}
	// A deadline in the past wakes the goroutine that waits for the connection.
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	reusable, err := r.converse(c, x)
	if err == nil {
		x.rec.End = c.arrived.Sub(r.start)
	}
	if stop() && reusable {
		r.pool.put(c)
	} else {
		c.Close()
	}
	return err
}

func (r *Runner) connect(ctx context.Context, deadline time.Time) (*conn, error) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	return r.pool.get(ctx)
}

// post is the request http.ReadResponse wants to know to read its response.
var post = &http.Request{Method: http.MethodPost}

// converse writes the request and reads the response. The connection can be used
// again if the response was read to its end and nothing follows it.
func (r *Runner) converse(c *conn, x *exchange) (reusable bool, err error) {
	x.rec.Sent = r.since()
	message := net.Buffers{x.head, *x.body}
	// A server that refuses a request may answer and close before having read all
	// of it, so the answer counts even if the request could not be written.
	_, writeErr := message.WriteTo(c.Conn)
	x.releaseBody()
	resp, err := readHead(c.in)
	if err != nil && c.broken != nil {
		return false, failed(CauseReset, errors.Join(writeErr, c.broken))
	}
	if err != nil {
		return false, failed(CauseBadResponse, err)
	}
	x.rec.Status = resp.StatusCode
	x.rec.Replica = resp.Header.Get("X-Lbd-Replica")
	ended := false
	switch {
	case resp.StatusCode != http.StatusOK:
		ended, err = readRefusal(resp)
	case x.rec.Stream:
		err = r.readStream(c, resp, x)
		ended = err == nil
	default:
		err = readWhole(resp, x)
		ended = err == nil
	}
	return ended && writeErr == nil && !resp.Close && c.in.Buffered() == 0, err
}

// readHead skips interim responses.
func readHead(in *bufio.Reader) (*http.Response, error) {
	for {
		resp, err := http.ReadResponse(in, post)
		if err != nil || resp.StatusCode >= 200 {
			return resp, err
		}
	}
}

// maxRefusal is how much of an error answer is read.
const maxRefusal = 64 << 10

// readRefusal turns an error status into the failure it is; ended tells whether
// its body was read to the end.
func readRefusal(resp *http.Response) (ended bool, _ error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	code, message := apiError(body)
	if message == "" {
		message = http.StatusText(resp.StatusCode)
	}
	if err != nil && isTimeout(err) {
		return false, failed(CauseTruncated, err)
	}
	return err == nil && len(body) < maxRefusal, &failure{
		cause: "status_" + strconv.Itoa(resp.StatusCode),
		code:  code,
		err:   errors.New(message),
	}
}

// readWhole reads an answer that is one JSON document.
func readWhole(resp *http.Response, x *exchange) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return failed(CauseTruncated, err)
	}
	if len(body) > maxAnswer {
		return failed(CauseBadResponse, fmt.Errorf("answer longer than %d bytes", maxAnswer))
	}
	var c answer
	if err := json.Unmarshal(body, &c); err != nil {
		return failed(CauseBadResponse, fmt.Errorf("answer %q is no JSON: %w", clip(body), err))
	}
	if c.failed() || len(c.Choices) == 0 {
		return failed(CauseBadResponse, fmt.Errorf("answer %q has no choices", clip(body)))
	}
	if x.keep {
		x.text = appendEscaped(x.text, c.text())
	}
	x.rec.count(c.Usage)
	return nil
}

func (rec *Record) count(u *usage) {
	if u == nil {
		return
	}
	rec.PromptTokens, rec.OutputTokens = u.PromptTokens, u.CompletionTokens
	if u.Details != nil {
		rec.CachedTokens = u.Details.CachedTokens
	}
}

var doneMark = []byte("[DONE]")

// readStream reads events up to the end of the body. [DONE] alone is not enough:
// a body cut off after it leaves the connection unusable and is truncated too.
func (r *Runner) readStream(c *conn, resp *http.Response, x *exchange) error {
	kind := resp.Header.Get("Content-Type")
	if media, _, _ := mime.ParseMediaType(kind); media != "text/event-stream" {
		return failed(CauseBadSSE, fmt.Errorf("content type %q; want text/event-stream", kind))
	}
	x.events.reset(resp.Body)
	x.events.from = c
	done := false
	for {
		data, err := x.events.next()
		switch {
		case err == io.EOF && done:
			return nil
		case err == io.EOF:
			return failed(CauseTruncated, fmt.Errorf("stream ended without [DONE] after %d content events", x.rec.Events))
		case errors.Is(err, errEventTooLong):
			return failed(CauseBadSSE, err)
		case err != nil:
			return failed(CauseTruncated, err)
		case bytes.Equal(data, doneMark):
			done = true
		default:
			if err := r.event(x, data); err != nil {
				return err
			}
		}
	}
}

// event takes in one event that is not [DONE].
func (r *Runner) event(x *exchange, data []byte) error {
	if text, plain := plainContent(data); plain {
		r.content(x)
		if x.keep {
			x.text = append(x.text, text...)
			x.ends = append(x.ends, int32(len(x.text)))
		}
		return nil
	}
	var c chunk
	if err := json.Unmarshal(data, &c); err != nil {
		return failed(CauseBadSSE, fmt.Errorf("event %q is no JSON: %w", clip(data), err))
	}
	if c.failed() {
		code, message := apiError(data)
		return &failure{cause: CauseStreamError, code: code, err: errors.New(message)}
	}
	if c.hasContent() {
		r.content(x)
		if x.keep {
			x.text = appendEscaped(x.text, c.text())
			x.ends = append(x.ends, int32(len(x.text)))
		}
	}
	x.rec.count(c.Usage)
	return nil
}

// content marks output that has arrived.
func (r *Runner) content(x *exchange) {
	rec := &x.rec
	at := x.events.stamp.Sub(r.start)
	if rec.Events == 0 {
		rec.FirstContent = at
		r.live.ttft.observe(rec.TTFT())
	} else {
		gap := at - rec.LastContent
		x.gaps = append(x.gaps, gap)
		r.live.itl.observe(gap)
	}
	rec.LastContent = at
	rec.Events++
	r.live.events.Add(1)
}
