package proxy

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"

	"lbd/access/cors"
	"lbd/balancer"
	"lbd/proxy/internal/inbound"
	"lbd/proxy/internal/relay"
	"lbd/proxy/internal/sock"
)

// bufferedBody is the largest body of known length that is read whole before
// anything is sent: it comes in one piece anyway, and if it does not come whole
// the client gets an error instead of half an answer.
const bufferedBody = 64 << 10

// respond passes the replica's answer on.
func (x *exchange) respond(rest []byte) verdict {
	x.pastHead()
	x.keep = x.keep && !x.s.in.Stopping()
	framing := x.answer.Framing(x.isHead)
	x.stream.Body.Reset(framing, x.answer.Length)
	x.stream.Up, x.stream.Silence = x.up, x.cfg.Silence
	x.watch()
	x.noteStored()
	switch {
	case framing == relay.NoBody:
		return x.noBody(rest)
	case framing == relay.Length && x.answer.Length <= bufferedBody:
		return x.buffer(rest)
	}
	return x.begin(rest, framing)
}

// watch has the answer read in passing, if it is of a kind that says something and
// somebody wants to know.
func (x *exchange) watch() {
	x.sniff.Reset(x.answer.SSE, x.model.ITL)
	x.stream.Sniff = nil // of an attempt before
	if x.cfg.NoTokenMetrics && x.keyName == "" {
		return
	}
	if x.answer.SSE {
		x.sniff.Start, x.sniff.TTFT = x.start, x.model.TTFT
		x.sniff.Tokens = &x.res
	}
	if x.answer.SSE || x.answer.JSON {
		x.stream.Sniff = &x.sniff
	}
}

// noBody passes on an answer that is only a head.
func (x *exchange) noBody(rest []byte) verdict {
	x.stream.Excess = len(rest) > 0
	x.complete = true
	x.res.FirstByte()
	length := int64(-1)
	if (x.isHead || x.answer.Length == 0) && x.status != 204 && x.status != 304 { // which may leave it out
		length = x.answer.Length
	}
	x.stage(length, false)
	x.sendReply()
	return verdict{}
}

// buffer reads a body of known length whole, behind the head that it is sent with.
func (x *exchange) buffer(rest []byte) verdict {
	n := int(x.answer.Length)
	x.stream.Excess = len(rest) > n
	rest = rest[:min(len(rest), n)]
	x.stage(x.answer.Length, false)
	b := slices.Grow(x.reply.B, n)
	head := len(b)
	b = append(b, rest...)
	for len(b) < head+n {
		x.up.WaitUntil(deadline(x.now, x.cfg.Silence))
		m, err := x.up.Read(b[len(b) : head+n])
		if err != nil {
			return x.cutShort(err)
		}
		b = b[:len(b)+m]
		x.now = time.Now()
	}
	x.complete = true
	x.reply.B = b
	body := b[head:]
	if x.status == 404 && unknownModel(body) {
		if v := x.unknownThere(); v.retry != "" {
			return v
		}
	}
	if v := x.notThere(body); v.retry != "" {
		return v
	}
	if x.mayBeFull() {
		if v := x.refused(body); v.retry != "" {
			return v
		}
	}
	x.res.FirstByte()
	if x.stream.Sniff != nil {
		x.sniff.Feed(body, x.now)
	}
	x.sendReply()
	return verdict{}
}

// cutShort is for a body of known length that did not come whole. Of a replica that loads
// the head says enough.
func (x *exchange) cutShort(err error) verdict {
	if x.mayBeFull() && !x.client.Gone() {
		if v, ok := x.loading(); ok {
			return v
		}
	}
	return x.unfinished(err)
}

// stage begins the answer with its head.
func (x *exchange) stage(length int64, chunked bool) {
	if x.reply == nil {
		x.reply = inbound.GetOut()
	}
	x.reply.B = x.appendHead(x.reply.B[:0], length, chunked)
}

// sendReply has the client's connection write what is staged, which is all of the
// answer. It is written when the exchange is over and counted, together with waiting for
// the next request, so this is the last moment to see that nobody is there to take it.
func (x *exchange) sendReply() {
	x.begun = true
	if x.client.Gone() {
		x.left, x.keep = true, false
		inbound.PutOut(x.reply)
		x.reply = nil
		return
	}
	x.client.Reply(x.reply)
	x.reply = nil
}

