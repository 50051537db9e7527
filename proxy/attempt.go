package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"lbd/balancer"
	"lbd/proxy/internal/inbound"
	"lbd/proxy/internal/relay"
	"lbd/proxy/internal/sock"
	"lbd/proxy/internal/upstream"
)

// verdict is how an attempt ended. With a retry reason the request certainly was
// not executed, or is safe, and may be sent elsewhere; err is then the answer if
// nobody else is left. Without either the response has begun or is complete.
type verdict struct {
	err   *apiError
	retry string
}

var clientLeft = verdict{err: &apiError{status: statusClientGone}}

// attempt sends the request to the picked replica and stages its answer.
func (x *exchange) attempt() verdict {
	if x.up = x.pool.Reuse(x.now, x.client.Loop()); x.up == nil {
		var err error
		if x.up, err = x.dial(); err != nil {
			return x.cannotConnect(err)
		}
	}
	return x.unlessStale(x.exchange())
}

// dial makes a connection, unless the client leaves meanwhile.
func (x *exchange) dial() (*upstream.Conn, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if !x.client.WhenGone(cancel) {
		return nil, context.Canceled
	}
	defer x.client.WhenGone(nil)
	return x.pool.Dial(ctx, x.client.Loop())
}

// unlessStale is the verdict v, unless the replica closed a connection that was idle at the
// moment of use. That is no fault of it: the same replica, on a fresh connection.
func (x *exchange) unlessStale(v verdict, stale bool) verdict {
	for stale {
		x.release()
		up, err := x.dial()
		if err != nil {
			return x.cannotConnect(err)
		}
		x.s.opt.Metrics.Retried(x.want.label(), "stale_connection")
		x.up = up
		v, stale = x.exchange()
	}
	return v
}

func (x *exchange) cannotConnect(err error) verdict {
	if errors.Is(err, context.Canceled) && x.client.Gone() {
		return clientLeft
	}
	if ownLimit(err) {
		v := verdict{err: &apiError{
			status: 503, kind: "overloaded", code: "overloaded", retryAfter: retryAfterSeconds,
			message: "the load balancer cannot open another connection: " + dialCause(err),
		}}
		if errors.Is(err, syscall.EADDRNOTAVAIL) { // ports are counted per replica
			v.retry = balancer.ConnectRefused.String()
		}
		return v
	}
	o := balancer.ConnectRefused
	var netErr net.Error
	if errors.As(err, &netErr) && netErr.Timeout() {
		o = balancer.ConnectTimeout
	}
	x.failed(o)
	return verdict{retry: o.String(), err: replicaError("cannot connect to replica %s: %s", x.replica.ID, dialCause(err))}
}

// ownLimit says that this host refused the connection, not the replica's: blaming
// replicas for lbd's own descriptors would eject all of them.
func ownLimit(err error) bool {
	return slices.ContainsFunc(ownLimits, func(e syscall.Errno) bool { return errors.Is(err, e) })
}

// ownLimits are descriptors, memory, watched descriptors (epoll's ENOSPC) and
// ports: connections that lbd has closed occupy one for a minute (TIME_WAIT).
var ownLimits = []syscall.Errno{
	syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ENOSPC, syscall.EADDRNOTAVAIL,
}

// dialCause leaves out the addresses that net repeats in its errors.
func dialCause(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var sys *os.SyscallError
	if errors.As(err, &sys) {
		err = sys.Err
	}
	return err.Error()
}

// failed tells health and metrics of an attempt that is the replica's fault.
func (x *exchange) failed(o balancer.Outcome) {
	x.ending = balancer.Failed
	x.s.opt.Health.Report(x.replica, o)
	x.s.opt.Metrics.UpstreamError(x.replica.ID, o.String())
}

// brokeOff is failed for an answer that had begun: it was taken for a good one.
func (x *exchange) brokeOff(o balancer.Outcome) {
	if x.status < 500 {
		x.s.opt.Health.Retract(x.replica)
	}
	x.failed(o)
}

