package daemon_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"lbd/bench/sim"
)

// madeResponse makes a response and returns its id and the replica that made it.
func (p *proxied) madeResponse(model string, stream bool, fields ...string) (id, replica string) {
	p.t.Helper()
	a := p.post("/v1/responses", response(model, stream, fields...))
	if a.status != 200 || a.err != nil {
		p.t.Fatalf("response not made: %d %s %v", a.status, a.body, a.err)
	}
	body := a.body
	if stream {
		for line := range strings.Lines(a.body) {
			if data, ok := strings.CutPrefix(line, "data: "); ok {
				body = data
				break
			}
		}
	}
	var o struct {
		ID       string
		Response struct{ ID string }
	}
	if err := json.Unmarshal([]byte(body), &o); err != nil {
		p.t.Fatalf("%v in %s", err, body)
	}
	return o.ID + o.Response.ID, a.header.Get("X-Lbd-Replica")
}

func response(model string, stream bool, fields ...string) string {
	return fmt.Sprintf(`{"model":%q,"stream":%t,"max_output_tokens":3,"input":"Hello"%s}`,
		model, stream, strings.Join(append([]string{""}, fields...), ","))
}

// What is said of a response reaches the replica that made it, at once: no other one
// hears of it.
func TestResponsesGoHome(t *testing.T) {
	for _, strategy := range []string{"cycle", "least-waiting", "least-cost"} {
		for _, stream := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/stream=%t", strategy, stream), func(t *testing.T) {
				rs := []*sim.Server{replica(t, sim.Config{}), replica(t, sim.Config{}), replica(t, sim.Config{Model: qwen}), replica(t, sim.Config{})}
				p := lbd(t, urls(rs...), "strategy", strategy)
				for range 6 {
					id, home := p.madeResponse(llama, stream)
					for _, c := range []struct {
						method, path, body string
						status             int
					}{
						{"GET", "/v1/responses/" + id, "", 200},
						{"GET", "/v1/responses/" + id + "?stream=false", "", 200},
						{"POST", "/v1/responses/" + id + "/cancel", "", 400}, // "Cannot cancel a synchronous response."
						{"GET", "/v1/responses/" + id + "/none", "", 404},    // no such route; the response is there
						{"POST", "/v1/responses", response(llama, stream, `"previous_response_id":"`+id+`"`), 200},
					} {
						a := p.do(c.method, c.path, c.body, "Content-Type", "application/json")
						if a.status != c.status || a.header.Get("X-Lbd-Replica") != home {
							t.Errorf("%s %s: %d from %s; want %d from %s: %s", c.method, c.path, a.status, a.header.Get("X-Lbd-Replica"), c.status, home, a.body)
						}
					}
				}
				if n := p.metric(`lbd_affinity_picks_total{kind="response",result="hit"}`); n != "30" {
					t.Errorf("%s hits; want 30", n)
				}
				if n := p.metric(`lbd_affinity_picks_total{kind="response",result="miss"}`); n != "0" {
					t.Errorf("%s misses", n)
				}
				if n := p.metric(`lbd_affinity_entries{kind="response"}`); n != "12" {
					t.Errorf("%s entries; want 12: those that went on are responses, too", n)
				}
			})
		}
	}
}

// A client may act on the first event of a stream, while it goes on.
func TestResponseIsKnownWithItsFirstEvent(t *testing.T) {
	a, b, c := replica(t, sim.Config{Speed: 1}), replica(t, sim.Config{Speed: 1}), replica(t, sim.Config{Speed: 1})
	p := lbd(t, urls(a, b, c))
	resp, err := p.http.Post(p.url+"/v1/responses", "application/json", strings.NewReader(`{"model":"`+llama+`","stream":true,"max_output_tokens":100000,"input":"Hello"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var id string
	for lines := bufio.NewScanner(resp.Body); id == "" && lines.Scan(); {
		if _, rest, ok := strings.Cut(lines.Text(), `"id":"`); ok {
			id, _, _ = strings.Cut(rest, `"`)
		}
	}
	for range 4 {
		// It is not stored before its end, so its home says 404. Nobody else was asked.
		got := p.get("/v1/responses/" + id)
		if home := resp.Header.Get("X-Lbd-Replica"); got.header.Get("X-Lbd-Replica") != home || got.status != 404 {
			t.Errorf("%d from %s; want 404 from %s", got.status, got.header.Get("X-Lbd-Replica"), home)
		}
	}
	if n := p.metric(`lbd_retries_total{model="` + llama + `",reason="response_not_found"}`); n != "0" {
		t.Errorf("%s replicas were asked in vain", n)
	}
}

