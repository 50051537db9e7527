package proxy

import (
	"testing"

	"github.com/valyala/fasthttp"
)

// A live stream holds no copy of its request but a small one.
func TestStreamHoldsNoLargeRequest(t *testing.T) {
	x := &exchange{ctx: &fasthttp.RequestCtx{}, out: make([]byte, 0, streamKeeps+1)}
	x.ctx.Request.SetBody(make([]byte, streamKeeps+1))
	x.body = x.ctx.Request.Body()
	x.dropBody(streamKeeps)
	if x.out != nil || x.body != nil || len(x.ctx.Request.Body()) != 0 {
		t.Errorf("held: %d bytes to send, %d of the body, %d of fasthttp's", cap(x.out), len(x.body), len(x.ctx.Request.Body()))
	}
}
