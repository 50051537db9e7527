package daemon_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"

	"lbd/admin"
	"lbd/bench/sim"
)

func dial(p *proxied) net.Conn {
	p.t.Helper()
	c, err := net.Dial("tcp", p.Addr().String())
	if err != nil {
		p.t.Fatal(err)
	}
	return c
}

// decode reads a JSON answer.
func decode[T any](t *testing.T, a answer) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		t.Fatalf("%v in %d %q", err, a.status, a.body)
	}
	return v
}

type fleetPage struct {
	Generation uint64
	Replicas   []struct {
		ID, State string
		Available bool
		Draining  bool
		Ejections int
		Models    []string
		Own       json.RawMessage `json:"own"`
	}
	Models []struct {
		Name, Strategy      string
		Replicas, Available []string
	}
}

// /fleet shows what routing goes by, own load included.
func TestFleetPage(t *testing.T) {
	a, b, c := replica(t, sim.Config{}), replica(t, sim.Config{}), replica(t, sim.Config{Model: qwen})
	p := lbd(t, urls(a, b, c), "strategy", "cycle")
	at := p.begin(a, b)
	got := p.onAdmin("GET", "/fleet", "")
	if got.status != 200 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	page := decode[fleetPage](t, got)
	if len(page.Replicas) != 3 || len(page.Models) != 2 {
		t.Fatalf("%s", got.body)
	}
	for i, r := range []*sim.Server{a, b, c} {
		v := page.Replicas[i]
		if v.ID != r.Addr() || v.State != "healthy" || !v.Available || len(v.Models) != 1 || v.Models[0] != r.Config().Model {
			t.Errorf("replica %d: %+v", i, v)
		}
		var own struct {
			InFlight int64 `json:"in_flight"`
		}
		if err := json.Unmarshal(v.Own, &own); err != nil {
			t.Fatal(err)
		}
		if want := p.inFlight(r); own.InFlight != want {
			t.Errorf("own load of replica %d is %d; want %d", i, own.InFlight, want)
		}
	}
	p.ends(at[a], at[b])
}

type pickPage struct {
	Model, Strategy string
	Picked          *string
	Replicas        []struct {
		ID        string
		Candidate bool
		Terms     map[string]any
	}
}

// /pick says who would get a body, and leaves no trace.
func TestPickReservesNothing(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{})
	p := lbd(t, urls(a, b), "strategy", "least-inflight")
	hold(t, a, b)
	stream := p.stream(llama, longStream)
	idle := a
	if stream.replica == a.Addr() {
		idle = b
	}
	for range 5 {
		got := decode[pickPage](t, p.onAdmin("POST", "/pick", chat(llama, true, 10)))
		if got.Model != llama || got.Strategy != "least-inflight" || got.Picked == nil || *got.Picked != idle.Addr() || len(got.Replicas) != 2 {
			t.Fatalf("%+v; want %s", got, idle.Addr())
		}
	}
	if n := p.inFlight(idle); n != 0 {
		t.Errorf("five dry runs left own load %d", n)
	}
	if n := idle.Stats().Received; n != 0 {
		t.Errorf("five dry runs sent %d requests", n)
	}
	if got := p.onAdmin("POST", "/pick", chat("nobody's", true, 10)); got.status != 404 || !strings.Contains(got.body, "model_not_found") {
		t.Errorf("unknown model: %d %s", got.status, got.body)
	}
	if got := p.onAdmin("POST", "/pick", "{"); got.status != 400 {
		t.Errorf("no JSON: %d %s", got.status, got.body)
	}
	letGo(t, a, b)
	stream.finish()
}

// /config shows what is in effect, and not the key.
func TestConfigPageIsRedacted(t *testing.T) {
	a := replica(t, sim.Config{})
	p, file := configured(t, "max_attempts: 2\n"+endpoints(a), "replica-api-key", secretReply)
	p.available(llama, a)
	page := func(want int) {
		t.Helper()
		got := p.onAdmin("GET", "/config", "")
		if strings.Contains(got.body, secretReply) {
			t.Errorf("the key is shown: %s", got.body)
		}
		v := decode[map[string]any](t, got)
		if v["max_attempts"] != float64(want) || v["replica_api_key"] == nil {
			t.Errorf("%s; want max_attempts %d", got.body, want)
		}
	}
	page(2)
	write(t, file, "max_attempts: 5\nlog_format: console\n"+endpoints(a))
	if got := p.onAdmin("POST", "/reload", ""); got.status != 200 {
		t.Fatalf("/reload: %d %s", got.status, got.body)
	} else if v := decode[admin.Reloaded](t, got); !slices.Equal(v.Applied, []string{"max_attempts"}) || !slices.Equal(v.NeedsRestart, []string{"log_format"}) {
		t.Errorf("/reload tells %s; want what is applied and what waits for a restart", got.body)
	}
	page(5)
	write(t, file, "max_attempts: none\n"+endpoints(a))
	if got := p.onAdmin("POST", "/reload", ""); got.status != 422 || !strings.Contains(got.body, "lbd.yml:1") {
		t.Errorf("/reload of a bad file: %d %s; want 422 with its line", got.status, got.body)
	}
	page(5)
}