// An lbd that has not seen a response being made asks around, once.
func TestResponsesAreLookedFor(t *testing.T) {
	var rs []*sim.Server
	for range 5 {
		rs = append(rs, replica(t, sim.Config{}))
	}
	rs = append(rs, replica(t, sim.Config{Model: qwen}))
	maker := lbd(t, urls(rs...))
	for _, model := range []string{llama, qwen} {
		for _, about := range []bool{true, false} {
			id, home := maker.madeResponse(model, false)
			p := lbd(t, urls(rs...), "max-attempts", "2")
			ask := func() answer {
				if about {
					return p.get("/v1/responses/" + id)
				}
				return p.post("/v1/responses", response(model, false, `"previous_response_id":"`+id+`"`))
			}
			for i, result := range []string{"miss", "hit", "hit"} {
				if a := ask(); a.status != 200 || a.header.Get("X-Lbd-Replica") != home {
					t.Errorf("%s, about=%t, request %d: %d from %s; want 200 from %s: %s", model, about, i, a.status, a.header.Get("X-Lbd-Replica"), home, a.body)
				}
				if n := p.metric(`lbd_affinity_picks_total{kind="response",result="` + result + `"}`); n != fmt.Sprint(max(i, 1)) {
					t.Errorf("request %d: %s %ss", i, n, result)
				}
			}
		}
	}
}

// Nobody has it: the client gets a replica's own 404, when all were asked.
func TestUnknownResponse(t *testing.T) {
	a, b, c := replica(t, sim.Config{}), replica(t, sim.Config{}), replica(t, sim.Config{Model: qwen})
	p := lbd(t, urls(a, b, c))
	for _, req := range []struct {
		method, path, body string
		asked              int
	}{
		{"GET", "/v1/responses/resp_none", "", 3},
		{"POST", "/v1/responses/resp_none/cancel", "", 3},
		{"POST", "/v1/responses", response(llama, false, `"previous_response_id":"resp_none"`), 2},
		{"POST", "/v1/responses", response(llama, true, `"previous_response_id":"resp_none"`), 2},
	} {
		before := asked(a, b, c)
		got := p.do(req.method, req.path, req.body, "Content-Type", "application/json")
		if got.status != 404 || !strings.Contains(got.body, "Response with id 'resp_none' not found.") {
			t.Errorf("%s %s: %d %s", req.method, req.path, got.status, got.body)
		}
		if n := asked(a, b, c) - before; n != req.asked {
			t.Errorf("%s %s: %d replicas asked; want %d", req.method, req.path, n, req.asked)
		}
	}
}

// A request that names none of several models is counted and logged as none of theirs: the
// replicas that are asked do not even all serve the same one.
func TestRequestOfAnyModelCountsAsOther(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{Model: qwen})
	p := lbd(t, urls(a, b), "access-log", "true")
	for _, req := range []struct{ method, path, code string }{
		{"GET", "/v1/responses/resp_none", "404"}, {"OPTIONS", "/v1/chat/completions", "405"},
	} {
		p.do(req.method, req.path, "")
		p.counted(`lbd_requests_total{code="`+req.code+`",model="other"}`, "1")
	}
	p.counted(`lbd_retries_total{model="other",reason="response_not_found"}`, "1")
	for _, model := range []string{llama, qwen} {
		for _, s := range []*sim.Server{a, b} {
			for _, strategy := range []string{"in-turn", "least-waiting"} {
				series := fmt.Sprintf(`lbd_picks_total{model=%q,replica=%q,strategy=%q}`, model, s.Addr(), strategy)
				if n := p.metric(series); n != "" && n != "0" {
					t.Errorf("%s is %s; want 0", series, n)
				}
			}
		}
	}
	for line := range strings.Lines(p.log.String()) {
		if strings.Contains(line, `"message":"request"`) && strings.Contains(line, `"model":`) {
			t.Errorf("a line with a model: %s", line)
		}
	}
}

// asked counts requests to the responses API.
func asked(rs ...*sim.Server) (n int) {
	for _, r := range rs {
		for _, req := range r.Requests() {
			if strings.HasPrefix(req.Path, "/v1/responses") {
				n++
			}
		}
	}
	return n
}

