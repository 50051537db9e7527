//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"
)

// client does one thing after another, each drawn from its own numbers.
type client struct {
	addr  string
	tally *tally
	rng   *rand.Rand
	pause time.Duration // the longest between two deeds
	link  *link         // kept alive between requests; nil: none
}

// link is a connection to lbd. It speaks HTTP/1.1 itself, so that a connection can
// also be read slowly, left, or used for several requests at once.
type link struct {
	nc     net.Conn
	r      *bufio.Reader
	served int // answers read
}

// patience is how long a client waits for an answer; lbd's own timeouts are 5 s.
const patience = 30 * time.Second

func (c *client) run(ctx context.Context) {
	defer c.hangUp()
	for ctx.Err() == nil {
		c.one(ctx)
		sleep(ctx, time.Duration(c.rng.Int64N(int64(c.pause))))
	}
}

// deeds are what clients do, with how often in a hundred.
var deeds = []struct {
	share int
	what  func(*client, context.Context)
}{
	{34, func(c *client, _ context.Context) { c.ask(true) }},
	{20, func(c *client, _ context.Context) { c.ask(false) }},
	{15, (*client).leave},
	{6, (*client).slow},
	{2, (*client).stall},
	{5, (*client).mute},
	{5, (*client).idle},
	{6, func(c *client, _ context.Context) { c.pipeline() }},
	{4, func(c *client, _ context.Context) { c.page() }},
	{3, func(c *client, _ context.Context) { c.refused() }},
}

func (c *client) one(ctx context.Context) {
	n := c.rng.IntN(100)
	for _, d := range deeds {
		if n -= d.share; n < 0 {
			d.what(c, ctx)
			return
		}
	}
}

// request is a chat request and what its answer must look like.
type request struct {
	model   string
	stream  bool
	tokens  int
	prompt  int    // bytes
	own     string // what the prompt begins with and no other does; empty: nothing
	session string // empty: none
}

// sessions are ten times what lbd remembers here (affinity_entries in the rig's
// configuration), so that its table is full within the first quarter.
const sessions = 10_000

// draw decides on a request. Lengths differ, so that an answer to another request
// shows.
func (c *client) draw(stream bool) request {
	q := request{model: homes[c.rng.IntN(len(homes))], stream: stream, tokens: 1 + c.rng.IntN(40), prompt: 4 + c.rng.IntN(4000)}
	if c.rng.IntN(30) == 0 {
		q.prompt = 100 << 10 // does not fit the first read
	}
	if c.rng.IntN(2) == 0 {
		q.own = fmt.Sprintf("%016x", c.rng.Uint64())
	}
	if c.rng.IntN(2) == 0 {
		q.session = fmt.Sprintf("X-Session-Id: %d\r\n", c.rng.IntN(sessions))
	}
	return q
}

func (q request) bytes() []byte {
	usage := ""
	if q.stream {
		usage = `,"stream_options":{"include_usage":true}`
	}
	body := fmt.Sprintf(`{"model":%q,"stream":%t%s,"max_tokens":%d,"ignore_eos":true,"messages":[{"role":"user","content":%q}]}`,
		q.model, q.stream, usage, q.tokens, q.own+strings.Repeat("soak", q.prompt/4))
	return fmt.Appendf(nil, "POST /v1/chat/completions HTTP/1.1\r\nHost: lbd\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s", q.session, len(body), body)
}

// connect opens a connection unless there is one.
func (c *client) connect() bool {
	if c.link != nil {
		return true
	}
	l, err := dial(c.addr)
	if err != nil {
		c.tally.wrong(fault{cause: noAnswer, start: time.Now(), end: time.Now()}, "connect: "+err.Error())
		return false
	}
	c.link = l
	return true
}

func dial(addr string) (*link, error) {
	nc, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	return &link{nc: nc, r: bufio.NewReaderSize(nc, 4<<10)}, nil
}

func (c *client) hangUp() {
	if c.link != nil {
		_ = c.link.nc.Close()
		c.link = nil
	}
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
	err    error // no head, or a body that did not end
	head   bool  // there was a head
	close  bool
	first  time.Time // of the body's bytes
}