// exchange sends the request on x.up and reads the response head. stale says
// that the connection turned out to be dead before the request arrived, or before a
// safe one was answered.
func (x *exchange) exchange() (v verdict, stale bool) {
	if !x.up.Reused {
		x.now = time.Now() // connecting does not count into the wait for the first byte
	}
	if !x.client.Bind(x.up.Conn) {
		return clientLeft, false
	}
	x.up.Begin()
	x.reached = true
	return x.came(x.send())
}

// came takes the first bytes of the answer, or why there are none.
func (x *exchange) came(b *sock.Buf, n int, err error) (v verdict, stale bool) {
	x.now = time.Now()
	if errors.Is(err, sock.ErrNotQuiet) {
		if x.client.Gone() { // which has ended the replica's connection: that says nothing of the replica
			return clientLeft, false
		}
		x.pool.Closed(x.up)
		return verdict{}, true
	}
	// A replica may answer before it has read everything, so the answer is
	// looked for even if the request could not be written whole.
	var rest []byte
	if err == nil {
		rest, err = x.readHead(b, n)
	}
	if err != nil {
		if _, sendErr := x.uploaded(); sendErr != nil && !errors.Is(err, relay.ErrBadHead) && !errors.Is(err, relay.ErrClient) {
			err = sendErr
		}
		return x.broken(err)
	}
	return x.answered(rest), false
}

// deadline is the time d after now, zero for no limit.
func deadline(now time.Time, d time.Duration) time.Time {
	if d <= 0 {
		return time.Time{}
	}
	return now.Add(d)
}

// smallBody is sent together with the head: one copy is cheaper than a second
// system call. It fits into the socket's buffer.
const smallBody = 64 << 10

// send sends the request and waits for the first bytes of the answer. A larger
// body is sent beside reading: a replica may answer before it has read everything,
// and then read no further. release waits for that goroutine.
func (x *exchange) send() (b *sock.Buf, n int, err error) {
	x.compose()
	if x.bodySize() <= smallBody {
		return x.asked(x.up.Ask(x.out))
	}
	if x.up.Reused && !x.up.Quiet() {
		return nil, 0, sock.ErrNotQuiet
	}
	x.up.SetReadDeadline(time.Time{}) // the write's own limit holds meanwhile
	x.sent = make(chan struct{})
	go x.upload()
	return x.up.ReadBuf()
}

// compose puts together what is sent, a small body included.
func (x *exchange) compose() {
	size := x.bodySize()
	x.out = x.head.appendTo(x.out[:0], &x.replica.Endpoint, size, shown{
		authorization: x.s.opt.Outward.Authorization(x.replica.Listed), dropKeys: x.owner.key != nil,
		peer: &x.owner.peer, said: &x.forwarded,
	})
	if size <= smallBody {
		x.out = append(append(append(x.out, x.body...), x.after[0]...), x.after[1]...)
		x.up.WaitUntil(deadline(x.now, x.cfg.FirstByte)) // sending takes no time that counts
	}
}

// asked goes on behind Ask: if sending has failed, there may be an answer all the same.
func (x *exchange) asked(sendErr error, b *sock.Buf, n int, err error) (*sock.Buf, int, error) {
	x.sendErr = sendErr
	if sendErr == nil || errors.Is(err, sock.ErrNotQuiet) {
		return b, n, err
	}
	x.up.SetReadDeadline(x.answerBy())
	return x.up.ReadBuf()
}

func (x *exchange) upload() {
	defer close(x.sent)
	x.sendErr = x.sendParts()
	x.limit.Lock()
	defer x.limit.Unlock()
	if !x.headCame {
		// Past the connection's own record of deadlines, which is the reader's.
		x.up.TCPConn.SetReadDeadline(x.answerBy())
	}
}

// sendParts sends a request whose body is not in x.out. An error says that its last byte was
// not sent: nothing, which fails as well on a connection that has ended, is never sent behind it.
func (x *exchange) sendParts() error {
	for _, part := range [...][]byte{x.out, x.body, x.after[0], x.after[1]} {
		if len(part) == 0 {
			continue
		}
		if err := x.up.Send(part); err != nil {
			return err
		}
	}
	return nil
}

