package daemon_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lbd/bench/sim"
	"lbd/bench/sim/engine"
)

// gate is a replica that answers a request when it is told to, one by one in the
// order in which they came.
type gate struct {
	*fake
	mu    sync.Mutex
	names []string // of requests, in order: their field user
	open  []chan struct{}
	next  int
}

func newGate(t *testing.T) *gate {
	t.Helper()
	g := &gate{}
	g.fake = fakeReplica(t, func(c *fakeConn) {
		body := c.body()
		var req struct{ User string }
		json.Unmarshal([]byte(body), &req)
		g.mu.Lock()
		open := make(chan struct{})
		g.names, g.open = append(g.names, req.User), append(g.open, open)
		g.mu.Unlock()
		gone := make(chan struct{})
		go func() { defer close(gone); c.br.Peek(1) }()
		select {
		case <-open:
		case <-gone:
			return
		}
		c.send("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
	})
	t.Cleanup(g.all)
	return g
}

// came returns the names of the requests that have come.
func (g *gate) came() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return strings.Join(g.names, " ")
}

func (g *gate) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.names)
}

// answer answers the oldest request that is not answered.
func (g *gate) answer() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.open[g.next])
	g.next++
}

// all answers whatever is left.
func (g *gate) all() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for ; g.next < len(g.open); g.next++ {
		close(g.open[g.next])
	}
}

// named is a request whose sender is told by the field user.
func named(name string, fields ...string) string {
	return chat(llama, false, 10, append([]string{fmt.Sprintf("%q:%q", "user", name)}, fields...)...)
}

// send posts on a connection of its own.
func (p *proxied) sendNamed(name string, header ...string) *wire {
	p.t.Helper()
	w := p.dial()
	w.sendPost("/v1/chat/completions", named(name), header...)
	return w
}

// waiting is the length of the model's queue as operators see it.
func (p *proxied) waiting() string {
	p.t.Helper()
	return p.metric(`lbd_admission_queue_length{model="` + llama + `"}`)
}

func (p *proxied) waits(n int) {
	p.t.Helper()
	p.until(fmt.Sprintf("%d wait", n), func() bool { return p.waiting() == strconv.Itoa(n) })
}

func (p *proxied) rejected(reason string) string {
	p.t.Helper()
	return p.metric(`lbd_admission_rejected_total{model="` + llama + `",reason="` + reason + `"}`)
}

// behind sends requests one after the other, each when the one before it waits, and
// answers them one after the other: what comes to the replica is the order.
func (p *proxied) behind(g *gate, senders ...[]string) string {
	p.t.Helper()
	return p.behindFirst(g, p.sendNamed("first"), senders...)
}

// behindFirst is behind with a first request of the caller's.
func (p *proxied) behindFirst(g *gate, first *wire, senders ...[]string) string {
	p.t.Helper()
	p.until("the first one runs", func() bool { return g.count() == 1 })
	wires := []*wire{first}
	for i, s := range senders {
		wires = append(wires, p.sendNamed(s[0], s[1:]...))
		p.waits(i + 1)
	}
	for i := range wires {
		p.until("the next one runs", func() bool { return g.count() == i+1 })
		g.answer()
	}
	for _, w := range wires {
		if a := w.answer("POST"); a.StatusCode != 200 {
			p.t.Errorf("%s: %s", a.Status, a.body)
		}
	}
	p.waits(0)
	return strings.TrimPrefix(g.came(), "first ")
}

// Two clients take turns however much more the one sends, and nobody is lost.
func TestAdmissionIsFair(t *testing.T) {
	g := newGate(t)
	p := lbd(t, []string{g.url()}, "admission-max-in-flight", "1", "admission-client-header", "X-Client")
	hog, small := "X-Client: hog", "X-Client: small"
	got := p.behind(g, []string{"h1", hog}, []string{"h2", hog}, []string{"h3", hog}, []string{"h4", hog}, []string{"s1", small}, []string{"s2", small})
	if want := "h1 s1 h2 s2 h3 h4"; got != want {
		t.Errorf("order %q; want %q", got, want)
	}
	if n := p.metric(`lbd_admission_wait_seconds_count{model="` + llama + `"}`); n != "6" {
		t.Errorf("%s waits observed; want 6", n)
	}
}

