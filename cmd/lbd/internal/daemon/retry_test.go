package daemon_test

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lbd/bench/sim"
)

// quiet keeps health checks out of a test: after the first probe a replica stays
// in service whatever happens.
var quiet = []string{"strategy", "cycle", "health-interval", "1h", "metrics-poll-interval", "1h", "models-poll-interval", "1h"}

// ids sends n requests in a row on one connection and returns the answers.
func (w *wire) inARow(n int, prefix string) (answers []reply) {
	w.t.Helper()
	for i := range n {
		w.sendPost("/v1/completions", `{"model":"`+llama+`","prompt":"x","max_tokens":1}`, fmt.Sprintf("X-Request-Id: %s-%d", prefix, i))
		answers = append(answers, w.answer("POST"))
	}
	return answers
}

// executions counts the requests of each ID that replicas have read whole.
func executions(rs ...*sim.Server) map[string]int {
	n := map[string]int{}
	for _, r := range rs {
		for _, q := range r.Requests() {
			if q.RequestID != "" && q.Method == "POST" {
				n[q.RequestID]++
			}
		}
	}
	return n
}

func allOK(t *testing.T, answers []reply) {
	t.Helper()
	for i, a := range answers {
		if a.StatusCode != 200 || a.err != nil {
			t.Errorf("request %d: %s %v %s", i, a.Status, a.err, a.body)
		}
	}
}

func once(t *testing.T, executed map[string]int, want int) {
	t.Helper()
	for id, n := range executed {
		if n != 1 {
			t.Errorf("%s was executed %d times", id, n)
		}
	}
	if len(executed) != want {
		t.Errorf("%d requests were executed; want %d", len(executed), want)
	}
}

// A replica that refuses connections costs nothing but a retry.
func TestRetryRefused(t *testing.T) {
	a, b, c := replica(t, sim.Config{}), replica(t, sim.Config{}), replica(t, sim.Config{})
	p := lbd(t, []string{a.URL(), b.URL(), c.URL()}, quiet...)
	a.Kill()
	b.Kill()
	allOK(t, p.dial().inARow(9, "refused"))
	once(t, executions(a, b, c), 9)
	if got, _ := strconv.Atoi(p.metric(`lbd_retries_total{model="` + llama + `",reason="connect_refused"}`)); got < 2 {
		t.Errorf("%d retries counted; want at least 2, one for each dead replica before a probe takes it out", got)
	}
	c.Kill()
	for _, got := range p.dial().inARow(1, "nobody") {
		if _, code, message := openAIError(t, got); got.StatusCode != 502 || code != "replica_error" || !strings.Contains(message, "connection refused") {
			t.Errorf("with nobody left: %s %s", got.Status, got.body)
		}
	}
}

// One attempt means no retry.
func TestNoRetry(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{})
	p := lbd(t, []string{a.URL(), b.URL()}, append([]string{"max-attempts", "1"}, quiet...)...)
	a.Kill()
	bad := 0
	for _, got := range p.dial().inARow(4, "one") {
		if got.StatusCode == 502 {
			bad++
		}
	}
	// The first refusal asks for a probe, which takes the dead replica out before or
	// after its second turn.
	if bad < 1 || bad > 2 {
		t.Errorf("%d of 4 requests failed; want the 1 or 2 that went to the dead replica", bad)
	}
	if got := p.metric(`lbd_retries_total{model="` + llama + `",reason="connect_refused"}`); got != "0" {
		t.Errorf("%q retries counted; want none, nothing was sent again", got)
	}
	for _, line := range p.log.logged("request") {
		if line["attempts"] != 1.0 {
			t.Errorf("logged as %v attempts: %v", line["attempts"], line)
		}
	}
}

// deafen makes connections to the replica time out: its listener's queue is cut to
// nothing and filled, and nobody accepts.
func (f *fake) deafen() {
	f.t.Helper()
	f.ln.(*net.TCPListener).SetDeadline(time.Unix(1, 0))
	<-f.deaf
	raw, err := f.ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		f.t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = syscall.Listen(int(fd), 0) })
	for range 64 {
		full := true
		for range 2 { // of which one may be late for other reasons
			if c, err := net.DialTimeout("tcp", f.ln.Addr().String(), 200*time.Millisecond); err == nil {
				f.t.Cleanup(func() { c.Close() })
				full = false
			}
		}
		if full {
			return
		}
	}
	f.t.Fatalf("the listener's queue does not fill (%v)", err)
}

