package daemon_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lbd/balancer/strategy"
	"lbd/bench/sim"
)

// Every strategy of the table serves, under its name in header and metrics.
func TestEveryStrategy(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{})
	for _, name := range strategy.Names() {
		p := lbd(t, urls(a, b), "strategy", name)
		for range 4 {
			if _, got := p.ask(llama); got.status != 200 || got.header.Get("X-Lbd-Strategy") != name {
				t.Errorf("%s: %d, X-Lbd-Strategy %q", name, got.status, got.header.Get("X-Lbd-Strategy"))
			}
		}
		picks := 0
		for _, r := range []*sim.Server{a, b} {
			n, _ := strconv.Atoi(p.metric(fmt.Sprintf(`lbd_picks_total{model=%q,replica=%q,strategy=%q}`, llama, r.Addr(), name)))
			picks += n
		}
		if picks != 4 {
			t.Errorf("%s: lbd_picks_total says %d; want 4", name, picks)
		}
	}
}

func TestCycleAlternates(t *testing.T) {
	a, b, c := replica(t, sim.Config{}), replica(t, sim.Config{}), replica(t, sim.Config{})
	p := lbd(t, urls(a, b, c), "strategy", "cycle")
	var order []string
	for range 9 {
		r, _ := p.ask(llama)
		order = append(order, r)
	}
	for i := 3; i < len(order); i++ {
		if order[i] != order[i-3] || order[i] == order[i-1] {
			t.Fatalf("turns %v", order)
		}
	}
}