// receive reads one answer; pace is called before each read of the body.
func (l *link) receive(pace func()) (a answer) {
	resp, err := http.ReadResponse(l.r, nil)
	if err != nil {
		return answer{err: err, close: true}
	}
	defer func() { _ = resp.Body.Close() }()
	a = answer{status: resp.StatusCode, header: resp.Header, head: true, close: resp.Close}
	buf := make([]byte, 4<<10)
	for a.err == nil {
		pace()
		var n int
		n, a.err = resp.Body.Read(buf)
		if n > 0 && a.first.IsZero() {
			a.first = time.Now()
		}
		a.body = append(a.body, buf[:n]...)
	}
	if errors.Is(a.err, io.EOF) {
		a.err = nil
	}
	l.served++
	a.close = a.close || a.err != nil
	return a
}

func atOnce() {}

// ask sends one request on the kept connection, or on a new one, and judges the
// answer.
func (c *client) ask(stream bool) {
	if c.rng.IntN(5) == 0 {
		c.hangUp()
	}
	what := "whole answers"
	if stream {
		what = "streams"
	}
	c.exchange(what, c.draw(stream), atOnce)
}

// exchange is one request with its answer.
func (c *client) exchange(what string, q request, pace func()) {
	if !c.connect() {
		return
	}
	start := time.Now()
	_ = c.link.nc.SetDeadline(start.Add(patience))
	var a answer
	if _, err := c.link.nc.Write(q.bytes()); err != nil {
		a = answer{err: err, close: true}
	} else {
		a = c.link.receive(pace)
	}
	c.judge(what, q, a, start)
	if a.close {
		c.hangUp()
	}
}

// judge counts an answer.
func (c *client) judge(what string, q request, a answer, start time.Time) {
	end := time.Now()
	f := fault{model: q.model, start: start, end: end}
	f.cause, f.replica = q.verdict(a)
	if f.cause == "" {
		c.tally.well(what)
		if what == "streams" || what == "whole answers" {
			c.tally.answered(a.first.Sub(start), end.Sub(start))
		}
		return
	}
	c.tally.wrong(f, fmt.Sprintf("%s: status %d, %v, %q", what, a.status, a.err, ending(a.body)))
}

// ending is the end of a body, which says what went wrong.
func ending(b []byte) []byte { return b[max(0, len(b)-300):] }

// leave asks and goes at a random moment, by FIN or by RST.
func (c *client) leave(ctx context.Context) {
	l, err := dial(c.addr)
	if err != nil {
		c.tally.wrong(fault{cause: noAnswer, start: time.Now(), end: time.Now()}, "connect: "+err.Error())
		return
	}
	defer func() { _ = l.nc.Close() }()
	b := c.draw(c.rng.IntN(4) > 0).bytes()
	if c.rng.IntN(5) == 0 {
		b = b[:c.rng.IntN(len(b))] // in the middle of the request
	}
	_, _ = l.nc.Write(b)
	_ = l.nc.SetReadDeadline(time.Now().Add(time.Duration(c.rng.IntN(150)) * time.Millisecond))
	_, _ = io.Copy(io.Discard, l.r)
	if c.rng.IntN(2) == 0 {
		_ = l.nc.(*net.TCPConn).SetLinger(0)
	}
	c.tally.well("clients that leave")
}

// slow reads a long stream in small sips from a small window.
func (c *client) slow(ctx context.Context) {
	c.hangUp()
	if !c.connect() {
		return
	}
	_ = c.link.nc.(*net.TCPConn).SetReadBuffer(4 << 10)
	q := c.draw(true)
	q.tokens = 100 + c.rng.IntN(200)
	wait := time.Duration(1+c.rng.IntN(40)) * time.Millisecond
	c.exchange("slow readers", q, func() { sleep(ctx, wait) })
}

// stall asks for a long stream and reads none of it, then goes.
func (c *client) stall(ctx context.Context) {
	l, err := dial(c.addr)
	if err != nil {
		c.tally.wrong(fault{cause: noAnswer, start: time.Now(), end: time.Now()}, "connect: "+err.Error())
		return
	}
	defer func() { _ = l.nc.Close() }()
	_ = l.nc.(*net.TCPConn).SetReadBuffer(4 << 10)
	q := c.draw(true)
	q.tokens = 2000
	_, _ = l.nc.Write(q.bytes())
	sleep(ctx, time.Duration(500+c.rng.IntN(2500))*time.Millisecond)
	c.tally.well("readers that take nothing")
}