// A replica is out of reach: its host drops packets.
func TestRetryConnectTimeout(t *testing.T) {
	f, b := fakeReplica(t, echo), replica(t, sim.Config{})
	p := lbd(t, []string{f.url(), b.URL()}, append([]string{"connect-timeout", "300ms", "upstream-idle-timeout", "1ms"}, quiet...)...)
	f.deafen()
	allOK(t, p.dial().inARow(4, "timeout"))
	once(t, executions(b), 4)
	if got := p.metric(`lbd_retries_total{model="` + llama + `",reason="connect_timeout"}`); got == "" || got == "0" {
		t.Errorf("%q retries counted", got)
	}
}

// uvicorn's keep-alive timer, shortened, under requests that come just when it
// expires.
func TestKeepAliveExpires(t *testing.T) {
	r := replica(t, sim.Config{KeepAlive: 20 * time.Millisecond})
	p := lbd(t, []string{r.URL()}, append([]string{"upstream-idle-timeout", "1m"}, quiet...)...)
	w := p.dial()
	bad := 0
	const n = 60
	for i := range n {
		for _, a := range w.inARow(1, fmt.Sprint("idle-", i)) {
			if a.StatusCode != 200 { // it came between timer and close
				bad++
				if !strings.Contains(a.body, "closed the connection without an answer") {
					t.Errorf("%s %s", a.Status, a.body)
				}
			}
		}
		time.Sleep(20*time.Millisecond + time.Duration(i-n/2)*20*time.Microsecond)
	}
	once(t, executions(r), n-bad)
	if bad > n/10 { // lbd learns how long the replica keeps connections
		t.Errorf("%d of %d requests failed", bad, n)
	}
}

// Connections that the replica closes between two requests are never used.
func TestIdleConnectionsClosed(t *testing.T) {
	r := replica(t, sim.Config{})
	p := lbd(t, []string{r.URL()}, quiet...)
	w := p.dial()
	for i := range 50 {
		allOK(t, w.inARow(1, fmt.Sprint("idle-", i)))
		p.until("the connection idle", func() bool { return p.state(r).InFlight() == 0 })
		fault(t, r, sim.Faults{CloseIdleNow: &sim.Fault{}})
	}
	once(t, executions(r), 50)
}

// A request that a replica has read may have run, so it is never sent again, on a
// fresh connection or on one that has been used.
func TestNoRetryAfterArrival(t *testing.T) {
	for name, spoil := range map[string]func(*fakeConn){
		"reset":       (*fakeConn).reset,
		"closed":      func(*fakeConn) {},
		"half a head": func(c *fakeConn) { c.send("HTTP/1.1 200 OK\r\ncontent-le") },
		"half a head, reset": func(c *fakeConn) {
			c.send("HTTP/1.1 200")
			time.Sleep(time.Millisecond)
			c.reset()
		},
	} {
		for _, used := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s used=%t", name, used), func(t *testing.T) {
				script := func(c *fakeConn) {
					if c.body() == `{"ok":1}` {
						c.answer(200, "{}")
						return
					}
					spoil(c)
				}
				f, g := fakeReplica(t, script), fakeReplica(t, script)
				p := lbd(t, []string{f.url(), g.url()}, quiet...)
				w := p.dial()
				if used {
					for range 4 {
						w.sendPost("/v1/x", `{"ok":1}`)
						if a := w.answer("POST"); a.StatusCode != 200 {
							t.Fatal(a.Status)
						}
					}
				}
				before := len(f.requests()) + len(g.requests())
				w.sendPost("/v1/x", `{}`)
				a := w.answer("POST")
				if _, code, message := openAIError(t, a); a.StatusCode != 502 || code != "replica_error" || !strings.Contains(message, "127.0.0.1") {
					t.Errorf("%s %s", a.Status, a.body)
				}
				if n := len(f.requests()) + len(g.requests()) - before; n != 1 {
					t.Errorf("executed %d times; want once", n)
				}
				w.sendPost("/v1/x", `{"ok":1}`)
				if a := w.answer("POST"); a.StatusCode != 200 {
					t.Errorf("the next request: %s %s", a.Status, a.body)
				}
			})
		}
	}
}

// asked counts the requests with a method.
func (f *fake) asked(method string) (n int) {
	for _, h := range f.requests() {
		if strings.HasPrefix(h, method+" ") {
			n++
		}
	}
	return n
}

