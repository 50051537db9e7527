package sim

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// errClientGone is the cause of an exchange's context when its client closed,
// half-closed or reset the connection: uvicorn's eof_received returns None, so
// for vLLM all three are the same.
var errClientGone = errors.New("client gone")

// conn is one client connection, served as uvicorn with httptools serves it:
// no header limit, keep-alive timer armed only after an answer, lower-case
// header names, one write per ASGI message.
type conn struct {
	run  *run
	nc   net.Conn
	br   *bufio.Reader
	out  []byte // reused for heads and chunks
	idle atomic.Bool
}

func (c *conn) serve() {
	defer c.nc.Close()
	for answered := false; ; answered = true {
		if answered && !c.awaitNext() {
			return
		}
		req, err := http.ReadRequest(c.br)
		if err != nil {
			c.refuse(err)
			return
		}
		body, err := c.readBody(req)
		if err != nil {
			return
		}
		if !c.answer(req, body) {
			return
		}
	}
}

// awaitNext waits for the first byte of the next request for as long as an
// idle connection lives.
func (c *conn) awaitNext() bool {
	c.nc.SetReadDeadline(time.Now().Add(c.run.cfg.KeepAlive))
	c.idle.Store(true)
	_, err := c.br.Peek(1)
	c.idle.Store(false)
	c.nc.SetReadDeadline(time.Time{})
	return err == nil
}

// refuse answers what is not HTTP the way uvicorn does; a connection that
// just ended gets nothing.
func (c *conn) refuse(err error) {
	var ne net.Error
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &ne) {
		return
	}
	const text = "Invalid HTTP request received."
	io.WriteString(c.nc, "HTTP/1.1 400 Bad Request\r\n"+dateServer()+
		"content-type: text/plain; charset=utf-8\r\ncontent-length: 30\r\nconnection: close\r\n\r\n"+text)
}

// maxPrealloc bounds what a content-length alone makes us allocate.
const maxPrealloc = 128 << 20

// readBody reads the whole body, as every vLLM route does before it looks.
func (c *conn) readBody(req *http.Request) ([]byte, error) {
	if strings.EqualFold(req.Header.Get("Expect"), "100-continue") {
		if _, err := io.WriteString(c.nc, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
			return nil, err
		}
	}
	if n := req.ContentLength; n > 0 && n <= maxPrealloc {
		b := make([]byte, n)
		_, err := io.ReadFull(req.Body, b)
		return b, err
	}
	return io.ReadAll(req.Body)
}

// answer runs one exchange and reports whether the connection lives on.
func (c *conn) answer(req *http.Request, body []byte) bool {
	ctx, cancel := context.WithCancelCause(c.run.ctx)
	defer cancel(nil)
	x := newExchange(ctx, c, req, body)
	stop := c.watch(cancel)
	c.run.handle(x)
	stop()
	return x.finish() && c.run.ctx.Err() == nil
}

// watch cancels when the client leaves; stop ends the watch and joins it. A
// pipelined byte ends it early: uvicorn pauses reading then, too.
func (c *conn) watch(cancel context.CancelCauseFunc) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, err := c.br.Peek(1)
		var ne net.Error
		if err == nil || errors.As(err, &ne) && ne.Timeout() {
			return
		}
		c.nc.Close()
		cancel(errClientGone)
	}()
	return func() {
		c.nc.SetReadDeadline(time.Unix(1, 0))
		<-done
		c.nc.SetReadDeadline(time.Time{})
	}
}

// reset closes with RST instead of FIN, as a killed process with unread data
// or a dropped connection does.
func (c *conn) reset() {
	c.abandon()
	c.nc.Close()
}

// abandon makes the next close, whoever does it, a reset.
func (c *conn) abandon() {
	if tc, ok := c.nc.(*net.TCPConn); ok {
		tc.SetLinger(0)
	}
}