// pastHead lets nobody but the reader set read deadlines: the head of the answer has come,
// perhaps while the request is still sent. Then its end limits nothing any more, and the
// wait for the first byte of the body is counted from the head.
func (x *exchange) pastHead() {
	if x.sent == nil {
		return
	}
	x.limit.Lock()
	defer x.limit.Unlock()
	x.headCame = true
	if over, _ := x.uploaded(); !over {
		x.up.WaitUntil(deadline(x.now, x.cfg.FirstByte))
	}
}

// answerBy is when the first byte of the answer must have come: counted from the
// end of the request, or a moment when the request could not be sent and only an
// answer that is there already can be read.
func (x *exchange) answerBy() time.Time {
	const moment = time.Second
	if x.sendErr != nil {
		return time.Now().Add(moment)
	}
	return deadline(time.Now(), x.cfg.FirstByte)
}

// uploaded says, without waiting, whether sending the request is over, and how it
// ended.
func (x *exchange) uploaded() (over bool, err error) {
	if x.sent == nil {
		return true, x.sendErr
	}
	select {
	case <-x.sent:
		return true, x.sendErr
	default:
		return false, nil
	}
}

// headIn looks for the response head in what has come, and returns its size.
func (x *exchange) headIn(b *sock.Buf, n int) (size int, err error) {
	x.first = b
	return x.answer.Parse(b.B[:n])
}

// readHead reads up to the end of the response head into b, which holds n bytes of
// it, and returns the body bytes that came with it.
func (x *exchange) readHead(b *sock.Buf, n int) (rest []byte, err error) {
	for interim := 0; ; {
		size, err := x.headIn(b, n)
		switch {
		case err != nil:
			return nil, err
		case size > 0 && x.answer.Status == 101:
			return nil, errSwitched
		case size > 0 && x.answer.Status < 200: // 100 Continue, 103 Early Hints
			if interim++; interim > maxInterim {
				return nil, errInterims
			}
			if err := x.passInterim(); err != nil {
				return nil, errors.Join(relay.ErrClient, err)
			}
			n = copy(b.B[:], b.B[size:n])
			if n > 0 {
				continue
			}
		case size > 0:
			return b.B[size:n], nil
		case n == len(b.B):
			return nil, relay.Oversized
		}
		m, err := x.up.Read(b.B[n:])
		if err != nil {
			return nil, err
		}
		n += m
		x.now = time.Now()
	}
}

// passInterim passes an interim answer on, as RFC 9110 section 15.2 wants it of a proxy,
// but for 100: whoever waited for that has had it, as the body was read before. It is not
// yet the answer: until there is one the client may hear from another replica, or get an
// error of lbd's own.
func (x *exchange) passInterim() error {
	if x.answer.Status == 100 || x.minor == 0 { // HTTP/1.0 knows none of them
		return nil
	}
	o := inbound.GetOut()
	defer inbound.PutOut(o)
	o.B = x.appendStatus(o.B)
	for _, f := range x.answer.Fields {
		if !x.drops(f.Name, false) {
			o.B = appendField(o.B, f.Name, f.Value)
		}
	}
	o.B = append(o.B, "\r\n\r\n"...)
	_, err := x.client.Write(o.B)
	return err
}

// maxInterim bounds the 1xx answers to one request; nothing in front of vLLM sends
// more than one or two.
const maxInterim = 16

var (
	errSwitched = relay.HeadError("no 101 that was not asked for")
	errInterims = relay.HeadError(fmt.Sprintf("at most %d interim answers", maxInterim))
)

