package proxy

import (
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"lbd/access/cors"
	"lbd/access/forwarded"
	"lbd/access/keys"
	"lbd/balancer"
	"lbd/proxy/internal/inbound"
	"lbd/proxy/internal/relay"
)

// Words of Config.MetricsAccess.
const (
	MetricsOpen = "open"
	MetricsKey  = "key"
	MetricsOff  = "off"
)

// owner is what is known of a client's connection. It is made with the first
// request that wants it and belongs to the goroutine of the connection.
type owner struct {
	key    *keys.Key // of the request under way; nil when none is asked for
	addr   string    // of the client, for the log; "" = not asked for yet
	peer   forwarded.Peer
	policy *forwarded.Policy // that peer was made by
}

func ownerOf(c *inbound.Conn) *owner {
	o, ok := c.Owner.(*owner)
	if !ok {
		o = &owner{}
		c.Owner = o
	}
	return o
}

// address returns where the client is.
func (o *owner) address(c *inbound.Conn) string {
	if o.addr == "" {
		o.addr = c.RemoteAddr().String()
	}
	return o.addr
}

// Admit implements inbound.Handler: it asks for a key before a body is read.
func (s *Server) Admit(c *inbound.Conn) (err error) {
	defer func() {
		if r := recover(); r != nil {
			s.panicked(r, nil)
			err = errPanicked
		}
	}()
	if !s.opt.Keys.On() {
		if o, ok := c.Owner.(*owner); ok {
			o.key = nil
		}
		return nil
	}
	cfg, req, o := s.cfg.Load(), c.Request(), ownerOf(c)
	o.key = nil
	if cfg.open(req) {
		return nil
	}
	var sent keys.Presented
	for _, f := range req.Fields {
		sent.Field(f.Name, f.Value)
	}
	key, refused := s.opt.Keys.Identify(&sent)
	if !refused.OK() {
		return refusal(refused)
	}
	o.key = key
	return nil
}

// open says whether a request needs no key. Only the plain spelling of a path is
// looked at: another one asks for a key too many, never too few.
func (c *Config) open(req *inbound.Request) bool {
	path := pathOnly(req.Target)
	switch string(path) {
	case "/health", "/ready", "/version":
		return true
	case "/metrics":
		return c.MetricsAccess != MetricsKey
	}
	return c.preflight(req) // browsers send no key with it
}

func (c *Config) preflight(req *inbound.Request) bool {
	return c.CORS != nil && string(req.Method) == "OPTIONS" &&
		cors.Preflight(req.Method, field(req, "origin"), field(req, "access-control-request-method"))
}

// field returns the first field of that name, in lower case, nil without one.
func field(req *inbound.Request, name string) []byte {
	for _, f := range req.Fields {
		if len(f.Name) == len(name) && relay.EqualFold(f.Name, name) {
			return f.Value
		}
	}
	return nil
}

// refusal is the answer of access control.
func refusal(r keys.Refusal) *apiError {
	e := &apiError{status: r.Status(), kind: r.Type(), code: r.Code(), message: r.Message(), retryAfter: r.RetryAfterSeconds()}
	if r.Reason == keys.Model {
		e.param = "model"
	}
	return e
}

// let asks the limits of the client for leave. What it may not know is not told: a
// client that is kept to some models gets the names of its line and no others.
func (x *exchange) let(err *apiError) *apiError {
	k := x.owner.key
	if k == nil {
		return err
	}
	x.keyName = k.Name // before anything is refused: the line says whom
	if err != nil {
		if k.Restricted() && (err.code == "model_not_found" || err.code == "model_required") {
			err.message = "The request names no model that exists and that the API key may use. It may use: " + strings.Join(k.Models, ", ") + "."
		}
		return err
	}
	if m := x.want.model; !x.looksAround() && !k.Allows(m.Name, m.Aliases) {
		return refusal(k.RefuseModel())
	}
	x.promptTokens = keys.Estimate(len(x.req.Prompt))
	grant, refused := k.Begin(x.start, x.promptTokens)
	if !refused.OK() {
		return refusal(refused)
	}
	x.grant, x.granted = grant, true
	return nil
}

// charge ends the leave with what was used: what the replica said in usage, or an
// estimate where it said nothing and did something. It did for a client that has left
// before the answer, too: else whoever leaves in time has any number of prompts worked at.
func (x *exchange) charge() {
	if !x.granted {
		return
	}
	u := &x.sniff.Usage
	used := int64(max(u.Prompt, 0)) + int64(max(u.Completion, 0))
	if used == 0 && (x.begun && x.status < 400 || x.reached && x.left) {
		used = x.promptTokens + int64(x.sniff.Events)
		if x.begun && !x.sniff.SSE {
			used += keys.Estimate(int(max(x.answer.Length, 0)))
		}
	}
	x.grant.End(time.Now(), used)
}

// peer is what replicas are told of the other side of a connection.
func (s *Server) peer(c *inbound.Conn, o *owner, cfg *Config) {
	if o.policy != cfg.Forwarded {
		o.policy, o.peer = cfg.Forwarded, cfg.Forwarded.Peer(c.RemoteAddr(), s.opt.TLS != nil)
	}
}

// cors adds what a browser wants to know to a page of lbd's own.
func (c *Config) cors(req *inbound.Request, h *fasthttp.ResponseHeader) {
	if c.CORS == nil {
		return
	}
	origin, vary := c.CORS.Allow(field(req, "origin"))
	if vary {
		h.Add("Vary", "Origin")
	}
	if origin != nil {
		h.SetBytesV("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Expose-Headers", cors.Expose)
	}
}

// answerPreflight is for a request that cors.Preflight is true of.
func answerPreflight(req *inbound.Request, ctx *fasthttp.RequestCtx) {
	h := &ctx.Response.Header
	h.SetStatusCode(204)
	h.SetNoDefaultContentType(true)
	h.Set("Access-Control-Allow-Methods", cors.Methods)
	if asked := cors.Headers(field(req, "access-control-request-headers")); asked != nil {
		h.SetBytesV("Access-Control-Allow-Headers", asked)
	}
	h.Set("Access-Control-Max-Age", cors.MaxAge)
}

// modelsFor is the page of models for a client that may not use all of them.
func (s *Server) modelsFor(k *keys.Key, path string, ctx *fasthttp.RequestCtx) {
	snap := s.opt.Fleet.Snapshot()
	var some balancer.Snapshot
	some.Generation = snap.Generation
	for _, m := range snap.Models {
		if k.Allows(m.Name, m.Aliases) {
			some.Models = append(some.Models, m)
		}
	}
	p := newModelsPage(&some)
	id, one := strings.CutPrefix(path, modelPagePrefix)
	switch entry := p.byID[id]; {
	case !one:
		writeJSON(ctx, 200, p.all)
	case entry != nil:
		writeJSON(ctx, 200, entry)
	default:
		modelNotFound(&some, []byte(id)).write(ctx)
	}
}