// With API keys it is their names that count, and priorities may go with them.
func TestAdmissionByKeyAndPriority(t *testing.T) {
	g := newGate(t)
	file := keyFile(t, [3]string{"alice", aliceKey, ""}, [3]string{"bob", bobKey, ""})
	p := lbd(t, []string{g.url()}, "admission-max-in-flight", "1", "api-keys-file", file, "metrics-access", "open",
		"admission-client-header", "X-Client", "admission-priority-header", "X-Priority", "admission-priorities", "bob=low")
	alice, bob := "Authorization: Bearer "+aliceKey, "Authorization: Bearer "+bobKey
	got := p.behindFirst(g, p.sendNamed("first", alice),
		[]string{"b1", bob}, []string{"b2", bob, "X-Priority: high", "X-Client: x"}, []string{"a1", alice, "X-Client: y"},
		[]string{"a2", alice, "X-Priority: low"}, []string{"a3", alice, "X-Priority: high"}, []string{"a4", alice, "X-Priority: nonsense"})
	if want := "a3 a1 a4 b1 a2 b2"; got != want {
		t.Errorf("order %q; want %q", got, want)
	}
}

// overloadedAnswer holds a 429 to its shape and returns its Retry-After.
func overloadedAnswer(t *testing.T, a reply) int {
	t.Helper()
	kind, code, message := openAIError(t, a)
	if a.StatusCode != 429 || kind != "overloaded" || code != "overloaded" || !strings.Contains(message, llama) {
		t.Errorf("%s %s %s: %s; want 429 overloaded", a.Status, kind, code, message)
	}
	n, err := strconv.Atoi(a.Header.Get("Retry-After"))
	if err != nil || n < 1 {
		t.Errorf("Retry-After %q; want seconds", a.Header.Get("Retry-After"))
	}
	return n
}

func TestAdmissionRefuses(t *testing.T) {
	g := newGate(t)
	p := lbd(t, []string{g.url()}, "admission-max-in-flight", "1", "admission-queue-length", "2", "admission-client-header", "X-Client")
	run := p.sendNamed("run")
	p.until("it runs", func() bool { return g.count() == 1 })
	hog := []*wire{p.sendNamed("h1", "X-Client: hog")}
	p.waits(1)
	hog = append(hog, p.sendNamed("h2", "X-Client: hog"))
	p.waits(2)
	var fleet struct {
		Models []struct {
			Held struct{ Waiting, Clients, Bytes, Tokens int }
		}
	}
	if page := p.onAdmin("GET", "/fleet", ""); json.Unmarshal([]byte(page.body), &fleet) != nil || len(fleet.Models) != 1 {
		t.Fatalf("/fleet: %s", page.body)
	}
	if h := fleet.Models[0].Held; h.Waiting != 2 || h.Clients != 1 || h.Bytes != 2*len(named("h1")) || h.Tokens < 2*2*10 {
		t.Errorf("/fleet shows %+v; want the two of one client", h)
	}
	full := p.sendNamed("h3", "X-Client: hog").answer("POST")
	overloadedAnswer(t, full)
	if full.Close {
		t.Error("a refusal ends the connection")
	}
	modest := p.sendNamed("m", "X-Client: modest", "X-Request-Timeout: 50ms")
	overloadedAnswer(t, hog[1].answer("POST")) // the greedier one's newest made room
	overloadedAnswer(t, modest.answer("POST")) // its own deadline
	for reason, want := range map[string]string{"queue_full": "2", "deadline": "1", "too_old": "0", "predicted_ttft": "0"} {
		if got := p.rejected(reason); got != want {
			t.Errorf("%s refused for %s; want %s", got, reason, want)
		}
	}
	p.counted(`lbd_requests_total{code="429",model="`+llama+`"}`, "3")
	p.tookAtLeast(0.05) // what was held counts for as long as it was
	g.answer()
	if a := run.answer("POST"); a.StatusCode != 200 {
		t.Errorf("%s", a.Status)
	}
	p.until("who waited runs", func() bool { return g.count() == 2 })
	g.answer()
	if a := hog[0].answer("POST"); a.StatusCode != 200 {
		t.Errorf("%s", a.Status)
	}
}