// State is where it is: a replica that drains is asked all the same, and of one that is
// down nobody else is asked.
func TestResponseOfAReplicaOutOfService(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{})
	p := lbd(t, urls(a, b))
	id, home := p.madeResponse(llama, false)
	there, other := a, b
	if b.Addr() == home {
		there, other = b, a
	}
	p.drain(home)
	for range 3 {
		if got := p.get("/v1/responses/" + id); got.status != 200 || got.header.Get("X-Lbd-Replica") != home {
			t.Errorf("draining: %d from %s", got.status, got.header.Get("X-Lbd-Replica"))
		}
		got := p.post("/v1/responses", response(llama, true, `"previous_response_id":"`+id+`"`))
		if got.status != 200 || got.header.Get("X-Lbd-Replica") != home {
			t.Errorf("draining: going on: %d from %s", got.status, got.header.Get("X-Lbd-Replica"))
		}
	}
	before := asked(other)
	there.Kill()
	p.until("the replica ejected", func() bool { return !p.state(there).Available() && p.state(there).Health.State != 1 })
	if got := p.get("/v1/responses/" + id); got.status != 503 || got.header.Get("Retry-After") == "" {
		t.Errorf("down: %d %s; want 503", got.status, got.body)
	}
	if got := p.post("/v1/responses", response(llama, false, `"previous_response_id":"`+id+`"`)); got.status != 503 {
		t.Errorf("down: going on: %d %s; want 503", got.status, got.body)
	}
	if n := asked(other) - before; n != 0 {
		t.Errorf("the other replica was asked %d times", n)
	}
	for result, want := range map[string]string{"draining": "6", "down": "2"} {
		if n := p.metric(`lbd_affinity_picks_total{kind="response",result="` + result + `"}`); n != want {
			t.Errorf("%s %s; want %s", n, result, want)
		}
	}
}

