package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lbd/balancer"
	"lbd/internal/loopback"
	"lbd/metrics"
	"lbd/proxy/internal/inbound"
	"lbd/proxy/internal/sock"
	"lbd/proxy/internal/upstream"
)

// between is an exchange between a client and a replica, and their other ends.
func between(t *testing.T) (x *exchange, client, replica *net.TCPConn) {
	t.Helper()
	w, err := sock.NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	ln := loopback.Listen(t)
	p := upstream.NewPool(ln.Addr().String(), upstream.Config{ConnectTimeout: time.Minute, IdleTimeout: time.Hour, Watch: w})
	dial := func() (*upstream.Conn, *net.TCPConn) {
		near, err := p.Dial(context.Background(), sock.AnyLoop)
		if err != nil {
			t.Fatal(err)
		}
		far, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { near.Close(); far.Close() })
		return near, far.(*net.TCPConn)
	}
	t.Cleanup(func() { p.Close(); ln.Close(); w.Close() })
	x = &exchange{pool: p}
	c, client := dial()
	x.client = &inbound.Conn{Conn: c.Conn}
	x.up, replica = dial()
	x.up.Begin()
	return x, client, replica
}

// The last byte of a large body has been sent, and whoever sent it has not said so yet when
// the replica ends the connection: the request may have run.
func TestArrivedBeforeSendingIsKnownToBeOver(t *testing.T) {
	x, _, replica := between(t)
	x.sent = make(chan struct{})
	if err := x.up.Send([]byte("all of it")); err != nil {
		t.Fatal(err)
	}
	replica.Close()
	if _, _, err := x.up.ReadBuf(); err == nil {
		t.Fatal("the replica has not ended the connection")
	}
	go func() {
		for x.up.Send(nil) == nil { // until nobody can send any more
			time.Sleep(time.Millisecond)
		}
		close(x.sent)
	}()
	if x.notArrived() {
		t.Error("a request that was sent whole counts as one that cannot have run")
	}
}

// The end of a replica's connection that the client's leaving has brought about says nothing
// of how long the replica keeps its connections.
func TestNothingIsLearnedOfAClientThatLeft(t *testing.T) {
	x, client, _ := between(t)
	spare, err := x.pool.Dial(context.Background(), sock.AnyLoop)
	if err != nil {
		t.Fatal(err)
	}
	x.pool.Put(x.up, time.Now())
	if x.up = x.pool.Reuse(time.Now(), sock.AnyLoop); x.up == nil || !x.client.Bind(x.up.Conn) {
		t.Fatal("nothing to use again")
	}
	client.Close()
	for !x.client.Gone() {
		time.Sleep(time.Millisecond)
	}
	if v, stale := x.came(nil, 0, sock.ErrNotQuiet); stale || v != clientLeft {
		t.Errorf("%+v, stale %t; want that the client has left", v, stale)
	}
	x.pool.Put(spare, time.Now())
	if x.pool.Reuse(time.Now().Add(time.Minute), sock.AnyLoop) == nil {
		t.Error("connections are not used again after a minute")
	}
}

// inFrontOf is a server in front of a replica that reads each request and then does what
// script does with its connection, until that returns false.
func inFrontOf(t *testing.T, c Config, script func(net.Conn) (more bool)) (*logging, *prometheus.Registry) {
	t.Helper()
	return inFrontOfHeads(t, c, func(c net.Conn, body io.Reader) bool {
		_, err := io.Copy(io.Discard, body)
		return err == nil && script(c)
	})
}

// inFrontOfHeads leaves the body to script as well.
func inFrontOfHeads(t *testing.T, c Config, script func(c net.Conn, body io.Reader) (more bool)) (*logging, *prometheus.Registry) {
	t.Helper()
	ln := loopback.Listen(t)
	var all sync.WaitGroup
	t.Cleanup(func() { ln.Close(); all.Wait() })
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				for br := bufio.NewReader(c); ; {
					req, err := http.ReadRequest(br)
					if err != nil || !script(c, req.Body) {
						return
					}
				}
			})
		}
	})
	reg, addr := prometheus.NewRegistry(), ln.Addr().String()
	return withAccessLog(t, c, func(o *Options) {
		o.Metrics, o.Config.MaxBody = metrics.New(reg, "test"), 64<<20
		o.Fleet.(*one).replica = balancer.NewReplica(balancer.Endpoint{Addr: addr, Host: addr}, "", 1)
	}), reg
}