// Nobody waits for longer than is configured.
func TestAdmissionMaxWait(t *testing.T) {
	g := newGate(t)
	p := lbd(t, []string{g.url()}, "admission-max-in-flight", "1", "admission-max-wait", "300ms")
	run := p.sendNamed("run")
	p.until("it runs", func() bool { return g.count() == 1 })
	overloadedAnswer(t, p.sendNamed("waits").answer("POST"))
	if got := p.rejected("too_old"); got != "1" {
		t.Errorf("%s refused for their age; want 1", got)
	}
	p.counted(`lbd_requests_total{code="429",model="`+llama+`"}`, "1")
	p.tookAtLeast(0.3)
	g.answer()
	if a := run.answer("POST"); a.StatusCode != 200 {
		t.Errorf("%s", a.Status)
	}
	if n := g.count(); n != 1 {
		t.Errorf("the replica got %d requests; want 1", n)
	}
}

// tookAtLeast holds what the requests that are over took in all, in seconds.
func (p *proxied) tookAtLeast(want float64) {
	p.t.Helper()
	sum := p.metric(`lbd_request_duration_seconds_sum{model="` + llama + `"}`)
	if took, err := strconv.ParseFloat(sum, 64); err != nil || took < want {
		p.t.Errorf("refusals took %q s in all; want %v or more", sum, want)
	}
}

// With a limit, a request whose first token least-cost predicts for later is refused
// before any replica has seen it. Strategies that do not predict refuse nobody so.
func TestAdmissionPredictedTTFT(t *testing.T) {
	for strategy, want := range map[string]int{"least-cost": 429, "cycle": 200} {
		t.Run(strategy, func(t *testing.T) {
			r := replica(t, sim.Config{})
			p := lbd(t, []string{r.URL()}, "strategy", strategy, "admission-max-ttft", "500ms")
			w := p.dial()
			w.sendPost("/v1/chat/completions", chat(llama, false, 1))
			if a := w.answer("POST"); a.StatusCode != 200 {
				t.Fatalf("a short prompt: %s %s", a.Status, a.body)
			}
			long := strings.Replace(chat(llama, false, 1), "Hello", strings.Repeat("many words ", 20000), 1)
			w.sendPost("/v1/chat/completions", long)
			a := w.answer("POST")
			if a.StatusCode != want {
				t.Fatalf("a prompt of 220 KB: %s %.200s; want %d", a.Status, a.body, want)
			}
			if want == 429 {
				overloadedAnswer(t, a)
				if says := "than the 500ms allowed here"; !strings.Contains(string(a.body), says) {
					t.Errorf("%s; want %q: the fleet is idle", a.body, says)
				}
				if got := p.rejected("predicted_ttft"); got != "1" {
					t.Errorf("%s refused for it; want 1", got)
				}
			}
		})
	}
}

// What is allowed per token of the prompt lets a long one pass that the limit alone refuses.
func TestAdmissionTTFTPerToken(t *testing.T) {
	r := replica(t, sim.Config{})
	p := lbd(t, []string{r.URL()}, "strategy", "least-cost", "admission-max-ttft", "500ms", "admission-ttft-per-token", "1ms")
	w := p.dial()
	long := strings.Replace(chat(llama, false, 1), "Hello", strings.Repeat("many words ", 20000), 1)
	w.sendPost("/v1/chat/completions", long)
	if a := w.answer("POST"); a.StatusCode != 200 {
		t.Errorf("a prompt of 220 KB: %s %.200s; want 200", a.Status, a.body)
	}
}

// With a limit on tokens, a stream that would have slow ones is refused where others run, and a request that does not
// stream is not. Where nothing runs one goes through, which shows whether they still are slow.
func TestAdmissionPredictedTPOT(t *testing.T) {
	g := newGate(t)
	p := lbd(t, []string{g.url()}, "strategy", "least-cost", "admission-max-tpot", "1ms")
	send := func(stream bool, n int) *wire {
		w := p.dial()
		w.sendPost("/v1/chat/completions", chat(llama, stream, 100))
		p.until("it runs", func() bool { return g.count() == n })
		return w
	}
	passed := []*wire{send(true, 1), send(false, 2)}
	w := p.dial()
	w.sendPost("/v1/chat/completions", chat(llama, true, 100))
	a := w.answer("POST")
	overloadedAnswer(t, a)
	for _, says := range []string{"each token after the first", "than the 1ms allowed here"} {
		if !strings.Contains(string(a.body), says) {
			t.Errorf("%s; want %q", a.body, says)
		}
	}
	if got := p.rejected("predicted_tpot"); got != "1" {
		t.Errorf("%s refused for it; want 1", got)
	}
	for _, w := range passed {
		g.answer()
		w.answer("POST")
	}
	p.counted(`lbd_inflight_requests{model="`+llama+`",replica="`+strings.TrimPrefix(g.url(), "http://")+`"}`, "0")
	last := send(true, 3)
	g.answer()
	last.answer("POST")
}