// appendHead writes the head the client gets: the replica's, except what belongs to
// one connection. Trailer stays where trailer fields can: recipients may merge or pass on
// those only that it announces (RFC 9110 section 6.6.2). length is the body's, -1 if the head does not say; chunked and a
// length exclude each other.
func (x *exchange) appendHead(dst []byte, length int64, chunked bool) []byte {
	dst = x.appendStatus(dst)
	hasID, hasDate := false, false
	for _, f := range x.answer.Fields {
		if x.drops(f.Name, chunked) {
			continue
		}
		hasID = hasID || relay.EqualFold(f.Name, "x-request-id")
		hasDate = hasDate || relay.EqualFold(f.Name, "date")
		dst = appendField(dst, f.Name, f.Value)
	}
	if !hasDate { // RFC 9110 section 6.6.1 wants it of who forwards
		dst = append(dst, "\r\nDate: "...)
		dst = fasthttp.AppendHTTPDate(dst, x.now)
	}
	if !hasID {
		dst = appendField(dst, []byte(requestIDHeader), x.head.id)
	}
	if x.cfg.CORS != nil {
		dst = appendCORS(dst, x.cfg.CORS, x.origin)
	}
	if x.cfg.ResponseHeaders {
		dst = append(append(dst, "\r\nX-Lbd-Replica: "...), x.replica.ID...)
		dst = append(append(dst, "\r\nX-Lbd-Strategy: "...), x.want.model.Strategy...)
	}
	switch {
	case chunked:
		dst = append(dst, "\r\nTransfer-Encoding: chunked"...)
	case length >= 0:
		dst = strconv.AppendInt(append(dst, "\r\nContent-Length: "...), length, 10)
	}
	switch {
	case !x.keep:
		dst = append(dst, "\r\nConnection: close"...)
	case x.minor == 0:
		dst = append(dst, "\r\nConnection: keep-alive"...)
	}
	return append(dst, "\r\n\r\n"...)
}

// appendStatus appends the status line without its end.
func (x *exchange) appendStatus(dst []byte) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(x.answer.Status), 10)
	dst = append(dst, ' ')
	if len(x.answer.Reason) > 0 {
		return append(dst, x.answer.Reason...)
	}
	return append(dst, fasthttp.StatusMessage(x.answer.Status)...)
}

// drops says of a field of the replica's that it is not passed on; trailers says that
// trailer fields can be.
func (x *exchange) drops(name []byte, trailers bool) bool {
	if isHopByHop(name) && !(trailers && relay.EqualFold(name, "trailer")) || x.answer.Connection != nil && relay.HasName(x.answer.Connection, name) {
		return true
	}
	return x.cfg.CORS.Owns(name)
}

func appendCORS(dst []byte, p *cors.Policy, origin []byte) []byte {
	value, vary := p.Allow(origin)
	if vary {
		dst = append(dst, "\r\nVary: Origin"...)
	}
	if value != nil {
		dst = append(append(dst, "\r\nAccess-Control-Allow-Origin: "...), value...)
		dst = append(dst, "\r\nAccess-Control-Expose-Headers: "+cors.Expose...)
	}
	return dst
}

func appendField(dst, name, value []byte) []byte {
	dst = append(dst, "\r\n"...)
	dst = append(dst, name...)
	dst = append(dst, ": "...)
	return append(dst, value...)
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
	if x.desperate() { // and what it serves was a guess
		x.dropFirst()
		return verdict{retry: "model_not_found", err: noHealthyReplica(x.want.model.Name)}
	}
	if !x.othersLeft() {
		return verdict{}
	}
	x.dropFirst()
	return verdict{retry: "model_not_found", err: modelNotFound(x.s.opt.Fleet.Snapshot(), []byte(x.want.model.Name))}
}

// begin waits for the first body bytes and relays from there on. As long as nothing
// was sent to the client a replica that fails can still be reported with an error
// instead of a broken success.
func (x *exchange) begin(rest []byte, framing relay.Framing) verdict {
	old := x.minor == 0 && framing != relay.Length
	x.keep = x.keep && !old
	chunked, length := framing != relay.Length && !old, int64(-1)
	if framing == relay.Length {
		length = x.answer.Length
	}
	x.stage(length, chunked)
	if len(rest) == 0 {
		x.dropFirst() // and with it the replica's head
		b, n, err := x.up.ReadBuf()
		switch {
		case err == nil:
			x.first, rest, x.now = b, b.B[:n], time.Now()
		case framing == relay.UntilClose && errors.Is(err, io.EOF): // an empty body
		default:
			return x.unfinished(err)
		}
	}
	x.stream.Rest = rest
	if err := x.stream.Check(); err != nil {
		return x.unfinished(err)
	}
	if x.fullStream(rest) {
		if v := x.elsewhere(); v.retry != "" {
			x.stream.Rest = nil
			return v
		}
	}
	x.stream.First, x.first = x.first, nil
	x.res.FirstByte()
	x.s.admission.Freed(x.replica)
	x.up.WaitUntil(deadline(x.now, x.cfg.Silence)) // without a limit, the one for the first byte must go
	switch {
	case old:
		x.stream.Mode = relay.Unchunk // HTTP/1.0 knows no chunks: the body ends with the connection
	case framing == relay.UntilClose:
		x.stream.Mode = relay.Rechunk
	}
	if framing == relay.Length && !x.client.Secure() && !x.up.Secure() {
		x.stream.Splice = x.splice
	}
	return x.run(chunked, old)
}