// busy keeps a replica busy with requests of others, until the test ends.
func busy(t *testing.T, s *sim.Server, requests int) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	hold(t, s)
	for range requests {
		resp, err := client.Post(s.URL()+"/v1/chat/completions", "application/json", strings.NewReader(chat(llama, true, longStream)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		if _, err := resp.Body.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
}

// Load that others put on a replica is seen by polling and avoided.
func TestLeastWaitingSeesForeignLoad(t *testing.T) {
	for _, profile := range sim.Profiles() {
		t.Run(string(profile), func(t *testing.T) {
			// An idle V0 engine shows its first gauges after 10 s; nobody waits for that.
			c := sim.Config{Profile: profile, StatsPoll: 50 * time.Millisecond}
			a, b := replica(t, c), replica(t, c)
			p := lbd(t, urls(a, b), "strategy", "least-waiting")
			p.until("gauges of both known", func() bool {
				_, known := p.state(a).Waiting()
				_, too := p.state(b).Waiting()
				return known && too
			})
			busy(t, a, 12)
			p.until("foreign load seen", func() bool {
				polled := p.state(a).Polled()
				return polled != nil && polled.Foreign >= 6
			})
			if got := p.spread(llama, 6); got[b.Addr()] != 6 {
				t.Errorf("with %s busy: %v; want all at %s", a.Addr(), got, b.Addr())
			}
		})
	}
}

// pollsAnew waits for a poll that began after the call: the first one to end may have
// begun before.
func (p *proxied) pollsAnew(s *sim.Server) {
	p.t.Helper()
	for range 2 {
		n := p.state(s).PollNumber()
		p.until("another poll", func() bool { return p.state(s).PollNumber() != n })
	}
}

// A replica whose metrics are of no use stays in service, and gets its share by
// own load.
func TestMetricsOfNoUse(t *testing.T) {
	for _, c := range []struct {
		name   string
		faults sim.Faults
		fails  bool // polls do
	}{
		{"no_metrics", sim.Faults{NoMetrics: &sim.Fault{}}, true},
		{"broken_metrics", sim.Faults{BrokenMetrics: &sim.Fault{}}, true},
		{"disable_log_stats", sim.Faults{NoLogStats: &sim.Fault{}}, false},
		{"stuck_gauges", sim.Faults{StuckGauges: &sim.Fault{}}, false},
	} {
		for _, profile := range sim.Profiles() {
			t.Run(c.name+"/"+string(profile), func(t *testing.T) {
				a, b := replica(t, sim.Config{Profile: profile}), replica(t, sim.Config{Profile: profile})
				fault(t, a, c.faults)
				p := lbd(t, urls(a, b), "strategy", "least-waiting")
				failures := func(r *sim.Server) int {
					n, err := strconv.Atoi(p.metric(`lbd_poll_failures_total{replica="` + r.Addr() + `"}`))
					if err != nil {
						t.Fatal(err)
					}
					return n
				}
				if c.fails {
					p.until("failed polls counted", func() bool { return failures(a) > 2 })
				}
				held := c.faults
				held.Slow = slowly
				fault(t, a, held)
				hold(t, b)
				var streams []*running
				got := map[string]int{}
				for range 8 {
					s := p.stream(llama, 400)
					got[s.replica]++
					streams = append(streams, s)
					p.pollsAnew(b) // one under way may have seen this stream wait
				}
				if diff := cmp.Diff(map[string]int{a.Addr(): 4, b.Addr(): 4}, got); diff != "" {
					t.Errorf("streams (-want +got):\n%s", diff)
				}
				fault(t, a, c.faults)
				letGo(t, b)
				for _, s := range streams {
					s.finish()
				}
				if failures(b) != 0 {
					t.Errorf("%d failed polls of the good one", failures(b))
				}
				if h := p.state(a).Health; h.Ejections != 0 {
					t.Errorf("ejected: %+v", h)
				}
			})
		}
	}
}

// A model may have a strategy of its own.
func TestStrategyPerModel(t *testing.T) {
	a, b, c := replica(t, sim.Config{}), replica(t, sim.Config{Model: qwen}), replica(t, sim.Config{Model: qwen})
	p, _ := configured(t, "strategy: random\nmodels: [{name: "+qwen+", strategy: cycle}]\n"+endpoints(a, b, c))
	p.available(llama, a)
	p.available(qwen, b, c)
	for model, want := range map[string]string{llama: "random", qwen: "cycle"} {
		if _, got := p.ask(model); got.header.Get("X-Lbd-Strategy") != want {
			t.Errorf("%s by %q; want %s", model, got.header.Get("X-Lbd-Strategy"), want)
		}
	}
	if got := p.spread(qwen, 6); got[b.Addr()] != 3 || got[c.Addr()] != 3 {
		t.Errorf("cycle: %v", got)
	}
}

// response_headers: false keeps lbd out of answers.
func TestNoResponseHeaders(t *testing.T) {
	r := replica(t, sim.Config{})
	p := lbd(t, urls(r), "response-headers", "false")
	if _, a := p.ask(llama); a.header.Get("X-Lbd-Replica")+a.header.Get("X-Lbd-Strategy") != "" {
		t.Errorf("%v", a.header)
	}
}

// A conversation goes on where its prompt is cached.
func TestLeastCostFollowsThePrompt(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{})
	p := lbd(t, urls(a, b), "strategy", "least-cost")
	for c := range 12 {
		start := fmt.Sprintf(`{"role":"user","content":%q}`, strings.Repeat(fmt.Sprintf("conversation %d. ", c), 1500))
		var home string
		turns := start
		for turn := range 3 {
			body := fmt.Sprintf(`{"model":%q,"stream":true,"stream_options":{"include_usage":true},"max_tokens":4,"messages":[%s]}`, llama, turns)
			w := p.dial()
			w.sendPost("/v1/chat/completions", body)
			got := w.answer("POST")
			if got.StatusCode != 200 || got.err != nil {
				t.Fatalf("%s %v", got.Status, got.err)
			}
			at := got.Header.Get("X-Lbd-Replica")
			if home == "" {
				home = at
			}
			if at != home {
				t.Errorf("conversation %d, turn %d went to %s; its prompt is at %s", c, turn, at, home)
			}
			turns += `,{"role":"assistant","content":"yes"},{"role":"user","content":"go on"}`
		}
	}
}