// A safe request may run twice, so one that met the end of a connection is sent again:
// on a fresh one if it was idle before, else to another replica.
func TestSafeRequestIsSentAgain(t *testing.T) {
	for method, status := range map[string]int{"GET": 200, "HEAD": 200, "OPTIONS": 200, "DELETE": 502} {
		for _, used := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s used=%t", method, used), func(t *testing.T) {
				var spoilt atomic.Bool
				script := func(c *fakeConn) {
					switch {
					case c.body() == `{"ok":1}` || spoilt.Swap(true):
						c.keep = true
						c.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
					case used:
						c.reset()
					}
				}
				f, g := fakeReplica(t, script), fakeReplica(t, script)
				p := lbd(t, []string{f.url(), g.url()}, quiet...)
				w := p.dial()
				for range 4 {
					if !used {
						break
					}
					w.sendPost("/v1/x", `{"ok":1}`)
					w.answer("POST")
				}
				w.send(method + " /v1/x HTTP/1.1\r\nHost: lbd\r\n\r\n")
				if a := w.answer(method); a.StatusCode != status {
					t.Errorf("%s %s; want %d", a.Status, a.body, status)
				}
				want := map[bool][]int{true: {0, 2}, false: {1, 1}}[used]
				if status != 200 {
					want = []int{0, 1}
				}
				got := []int{f.asked(method), g.asked(method)}
				if slices.Sort(got); !slices.Equal(got, want) {
					t.Errorf("the replicas were asked %v times; want %v", got, want)
				}
			})
		}
	}
}

// A 502 or 503 of a replica that has not served anything yet means that it loads;
// one that has served may have died half-way.
func TestRetryWhileLoading(t *testing.T) {
	for _, code := range []int{502, 503} {
		a, b := replica(t, sim.Config{}), replica(t, sim.Config{})
		p := lbd(t, []string{a.URL(), b.URL()}, quiet...)
		fault(t, a, sim.Faults{Status: &sim.Fault{Code: code}})
		allOK(t, p.dial().inARow(4, "loading"))
		fault(t, a, sim.Faults{})
		allOK(t, p.dial().inARow(4, "served"))
		fault(t, a, sim.Faults{Status: &sim.Fault{Code: code}})
		passed := 0
		for _, got := range p.dial().inARow(4, "died") {
			if got.StatusCode == code {
				passed++
			}
		}
		if passed != 2 {
			t.Errorf("%d of 4 answers are %d; want 2", passed, code)
		}
	}
}

// A lone replica's 503 is its own answer, byte for byte.
func TestLoadingLoneReplica(t *testing.T) {
	r := replica(t, sim.Config{})
	p := lbd(t, []string{r.URL()}, quiet...)
	fault(t, r, sim.Faults{Loading: &sim.Fault{}})
	for _, a := range p.dial().inARow(2, "lone") {
		if a.StatusCode != 503 || a.body != `{"detail":"Service Unavailable"}` {
			t.Errorf("%s %s", a.Status, a.body)
		}
	}
}

// A replica is killed with requests running and waiting on it: those are lost and
// say so, once; all others succeed elsewhere.
func TestReplicaKilled(t *testing.T) {
	a, b := replica(t, sim.Config{Speed: 5}), replica(t, sim.Config{Speed: 100})
	p := lbd(t, []string{a.URL(), b.URL()}, "strategy", "cycle")
	hold(t, a)
	const n = 40
	answers := make(chan answer, n)
	for i := range n {
		go func() {
			answers <- p.post("/v1/chat/completions", chat(llama, false, 2000), "X-Request-Id", fmt.Sprint("killed-", i))
		}()
	}
	p.until("both work", func() bool { return a.Stats().InFlight == n/2 && b.Stats().Started == n/2 })
	a.Kill()
	lost := 0
	for range n {
		switch got := <-answers; {
		case got.err != nil:
			t.Error(got.err)
		case got.status == 502:
			lost++
			if _, code, _ := errorOf(t, got.header.Get("Content-Type"), got.body); code != "replica_error" {
				t.Error(got.body)
			}
		case got.status != 200:
			t.Errorf("%d %s", got.status, got.body)
		}
	}
	if lost != n/2 {
		t.Errorf("%d requests lost; want the %d that ran on the killed replica", lost, n/2)
	}
	once(t, executions(a, b), n)
	allOK(t, p.dial().inARow(10, "after"))
}
