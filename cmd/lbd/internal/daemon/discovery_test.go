package daemon_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lbd/balancer"
	"lbd/bench/sim"
)

const mixtral = "mistralai/Mixtral-8x7B-Instruct-v0.1"

// Six replicas of three models are sorted out whatever the order they are listed
// in and whichever of the two environments they belong to.
func TestSixReplicasOfThreeModels(t *testing.T) {
	models := []string{llama, qwen, mixtral}
	of := map[string][]*sim.Server{}
	var all []*sim.Server
	for i := range 6 {
		m := models[i%3]
		r := replica(t, sim.Config{Model: m, Profile: sim.Profiles()[i/3], Seed: uint64(i)})
		of[m], all = append(of[m], r), append(all, r)
	}
	for _, order := range [][]int{{0, 1, 2, 3, 4, 5}, {5, 0, 4, 1, 3, 2}, {3, 0, 4, 1, 5, 2}} {
		var listed []*sim.Server
		for _, i := range order {
			listed = append(listed, all[i])
		}
		p := lbd(t, urls(listed...), "strategy", "cycle")
		for _, m := range models {
			got := p.spread(m, 4)
			if diff := cmp.Diff(map[string]int{of[m][0].Addr(): 2, of[m][1].Addr(): 2}, got); diff != "" {
				t.Errorf("order %v: %s (-want +got):\n%s", order, m, diff)
			}
		}
		if ids := modelIDs(t, p); !slices.Equal(ids, slices.Sorted(slices.Values(models))) {
			t.Errorf("order %v: /v1/models lists %v", order, ids)
		}
	}
	for _, r := range all {
		if n := r.Stats().Rejected; n > 0 {
			t.Errorf("%s was sent %d requests that it refused", r.Config().Model, n)
		}
	}
}

func modelIDs(t *testing.T, p *proxied) (ids []string) {
	t.Helper()
	var list struct{ Data []struct{ ID string } }
	if err := json.Unmarshal([]byte(p.get("/v1/models").body), &list); err != nil {
		t.Fatal(err)
	}
	for _, m := range list.Data {
		ids = append(ids, m.ID)
	}
	return ids
}