// mute connects and says nothing, or half a head.
func (c *client) mute(ctx context.Context) {
	l, err := dial(c.addr)
	if err != nil {
		c.tally.wrong(fault{cause: noAnswer, start: time.Now(), end: time.Now()}, "connect: "+err.Error())
		return
	}
	defer func() { _ = l.nc.Close() }()
	if c.rng.IntN(2) == 0 {
		_, _ = io.WriteString(l.nc, "POST /v1/chat/completions HTTP/1.1\r\nHost: l")
	}
	sleep(ctx, time.Duration(c.rng.IntN(1000))*time.Millisecond)
	c.tally.well("connections without a request")
}

// idle keeps its connection open without using it, and then uses it.
func (c *client) idle(ctx context.Context) {
	if !c.connect() {
		return
	}
	sleep(ctx, time.Duration(c.rng.IntN(3000))*time.Millisecond)
	c.exchange("after a pause", c.draw(c.rng.IntN(2) == 0), atOnce)
}

// pipeline sends several requests at once; the answers come in their order. An
// answer that closes the connection is the last one.
func (c *client) pipeline() {
	if !c.connect() {
		return
	}
	var all []byte
	var asked []request
	for range 2 + c.rng.IntN(3) {
		q := c.draw(c.rng.IntN(2) == 0)
		q.prompt = min(q.prompt, 4000)
		asked, all = append(asked, q), append(all, q.bytes()...)
	}
	start := time.Now()
	_ = c.link.nc.SetDeadline(start.Add(patience))
	if _, err := c.link.nc.Write(all); err != nil {
		c.judge("pipelined", asked[0], answer{err: err}, start)
		c.hangUp()
		return
	}
	for i, q := range asked {
		a := c.link.receive(atOnce)
		c.judge("pipelined", q, a, start)
		if a.close {
			c.hangUp()
			for range asked[i+1:] {
				c.tally.well("pipelined behind an answer that closes")
			}
			return
		}
	}
}

// page reads one of lbd's own pages.
func (c *client) page() {
	p := []struct{ path, holds string }{
		{"/metrics", "\nlbd_build_info{"}, {"/health", `"replicas":`}, {"/v1/models", `"object":"list"`}, {"/version", `"version":`},
	}[c.rng.IntN(4)]
	c.own("own pages", "GET "+p.path+" HTTP/1.1\r\nHost: lbd\r\n\r\n", p.holds, 200, 503)
}

// refused sends what lbd answers with an error of its own.
func (c *client) refused() {
	p := []struct {
		head, body string
		status     int
		holds      string
	}{
		{"POST /v1/chat/completions", `{"model":"nobody/serves-this","messages":[]}`, 404, `"code":"model_not_found"`},
		{"POST /v1/chat/completions", `{"model":`, 400, `"invalid_request_error"`},
		{"POST /sleep", ``, 403, `"error":`},
	}[c.rng.IntN(3)]
	c.own("refused requests", fmt.Sprintf("%s HTTP/1.1\r\nHost: lbd\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", p.head, len(p.body), p.body), p.holds, p.status)
}

// own is an exchange with lbd itself.
func (c *client) own(what, text, holds string, statuses ...int) {
	if !c.connect() {
		return
	}
	start := time.Now()
	_ = c.link.nc.SetDeadline(start.Add(patience))
	_, err := io.WriteString(c.link.nc, text)
	a := answer{err: err, close: true}
	if err == nil {
		a = c.link.receive(atOnce)
	}
	known := false
	for _, s := range statuses {
		known = known || a.status == s
	}
	if a.err == nil && known && bytes.Contains(a.body, []byte(holds)) {
		c.tally.well(what)
	} else {
		c.tally.wrong(fault{cause: wrong, start: start, end: time.Now()}, fmt.Sprintf("%q: status %d, %v, %q", text, a.status, a.err, ending(a.body)))
	}
	if a.close {
		c.hangUp()
	}
}