// A replica says something on an idle connection, as some do when they give it up. That it
// is used again later than that is learned from the first time, in a turn as elsewhere.
func TestStaleConnectionIsLearnedFrom(t *testing.T) {
	said := make(chan struct{})
	l, reg := inFrontOf(t, Config{}, func(c net.Conn) bool {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		time.Sleep(50 * time.Millisecond)
		io.WriteString(c, "HTTP/1.1 408 Request Timeout\r\n\r\n")
		said <- struct{}{}
		return true
	})
	c, began := l.dial(), time.Now()
	for i := range 4 {
		c.asks(1, "/v1/completions", 200)
		<-said
		if i > 0 { // longer than the first connection has waited
			time.Sleep(time.Since(began))
		}
	}
	if got := retries(t, reg, "stale_connection"); got != 1 {
		t.Errorf("%v stale connections were met; want the first only", got)
	}
}

// retries returns how often requests were sent again for that reason.
func retries(t *testing.T, reg *prometheus.Registry, reason string) (n float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == "lbd_retries_total" && l.GetName() == "reason" && l.GetValue() == reason {
					n += m.GetCounter().GetValue()
				}
			}
		}
	}
	return n
}

// A short answer that comes slowly is not a silent one.
func TestShortAnswerThatComesSlowly(t *testing.T) {
	const silence, pieces = 2 * time.Second, 30
	l, _ := inFrontOf(t, Config{Silence: silence}, func(c net.Conn) bool {
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", pieces)
		for range pieces { // half as long again as the limit, each far from it
			time.Sleep(silence / 20)
			io.WriteString(c, "x")
		}
		return false
	})
	l.dial().asks(1, "/v1/completions", 200)
}

// A client that has left while no replica could be connected to has left, and nobody else
// is tried for it.
func TestClientLeavesBeforeAnotherAttempt(t *testing.T) {
	l, _ := inFrontOf(t, Config{MaxAttempts: 3}, func(net.Conn) bool { return false })
	x, client, _ := between(t)
	x.want.model = l.one.Snapshot().Model([]byte("m"))
	x.s, x.cfg, x.model = l.Server, l.cfg.Load(), l.opt.Metrics.Model("m")
	client.Close()
	for !x.client.Gone() {
		time.Sleep(time.Millisecond)
	}
	x.conclude(verdict{retry: balancer.ConnectTimeout.String(), err: replicaError("cannot connect")})
	if !x.left || x.keep || x.picks > 0 || x.status != statusClientGone {
		t.Errorf("left %t, keeps the connection %t, %d picks, status %d", x.left, x.keep, x.picks, x.status)
	}
}

// A replica begins to answer, then takes the rest of the request, and then says nothing: how
// long that may last is not what the end of the request was to be waited for.
func TestSilenceBehindAnEarlyAnswer(t *testing.T) {
	began, gone := make(chan struct{}), make(chan struct{})
	l, _ := inFrontOfHeads(t, Config{Silence: 300 * time.Millisecond, FirstByte: time.Hour}, func(c net.Conn, body io.Reader) bool {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
		<-began
		io.Copy(io.Discard, body)
		<-gone
		return false
	})
	c := l.dial()
	c.SetDeadline(time.Now().Add(2 * time.Minute)) // only ends a hang
	var sender sync.WaitGroup
	const size = 16 << 20 // far more than sockets hold
	sender.Go(func() {
		fmt.Fprintf(c, "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n{%s}", size, strings.Repeat(" ", size-2))
	})
	resp, err := http.ReadResponse(c.br, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Read(make([]byte, 1))
	close(began)
	if _, err := io.Copy(io.Discard, resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v; want that the answer is cut", err)
	}
	close(gone)
	sender.Wait()
}

// A replica sends the head of its answer before it has the whole request, and then not one
// byte of the body: it is not waited for without end.
func TestSilenceBehindAnEarlyHead(t *testing.T) {
	for name, takes := range map[string]bool{"takes the rest of the request": true, "takes nothing": false} {
		t.Run(name, func(t *testing.T) {
			gone := make(chan struct{})
			limits := Config{Silence: 300 * time.Millisecond, FirstByte: 300 * time.Millisecond}
			l, _ := inFrontOfHeads(t, limits, func(c net.Conn, body io.Reader) bool {
				io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
				if takes {
					time.Sleep(100 * time.Millisecond) // for the head to come first, as it usually does
					io.Copy(io.Discard, body)
				}
				<-gone
				return false
			})
			c := l.dial()
			c.SetDeadline(time.Now().Add(time.Minute)) // only ends a hang
			var sender sync.WaitGroup
			const size = 16 << 20 // far more than sockets hold
			sender.Go(func() {
				fmt.Fprintf(c, "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n{%s}", size, strings.Repeat(" ", size-2))
			})
			resp, err := http.ReadResponse(c.br, nil)
			close(gone)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != 504 {
				t.Errorf("%s; want 504", resp.Status)
			}
			sender.Wait()
		})
	}
}