// Every name a replica lists is a model of it (--served-model-name a b).
func TestSeveralNamesPerReplica(t *testing.T) {
	both := replica(t, sim.Config{Model: llama, Aliases: []string{"llama", "chat"}})
	one := replica(t, sim.Config{Model: llama, Aliases: []string{"chat"}})
	p := lbd(t, urls(both, one), "strategy", "cycle")
	for name, want := range map[string]map[string]int{
		llama: {both.Addr(): 2, one.Addr(): 2}, "chat": {both.Addr(): 2, one.Addr(): 2}, "llama": {both.Addr(): 4},
	} {
		if diff := cmp.Diff(want, p.spread(name, 4)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if got, want := modelIDs(t, p), []string{"chat", "llama", llama}; !slices.Equal(got, want) {
		t.Errorf("/v1/models lists %v; want %v", got, want)
	}
}

// A replica that is not there yet joins when it is; the others serve meanwhile.
func TestReplicaJoinsLate(t *testing.T) {
	up := replica(t, sim.Config{})
	late := replica(t, sim.Config{Model: qwen})
	late.Kill()
	p := lbdLater(t, urls(late, up))
	p.available(llama, up)
	p.spread(llama, 2)
	if _, a := p.ask(qwen); a.status != 404 {
		t.Errorf("a model nobody is known for: %d; want 404", a.status)
	} else if want := "Not known yet: what 1 of 2 replicas serve."; !strings.Contains(a.body, want) {
		t.Errorf("%s; want %q", a.body, want)
	}
	if err := late.Start(""); err != nil {
		t.Fatal(err)
	}
	p.available(qwen, late)
	p.spread(qwen, 1)
	if n := len(p.log.logged("replica ejected")); n > 0 {
		t.Errorf("%d ejections of a replica that never was in service", n)
	}
}

// vLLM binds its port and refuses connections while it loads, for minutes.
func TestReplicaLoads(t *testing.T) {
	r := replica(t, sim.Config{})
	r.Kill() // keeps the port, too
	p := lbdLater(t, urls(r))
	for _, body := range []string{chat(llama, false, 1), "{}"} {
		a := p.post("/v1/chat/completions", body)
		if a.status != 503 || a.header.Get("Retry-After") == "" || !strings.Contains(a.body, "no_healthy_replica") {
			t.Errorf("while loading: %d %s; want 503 and when to come back", a.status, a.body)
		}
	}
	if err := r.Start(""); err != nil { // it has loaded
		t.Fatal(err)
	}
	p.available(llama, r)
	p.spread(llama, 1)
}

// A container is pointed at another checkpoint under the same address. The old
// model's requests go where it still is, and the wrong model never answers.
func TestReplicaRestartsWithAnotherModel(t *testing.T) {
	for _, profile := range sim.Profiles() {
		t.Run(string(profile), func(t *testing.T) {
			stays := replica(t, sim.Config{Profile: profile})
			turns := replica(t, sim.Config{Profile: profile})
			p := lbd(t, urls(stays, turns))
			turns.Kill()
			if err := turns.SetModel(qwen); err != nil {
				t.Fatal(err)
			}
			if err := turns.Start(""); err != nil {
				t.Fatal(err)
			}
			for len(available(p, qwen)) == 0 {
				r, a := p.ask(llama)
				if a.status != 200 && a.status != 404 && a.status != 503 && a.status != 502 {
					t.Fatalf("%d %s", a.status, a.body)
				}
				if a.status == 200 && (r != stays.Addr() || !strings.Contains(a.body, llama)) {
					t.Fatalf("%s answered for %s: %s", r, llama, a.body)
				}
			}
			p.available(llama, stays)
			p.available(qwen, turns)
			if got := p.spread(llama, 4); got[stays.Addr()] != 4 {
				t.Errorf("llama went to %v; want all at %s", got, stays.Addr())
			}
			if got := p.spread(qwen, 2); got[turns.Addr()] != 2 {
				t.Errorf("qwen went to %v; want all at %s", got, turns.Addr())
			}
		})
	}
}

// Where lbd has seen the replica gone, not even one request finds out: what it
// listed before counts no longer when it is back.
func TestEjectedReplicaComesBackWithAnotherModel(t *testing.T) {
	stays, turns := replica(t, sim.Config{}), replica(t, sim.Config{})
	p := lbd(t, urls(stays, turns), "strategy", "cycle", "models-poll-interval", "1h", "metrics-poll-interval", "1h")
	turns.Kill()
	p.becomes(turns, balancer.Ejected)
	if err := turns.SetModel(qwen); err != nil {
		t.Fatal(err)
	}
	if err := turns.Start(""); err != nil {
		t.Fatal(err)
	}
	for len(available(p, qwen)) == 0 {
		if _, a := p.ask(llama); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	p.available(llama, stays)
	p.spread(llama, 4)
	p.spread(qwen, 2)
	if n := turns.Stats().Rejected; n != 0 {
		t.Errorf("%d requests went to the wrong model", n)
	}
}

// A restart that fell between two probes shows in the counters, which only go up
// within one life of a replica: its models are read again.
func TestUnseenRestartWithAnotherModel(t *testing.T) {
	for _, profile := range sim.Profiles() {
		t.Run(string(profile), func(t *testing.T) {
			r := replica(t, sim.Config{Profile: profile, StatsPoll: 20 * time.Millisecond})
			p := lbd(t, urls(r), "models-poll-interval", "1h", "health-interval", "1h")
			p.spread(llama, 2)
			p.until("counters polled", func() bool {
				polled := p.state(r).Polled()
				return polled != nil && polled.PromptTokens.Value > 0
			})
			if err := r.SetModel(qwen); err != nil {
				t.Fatal(err)
			}
			p.available(qwen, r)
			p.spread(qwen, 1)
			if h := p.state(r).Health; h.Ejections != 0 {
				t.Errorf("%+v; the restart was not unseen", h)
			}
		})
	}
}

func available(p *proxied, model string) []string {
	var ids []string
	if m := p.Snapshot().Model([]byte(model)); m != nil {
		for _, r := range m.Available {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

// The last replica of a model that turns into another leaves a model nobody
// serves: 404 with what is served.
func TestLastReplicaTurnsIntoAnotherModel(t *testing.T) {
	r := replica(t, sim.Config{})
	p := lbd(t, urls(r))
	if err := r.SetModel(qwen); err != nil {
		t.Fatal(err)
	}
	p.available(qwen, r)
	_, a := p.ask(llama)
	if a.status != 404 || !strings.Contains(a.body, `"model_not_found"`) || !strings.Contains(a.body, qwen) {
		t.Errorf("the model that left: %d %s", a.status, a.body)
	}
}

// Pinned models serve before any /v1/models is read, answer to aliases, and
// share requests by weight.
func TestPinnedModels(t *testing.T) {
	big, small, other := replica(t, sim.Config{}), replica(t, sim.Config{}), replica(t, sim.Config{Model: qwen})
	p, _ := configured(t, `
strategy: cycle
models:
  - name: `+llama+`
    aliases: [llama-8b, default]
    replicas:
      - {url: `+big.URL()+`, weight: 3}
      - {url: `+small.URL()+`, weight: 1}
  - name: `+qwen+`
    replicas: [{url: `+other.URL()+`, device: gpu1}]
`)
	p.available(llama, big, small)
	p.available(qwen, other)
	got := p.spread("llama-8b", 40)
	if n := got[big.Addr()]; n < 27 || n > 33 || got[small.Addr()] != 40-n {
		t.Errorf("weights 3 and 1: %v; want about 30 and 10", got)
	}
	p.spread("default", 1)
	if _, a := p.ask("llama-8"); a.status != 404 || !strings.Contains(a.body, "llama-8b") {
		t.Errorf("near an alias: %d %s", a.status, a.body)
	}
	for _, alias := range []string{"llama-8b", "default"} {
		if a := p.get("/v1/models/" + alias); a.status != 200 || !strings.Contains(a.body, `"id":"`+alias+`"`) {
			t.Errorf("/v1/models/%s: %d %s", alias, a.status, a.body)
		}
	}
	p.counted(`lbd_requests_total{code="200",model="`+llama+`"}`, "41")
}

// A pinned replica that runs something else is told of, and its own 404 is what
// a client sees.
func TestPinnedToWhatIsNotThere(t *testing.T) {
	r := replica(t, sim.Config{Model: qwen})
	p, _ := configured(t, "models: [{name: "+llama+", replicas: [{url: "+r.URL()+"}]}]\n")
	p.available(llama, r)
	p.until("mismatch told", func() bool { return len(p.log.logged("models mismatch")) == 1 })
	if _, a := p.ask(llama); a.status != 404 {
		t.Errorf("%d %s", a.status, a.body)
	}
	why := `"reason": "pinned to \"` + llama + `\", lists \"` + qwen + `\""`
	if a := p.onAdmin("GET", "/fleet", ""); !strings.Contains(a.body, why) {
		t.Errorf("/fleet: %s; want %s", a.body, why)
	}
}

// While nothing is known of any replica no model is said not to exist: OpenAI's
// clients take 404 for final and come back after 503.
func TestNothingKnown(t *testing.T) {
	p := lbdLater(t, []string{"http://127.0.0.1:1"})
	p.until("refused", func() bool { return p.Snapshot().Replicas[0].Health.State == balancer.Ejected })
	for _, body := range []string{chat(llama, false, 1), "{}", ""} {
		a := p.post("/v1/chat/completions", body)
		if a.status != 503 || a.header.Get("Retry-After") == "" || !strings.Contains(a.body, `"no_healthy_replica"`) {
			t.Errorf("%q: %d %s; want 503 and when to come back", body, a.status, a.body)
		}
	}
	if a := p.get("/v1/models/" + llama); a.status != 503 {
		t.Errorf("the model's page: %d %s; want 503", a.status, a.body)
	}
}

// Several replicas may share host and port behind a path, as behind an ingress.
func TestEndpointsBehindBasePath(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{Model: qwen})
	mux := http.NewServeMux()
	for path, s := range map[string]*sim.Server{"/gpu0/": a, "/gpu1/": b} {
		target, err := url.Parse(s.URL())
		if err != nil {
			t.Fatal(err)
		}
		mux.Handle(path, http.StripPrefix(strings.TrimSuffix(path, "/"), httputil.NewSingleHostReverseProxy(target)))
	}
	ingress := httptest.NewServer(mux)
	t.Cleanup(func() { // before the proxy's connections to the replicas idle out
		ingress.Close()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
	p := lbd(t, []string{ingress.URL + "/gpu0", ingress.URL + "/gpu1/"})
	host := strings.TrimPrefix(ingress.URL, "http://")
	for model, want := range map[string]string{llama: host + "/gpu0", qwen: host + "/gpu1"} {
		if got := p.spread(model, 2); got[want] != 2 {
			t.Errorf("%s went to %v; want %s", model, got, want)
		}
	}
	p.until("both polled", func() bool {
		for _, r := range p.Snapshot().Replicas {
			if r.Polled() == nil {
				return false
			}
		}
		return true
	})
}

// Replicas with --api-key guard /v1/models; lbd's key opens it, and clients'
// own keys are passed through.
func TestReplicaAPIKey(t *testing.T) {
	r := replica(t, sim.Config{APIKey: "s3cret"})
	p := lbd(t, urls(r), "replica-api-key", "s3cret")
	if _, a := p.ask(llama); a.status != 401 {
		t.Errorf("without a key of its own: %d; want the replica's 401", a.status)
	}
	a := p.post("/v1/chat/completions", chat(llama, false, 1), "Authorization", "Bearer s3cret")
	if a.status != 200 {
		t.Errorf("with the key: %d %s", a.status, a.body)
	}
}
