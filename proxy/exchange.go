package proxy

import (
	"bytes"
	"sync"
	"time"

	"lbd/access/forwarded"
	"lbd/access/keys"
	"lbd/admission"
	"lbd/balancer"
	"lbd/metrics"
	"lbd/proxy/internal/inbound"
	"lbd/proxy/internal/openai"
	"lbd/proxy/internal/relay"
	"lbd/proxy/internal/sock"
	"lbd/proxy/internal/upstream"
)

// exchange is one relayed request from pick to end. It belongs to the
// goroutine of the client's connection and is reused from request to request.
type exchange struct {
	s      *Server
	cfg    *Config
	client *inbound.Conn
	start  time.Time // the last request byte was read
	// now is the clock as it was read last: at the start, when bytes of an answer had
	// come, and at the end of a body. Reading it costs as much as picking a replica.
	now time.Time

	want  want
	req   balancer.Request
	head  requestHead
	body  []byte
	after [2][]byte    // of a body in which an alias is replaced, behind body: the model's own name, and the rest
	out   []byte       // head (and small body) on its way to the replica
	reply *inbound.Out // head (and small body) on its way to the client
	last  [64]byte     // the last chunk
	kept  []byte       // what the log wants of a request whose bytes are given up

	minor  int  // of the client's HTTP/1.x
	isHead bool // the method is HEAD
	keep   bool // the client's connection may go on
	begun  bool // bytes of an answer were written to the client

	reached bool // the request was sent to a replica, or a part of it

	ticket       admission.Ticket
	owner        *owner
	grant        keys.Grant
	granted      bool   // the client's key has let the request in
	keyName      string // of the client, for the log
	promptTokens int64  // an estimate
	forwarded    forwarded.Fields
	promptBytes  int
	line         lineState
	blocks       []uint64 // hashes of the prompt's blocks, for the log
	preamble     []byte   // of the prompt, where it is put together
	origin       []byte   // of the page that asks, as far as lbd has a say

	model   *metrics.Model
	tried   []*balancer.Replica
	picks   int
	resorts int       // picks among replicas that are out of service
	entered time.Time // of the last pick
	res     balancer.Reservation
	pair    *metrics.Pair
	replica *balancer.Replica
	pool    *upstream.Pool
	up      *upstream.Conn
	sent    chan struct{} // closed when a large body is sent; nil for others
	sendErr error         // of sending the request; valid once sent is closed

	limit    sync.Mutex // held by those who set the replica's read deadline while a large body is sent
	headCame bool       // under limit: the head of the answer has come, with limits of its own

	answer   relay.Head
	first    *sock.Buf // holds head and body bytes until the stream begins
	stream   relay.Stream
	sniff    relay.Sniffer
	stored   stored
	status   int
	own      *apiError       // lbd's own answer, nil while there is none
	complete bool            // the replica's response was read to its end
	left     bool            // the client has left
	ending   balancer.Ending // of the reservation, as far as is known
	done     bool
}

var exchanges = sync.Pool{New: func() any { return new(exchange) }}

// relay carries one request to a replica and its answer back. It returns whether
// the client's connection may go on.
func (s *Server) relay(c *inbound.Conn) (keep bool) {
	x := s.newExchange(c)
	return x.serve((*exchange).relay)
}

// newExchange begins one.
func (s *Server) newExchange(c *inbound.Conn) *exchange {
	x := exchanges.Get().(*exchange)
	req := c.Request()
	x.s, x.cfg, x.client, x.start = s, s.cfg.Load(), c, time.Now()
	x.now = x.start
	x.minor, x.isHead, x.body = req.Minor, string(req.Method) == "HEAD", req.Body
	x.keep = !req.Close
	x.owner = ownerOf(c)
	s.peer(c, x.owner, x.cfg)
	x.model, x.status = s.opt.Metrics.Model(metrics.Other), 500 // what a panic is answered with
	return x
}

// serve does what is left of an exchange, in a goroutine.
func (x *exchange) serve(rest func(*exchange)) (keep bool) {
	defer x.free()
	defer x.recovered(&keep)
	rest(x)
	x.end()
	return x.keep
}

func (x *exchange) relay() {
	if err := x.prepare(x.client.Request()); err != nil {
		x.fail(err)
		return
	}
	x.attempts()
}

// recovered ends an exchange that panics. The client is told, or sees an answer
// that is cut.
func (x *exchange) recovered(keep *bool) {
	r := recover()
	if r == nil {
		return
	}
	id := bytes.Clone(x.id())
	x.s.panicked(r, id)
	*keep = false
	if x.begun {
		x.end()
		return
	}
	x.status = internalError.status // and not the replica's
	e := *internalError
	e.id = id
	x.end()
	x.s.own(x.client, false, e.write)
}

