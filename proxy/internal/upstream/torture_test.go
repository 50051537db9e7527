package upstream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lbd/internal/loopback"
	"lbd/proxy/internal/relay"
	"lbd/proxy/internal/sock"
)

// The torture test puts sock, upstream and relay together as the proxy does, with
// many clients of which more than a quarter leave in the middle, replicas that
// cut their answers at random places and close connections without a word. Every
// event carries the id of its request. No request may be read by a replica twice,
// and none may fail but those whose connection a replica reset.
const (
	tortureClients = 120
	tortureTime    = 3 * time.Second // at least: until enough has happened
	leaving        = 28              // percent of requests
)

func TestTorture(t *testing.T) {
	linuxOnly(t)
	w := newWatch(t)
	r := newTalker(t)
	p := &miniProxy{t: t, watch: w, pool: newPool(t, r.addr, Config{Watch: w})}
	p.start()
	var count tortureCount
	var wg sync.WaitGroup
	end := time.Now().Add(tortureTime)
	for i := range tortureClients {
		wg.Go(func() {
			c := tortureClient{t: t, proxy: p, rng: rand.New(rand.NewPCG(uint64(i), 9)), count: &count, id: i << 20}
			for (time.Now().Before(end) || !count.enough()) && !t.Failed() {
				c.session()
			}
		})
	}
	wg.Wait()
	p.stop()
	p.pool.Close()
	r.stop()
	t.Logf("%d whole answers, %d left in the middle, %d events, %d sent again on a fresh connection, %d lost with theirs, %d connections to the replica",
		count.whole.Load(), count.left.Load(), count.events.Load(), p.stale.Load(), count.lost.Load(), r.accepted.Load())
	if count.lost.Load() > count.whole.Load()/4 {
		t.Error("too much is lost for the test to mean anything")
	}
}

type tortureCount struct{ whole, left, lost, events atomic.Int64 }

// enough says that enough has happened for the test to mean anything.
func (c *tortureCount) enough() bool { return c.whole.Load() >= 100 && c.left.Load() >= 20 }

type tortureClient struct {
	t     *testing.T
	proxy *miniProxy
	rng   *rand.Rand
	count *tortureCount
	id    int
}

// session sends some requests over one connection.
func (c *tortureClient) session() {
	nc, err := net.Dial("tcp", c.proxy.ln.Addr().String())
	if err != nil {
		c.t.Error(err)
		return
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(patience))
	rd := bufio.NewReader(nc)
	for range c.rng.IntN(6) + 1 {
		c.id++
		events := c.rng.IntN(30)
		leaveAfter := -1 // events
		if c.rng.IntN(100) < leaving {
			leaveAfter = c.rng.IntN(events + 1)
		}
		if _, err := fmt.Fprintf(nc, "%d %d\n", c.id, events); err != nil {
			c.t.Errorf("request %d: %v", c.id, err)
			return
		}
		switch left, err := c.answer(rd, events, leaveAfter); {
		case left:
			c.leave(nc.(*net.TCPConn))
			c.count.left.Add(1)
			return
		case errors.Is(err, io.EOF) && c.proxy.mayHaveRun(c.id):
			c.count.lost.Add(1)
			return
		case err != nil:
			c.t.Errorf("request %d of %d events: %v", c.id, events, err)
			return
		}
		c.count.whole.Add(1)
	}
}

func (c *tortureClient) leave(nc *net.TCPConn) {
	switch c.rng.IntN(3) {
	case 0:
		nc.SetLinger(0) // RST
	case 1:
		nc.CloseWrite()
		nc.SetReadDeadline(time.Now().Add(time.Millisecond))
		io.Copy(io.Discard, nc)
	}
}

// answer decodes the chunked answer and checks every event.
func (c *tortureClient) answer(rd *bufio.Reader, events, leaveAfter int) (left bool, err error) {
	seen := 0
	var partial []byte
	for {
		if leaveAfter >= 0 && seen >= leaveAfter {
			return true, nil
		}
		piece, err := readChunk(rd)
		if err != nil {
			return false, err
		}
		if piece == nil {
			break
		}
		partial = append(partial, piece...)
		for {
			event, rest, ok := bytes.Cut(partial, []byte("\n\n"))
			if !ok {
				break
			}
			if want := eventText(c.id, seen); string(event)+"\n\n" != want {
				return false, fmt.Errorf("event %q; want %q", event, want)
			}
			partial = rest
			seen++
			c.count.events.Add(1)
		}
	}
	if seen != events || len(partial) > 0 {
		return false, fmt.Errorf("%d events and %q; want %d", seen, partial, events)
	}
	return false, nil
}