// A client that leaves while it waits is out at once; its place in line goes on.
func TestAdmissionClientLeaves(t *testing.T) {
	for _, l := range leavings {
		t.Run(l.name, func(t *testing.T) {
			g := newGate(t)
			p := lbd(t, []string{g.url()}, "admission-max-in-flight", "1")
			run := p.sendNamed("run")
			p.until("it runs", func() bool { return g.count() == 1 })
			w := p.sendNamed("leaves")
			p.waits(1)
			l.leave(w)
			p.waits(0)
			p.until("the disconnect counted", func() bool {
				return p.metric(`lbd_client_disconnects_total{model="`+llama+`"}`) == "1" &&
					p.metric(`lbd_requests_total{code="499",model="`+llama+`"}`) == "1"
			})
			stays := p.sendNamed("stays")
			p.waits(1)
			g.answer()
			p.until("who stays runs", func() bool { return g.count() == 2 })
			g.answer()
			for _, w := range []*wire{run, stays} {
				if a := w.answer("POST"); a.StatusCode != 200 {
					t.Errorf("%s", a.Status)
				}
			}
			if got := g.came(); got != "run stays" {
				t.Errorf("the replica got %q", got)
			}
		})
	}
}

// A request behind the one that waits, on the same connection, is no departure.
func TestAdmissionPipelined(t *testing.T) {
	g := newGate(t)
	p := lbd(t, []string{g.url()}, "admission-max-in-flight", "1")
	run := p.sendNamed("run")
	p.until("it runs", func() bool { return g.count() == 1 })
	w := p.sendNamed("a")
	p.waits(1)
	w.sendPost("/v1/chat/completions", named("b"))
	time.Sleep(50 * time.Millisecond) // the bytes are there, and nothing is to follow from it
	if p.waiting() != "1" {
		t.Error("it does not wait any more")
	}
	for i := range 3 {
		p.until("it runs", func() bool { return g.count() == i+1 })
		g.answer()
	}
	for _, a := range []reply{run.answer("POST"), w.answer("POST"), w.answer("POST")} {
		if a.StatusCode != 200 {
			t.Errorf("%s", a.Status)
		}
	}
	if got := g.came(); got != "run a b" {
		t.Errorf("the replica got %q", got)
	}
}

// Those that wait stay through a reload, and go where it says.
func TestAdmissionSurvivesReload(t *testing.T) {
	a, b := newGate(t), newGate(t)
	p, file := configured(t, "admission_max_in_flight: 1\nendpoints: ["+a.url()+"]\n")
	p.until("served", func() bool { m := p.Snapshot().Model([]byte(llama)); return m != nil && len(m.Available) == 1 })
	run := p.sendNamed("run")
	p.until("it runs", func() bool { return a.count() == 1 })
	w := p.sendNamed("waits")
	p.waits(1)
	write(t, file, "admission_max_in_flight: 1\nstrategy: cycle\nendpoints: ["+b.url()+"]\n")
	if err := p.Reload(); err != nil {
		t.Fatal(err)
	}
	p.until("it runs at the new replica", func() bool { return b.count() == 1 })
	b.answer()
	got := w.answer("POST")
	if got.StatusCode != 200 || got.Header.Get("X-Lbd-Strategy") != "cycle" {
		t.Errorf("%s by %q; want 200 by cycle: %s", got.Status, got.Header.Get("X-Lbd-Strategy"), got.body)
	}
	a.answer()
	if got := run.answer("POST"); got.StatusCode != 200 {
		t.Errorf("the old one: %s", got.Status)
	}

	run = p.sendNamed("again")
	p.until("it runs", func() bool { return b.count() == 2 })
	var rest []*wire
	for i := range 3 {
		rest = append(rest, p.sendNamed("rest"))
		p.waits(i + 1)
	}
	write(t, file, "admission: false\nendpoints: ["+b.url()+"]\n")
	if err := p.Reload(); err != nil {
		t.Fatal(err)
	}
	p.until("all run without admission", func() bool { return b.count() == 5 })
	b.all()
	for _, w := range append(rest, run) {
		if got := w.answer("POST"); got.StatusCode != 200 {
			t.Errorf("%s", got.Status)
		}
	}
}