// id is the request's: one that was refused before it had one is given one.
func (x *exchange) id() []byte {
	if x.head.id == nil {
		x.head.id = newRequestID(&x.head.idBuf)
	}
	return x.head.id
}

// prepare reads everything that can be refused without a replica.
func (x *exchange) prepare(req *inbound.Request) *apiError {
	if err := x.head.read(req); err != nil {
		return err
	}
	x.head.noteForwarded(&x.owner.peer, &x.forwarded)
	if x.cfg.CORS != nil {
		x.origin = field(req, "origin")
	}
	if x.head.websocket {
		return clientError(501, "not_implemented", "WebSocket connections are not relayed")
	}
	w := &x.want
	if err := x.findResponse(w, x.understood(req)); err != nil {
		return x.let(err)
	}
	w.request(&x.req, x.body)
	x.req.Now, x.promptBytes = x.start, len(x.req.Prompt)
	x.req.Preamble, x.preamble = w.peek.Preamble(x.body, x.preamble)
	if x.cfg.AccessLog && x.cfg.AccessLogPrefixes {
		x.blocks = x.s.opt.Prefixes.Hasher(w.model.Name).Prompt(x.blocks[:0], x.req.Preamble, x.req.Prompt)
	}
	x.model = x.s.opt.Metrics.Model(w.label())
	if err := x.let(nil); err != nil {
		return err
	}
	if x.stored.id == nil {
		x.req.Session = x.session(req)
	}
	if w.alias {
		x.replaceAlias()
	}
	return nil
}

// replaceAlias puts the model's own name into the body. The body is not copied: what all of
// them take is bounded, and nobody has counted a copy.
func (x *exchange) replaceAlias() {
	p, body := x.want.peek, x.body
	start, end := p.ModelStart, p.ModelEnd
	p.ModelStart, p.ModelEnd = 0, end-start
	x.body = body[:start]
	x.after = [2][]byte{openai.ReplaceModel(nil, body[start:end], p, x.want.model.Name), body[end:]}
}

// bodySize is the length of what a replica gets, in bytes.
func (x *exchange) bodySize() int { return len(x.body) + len(x.after[0]) + len(x.after[1]) }

// attempts tries replicas until one answers, or until trying on is not safe.
func (x *exchange) attempts() {
	res, refused := x.admitted()
	if refused != nil {
		x.fail(refused)
		return
	}
	if res.Replica() == nil {
		var err error
		if res, err = x.pick(); err != nil {
			x.fail(x.want.nobody())
			return
		}
	}
	x.enter(res)
	x.conclude(x.attempt())
}

// conclude goes on behind an attempt that ended with v.
func (x *exchange) conclude(v verdict) {
	for v.retry != "" {
		if x.client.Gone() { // while lbd connected, say
			v = clientLeft
			break
		}
		x.now = time.Now() // connecting may have taken its time
		x.leave()
		x.tried = append(x.tried, x.replica)
		if len(x.tried) >= max(x.cfg.MaxAttempts, 1) {
			break
		}
		res, err := x.pick()
		if err != nil {
			break
		}
		x.s.opt.Metrics.Retried(x.want.label(), v.retry)
		x.enter(res)
		v = x.attempt()
	}
	if v.retry != "" && x.resorts == x.picks {
		v.err = x.want.nobody() // as nobody was in service at any time
	}
	if v.err != nil {
		x.fail(v.err)
	}
}

// enter takes the reservation of a pick.
func (x *exchange) enter(res balancer.Reservation) {
	x.res, x.replica, x.entered = res, res.Replica(), x.now
	x.picks++
	m := x.want.model
	if x.desperate() {
		x.resorts++
	}
	x.pair = x.s.opt.Metrics.Pair(x.want.label(), x.replica.ID, m.Strategy)
	x.pair.Picks.Inc()
	x.pair.InFlight.Inc()
	if e := &x.replica.Endpoint; e.TLS {
		x.pool = x.s.pools.GetTLS(x.replica.ID, e.Addr, upstream.Peer{Listed: x.replica.Listed, Addr: e.ServerAddr()})
	} else {
		x.pool = x.s.pools.Get(x.replica.ID, e.Addr)
	}
}

// leave gives back the connection and the reservation. It is the only place
// where own load goes down, and may be called again.
func (x *exchange) leave() {
	x.release()
	if x.pair != nil {
		x.pair.InFlight.Dec()
		x.pair = nil
	}
	x.res.End(x.ending, x.now)
	x.ending = balancer.Abandoned
	x.s.admission.Freed(x.replica)
}

