package daemon_test

import (
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lbd/bench/sim"
)

// churn is a fleet in which everything happens at once.
type churn struct {
	*proxied
	t        *testing.T
	file     string
	replicas []*sim.Server
	rng      *rand.Rand // of the one goroutine that disturbs

	sent, answered, left, cut, refused atomic.Int64
}

// Replicas die, restart, turn into other models, misbehave, are drained and
// reloaded away while clients ask, stream and leave. Nobody is answered by the
// wrong model, every answer is of a kind that is promised, and in the end all
// accounts are even.
func TestChurn(t *testing.T) {
	c := &churn{t: t, rng: rand.New(rand.NewPCG(1, 2))}
	for i := range 6 {
		c.replicas = append(c.replicas, replica(t, sim.Config{
			Model: []string{llama, qwen}[i%2], Profile: sim.Profiles()[i/3], AbortPoll: 20 * time.Millisecond,
		}))
	}
	c.proxied, c.file = configured(t, endpoints(c.replicas...), "log-level", "info")
	c.available(llama, c.replicas[0], c.replicas[2], c.replicas[4])
	c.available(qwen, c.replicas[1], c.replicas[3], c.replicas[5])

	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for i := range 6 {
		clients.Go(func() { c.client(ctx, rand.New(rand.NewPCG(3, uint64(i)))) })
	}
	for range 60 {
		c.disturb()
		time.Sleep(time.Duration(c.rng.IntN(50)) * time.Millisecond)
	}
	cancel()
	clients.Wait()
	t.Logf("%d sent: %d answered, %d refused, %d left by the client, %d cut", c.sent.Load(), c.answered.Load(), c.refused.Load(), c.left.Load(), c.cut.Load())
	if c.answered.Load() < c.sent.Load()/2 {
		t.Errorf("%d of %d answered; want most", c.answered.Load(), c.sent.Load())
	}
	c.heal()
	c.even()
}

// disturb does one thing that operators or fate do.
func (c *churn) disturb() {
	r := c.replicas[c.rng.IntN(len(c.replicas))]
	switch c.rng.IntN(9) {
	case 0, 1:
		r.Kill()
	case 2, 3:
		for _, r := range c.replicas {
			r.Start("") // fails on those that run
		}
	case 4:
		if err := r.SetModel([]string{llama, qwen}[c.rng.IntN(2)]); err != nil {
			c.t.Error(err)
		}
	case 5:
		fault(c.t, r, []sim.Faults{
			{Status: &sim.Fault{Rate: .5}}, {ResetStream: &sim.Fault{Events: 3}}, {TruncateStream: &sim.Fault{Events: 2}}, {CloseIdleNow: &sim.Fault{}},
			{Loading: &sim.Fault{}}, {Refuse: &sim.Fault{}}, {NoMetrics: &sim.Fault{}}, {ResetBefore: &sim.Fault{Count: 3}},
		}[c.rng.IntN(8)])
	case 6:
		for _, r := range c.replicas {
			fault(c.t, r, sim.Faults{})
		}
	case 7:
		some := c.replicas[c.rng.IntN(3):]
		write(c.t, c.file, "strategy: "+[]string{"cycle", "least-waiting", "two-choices"}[c.rng.IntN(3)]+"\n"+endpoints(some...))
		if err := c.Reload(); err != nil {
			c.t.Error(err)
		}
	case 8:
		c.onAdmin("POST", "/replicas/"+r.Addr()+"/"+[]string{"drain", "undrain"}[c.rng.IntN(2)], "")
	}
}

// client asks until the end, one request at a time.
func (c *churn) client(ctx context.Context, rng *rand.Rand) {
	for ctx.Err() == nil {
		model := []string{llama, qwen}[rng.IntN(2)]
		patience := time.Minute
		if rng.IntN(8) == 0 {
			patience = time.Duration(rng.IntN(20)) * time.Millisecond
		}
		asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		c.request(asking, model, rng.IntN(2) == 0)
		cancel()
	}
}

func (c *churn) request(ctx context.Context, model string, stream bool) {
	req, err := http.NewRequestWithContext(ctx, "POST", c.url+"/v1/chat/completions", strings.NewReader(chat(model, stream, 8)))
	if err != nil {
		c.t.Error(err)
		return
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() == nil {
			c.t.Errorf("lbd gave no answer: %v", err)
		}
		c.left.Add(1)
		return
	}
	defer resp.Body.Close()
	c.sent.Add(1)
	body, err := io.ReadAll(resp.Body)
	switch {
	case ctx.Err() != nil:
		c.left.Add(1)
	case resp.StatusCode == 200:
		c.judge(model, stream, string(body), err)
	case err != nil:
		c.t.Errorf("%d: %v", resp.StatusCode, err)
	case resp.StatusCode == 404 || resp.StatusCode == 500 || resp.StatusCode == 502 || resp.StatusCode == 503:
		c.refused.Add(1)
		time.Sleep(20 * time.Millisecond) // who asks on and on is refused a hundred times while one request is answered
	default:
		c.t.Errorf("%d %s", resp.StatusCode, body)
	}
}

// judge looks at an answer that began well: it names the model, and is either
// whole or broken off so that the client sees it.
func (c *churn) judge(model string, stream bool, body string, err error) {
	whole := stream && strings.HasSuffix(body, "data: [DONE]\n\n") || !stream && json.Valid([]byte(body))
	switch {
	case whole && err == nil && strings.Contains(body, `"model":"`+model+`"`):
		c.answered.Add(1)
	case err != nil:
		c.cut.Add(1)
	default:
		c.t.Errorf("%s, stream %t: neither whole nor broken off: %q", model, stream, body)
	}
}

// heal undoes all disturbances and waits until every replica serves.
func (c *churn) heal() {
	write(c.t, c.file, endpoints(c.replicas...))
	for _, r := range c.replicas {
		fault(c.t, r, sim.Faults{})
		r.Start("")
	}
	if err := c.Reload(); err != nil {
		c.t.Fatal(err)
	}
	for _, r := range c.replicas {
		c.onAdmin("POST", "/replicas/"+r.Addr()+"/undrain", "")
	}
	c.until("every replica back in service with its model", func() bool {
		for _, r := range c.replicas {
			s := c.state(r)
			if !s.Available() || s.Models[0].ID != r.Config().Model {
				return false
			}
		}
		return true
	})
}

// even holds what must be zero to zero.
func (c *churn) even() {
	c.until("own load 0 everywhere, at lbd and at the replicas", func() bool {
		for _, r := range c.replicas {
			if s := c.state(r); s.InFlight() != 0 || s.Pending() != 0 || r.Stats().InFlight != 0 {
				return false
			}
		}
		return true
	})
	c.until("nothing in flight on the page", func() bool {
		for line := range strings.Lines(c.get("/metrics").body) {
			if strings.HasPrefix(line, "lbd_inflight_requests{") && !strings.HasSuffix(line, " 0\n") {
				return false
			}
		}
		return true
	})
	for line := range strings.Lines(c.get("/metrics").body) {
		if _, v, ok := strings.Cut(line, "} "); ok && strings.HasPrefix(line, "lbd_") {
			if n, err := strconv.ParseFloat(strings.TrimSpace(v), 64); err != nil || n < 0 {
				c.t.Errorf("below zero: %s", line)
			}
		}
	}
	if strings.Contains(c.log.String(), "BUG") {
		c.t.Error("a BUG is in the log")
	}
}