// readChunk returns nil at the last chunk, behind which the proxy sends nothing
// but an empty line.
func readChunk(rd *bufio.Reader) ([]byte, error) {
	line, err := rd.ReadString('\n')
	if err != nil {
		return nil, err
	}
	digits, _, _ := strings.Cut(strings.TrimSpace(line), ";")
	size, err := strconv.ParseUint(strings.TrimSpace(digits), 16, 31)
	if err != nil {
		return nil, err
	}
	piece := make([]byte, size+2)
	if _, err := io.ReadFull(rd, piece); err != nil {
		return nil, err
	}
	if string(piece[size:]) != "\r\n" {
		return nil, fmt.Errorf("%q behind a chunk", piece[size:])
	}
	if size == 0 {
		return nil, nil
	}
	return piece[:size], nil
}

func eventText(id, i int) string {
	return fmt.Sprintf("data: {\"id\":%d,\"n\":%d,\"choices\":[{\"delta\":{\"content\":\"x%s\"}}]}\n\n", id, i, strings.Repeat("y", i*7%50))
}

// miniProxy is the data plane without HTTP towards the client and without picks.
type miniProxy struct {
	t     *testing.T
	watch *sock.Watch
	pool  *Pool
	ln    *sock.Listener
	wg    sync.WaitGroup
	stale atomic.Int64
	lost  sync.Map // ids of requests that could not be sent again
}

func (p *miniProxy) mayHaveRun(id int) bool {
	_, ok := p.lost.Load(id)
	return ok
}

func (p *miniProxy) start() {
	ln, err := sock.Listen(loopback.Address(), p.watch, patience)
	if err != nil {
		p.t.Fatal(err)
	}
	p.ln = ln
	p.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(c.(*sock.Conn)) })
		}
	})
}

func (p *miniProxy) stop() {
	p.ln.Close()
	p.wg.Wait()
}

func (p *miniProxy) serve(client *sock.Conn) {
	defer client.Close()
	rd := bufio.NewReader(client)
	var x miniExchange
	for {
		line, err := rd.ReadString('\n')
		if err != nil || !p.relay(&x, client, "GET "+strings.TrimSpace(line)+"\n") {
			return
		}
	}
}

type miniExchange struct {
	head   relay.Head
	stream relay.Stream
	sniff  relay.Sniffer
}

// relay carries one request; false ends the client's connection.
func (p *miniProxy) relay(x *miniExchange, client *sock.Conn, request string) bool {
	up, err := reuseOrDial(p.pool)
	for {
		if err != nil {
			p.t.Errorf("connect: %v", err)
			return false
		}
		if !client.Bind(up.Conn) {
			up.Close()
			return false
		}
		var first *sock.Buf
		var rest []byte
		first, rest, err = exchangeHead(x, up, request)
		if err == nil {
			ok := p.body(x, client, up, rest)
			sock.PutBuf(first)
			return ok
		}
		stayed := client.Unbind()
		retry := up.Reused && !up.Arrived()
		up.Close()
		if !stayed {
			return false
		}
		if !retry {
			if !errors.Is(err, syscall.ECONNRESET) {
				p.t.Errorf("%q: %v; reused %t", request, err, up.Reused)
			}
			var id int
			fmt.Sscanf(request, "GET %d", &id)
			p.lost.Store(id, true)
			return false
		}
		p.stale.Add(1)
		up, err = p.pool.Dial(context.Background(), sock.AnyLoop)
	}
}

func exchangeHead(x *miniExchange, up *Conn, request string) (*sock.Buf, []byte, error) {
	up.Begin()
	up.SetReadDeadline(time.Now().Add(patience))
	sendErr := up.Send([]byte(request))
	b, n, err := up.ReadBuf()
	if err != nil {
		return nil, nil, errors.Join(sendErr, err)
	}
	for {
		size, err := x.head.Parse(b.B[:n])
		if size > 0 {
			return b, b.B[size:n], nil
		}
		var m int
		if err == nil {
			m, err = up.Read(b.B[n:])
		}
		if err != nil {
			sock.PutBuf(b)
			return nil, nil, fmt.Errorf("head broke off: %w", err)
		}
		n += m
	}
}

