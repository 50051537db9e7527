package proxy

import (
	"bufio"
	"io"
	"sync"

	"github.com/valyala/fasthttp"

	"lbd/proxy/internal/inbound"
)

// own answers a request with a page of lbd's own, which is a fasthttp handler. It
// returns whether the connection may go on, as far as keep says so.
func (s *Server) own(c *inbound.Conn, keep bool, page func(*fasthttp.RequestCtx)) bool {
	o := ownAnswers.Get().(*ownAnswer)
	defer o.free()
	req := c.Request()
	o.begin(req)
	page(&o.ctx)
	resp := &o.ctx.Response
	if resp.StatusCode() >= 400 && len(resp.Header.Peek(requestIDHeader)) == 0 {
		resp.Header.SetBytesV(requestIDHeader, requestID(req))
	}
	s.cfg.Load().cors(req, &resp.Header)
	keep = keep && !req.Close && !s.in.Stopping() && !resp.ConnectionClose()
	switch {
	case !keep:
		resp.SetConnectionClose()
	case req.Minor == 0:
		resp.Header.Set("Connection", "keep-alive")
	}
	resp.SkipBody = string(req.Method) == "HEAD"
	o.w.Reset(c)
	return resp.Write(o.w) == nil && o.w.Flush() == nil && keep
}

type ownAnswer struct {
	ctx fasthttp.RequestCtx
	w   *bufio.Writer
}

var ownAnswers = sync.Pool{New: func() any { return &ownAnswer{w: bufio.NewWriter(io.Discard)} }}

func (o *ownAnswer) begin(req *inbound.Request) {
	h := &o.ctx.Request.Header
	h.DisableNormalizing()
	h.SetMethodBytes(req.Method)
	h.SetRequestURIBytes(req.Target)
	for _, f := range req.Fields {
		h.AddBytesKV(f.Name, f.Value)
	}
	o.ctx.Response.Header.DisableNormalizing()
	o.ctx.Response.Header.SetNoDefaultContentType(true)
}

func (o *ownAnswer) free() {
	o.ctx.Request.Reset()
	o.ctx.Response.Reset()
	o.w.Reset(io.Discard) // holds on to no connection
	ownAnswers.Put(o)
}