// broken decides what a failure before the response means: whose fault it is,
// and whether the request can have been executed.
func (x *exchange) broken(err error) (v verdict, stale bool) {
	nothingRead := x.first == nil
	var bad relay.HeadError
	x.dropFirst()
	switch {
	case x.client.Gone(), errors.Is(err, relay.ErrClient):
		return clientLeft, false
	case errors.As(err, &bad):
		x.failed(balancer.BadResponse)
		return verdict{err: replicaError("replica %s answered with a malformed head; want %s", x.replica.ID, string(bad))}, false
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, sock.ErrStalled):
		x.failed(balancer.Timeout)
		return verdict{err: timeoutError("replica %s sent no byte for %s", x.replica.ID, x.cfg.FirstByte)}, false
	}
	if nothingRead && x.up.Reused && x.wasIdle() {
		return verdict{}, true
	}
	x.failed(balancer.Reset)
	v = verdict{err: replicaError("replica %s closed the connection without an answer", x.replica.ID)}
	if nothingRead && (x.head.safe() || x.notArrived()) {
		v.retry = balancer.Reset.String()
	}
	return v, false
}

// wasIdle says of a reused connection that ended without an answer that the request
// may be sent again on a fresh one: it did not arrive, or it is safe, and the
// likeliest cause is that the replica closed an idle connection as it was used.
func (x *exchange) wasIdle() bool {
	if x.notArrived() {
		x.pool.Closed(x.up)
		return true
	}
	x.pool.Reset(x.up)
	return x.head.safe()
}

// notArrived says that the replica certainly has not got the whole request, so it
// did not run it: vLLM reads a body to its end before it looks at it. Either its
// last byte was never sent, or nothing of it was acknowledged before the replica
// closed.
func (x *exchange) notArrived() bool {
	over, err := x.uploaded()
	if !over {
		// The last byte may have been sent all the same, and nobody has noted it yet.
		x.up.Close()
		<-x.sent
		return x.sendErr != nil
	}
	return err != nil || !x.up.Arrived()
}

// answered looks at a complete response head.
func (x *exchange) answered(rest []byte) verdict {
	x.status = x.answer.Status
	if x.mayBeFull() {
		return x.respond(rest)
	}
	if v, ok := x.loading(); ok {
		return v
	}
	if x.status >= 500 {
		x.failed(balancer.ServerError)
	} else {
		x.s.opt.Health.Report(x.replica, balancer.Answered)
		if x.status < 300 {
			x.noteServed()
		}
	}
	return x.respond(rest)
}

// loading recognises the 502 or 503 of a replica that has not served anything
// since it was (re-)admitted: something in front of it answers while it loads,
// so a request that was sent since did not run. From a replica that has served, the
// same answer may stand for a request that died half-way, and is passed on; so it is
// from one that is out of service, for what it died of may be what has put it out.
func (x *exchange) loading() (verdict, bool) {
	if x.status != 502 && x.status != 503 {
		return verdict{}, false
	}
	state := x.s.opt.Fleet.Snapshot().Replica(x.replica.ID)
	if state == nil || state.Health.State != balancer.Healthy || !x.entered.After(state.Health.Since) {
		return verdict{}, false
	}
	if x.servedSince(state.Health.Since) || !x.othersLeft() {
		return verdict{}, false
	}
	x.failed(balancer.ServerError)
	x.dropFirst()
	return verdict{retry: "loading", err: replicaError("replica %s answers %d", x.replica.ID, x.status)}, true
}

// othersLeft says whether another replica is there to try.
func (x *exchange) othersLeft() bool {
	if len(x.tried)+1 >= x.cfg.MaxAttempts {
		return false
	}
	return slices.ContainsFunc(x.want.model.Available, x.untried) || x.others() != nil
}

// noteServed notes that the replica has answered well. Requests do not end in the order in
// which they were sent.
func (x *exchange) noteServed() {
	at, sent := x.servedAt(), int64(x.entered.Sub(x.s.made))
	for old := at.Load(); sent > old && !at.CompareAndSwap(old, sent); {
		old = at.Load()
	}
}

// servedSince says whether the replica has answered a request well that it was sent since.
func (x *exchange) servedSince(t time.Time) bool {
	last := x.servedAt().Load()
	return last != 0 && last >= int64(t.Sub(x.s.made))
}

func (x *exchange) servedAt() *atomic.Int64 {
	if v, ok := x.s.lastServed.Load(x.replica.ID); ok {
		return v.(*atomic.Int64)
	}
	v, _ := x.s.lastServed.LoadOrStore(x.replica.ID, new(atomic.Int64))
	return v.(*atomic.Int64)
}