// A model that vanishes is told to those who wait for it: 404 when nobody knows it
// any more, 503 when its replicas are down.
func TestAdmissionModelGone(t *testing.T) {
	g, other := newGate(t), replica(t, sim.Config{Model: qwen})
	p, file := configured(t, "admission_max_in_flight: 1\nendpoints: ["+g.url()+", "+other.URL()+"]\n")
	p.until("served", func() bool { m := p.Snapshot().Model([]byte(llama)); return m != nil && len(m.Available) == 1 })
	run := p.sendNamed("run")
	p.until("it runs", func() bool { return g.count() == 1 })
	w := p.sendNamed("waits")
	p.waits(1)
	if a := p.onAdmin("POST", "/replicas/"+strings.TrimPrefix(g.url(), "http://")+"/drain", ""); a.status != 200 {
		t.Fatalf("drain: %d %s", a.status, a.body)
	}
	if a := w.answer("POST"); a.StatusCode != 503 || a.Header.Get("Retry-After") == "" {
		t.Errorf("%s %s; want 503 with Retry-After", a.Status, a.body)
	}
	p.onAdmin("POST", "/replicas/"+strings.TrimPrefix(g.url(), "http://")+"/undrain", "")
	w = p.sendNamed("waits")
	p.waits(1)
	write(t, file, "admission_max_in_flight: 1\nendpoints: ["+other.URL()+"]\n")
	if err := p.Reload(); err != nil {
		t.Fatal(err)
	}
	if a := w.answer("POST"); a.StatusCode != 404 || !strings.Contains(a.body, "model_not_found") || !strings.Contains(a.body, qwen) {
		t.Errorf("%s %s; want 404", a.Status, a.body)
	}
	g.answer()
	if a := run.answer("POST"); a.StatusCode != 200 {
		t.Errorf("%s", a.Status)
	}
}

// Those that wait when lbd is told to stop are running requests: they finish.
func TestAdmissionDrains(t *testing.T) {
	g := newGate(t)
	p := lbd(t, []string{g.url()}, "admission-max-in-flight", "1")
	run := p.sendNamed("run")
	p.until("it runs", func() bool { return g.count() == 1 })
	w := p.sendNamed("waits")
	p.waits(1)
	idle := p.dial()
	stopped := p.stopping(context.Background())
	idle.closed() // from then on every answer ends its connection
	g.answer()
	p.until("the other one runs", func() bool { return g.count() == 2 })
	g.answer()
	for _, w := range []*wire{run, w} {
		if a := w.answer("POST"); a.StatusCode != 200 || !a.Close {
			t.Errorf("%s, close %t", a.Status, a.Close)
		}
	}
	if err := <-stopped; err != nil {
		t.Errorf("stop: %v", err)
	}
}

// When the time for that is over they are cut like all others.
func TestAdmissionDrainTimeout(t *testing.T) {
	g := newGate(t)
	p := lbd(t, []string{g.url()}, "admission-max-in-flight", "1")
	run, w := p.sendNamed("run"), (*wire)(nil)
	p.until("it runs", func() bool { return g.count() == 1 })
	w = p.sendNamed("waits")
	p.waits(1)
	ctx, cancel := context.WithCancel(context.Background())
	stopped := p.stopping(ctx)
	cancel()
	if err := <-stopped; err == nil {
		t.Error("nothing was cut")
	}
	run.closed()
	if rest := w.closed(); rest != "" {
		t.Errorf("who waited got %q", rest)
	}
	if n := g.count(); n != 1 {
		t.Errorf("the replica got %d requests; want 1", n)
	}
}

