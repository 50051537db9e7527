package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"

	"github.com/valyala/fasthttp"

	"lbd/balancer"
	"lbd/proxy/internal/relay"
	"lbd/proxy/internal/sock"
)

// bufferedBody is the largest body of known length that is read whole before
// anything is sent: it comes in one piece anyway, and if it does not come whole
// the client gets an error instead of half an answer.
const bufferedBody = 64 << 10

// respond stages the replica's answer.
func (x *exchange) respond(rest []byte) verdict {
	isHead := x.ctx.IsHead()
	framing := x.answer.Framing(isHead)
	x.stream.Body.Reset(framing, x.answer.Length)
	x.stream.Up, x.stream.Silence = x.up, x.cfg.Silence
	x.sniff.Reset(x.answer.SSE, x.model.ITL)
	if x.answer.SSE {
		x.sniff.Start, x.sniff.TTFT = x.start, x.model.TTFT
	}
	if x.answer.SSE || x.answer.JSON {
		x.stream.Sniff = &x.sniff
	}
	x.stageHead()
	switch {
	case framing == relay.NoBody:
		x.noBody(rest, isHead)
		return verdict{}
	case framing == relay.Length && x.answer.Length <= bufferedBody:
		return x.buffer(rest)
	}
	return x.begin(rest, framing)
}

// stageHead copies the replica's head into the response, except what belongs to
// one connection.
func (x *exchange) stageHead() {
	h := &x.ctx.Response.Header
	h.SetStatusCode(x.answer.Status)
	if reason := x.answer.Reason; len(reason) > 0 && string(reason) != fasthttp.StatusMessage(x.answer.Status) {
		h.SetStatusMessage(reason)
	}
	hasID := false
	for _, f := range x.answer.Fields {
		if isHopByHop(f.Name) || relay.HasName(x.answer.Connection, f.Name) {
			continue
		}
		hasID = hasID || bytes.EqualFold(f.Name, []byte(requestIDHeader))
		h.AddBytesKV(f.Name, f.Value)
	}
	if !hasID {
		h.SetBytesV(requestIDHeader, x.head.id)
	}
	if x.cfg.ResponseHeaders {
		h.Set("X-Lbd-Replica", x.replica.ID)
		h.Set("X-Lbd-Strategy", x.want.model.Strategy)
	}
}

func (x *exchange) noBody(rest []byte, isHead bool) {
	x.stream.Excess = len(rest) > 0
	x.complete = true
	x.res.FirstByte()
	if isHead {
		x.ctx.Response.SkipBody = true
		if x.answer.Length >= 0 {
			x.ctx.Response.Header.SetContentLength(int(x.answer.Length))
		}
	}
}

// buffer reads a body of known length whole.
func (x *exchange) buffer(rest []byte) verdict {
	x.stream.Rest = rest
	if int64(len(rest)) < x.answer.Length {
		x.up.SetReadDeadline(deadline(x.cfg.Silence))
	}
	if err := x.stream.Run(bodyAppender{&x.ctx.Response}); err != nil {
		x.ctx.Response.Reset()
		return x.unfinished(err)
	}
	x.complete = true
	if x.status == 404 && unknownModel(x.ctx.Response.Body()) {
		return x.unknownThere()
	}
	return verdict{}
}

// unknownModel recognises vLLM's "The model `X` does not exist." (v0.6.4 to
// v0.19, vllm/entrypoints/openai/serving_engine.py).
func unknownModel(body []byte) bool {
	return bytes.Contains(body, []byte("The model ")) && bytes.Contains(body, []byte("does not exist"))
}

// unknownThere handles the answer of a replica that does not serve the model any
// more: it was restarted as something else and nobody has noticed yet. The
// request did not run, so another replica may have it.
func (x *exchange) unknownThere() verdict {
	x.s.opt.Models.Relearn(x.replica.ID)
	if !x.othersLeft() {
		return verdict{}
	}
	x.ctx.Response.Reset()
	x.dropFirst()
	return verdict{retry: "model_not_found", err: modelNotFound(x.s.opt.Fleet.Snapshot(), []byte(x.want.model.Name))}
}

type bodyAppender struct{ resp *fasthttp.Response }

func (a bodyAppender) Write(p []byte) (int, error) {
	a.resp.AppendBody(p)
	return len(p), nil
}

// begin waits for the first body bytes and hands the rest to WriteTo. As long as
// nothing was sent to the client a replica that fails can still be reported with
// an error instead of a broken success.
func (x *exchange) begin(rest []byte, framing relay.Framing) verdict {
	if len(rest) == 0 {
		x.dropFirst()
		b, n, err := x.up.ReadBuf()
		switch {
		case err == nil:
			x.first, rest = b, b.B[:n]
		case framing == relay.UntilClose && errors.Is(err, io.EOF): // an empty body
		default:
			return x.unfinished(err)
		}
	}
	x.stream.Rest = rest
	if err := x.stream.Check(); err != nil {
		return x.unfinished(err)
	}
	x.stream.First, x.first = x.first, nil
	x.res.FirstByte()
	x.dropBody(streamKeeps)
	x.up.SetReadDeadline(deadline(x.cfg.Silence))
	size := -1
	if framing == relay.Length {
		size = int(x.answer.Length)
	}
	if framing == relay.UntilClose {
		x.stream.Mode = relay.Rechunk
	}
	if !x.ctx.Request.Header.IsHTTP11() && size < 0 {
		x.streamOld()
		return verdict{}
	}
	x.streaming = true
	x.ctx.Response.ImmediateHeaderFlush = true
	x.ctx.Response.SetBodyStream(x, size)
	return verdict{}
}