// run relays the body.
func (x *exchange) run(chunked, untilClose bool) verdict {
	err := x.stream.Run(x)
	x.now = time.Now()
	if err == nil && x.stream.AtEOF && x.client.Gone() {
		err = relay.ErrClient // the end may be what the client's leaving did
	}
	if err == nil && chunked {
		err = x.writeLast()
	}
	if err == nil && !x.begun { // an empty body
		_, err = x.Write(nil)
	}
	if err != nil && !x.begun { // nothing but a part of a size line came
		return x.unfinished(err)
	}
	x.streamed(err)
	if err != nil && untilClose {
		x.client.SetLinger(0) // a FIN would make the answer look whole
	}
	return verdict{}
}

// splice has the kernel carry a part of the answer. Whose fault an end is shows
// only afterwards: a client that is there has not left.
func (x *exchange) splice(n int64) (int64, error) {
	moved, err := x.client.Splice(x.up.Conn, n, x.cfg.Silence)
	switch {
	case err == nil:
	case x.client.Gone(), errors.Is(err, syscall.EPIPE):
		err = errors.Join(relay.ErrClient, err)
	case errors.Is(err, os.ErrDeadlineExceeded) && !x.up.Quiet(): // it is the client that takes nothing
		err = errors.Join(relay.ErrClient, err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = relay.ErrSilence
	default:
		err = errors.Join(relay.ErrTruncated, err)
	}
	return moved, err
}

// Write sends a part of the answer, the first one together with the head.
func (x *exchange) Write(p []byte) (int, error) {
	if !x.begun {
		x.begun = true
		x.reply.B = append(x.reply.B, p...)
		_, err := x.client.Write(x.reply.B)
		inbound.PutOut(x.reply)
		x.reply = nil
		x.drop()
		return len(p), err
	}
	return x.client.Write(p)
}

// writeLast ends a chunked answer. Trailer fields pass but for those that frame or
// route a message (RFC 9110 section 6.5.1).
func (x *exchange) writeLast() error {
	last := append(x.last[:0], "0\r\n"...)
	relay.TrailerFields(x.stream.Body.Trailer(), func(name, value []byte) {
		if !isHopByHop(name) {
			last = append(append(append(append(last, name...), ": "...), value...), "\r\n"...)
		}
	})
	last = append(last, "\r\n"...)
	_, err := x.Write(last)
	if err != nil {
		err = errors.Join(relay.ErrClient, err)
	}
	return err
}

// streamKeeps is the largest buffer of its own that an exchange keeps while an
// answer streams, in bytes.
const streamKeeps = 8 << 10

// drop gives up the request's bytes: an answer may go on for minutes, and the
// request will not be sent again. What the log wants of it is copied. Until the answer has
// begun the bytes are wanted: an error is still written in answer to them.
func (x *exchange) drop() {
	if over, _ := x.uploaded(); !over {
		return
	}
	b := x.kept[:0]
	b = append(b, x.head.method[:min(len(x.head.method), maxKept)]...)
	method := len(b)
	b = append(b, pathOnly(x.head.target)[:min(len(pathOnly(x.head.target)), maxKept)]...)
	path := len(b)
	b = append(b, x.head.id[:min(len(x.head.id), maxKept)]...)
	x.kept = b
	x.head.method, x.head.target, x.head.id = b[:method], b[method:path], b[path:]
	x.head.clearFields()
	x.body, x.after, x.req.Prompt, x.req.Preamble, x.stored.id = nil, [2][]byte{}, nil, nil, nil
	if cap(x.out) > streamKeeps {
		x.out = nil
	}
	if cap(x.preamble) > streamKeeps { // tools and system prompt of an agent are 100 KB
		x.preamble = nil
	}
	x.client.Release()
}

// maxKept bounds what is kept of a path, and of an id, for the log of a stream, in bytes.
const maxKept = 256

// dropFirst gives back what the response head was read into.
func (x *exchange) dropFirst() {
	sock.PutBuf(x.first)
	x.first = nil
}

// unfinished turns the failure of a response that the client has seen nothing of
// into an answer. The request has run, so it is not retried.
func (x *exchange) unfinished(err error) verdict {
	o, left := x.blame(err)
	if left {
		return clientLeft
	}
	x.brokeOff(o)
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

// streamed notes how the relay ended.
func (x *exchange) streamed(err error) {
	if err == nil {
		x.complete = true
		return
	}
	x.keep = false
	o, left := x.blame(err)
	if x.left = left; !left {
		x.brokeOff(o)
		x.s.opt.Log.Warn().Str("replica", x.replica.ID).Str("model", x.want.label()).Bytes("request_id", x.head.id).
			Err(err).Msg("response broke off, client sees a truncated answer")
	}
}