func (p *proxied) drain(id string) {
	p.t.Helper()
	req, err := http.NewRequest("POST", "http://"+p.AdminAddr().String()+"/replicas/"+id+"/drain", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	resp, err := p.http.Do(req)
	if err != nil || resp.StatusCode != 200 {
		p.t.Fatalf("drain: %v %v", resp, err)
	}
	resp.Body.Close()
}

// Requests of a session stay together, whatever names it and whatever the strategy is,
// and sessions spread.
func TestSessionsStayTogether(t *testing.T) {
	for _, home := range []string{"strategy", "hash"} {
		for _, strategy := range []string{"cycle", "random", "two-choices", "least-inflight", "least-waiting", "least-cost"} {
			t.Run(home+"/"+strategy, func(t *testing.T) {
				rs := []*sim.Server{replica(t, sim.Config{}), replica(t, sim.Config{}), replica(t, sim.Config{})}
				p := lbd(t, urls(rs...), "strategy", strategy, "affinity-headers", "X-Session-ID,X-Other", "affinity-fields", "prompt_cache_key,user", "affinity-home", home)
				used := map[string]bool{}
				for s := range 12 {
					name := fmt.Sprintf("session %d", s)
					first := ""
					for i := range 4 {
						a := p.post("/v1/chat/completions", chat(llama, i%2 == 0, 2, `"user":"`+name+`"`))
						switch s % 3 {
						case 1:
							a = p.post("/v1/chat/completions", chat(llama, true, 2, `"user":"everybody"`), "x-session-id", name)
						case 2:
							a = p.post("/v1/chat/completions", chat(llama, true, 2, `"user":"everybody","prompt_cache_key":"`+name+`"`))
						}
						at := a.header.Get("X-Lbd-Replica")
						if first == "" {
							first = at
						}
						if a.status != 200 || at != first {
							t.Errorf("%s, request %d: %d from %s; want 200 from %s", name, i, a.status, at, first)
						}
					}
					used[first] = true
				}
				if len(used) < 2 {
					t.Errorf("all sessions went to %v", used)
				}
				if log := p.log.String(); strings.Contains(log, "session 1") {
					t.Error("the log names a session")
				}
			})
		}
	}
}

// Two lbds that hash agree where sessions are at home, as does one that was restarted.
func TestHashesAgree(t *testing.T) {
	var rs []*sim.Server
	for range 4 {
		rs = append(rs, replica(t, sim.Config{}))
	}
	u := urls(rs...)
	a := lbd(t, u, "affinity-headers", "X-Session-ID", "affinity-home", "hash")
	b := lbd(t, []string{u[2], u[0], u[3], u[1]}, "affinity-headers", "X-Session-ID", "affinity-home", "hash", "strategy", "cycle")
	homes := map[string]bool{}
	for s := range 20 {
		name := fmt.Sprint(s)
		x := a.post("/v1/chat/completions", chat(llama, false, 2), "X-Session-ID", name).header.Get("X-Lbd-Replica")
		y := b.post("/v1/chat/completions", chat(llama, false, 2), "X-Session-ID", name).header.Get("X-Lbd-Replica")
		if x != y {
			t.Errorf("session %s is at home at %s and %s", name, x, y)
		}
		homes[x] = true
	}
	if len(homes) < 3 {
		t.Errorf("20 sessions on %d of 4 replicas", len(homes))
	}
}

// One session of everybody does not drown its home: the rest goes where the strategy
// says.
func TestBusyHomeYields(t *testing.T) {
	const requests = 40
	a, b := newGate(t), newGate(t)
	p := lbd(t, []string{a.url(), b.url()}, "affinity-fields", "user", "strategy", "least-inflight")
	came := func(n int) func() bool { return func() bool { return a.count()+b.count() == n } }
	clients := []*wire{p.sendNamed("everybody")}
	p.until("a home", came(1))
	for range requests - 1 {
		clients = append(clients, p.sendNamed("everybody"))
	}
	p.until("all of them under way", came(requests))
	if n, m := a.count(), b.count(); min(n, m) < requests/4 {
		t.Errorf("%d and %d requests; want at most three quarters on one", n, m)
	}
	a.all()
	b.all()
	for _, w := range clients {
		if got := w.answer("POST"); got.StatusCode != 200 || got.err != nil {
			t.Errorf("%s %s %v", got.Status, got.body, got.err)
		}
	}
	if n := p.metric(`lbd_affinity_picks_total{kind="session",result="saturated"}`); n == "0" || n == "" {
		t.Errorf("%q yielded", n)
	}
}

// A home that is gone is replaced, for good.
func TestDeadHomeYields(t *testing.T) {
	rs := []*sim.Server{replica(t, sim.Config{}), replica(t, sim.Config{}), replica(t, sim.Config{})}
	p := lbd(t, urls(rs...), "affinity-headers", "X-Session-ID", "strategy", "cycle")
	send := func() string {
		t.Helper()
		a := p.post("/v1/chat/completions", chat(llama, true, 2), "X-Session-ID", "s")
		if a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		return a.header.Get("X-Lbd-Replica")
	}
	home := send()
	for _, r := range rs {
		if r.Addr() == home {
			r.Kill()
		}
	}
	second := send()
	if second == home {
		t.Fatal("the home is dead")
	}
	for range 5 {
		if at := send(); at != second {
			t.Errorf("at %s, then at %s", second, at)
		}
	}
	p.drain(second)
	third := send()
	if third == second || third == home {
		t.Errorf("from %s to %s", second, third)
	}
	p.counted(`lbd_affinity_picks_total{kind="session",result="draining"}`, "1")
}

// POST /pick says who a session's home is, and binds nothing.
func TestPickExplainsAffinity(t *testing.T) {
	rs := []*sim.Server{replica(t, sim.Config{}), replica(t, sim.Config{})}
	p := lbd(t, urls(rs...), "affinity-headers", "X-Session-ID", "affinity-fields", "user", "strategy", "cycle")
	dry := func(body string, header ...string) (picked string, terms map[string]map[string]float64) {
		t.Helper()
		q := *p
		q.url = "http://" + p.AdminAddr().String()
		a := q.post("/pick", body, header...)
		var v struct {
			Picked   string
			Replicas []struct {
				ID       string
				Strategy map[string]float64 `json:"strategy_terms"`
			}
		}
		if err := json.Unmarshal([]byte(a.body), &v); a.status != 200 || err != nil {
			t.Fatalf("%d %s %v", a.status, a.body, err)
		}
		terms = map[string]map[string]float64{}
		for _, r := range v.Replicas {
			terms[r.ID] = r.Strategy
		}
		return v.Picked, terms
	}
	if _, terms := dry(chat(llama, false, 2)); terms[rs[0].Addr()] != nil {
		t.Errorf("without a session: %v", terms)
	}
	for _, c := range []struct {
		body   string
		header []string
	}{
		{chat(llama, false, 2, `"user":"ann"`), nil},
		{chat(llama, false, 2), []string{"X-Session-ID", "s1"}},
	} {
		_, terms := dry(c.body, c.header...)
		if terms[rs[0].Addr()]["affinity_home"] != 0 || terms[rs[1].Addr()]["affinity_home"] != 0 {
			t.Errorf("a dry run bound the session: %v", terms)
		}
		home := p.post("/v1/chat/completions", c.body, c.header...).header.Get("X-Lbd-Replica")
		for range 3 {
			picked, terms := dry(c.body, c.header...)
			if picked != home || terms[home]["affinity_home"] != 1 {
				t.Errorf("%s picked, terms %v; want %s", picked, terms, home)
			}
		}
	}
	id, home := p.madeResponse(llama, false)
	for range 3 {
		if picked, _ := dry(response(llama, false, `"previous_response_id":"`+id+`"`)); picked != home {
			t.Errorf("%s picked for a response of %s", picked, home)
		}
	}
}