// streamKeeps is the largest request buffer that is kept while an answer streams.
const streamKeeps = 8 << 10

// dropBody lets go of request buffers larger than keep: an answer may go on for
// minutes, and the request will not be sent again.
func (x *exchange) dropBody(keep int) {
	if over, _ := x.uploaded(); !over {
		return
	}
	x.body, x.req.Prompt = nil, nil
	x.ctx.Request.ReleaseBody(keep)
	if cap(x.out) > keep {
		x.out = nil
	}
}

// dropFirst gives back what the response head was read into.
func (x *exchange) dropFirst() {
	sock.PutBuf(x.first)
	x.first = nil
}

// unfinished turns the failure of a response that the client has seen nothing of
// into an answer. The request has run, so it is not retried.
func (x *exchange) unfinished(err error) verdict {
	x.ctx.Response.Reset()
	o, left := x.blame(err)
	if left {
		return clientLeft
	}
	x.failed(o)
	switch o {
	case balancer.Timeout:
		return verdict{err: timeoutError("replica %s stopped sending in the middle of its answer", x.replica.ID)}
	case balancer.BadResponse:
		return verdict{err: replicaError("replica %s sent a malformed answer", x.replica.ID)}
	}
	return verdict{err: replicaError("replica %s broke off its answer", x.replica.ID)}
}

// blame says whose fault the end of a relay was.
func (x *exchange) blame(err error) (o balancer.Outcome, clientLeft bool) {
	switch {
	case x.client.Gone(), errors.Is(err, relay.ErrClient):
		return 0, true
	case errors.Is(err, relay.ErrSilence), errors.Is(err, os.ErrDeadlineExceeded):
		return balancer.Timeout, false
	case errors.Is(err, relay.ErrBadFraming):
		return balancer.BadResponse, false
	}
	return balancer.Reset, false
}

// Read is not used: fasthttp takes WriteTo.
func (x *exchange) Read([]byte) (int, error) { panic("BUG: the relay is not read from") }

// SupportsBodyWriteTo implements fasthttp.BodyWriterTo.
func (x *exchange) SupportsBodyWriteTo() bool { return true }

// WriteTo relays the body past fasthttp's writer, to which only the end of a
// chunked body is left. The head has been flushed before.
func (x *exchange) WriteTo(io.Writer) (n int64, err error) {
	defer func() {
		if r := recover(); r != nil { // fasthttp would not say a word
			x.s.panicked(r)
			x.end()
			err = errPanicked
		}
	}()
	err = x.stream.Run(x.client)
	x.streamed(err)
	if err == nil {
		relay.TrailerFields(x.stream.Body.Trailer(), func(name, value []byte) {
			if x.ctx.Response.Header.AddTrailerBytes(name) == nil {
				x.ctx.Response.Header.AddBytesKV(name, value)
			}
		})
	}
	n = x.stream.Relayed
	x.end()
	return n, err
}

var errPanicked = errors.New("relay panicked")

// streamed notes how the relay ended.
func (x *exchange) streamed(err error) {
	if err == nil {
		x.complete = true
		return
	}
	o, left := x.blame(err)
	if x.left = left; !left {
		x.failed(o)
		x.s.opt.Log.Warn().Str("replica", x.replica.ID).Str("model", x.want.model.Name).Bytes("request_id", x.head.id).
			Err(err).Msg("response broke off, client sees a truncated answer")
	}
}

// Close implements io.Closer: fasthttp calls it when it is done with the body,
// also when it never asked for it.
func (x *exchange) Close() error {
	if !x.done {
		x.left = true
		x.end()
	}
	x.free()
	return nil
}

// streamOld relays to a client of HTTP/1.0, which knows no chunks: the body ends
// with the connection. fasthttp cannot write such a response, so it is written
// here, before the handler returns.
func (x *exchange) streamOld() {
	x.stream.Mode = relay.Unchunk
	h := &x.ctx.Response.Header
	h.SetConnectionClose()
	h.SetContentLength(-2) // "identity": no framing in the head
	_, err := x.client.Write(h.Header())
	if err != nil {
		err = errors.Join(relay.ErrClient, err)
	} else {
		err = x.stream.Run(x.client)
	}
	x.streamed(err)
	if err != nil {
		x.client.SetLinger(0) // a FIN would make the answer look whole
	}
	x.ctx.HijackSetNoResponse(true)
	x.ctx.Hijack(func(net.Conn) {}) // only to have the connection closed
}
