package proxy

import (
	"errors"
	"runtime/debug"
	"time"

	"github.com/rs/zerolog"

	"lbd/proxy/internal/inbound"
	"lbd/proxy/internal/relay"
	"lbd/proxy/internal/sock"
)

// A request of the kind that most are is relayed within turns of a loop: one turn reads
// it and sends it on, another reads the answer and passes that on. Where more is to be
// done than that, or something is to be waited for, a goroutine goes on with the
// exchange as it is: it is the goroutine's from then on.

var _ inbound.Beginner = (*Server)(nil)
var _ sock.Reader = (*exchange)(nil)
var _ sock.Sender = (*exchange)(nil)

// turnBody is the largest body of a request that is looked through in a turn, in bytes.
// It takes some 10 µs, in which the loop does nothing else.
const turnBody = 16 << 10

// Begin implements inbound.Beginner.
func (s *Server) Begin(c *inbound.Conn, t *sock.Turn) (taken bool) {
	var x *exchange
	defer func() {
		if r := recover(); r != nil {
			taken = x.panicked(t, r)
		}
	}()
	req := c.Request()
	if string(req.Method) != "POST" || !straight(req.Target) || len(req.Body) > turnBody || !s.settled() || !s.Turns() {
		return false
	}
	x = s.newExchange(c)
	x.forward(t)
	return true
}

// Turns implements inbound.Beginner. Where lines can only be written, every request that
// has one has a goroutine: what is written to may make it wait. And so it has at debug.
func (s *Server) Turns() bool {
	return (s.opt.Lines != nil || !s.cfg.Load().AccessLog) && !s.says(zerolog.DebugLevel)
}

// forward is relay up to the wait for the answer.
func (x *exchange) forward(t *sock.Turn) {
	if err := x.prepare(x.client.Request()); err != nil {
		x.goOn(t, func(x *exchange) { x.fail(err) })
		return
	}
	if !x.passes() {
		x.goOn(t, (*exchange).attempts)
		return
	}
	res, err := x.want.model.Pick(&x.req, x.tried)
	if err != nil {
		x.goOn(t, (*exchange).attempts) // among those out of service
		return
	}
	x.enter(res)
	if !x.replica.Endpoint.TLS { // which only goroutines speak
		x.up = x.pool.Reuse(x.now, x.client.Loop())
	}
	if x.up == nil {
		x.goOn(t, func(x *exchange) { x.conclude(x.attempt()) })
		return
	}
	if !x.client.Bind(x.up.Conn) {
		x.goOn(t, func(x *exchange) { x.conclude(clientLeft) })
		return
	}
	x.up.Begin()
	x.reached = true
	x.compose()
	t.Ask(x.up.Conn, x.out, x)
}

// Sent implements sock.Sender for the request.
func (x *exchange) Sent(t *sock.Turn, n int, err error) {
	switch {
	case err == nil && n == len(x.out):
		t.Await(x.up.Conn, x)
	case errors.Is(err, sock.ErrNotQuiet):
		x.goOn(t, func(x *exchange) { x.conclude(x.unlessStale(x.came(nil, 0, err))) })
	default:
		x.goOn(t, func(x *exchange) { x.conclude(x.unlessStale(x.came(x.asked(x.up.AskOn(x.out, n, err))))) })
	}
}

// Claim implements sock.Reader: an answer is always wanted.
func (x *exchange) Claim() bool { return true }

// Ended implements sock.Reader.
func (x *exchange) Ended() { x.find(nil) }

// find has a goroutine find out what became of the answer.
func (x *exchange) find(t *sock.Turn) {
	x.goOn(t, func(x *exchange) { x.conclude(x.unlessStale(x.came(x.up.ReadBuf()))) })
}

// Took implements sock.Reader for the answer.
func (x *exchange) Took(t *sock.Turn, b *sock.Buf, n int, err error) {
	switch {
	case err != nil:
		x.find(t)
	case n == 0:
		t.Await(x.up.Conn, x)
	default:
		defer func() {
			if r := recover(); r != nil && !x.panicked(t, r) {
				panic(r)
			}
		}()
		x.pass(t, b, n)
	}
}

// pass passes an answer on, if it has come whole.
func (x *exchange) pass(t *sock.Turn, b *sock.Buf, n int) {
	size, err := x.headIn(b, n)
	if err != nil || size == 0 || x.answer.Status < 200 {
		x.goOn(t, func(x *exchange) { x.conclude(x.unlessStale(x.came(b, n, nil))) })
		return
	}
	x.now = time.Now()
	rest := b.B[size:n]
	if !x.whole(rest) || !x.logsAtOnce() {
		x.goOn(t, func(x *exchange) { x.conclude(x.answered(rest)) })
		return
	}
	if v := x.answered(rest); v.err != nil || v.retry != "" {
		x.giveRoom()
		x.goOn(t, func(x *exchange) { x.conclude(v) })
		return
	}
	x.end()
	c, keep := x.client, x.keep
	x.free()
	c.Answered(t, keep)
}

// whole says that nothing of the answer is still to come.
func (x *exchange) whole(rest []byte) bool {
	switch x.answer.Framing(x.isHead) {
	case relay.NoBody:
		return true
	case relay.Length:
		return x.answer.Length <= bufferedBody && int64(len(rest)) >= x.answer.Length
	}
	return false
}

// goOn has a goroutine do the rest. t is the turn it is called in, nil for none.
func (x *exchange) goOn(t *sock.Turn, rest func(*exchange)) {
	s := x.s
	x.client.GoOn(t, func() (keep bool) {
		defer func() { // of the way out of a first panic
			if r := recover(); r != nil {
				s.panicked(r, nil)
				keep = false
			}
		}()
		return x.serve(rest)
	})
}

// panicked has a goroutine panic in place of a turn, because it knows what to do about
// it. Where there is no exchange, or none any more, it returns false.
func (x *exchange) panicked(t *sock.Turn, r any) (taken bool) {
	if x == nil || x.client == nil {
		return false
	}
	p := &sock.Panicked{Value: r, Stack: debug.Stack()}
	x.goOn(t, func(*exchange) { panic(p) })
	return true
}