// release decides about the replica's connection: reuse needs a request that was
// sent whole, a response that was read to its exact end and a client that has not
// closed it by leaving.
func (x *exchange) release() {
	if x.up == nil {
		return
	}
	stayed := x.client.Unbind()
	over, err := x.uploaded()
	// Starlette sends the 500 of an unhandled exception without "connection: close"
	// and uvicorn closes right behind it.
	lasting := !x.answer.Close && x.answer.Status < 500
	if x.complete && stayed && over && err == nil && lasting && !x.stream.Excess {
		x.pool.Put(x.up, x.now)
	} else {
		x.up.Close()
	}
	if x.sent != nil {
		<-x.sent // closing the connection has ended it
	}
	x.up, x.sent, x.sendErr, x.headCame = nil, nil, nil, false
	x.complete, x.stream.Excess = false, false
}

// fail answers with an error of lbd's own.
func (x *exchange) fail(e *apiError) {
	x.now = time.Now() // the request may have waited since, for admission or for a replica
	x.status = e.status
	if e.status == statusClientGone {
		x.left, x.keep = true, false
		return
	}
	e.id = x.id()
	x.own = e
	x.begun = true
	x.keep = x.s.own(x.client, x.keep, e.write)
}

// end does the accounts, once.
func (x *exchange) end() {
	if x.done {
		return
	}
	x.done = true
	x.dropFirst()
	x.stream.DropRest()
	strategy := ""
	if x.want.model != nil {
		strategy = x.want.model.Strategy
	}
	x.sniff.End()
	x.learn()
	x.leave()
	if x.left {
		x.status = statusClientGone
		x.model.Disconnects.Inc()
	}
	x.model.Answered(x.status)
	x.model.Duration.Observe(x.now.Sub(x.start).Seconds())
	x.countTokens()
	x.charge()
	x.accessLog(strategy)
	if cap(x.out) > keepBuffer {
		x.out = nil
	}
	if cap(x.preamble) > keepBuffer {
		x.preamble = nil
	}
}

// learn tells the strategy what became of a request that was answered.
func (x *exchange) learn() {
	if u := &x.sniff.Usage; u.Prompt > 0 || u.Completion > 0 {
		x.res.Usage(balancer.Usage{Prompt: u.Prompt, Completion: u.Completion, Cached: u.Cached})
	}
	if x.complete && x.status < 300 && !x.left {
		x.s.opt.Health.Finished(x.replica)
		x.ending = balancer.Finished
	}
}

func (x *exchange) countTokens() {
	u := &x.sniff.Usage
	x.ticket.Settle(max(u.Prompt, 0), max(u.Completion, 0))
	if u.Prompt > 0 {
		x.model.PromptTokens.Add(float64(u.Prompt))
	}
	if u.Completion > 0 {
		x.model.CompletionTokens.Add(float64(u.Completion))
	}
	if u.Cached > 0 {
		x.model.CachedTokens.Add(float64(u.Cached))
	}
}

// keepBuffer is the largest buffer that is kept for the next request.
const keepBuffer = 64 << 10

// free gives the exchange back. Nothing may use it afterwards. Field by field: it
// is large, and most of it is not used by most requests.
func (x *exchange) free() {
	x.sniff.Reset(false, nil)
	x.stream.Reset()
	clear(x.tried)
	x.giveRoom() // the line was not written after all
	x.line = undecided
	x.s, x.cfg, x.client = nil, nil, nil
	x.want, x.req, x.stored = want{}, balancer.Request{}, stored{}
	x.head.clear()
	x.body, x.after, x.out, x.kept, x.tried = nil, [2][]byte{}, x.out[:0], x.kept[:0], x.tried[:0]
	inbound.PutOut(x.reply)
	x.reply = nil
	x.minor, x.isHead, x.keep, x.begun, x.reached = 0, false, false, false, false
	x.owner, x.grant, x.granted, x.keyName, x.promptTokens, x.origin = nil, keys.Grant{}, false, "", 0, nil
	x.forwarded.Reset()
	x.promptBytes, x.blocks = 0, x.blocks[:0]
	x.model, x.picks, x.resorts, x.pair, x.replica, x.pool = nil, 0, 0, nil, nil, nil
	x.res, x.ticket = balancer.Reservation{}, admission.Ticket{}
	x.up, x.sent, x.sendErr, x.headCame = nil, nil, nil, false
	x.answer.Clear()
	x.own = nil
	x.first, x.status, x.complete, x.left, x.done, x.ending = nil, 0, false, false, false, balancer.Abandoned
	exchanges.Put(x)
}