func (p *miniProxy) body(x *miniExchange, client *sock.Conn, up *Conn, rest []byte) bool {
	x.stream.Reset()
	x.sniff.Reset(true, nil)
	x.stream.Body.Reset(x.head.Framing(false), x.head.Length)
	x.stream.Up, x.stream.Rest, x.stream.Sniff, x.stream.Silence = up, rest, &x.sniff, patience
	err := x.stream.Run(client)
	if err != nil && !errors.Is(err, relay.ErrClient) && !client.Gone() {
		p.t.Errorf("relay: %v", err)
	}
	whole := err == nil
	if whole {
		_, err = client.Write([]byte("0\r\n\r\n"))
	}
	stayed := client.Unbind()
	if whole && stayed && !x.head.Close && !x.stream.Excess {
		p.pool.Put(up, time.Now())
	} else {
		up.Close()
	}
	return err == nil && stayed
}

// talker is a replica that answers every way it may.
type talker struct {
	t        *testing.T
	ln       net.Listener
	addr     string
	wg       sync.WaitGroup
	accepted atomic.Int64
	ran      sync.Map // ids of requests that were read
}

func newTalker(t *testing.T) *talker {
	ln := loopback.Listen(t)
	r := &talker{t: t, ln: ln, addr: ln.Addr().String()}
	r.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			n := r.accepted.Add(1)
			r.wg.Go(func() {
				defer c.Close()
				r.serve(c, rand.New(rand.NewPCG(uint64(n), 5)))
			})
		}
	})
	return r
}

// stop waits until lbd's side has closed every connection.
func (r *talker) stop() {
	r.ln.Close()
	done := make(chan struct{})
	go func() { r.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(patience):
		r.t.Fatal("connections to the replica are left open")
	}
}

func (r *talker) serve(c net.Conn, rng *rand.Rand) {
	rd := bufio.NewReader(c)
	for {
		var id, events int
		line, err := rd.ReadString('\n')
		if err != nil {
			return
		}
		if _, err := fmt.Sscanf(line, "GET %d %d\n", &id, &events); err != nil {
			r.t.Errorf("request %q: %v", line, err)
			return
		}
		if _, twice := r.ran.LoadOrStore(id, true); twice {
			r.t.Errorf("request %d was sent twice", id)
			return
		}
		if rng.IntN(30) == 0 { // it ran, and nothing of it is acknowledged yet
			c.(*net.TCPConn).SetLinger(0)
			return
		}
		how := rng.IntN(10)
		if !sendInPieces(c, rng, talk(rng, id, events, how == 0)) || how == 0 {
			return
		}
		switch how {
		case 1: // as uvicorn's keep-alive timer, without a word
			return
		case 2: // the same, with an event loop that is late
			time.Sleep(time.Duration(rng.IntN(1000)) * time.Microsecond)
			return
		}
	}
}

// talk makes a response: events over chunk borders, chunks over event borders.
func talk(rng *rand.Rand, id, events int, closing bool) string {
	var payload, out strings.Builder
	for i := range events {
		payload.WriteString(eventText(id, i))
	}
	out.WriteString("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
	if closing {
		out.WriteString("connection: close\r\n")
	}
	out.WriteString("transfer-encoding: chunked\r\n\r\n")
	for p := payload.String(); len(p) > 0; {
		n := min(len(p), rng.IntN(150)+1)
		fmt.Fprintf(&out, []string{"%x\r\n", "%X\r\n", "000%x\r\n", "%x;ext=\"0\"\r\n", "%x ; a;b\r\n"}[rng.IntN(5)], n)
		out.WriteString(p[:n] + "\r\n")
		p = p[n:]
	}
	out.WriteString([]string{"0\r\n\r\n", "0\r\n\r\n", "000;last\r\n\r\n", "0\r\nx-sum: 1\r\n\r\n"}[rng.IntN(4)])
	return out.String()
}

func sendInPieces(c net.Conn, rng *rand.Rand, s string) bool {
	for len(s) > 0 {
		n := min(len(s), rng.IntN(400)+1)
		if rng.IntN(4) == 0 {
			n = min(n, 3) // within a size line, between CR and LF
		}
		if _, err := c.Write([]byte(s[:n])); err != nil {
			return false
		}
		if s = s[n:]; rng.IntN(8) == 0 {
			time.Sleep(time.Duration(rng.IntN(2000)) * time.Microsecond)
		}
	}
	return true
}