// Draining takes a replica out for new requests only, and survives a reload.
func TestDrainAndUndrain(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{})
	p, file := configured(t, "strategy: cycle\n"+endpoints(a, b))
	p.available(llama, a, b)
	at := p.begin(a, b)
	operator := func(action string) {
		t.Helper()
		if got := p.onAdmin("POST", "/replicas/"+a.Addr()+"/"+action, ""); got.status != 200 {
			t.Fatalf("%s: %d %s", action, got.status, got.body)
		}
	}
	operator("drain")
	if got := p.spread(llama, 4); got[b.Addr()] != 4 {
		t.Errorf("while draining: %v", got)
	}
	write(t, file, "strategy: cycle\nmax_attempts: 2\n"+endpoints(a, b))
	if got := p.onAdmin("POST", "/reload", ""); got.status != 200 {
		t.Fatalf("/reload: %d %s", got.status, got.body)
	}
	if got := p.spread(llama, 2); got[b.Addr()] != 2 {
		t.Errorf("draining, after a reload: %v", got)
	}
	if n := p.inFlight(a); n != 1 {
		t.Errorf("own load of the draining one is %d; want its stream", n)
	}
	if got := p.metric(`lbd_replica_healthy{replica="` + a.Addr() + `"}`); got != "1" {
		t.Errorf("lbd_replica_healthy of a draining replica is %q; it is well", got)
	}
	operator("undrain")
	if got := p.spread(llama, 4); got[a.Addr()] != 2 {
		t.Errorf("after undrain: %v", got)
	}
	p.ends(at[a], at[b])
	if got := p.onAdmin("POST", "/replicas/nobody:1/drain", ""); got.status != 404 {
		t.Errorf("unknown replica: %d %s", got.status, got.body)
	}
}

// Draining the last replica: clients are told to come back.
func TestDrainOfTheLast(t *testing.T) {
	a := replica(t, sim.Config{})
	p := lbd(t, urls(a))
	p.onAdmin("POST", "/replicas/"+url.PathEscape(a.Addr())+"/drain", "")
	if _, got := p.ask(llama); got.status != 503 || got.header.Get("Retry-After") == "" {
		t.Errorf("%d %v", got.status, got.header)
	}
	if got := p.get("/ready"); got.status != 503 {
		t.Errorf("/ready: %d; want 503", got.status)
	}
	if got := p.onAdmin("POST", "/pick", chat(llama, true, 1)); got.status != 503 || !strings.Contains(got.body, "draining") {
		t.Errorf("/pick: %d %s; want 503 and why", got.status, got.body)
	}
}

// A control call on the fleet reaches every replica, one on a replica only it.
func TestControlCalls(t *testing.T) {
	a, b, c := replica(t, sim.Config{}), replica(t, sim.Config{}), replica(t, sim.Config{Model: qwen})
	all := []*sim.Server{a, b, c}
	p := lbd(t, urls(all...))
	counts := func() (n [3]int64) {
		for i, r := range all {
			n[i] = r.Stats().ByPath["/reset_prefix_cache"]
		}
		return n
	}
	for _, call := range []struct {
		path string
		want [3]int64
	}{
		{"/fleet/reset_prefix_cache", [3]int64{1, 1, 1}},
		{"/fleet/reset_prefix_cache?model=" + url.QueryEscape(qwen), [3]int64{1, 1, 2}},
		{"/replicas/" + a.Addr() + "/reset_prefix_cache", [3]int64{2, 1, 2}},
	} {
		if got := p.onAdmin("POST", call.path, ""); got.status != 200 {
			t.Errorf("%s: %d %s", call.path, got.status, got.body)
		}
		if got := counts(); got != call.want {
			t.Errorf("after %s: %v calls; want %v", call.path, got, call.want)
		}
	}
	b.Kill()
	got := p.onAdmin("POST", "/fleet/reset_prefix_cache", "")
	if got.status != 502 || !strings.Contains(got.body, "refused") {
		t.Errorf("with one down: %d %s; want 502 and who", got.status, got.body)
	}
	if n := counts(); n != [3]int64{3, 1, 3} {
		t.Errorf("with one down: %v calls", n)
	}
}

func TestDebugPages(t *testing.T) {
	a := replica(t, sim.Config{})
	p := lbd(t, urls(a))
	for path, want := range map[string]string{
		"/debug/pprof/": "goroutine", "/debug/pprof/goroutine?debug=1": "goroutine profile", "/debug/vars": "goroutines",
		"/metrics": "lbd_build_info", "/": "/fleet",
	} {
		if got := p.onAdmin("GET", path, ""); got.status != 200 || !strings.Contains(got.body, want) {
			t.Errorf("%s: %d, without %q", path, got.status, want)
		}
		if got := p.get(path); path != "/metrics" && got.status != 404 {
			t.Errorf("%s on the main listener: %d; want 404", path, got.status)
		}
	}
}

// --admin-listen "" is off.
func TestNoAdminListener(t *testing.T) {
	a := replica(t, sim.Config{})
	p := lbd(t, urls(a), "admin-listen", "")
	if addr := p.AdminAddr(); addr != nil {
		t.Errorf("admin listener on %v", fmt.Sprint(addr))
	}
	p.spread(llama, 1)
	if err := p.Reload(); err != nil {
		t.Fatal(err)
	}
}
