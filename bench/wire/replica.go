//go:build linux

package main

import (
	"bytes"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// manner is how the replica answers a POST.
type manner string

const (
	whole  manner = "whole"  // one JSON body
	stream manner = "stream" // events
	bulk   manner = "bulk"   // a large body of plain bytes
	mute   manner = "mute"   // nothing, ever
	stall  manner = "stall"  // a head, one event, then nothing
)

// replica is the stand-in for both vLLM servers. How it answers is told by the
// run in progress, not by the request: so it reads no more of a request than its
// length.
type replica struct {
	l        *loop
	manner   manner
	whole    []byte
	interval int64 // ns between the events of a stream
	grid     int64 // ns; events fall on its multiples
	events   int   // of one stream; 0 = without end
	bulk     int64 // bytes

	sent  int64 // events
	late  hist  // ns an event was sent after it was due
	conns map[*rconn]struct{}
	last  *rconn // the one whose POST came last
	seed  uint64
	fault func(word string)
}

func newReplica(l *loop) *replica {
	return &replica{l: l, manner: whole, whole: answer("application/json", completion(300)), conns: map[*rconn]struct{}{}, seed: 1}
}

var (
	replicaHealth  = answer("application/json", nil)
	replicaModels  = answer("application/json", []byte(`{"object":"list","data":[{"id":"`+model+`","object":"model","created":1790000000,"owned_by":"vllm","root":"`+model+`","parent":null,"max_model_len":131072}]}`))
	replicaMetrics = answer("text/plain; version=0.0.4; charset=utf-8", []byte(metricsPage))
	replicaMissing = []byte("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
	bulkBytes      = bytes.Repeat([]byte(prose), (256<<10)/len(prose)+1)[:256<<10]
)

// metricsPage has the gauges lbd reads, under vLLM's names.
const metricsPage = `# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="` + model + `"} 0.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="` + model + `"} 0.0
# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="` + model + `"} 0.05
`

func (r *replica) accept(fd int) {
	c := &rconn{r: r, fd: fd}
	r.conns[c] = struct{}{}
	if r.l.add(fd, c, unix.EPOLLIN) != nil {
		c.close()
	}
}

// random is xorshift: streams begin at all phases of the interval.
func (r *replica) random(below int64) int64 {
	r.seed ^= r.seed << 13
	r.seed ^= r.seed >> 7
	r.seed ^= r.seed << 17
	return int64(r.seed % uint64(below))
}

// onGrid is the next time of the grid.
func (r *replica) onGrid(t int64) int64 {
	if r.grid == 0 {
		return t
	}
	return (t + r.grid - 1) / r.grid * r.grid
}

// rconn is one connection of a proxy to a replica.
type rconn struct {
	r      *replica
	fd     int
	head   []byte // of a request that came in parts
	need   int64  // bytes of the body still to come
	post   bool
	out    []byte // not yet taken by the kernel
	bulk   int64  // bytes of a bulk answer still to send
	left   int    // events of the stream; -1 = without end
	gone   bool
	goneAt int64
}

func (c *rconn) close() {
	if c.gone {
		return
	}
	c.gone, c.goneAt = true, nanos()
	delete(c.r.conns, c)
	c.r.l.close(c.fd)
}

func (c *rconn) ready(events uint32) {
	if events&unix.EPOLLOUT != 0 {
		c.flush()
	}
	if c.gone || events&^unix.EPOLLOUT == 0 {
		return
	}
	n, errno := rawRead(c.fd, c.r.l.buf)
	switch {
	case errno == syscall.EAGAIN || errno == syscall.EINTR:
	case errno != 0 || n == 0:
		c.close()
	default:
		c.take(c.r.l.buf[:n])
	}
}

// take consumes bytes of requests.
func (c *rconn) take(b []byte) {
	for len(b) > 0 && !c.gone {
		if c.need > 0 {
			n := min(int64(len(b)), c.need)
			b = b[n:]
			if c.need -= n; c.need == 0 {
				c.respond()
			}
			continue
		}
		head := b
		if len(c.head) > 0 {
			c.head = append(c.head, b...)
			head = c.head
		}
		i := bytes.Index(head, []byte("\r\n\r\n"))
		if i < 0 {
			if len(c.head) == 0 {
				c.head = append(c.head, b...)
			}
			return
		}
		c.begin(head[:i+2])
		b = head[i+4:]
		c.head = nil
	}
}

// begin takes the head of a request.
func (c *rconn) begin(head []byte) {
	length, chunked := framing(head)
	if chunked {
		c.r.fault("request with chunked body")
		c.close()
		return
	}
	c.post = bytes.HasPrefix(head, []byte("POST "))
	if !c.post {
		c.page(head)
		return
	}
	if c.need = max(length, 0); c.need == 0 {
		c.respond()
	}
}

// page answers what lbd and its health checks ask.
func (c *rconn) page(head []byte) {
	for _, p := range []struct {
		path string
		body []byte
	}{{"GET /health ", replicaHealth}, {"GET /v1/models ", replicaModels}, {"GET /metrics ", replicaMetrics}} {
		if bytes.HasPrefix(head, []byte(p.path)) {
			c.write(p.body)
			return
		}
	}
	c.write(replicaMissing)
}

// respond answers a whole POST.
func (c *rconn) respond() {
	r := c.r
	r.last = c
	switch r.manner {
	case whole:
		c.write(r.whole)
	case bulk:
		c.bulk = r.bulk
		c.write([]byte("HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: application/octet-stream\r\ncontent-length: " +
			strconv.FormatInt(r.bulk, 10) + "\r\n\r\n"))
		c.flush()
	case stream, stall:
		c.write([]byte(streamHead))
		c.event(nanos())
		if r.manner == stall {
			return
		}
		c.left = -1
		if r.events > 0 {
			c.left = r.events - 1
		}
		due := r.onGrid(nanos() + 1 + r.random(r.interval))
		r.l.timers.add(due, func(now int64) int64 {
			if c.gone {
				return 0
			}
			r.late.add(now - due)
			due = c.tick(now, due)
			return due
		})
	}
}

// tick sends the event that is due, and returns when the next one is.
func (c *rconn) tick(now, due int64) int64 {
	if c.left == 0 {
		c.write(streamEnd)
		return 0
	}
	c.left--
	c.event(now)
	// Behind by more than a second the load is beyond this core. Catching up
	// would turn into a burst.
	return max(due+c.r.interval, now-int64(time.Second))
}

func (c *rconn) event(now int64) {
	stamp(event[eventMark:eventMark+markDigit], now)
	c.r.sent++
	c.write(event)
}

func (c *rconn) write(b []byte) {
	if c.gone {
		return
	}
	if len(c.out) > 0 {
		c.out = append(c.out, b...)
		return
	}
	n, errno := rawWrite(c.fd, b)
	if errno != 0 && errno != syscall.EAGAIN {
		c.close()
		return
	}
	if n = max(n, 0); n < len(b) {
		c.out = append(c.out, b[n:]...)
		c.r.l.want(c.fd, unix.EPOLLIN|unix.EPOLLOUT)
	}
}

// flush sends what is waiting, a bulk body included.
func (c *rconn) flush() {
	if out := c.out; len(out) > 0 {
		c.out = nil
		if c.write(out); len(c.out) > 0 {
			return
		}
	}
	for c.bulk > 0 && !c.gone {
		n, errno := rawWrite(c.fd, bulkBytes[:min(c.bulk, int64(len(bulkBytes)))])
		if errno == syscall.EAGAIN {
			c.r.l.want(c.fd, unix.EPOLLIN|unix.EPOLLOUT)
			return
		}
		if errno != 0 {
			c.close()
			return
		}
		c.bulk -= int64(n)
	}
	if !c.gone {
		c.r.l.want(c.fd, unix.EPOLLIN)
	}
}