// A replica that tells of its queue is not given more than may wait there: the rest
// waits here, and everybody is answered.
func TestAdmissionByGauge(t *testing.T) {
	r := replica(t, sim.Config{Profile: sim.ProfileV019, Engine: engine.Config{MaxNumSeqs: 8}, Speed: 20})
	p := lbd(t, []string{r.URL()}, "admission-max-waiting", "2", "admission-client-header", "X-Client")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	var bad, done atomic.Int64
	for i := range 51 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if status := p.streamAs([]string{"hog", "small"}[i%17/16], 40); status != 200 {
					bad.Add(1)
				}
				done.Add(1)
			}
		})
	}
	p.until("some wait here", func() bool { n, _ := strconv.Atoi(p.waiting()); return n > 10 })
	start := done.Load()
	p.until("a hundred answers", func() bool { return done.Load()-start >= 100 })
	cancel()
	wg.Wait()
	if bad.Load() > 0 {
		t.Errorf("%d bad answers", bad.Load())
	}
}

// unanswered is how many requests the replica has.
func (g *gate) unanswered() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.open) - g.next
}

// oldest names the request that answer would answer.
func (g *gate) oldest() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.names[g.next]
}

// tells has the replica tell how many of its requests it runs, and that the others wait.
func (g *gate) tells(runs int) {
	g.gauges = func() string {
		n := g.unanswered()
		return fmt.Sprintf("# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{model_name=%q} %d\n"+
			"# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{model_name=%q} %d\n", llama, min(n, runs), llama, max(n-runs, 0))
	}
}

// Two clients, one with sixteen times as many requests open, share what a replica that
// tells of its queue puts out. Nobody's pace decides: each answer waits until the one
// before it was read, its client has asked again and the request has come.
func TestAdmissionByGaugeIsFair(t *testing.T) {
	g := newGate(t)
	g.tells(8)
	p := lbd(t, []string{g.url()}, "admission-max-waiting", "2", "admission-client-header", "X-Client")
	wires := map[string]*wire{}
	send := func(name string) {
		if wires[name] == nil {
			wires[name] = p.dial()
		}
		client, _, _ := strings.Cut(name, "-")
		wires[name].sendPost("/v1/chat/completions", named(name), "X-Client: "+client)
	}
	all := func(n int) {
		t.Helper()
		p.until(fmt.Sprintf("%d run or wait", n), func() bool {
			waiting, _ := strconv.Atoi(p.waiting())
			there := g.unanswered()
			return waiting+there == n && there > 0
		})
	}
	for i := range 10 {
		send(fmt.Sprint("hog-", i))
	}
	all(10)
	p.until("the replica tells that two wait", func() bool {
		return p.metric(`lbd_replica_requests_waiting{replica="`+strings.TrimPrefix(g.url(), "http://")+`"}`) == "2"
	})
	for i := 10; i < 48; i++ {
		send(fmt.Sprint("hog-", i))
	}
	for i := range 3 {
		send(fmt.Sprint("small-", i))
	}
	all(51)
	answers := map[string]int{}
	for range 100 {
		name := g.oldest()
		g.answer()
		if a := wires[name].answer("POST"); a.StatusCode != 200 {
			t.Fatalf("%s: %s", a.Status, a.body)
		}
		client, _, _ := strings.Cut(name, "-")
		answers[client]++
		send(name)
		all(51)
	}
	// First come, first served, the small one would have 3 of 51: 6 of the hundred. It
	// cannot have half: each of its three requests has ten others before it at the replica
	// before it can ask again. A request that takes turns here has them and one or two of
	// the hog's before it, which makes 3 of 12 or 13.
	if h, s := answers["hog"], answers["small"]; s < 20 || s > 50 {
		t.Errorf("%d answers for the hog, %d for the small client; want 20 or more for 3 of 51 requests", h, s)
	}
	t.Logf("%d answers for 48 open requests, %d for 3", answers["hog"], answers["small"])
}

// streamAs sends a streamed request and reads its answer.
func (p *proxied) streamAs(client string, tokens int) (status int) {
	req, err := http.NewRequest("POST", p.url+"/v1/chat/completions", strings.NewReader(chat(llama, true, tokens)))
	if err != nil {
		return 0
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Client", client)
	resp, err := p.http.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	last := ""
	for sc := bufio.NewScanner(resp.Body); sc.Scan(); {
		if sc.Text() != "" {
			last = sc.Text()
		}
	}
	if last != "data: [DONE]" {
		return 0
	}
	return resp.StatusCode
}
