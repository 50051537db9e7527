package faults

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	llama = "meta-llama/Llama-3.1-8B-Instruct"
	qwen  = "Qwen/Qwen2.5-7B-Instruct"
)

// outcome is what one request came to, as its client saw it.
type outcome struct {
	id, model  string
	stream     bool
	start, end time.Time
	status     int // 0: no head came
	replica    string
	cause      string // "" = answered well
	message    string
}

// Causes of an outcome that is not well, beside "status NNN code", and "event CODE" of a
// stream that is an error.
const (
	noConnection = "no connection" // to lbd
	noAnswer     = "no answer"     // lbd ended the connection before a head
	cut          = "cut"           // the answer broke off, and the client saw it
	wrong        = "wrong"         // whole, but not what was asked for
)

// load is clients that ask one request after the other, each on a connection of
// its own that is kept. Nothing is sent twice.
type load struct {
	addr   func() string
	models []string
	think  time.Duration // the mean of the pauses
	tokens int
	stream bool // every answer; otherwise every other one

	stop    chan struct{}
	clients sync.WaitGroup
	mu      sync.Mutex
	all     []outcome
	well    int
}

// begin starts n clients that ask until end.
func (l *load) begin(n int, seed uint64) {
	l.stop = make(chan struct{})
	for i := range n {
		l.clients.Go(func() {
			c := client{load: l, name: fmt.Sprintf("%x-%d", seed, i), rng: rand.New(rand.NewPCG(seed, uint64(i)))}
			defer c.hangUp()
			for c.pause() {
				c.one()
			}
		})
	}
}

// end stops the clients when they have their last answers.
func (l *load) end() {
	close(l.stop)
	l.clients.Wait()
}

// answers counts the requests that were answered well.
func (l *load) answers() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.well
}

// failures counts those that were not.
func (l *load) failures() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.all) - l.well
}

func (l *load) outcomes() []outcome {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all
}

type client struct {
	*load
	name string
	rng  *rand.Rand
	sent int
	nc   net.Conn // nil: none
	br   *bufio.Reader
}

// pause thinks, and tells whether to go on.
func (c *client) pause() bool {
	select {
	case <-c.stop:
		return false
	case <-time.After(time.Duration(c.rng.Int64N(int64(2*c.think) + 1))):
		return true
	}
}

func (c *client) hangUp() {
	if c.nc != nil {
		c.nc.Close()
		c.nc = nil
	}
}

// one sends one request and files its outcome.
func (c *client) one() {
	c.sent++
	o := outcome{
		id: fmt.Sprintf("%s-%d", c.name, c.sent), model: c.models[c.rng.IntN(len(c.models))],
		stream: c.rng.IntN(2) == 0 || c.stream, start: time.Now(),
	}
	again := c.exchange(&o, 1+c.rng.IntN(c.tokens))
	o.end = time.Now()
	if !again {
		c.hangUp()
	}
	c.mu.Lock()
	c.all = append(c.all, o)
	if o.cause == "" {
		c.well++
	}
	c.mu.Unlock()
}

// exchange tells whether the connection can be used again.
func (c *client) exchange(o *outcome, tokens int) (again bool) {
	if c.nc == nil {
		nc, err := net.DialTimeout("tcp", c.addr(), patience)
		if err != nil {
			o.cause, o.message = noConnection, err.Error()
			return false
		}
		c.nc, c.br = nc, bufio.NewReader(nc)
	}
	c.nc.SetDeadline(time.Now().Add(patience))
	body := fmt.Sprintf(`{"model":%q,"stream":%t,"max_tokens":%d,"ignore_eos":true,"messages":[{"role":"user","content":"Hello"}]}`, o.model, o.stream, tokens)
	_, writeErr := fmt.Fprintf(c.nc, "POST /v1/chat/completions HTTP/1.1\r\nHost: lbd\r\nX-Request-Id: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", o.id, len(body), body)
	resp, err := http.ReadResponse(c.br, nil)
	if err != nil {
		o.cause, o.message = noAnswer, errors.Join(writeErr, err).Error()
		return false
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	o.status, o.replica = resp.StatusCode, resp.Header.Get("X-Lbd-Replica")
	o.judge(string(b), err)
	return err == nil && !resp.Close
}

// judge looks at an answer. A stream must end with [DONE], and every answer must be
// the model's that was asked for.
func (o *outcome) judge(body string, err error) {
	whole := o.stream && strings.HasSuffix(body, "data: [DONE]\n\n") || !o.stream && json.Valid([]byte(body))
	var e struct{ Error struct{ Code, Message any } }
	switch {
	case err != nil:
		o.cause, o.message = cut, err.Error()
	case o.status != 200:
		json.Unmarshal([]byte(body), &e) // a replica's own need not be one
		o.cause, o.message = fmt.Sprintf("status %d %v", o.status, e.Error.Code), fmt.Sprint(e.Error.Message)
	case o.stream && strings.HasPrefix(body, `data: {"error"`):
		first, _, _ := strings.Cut(strings.TrimPrefix(body, "data: "), "\n")
		json.Unmarshal([]byte(first), &e)
		o.cause, o.message = fmt.Sprintf("event %v", e.Error.Code), fmt.Sprint(e.Error.Message)
	case !whole || !strings.Contains(body, `"model":"`+o.model+`"`):
		o.cause, o.message = wrong, body[max(0, len(body)-300):]
	}
}
