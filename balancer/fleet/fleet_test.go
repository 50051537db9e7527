package fleet

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"lbd/balancer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type first struct{ strategy string }

func (*first) Pick(_ *balancer.Request, rs []*balancer.Replica) *balancer.Replica {
	if len(rs) == 0 {
		return nil
	}
	return rs[0]
}

func newPicker(strategy string) (balancer.Picker, error) {
	if strategy == "" || strings.HasPrefix(strategy, "no") {
		return nil, fmt.Errorf("strategy %q is unknown", strategy)
	}
	return &first{strategy}, nil
}

// recorder collects events.
type recorder struct {
	mu     sync.Mutex
	events []Event
}

func (r *recorder) add(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *recorder) take() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	es := r.events
	r.events = nil
	return es
}

func newFleet(t *testing.T, c Config) (*Fleet, *recorder) {
	t.Helper()
	rec := &recorder{}
	f := New(Options{NewPicker: newPicker, OnEvent: rec.add})
	configure(t, f, c)
	rec.take()
	return f, rec
}

func configure(t *testing.T, f *Fleet, c Config) {
	t.Helper()
	if c.Strategy == "" {
		c.Strategy = "cycle"
	}
	if err := f.Configure(c); err != nil {
		t.Fatalf("Configure: %v", err)
	}
}

func replicas(urls ...string) (rs []ReplicaConfig) {
	for _, u := range urls {
		rs = append(rs, ReplicaConfig{URL: u})
	}
	return rs
}

func infos(names ...string) []balancer.ModelInfo {
	ms := make([]balancer.ModelInfo, len(names))
	for i, n := range names {
		ms[i] = balancer.ModelInfo{ID: n, Raw: []byte(`{"id":"` + n + `"}`)}
	}
	return ms
}

var healthy = balancer.Health{State: balancer.Healthy}

// available renders the index: model:available/all, in the snapshot's order.
func available(f *Fleet) string {
	var b strings.Builder
	for _, m := range f.Snapshot().Models {
		fmt.Fprintf(&b, "%s:%d/%d ", m.Name, len(m.Available), len(m.Replicas))
	}
	return strings.TrimSpace(b.String())
}

func want(t *testing.T, f *Fleet, index string) {
	t.Helper()
	if got := available(f); got != index {
		t.Errorf("models %q, want %q", got, index)
	}
}

func TestDiscoveredReplicaJoinsWhenHealthyAndLearned(t *testing.T) {
	f, rec := newFleet(t, Config{Replicas: replicas("http://a:1", "http://b:1")})
	want(t, f, "")
	f.SetModels("a:1", infos("m", "n"))
	want(t, f, "m:0/1 n:0/1")
	f.SetHealth("a:1", healthy)
	want(t, f, "m:1/1 n:1/1")
	f.SetHealth("b:1", healthy)
	want(t, f, "m:1/1 n:1/1")
	f.SetModels("b:1", infos("n"))
	want(t, f, "m:1/1 n:2/2")
	got := rec.take()
	if diff := cmp.Diff([]Event{
		{Kind: ModelsChanged, Replica: "a:1", New: "m,n"},
		{Kind: ModelsChanged, Replica: "b:1", New: "n"},
	}, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	f.SetModels("b:1", infos())
	want(t, f, "m:1/1 n:1/1")
}

// Whatever the order in which health, models and configuration arrive, the
// picture is the same.
func TestOrderDoesNotMatter(t *testing.T) {
	for seed := range uint64(50) {
		f, _ := newFleet(t, Config{Replicas: replicas("http://a:1")})
		full := Config{
			Replicas: replicas("http://a:1", "http://b:1", "http://c:1"),
			Models:   []ModelConfig{{Name: "p", Replicas: []string{"http://c:1"}}},
		}
		configure(t, f, full)
		steps := []func(){
			func() { f.SetModels("a:1", infos("m")) },
			func() { f.SetModels("b:1", infos("n", "m")) },
			func() { f.SetModels("c:1", infos("x")) },
			func() { f.SetHealth("a:1", healthy) },
			func() { f.SetHealth("b:1", healthy) },
			func() { f.SetHealth("c:1", healthy) },
			func() { configure(t, f, full) },
			func() { _ = f.Drain("b:1") },
		}
		rand.New(rand.NewPCG(seed, 0)).Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
		for _, step := range steps {
			step()
		}
		want(t, f, "m:1/2 n:0/1 p:1/1")
	}
}

func TestModelsEventOnlyWhenTheNamesChange(t *testing.T) {
	f, rec := newFleet(t, Config{Replicas: replicas("http://a:1")})
	f.SetModels("a:1", infos("m", "n"))
	rec.take()
	generation := f.Snapshot().Generation
	f.SetModels("a:1", infos("m", "n"))
	if g := f.Snapshot().Generation; g != generation {
		t.Errorf("the same list published generation %d after %d", g, generation)
	}
	// vLLM stamps every answer with a new "created" and new permission ids.
	newer := infos("n", "m")
	newer[0].Raw = []byte(`{"id":"n","created":2}`)
	f.SetModels("a:1", newer)
	if es := rec.take(); len(es) != 0 {
		t.Errorf("events %v for the same names", es)
	}
	if raw := string(f.Snapshot().Model([]byte("n")).Info.Raw); raw != `{"id":"n","created":2}` {
		t.Errorf("info %s is not the newest", raw)
	}
	f.SetModels("a:1", infos("m", "lora"))
	if diff := cmp.Diff([]Event{{Kind: ModelsChanged, Replica: "a:1", Old: "m,n", New: "lora,m"}}, rec.take()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestRestartVoidsWhatWasLearned(t *testing.T) {
	f, rec := newFleet(t, Config{Replicas: replicas("http://a:1")})
	f.SetModels("a:1", infos("m"))
	f.SetHealth("a:1", healthy)
	p := f.Snapshot().Model([]byte("m")).Picker
	f.SetHealth("a:1", balancer.Health{State: balancer.Ejected})
	if f.Snapshot().Replica("a:1").Models == nil {
		t.Error("an ejected replica forgot its models")
	}
	rec.take()
	f.SetHealth("a:1", balancer.Health{State: balancer.Healthy, Restarted: true})
	want(t, f, "m:0/1") // known, so the answer is 503 and not 404
	if f.Snapshot().Replica("a:1").Models != nil {
		t.Error("void models are shown")
	}
	if rs := f.Unlearned(); len(rs) != 1 || rs[0].ID != "a:1" {
		t.Errorf("unlearned: %v", rs)
	}
	select {
	case <-f.Wake():
	default:
		t.Error("the poller was not woken")
	}
	f.SetModels("a:1", infos("m"))
	want(t, f, "m:1/1")
	if f.Snapshot().Model([]byte("m")).Picker != p {
		t.Error("the picker did not survive")
	}
	if len(f.Unlearned()) != 0 {
		t.Error("still unlearned")
	}
	if diff := cmp.Diff([]Event{{Kind: ModelsVoid, Replica: "a:1", Old: "m"}}, rec.take()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	// Back from an ejection that was not a restart: nothing to learn.
	f.SetHealth("a:1", balancer.Health{State: balancer.Ejected})
	f.SetHealth("a:1", healthy)
	want(t, f, "m:1/1")
}

func TestPinDecidesAndMismatchIsToldOnce(t *testing.T) {
	f, rec := newFleet(t, Config{
		Replicas: replicas("http://a:1", "http://b:1"),
		Models:   []ModelConfig{{Name: "m", Aliases: []string{"small"}, Strategy: "random", Replicas: []string{"http://a:1/"}}},
	})
	f.SetHealth("a:1", healthy)
	want(t, f, "m:1/1") // before anything was learned
	f.SetModels("a:1", infos("other"))
	f.SetModels("a:1", infos("other"))
	f.SetModels("a:1", infos("m", "extra"))
	f.SetModels("a:1", infos("other"))
	want(t, f, "m:1/1")
	var got []Event
	for _, e := range rec.take() {
		if e.Kind == ModelsMismatch {
			got = append(got, e)
		}
	}
	mismatch := Event{Kind: ModelsMismatch, Replica: "a:1", Old: "m", New: "other"}
	if diff := cmp.Diff([]Event{mismatch, mismatch}, got); diff != "" {
		t.Errorf("mismatches (-want +got):\n%s", diff)
	}
	// A restart does not take a pinned replica out.
	f.SetHealth("a:1", balancer.Health{State: balancer.Ejected})
	f.SetHealth("a:1", balancer.Health{State: balancer.Healthy, Restarted: true})
	want(t, f, "m:1/1")
	m := f.Snapshot().Model([]byte("small"))
	if m == nil || m.Name != "m" || m.Strategy != "random" || m.Info.ID != "m" {
		t.Errorf("alias leads to %+v", m)
	}
}

func TestReloadKeepsReplicasByPointer(t *testing.T) {
	f, rec := newFleet(t, Config{Replicas: replicas("http://a:1", "http://b:1", "http://c:1")})
	for _, id := range []string{"a:1", "b:1", "c:1"} {
		f.SetModels(id, infos("m"))
		f.SetHealth(id, healthy)
	}
	before := f.Snapshot()
	a, b, c := before.Replica("a:1").Replica, before.Replica("b:1").Replica, before.Replica("c:1").Replica
	if err := f.Drain("a:1"); err != nil {
		t.Fatal(err)
	}
	held := []balancer.Reservation{a.Reserve(), b.Reserve(), c.Reserve()}
	rec.take()
	configure(t, f, Config{Replicas: []ReplicaConfig{{URL: "http://d:1"}, {URL: "http://c:1", Weight: 2, Device: "gpu1"}, {URL: "http://a:1"}}})
	s := f.Snapshot()
	if s.Replica("a:1").Replica != a || !s.Replica("a:1").Draining {
		t.Error("an unchanged replica did not survive as it was")
	}
	if s.Replica("b:1") != nil {
		t.Error("a removed replica is still there")
	}
	n := s.Replica("c:1")
	if n.Weight != 2 || n.Device != "gpu1" || n.InFlight() != 1 || n.Health != healthy || len(n.Models) != 1 {
		t.Errorf("a changed replica lost something: %+v", n)
	}
	want(t, f, "m:1/2")
	if diff := cmp.Diff([]Event{
		{Kind: ReplicaAdded, Replica: "d:1"},
		{Kind: ReplicaChanged, Replica: "c:1", Old: `device "", weight 1`, New: `device "gpu1", weight 2`},
		{Kind: ReplicaRemoved, Replica: "b:1"},
	}, rec.take()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	// b comes back while its request still runs, and its load with it.
	configure(t, f, Config{Replicas: replicas("http://b:1")})
	if r := f.Snapshot().Replica("b:1"); r.InFlight() != 1 || r.Health.State != balancer.Unknown || r.Models != nil {
		t.Errorf("b came back as %+v with %d in flight, want unknown with 1", r, r.InFlight())
	}
	for i := range held {
		held[i].Done()
	}
	if n := f.Snapshot().Replica("b:1").InFlight(); n != 0 {
		t.Errorf("%d in flight after done", n)
	}
	later := time.Now().Add(keepRetired)
	f.opts.Now = func() time.Time { return later }
	configure(t, f, Config{Replicas: replicas("http://b:1")})
	if len(f.retired) != 0 {
		t.Errorf("idle retired replicas are kept: %v", f.retired)
	}
}

// An address that a name gives, does not give and gives again is the same replica: what a
// pick has reserved there with the snapshot of before counts, and an operator's word holds.
func TestReplicaThatComesBackSoonIsTheSame(t *testing.T) {
	f, rec := newFleet(t, Config{Replicas: replicas("http://a:1", "http://b:1")})
	f.SetHealth("a:1", healthy)
	f.SetModels("a:1", infos("m"))
	old := f.Snapshot().Replica("a:1").Replica
	if err := f.Drain("a:1"); err != nil {
		t.Fatal(err)
	}
	configure(t, f, Config{Replicas: replicas("http://b:1")})
	configure(t, f, Config{Replicas: replicas("http://b:1")}) // another change of others
	late := old.Reserve()
	rec.take()
	configure(t, f, Config{Replicas: replicas("http://a:1", "http://b:1")})
	now := f.Snapshot().Replica("a:1")
	if now.Replica != old || now.InFlight() != 1 {
		t.Errorf("another replica, with %d in flight; want the same with 1", now.InFlight())
	}
	if !now.Draining || now.Health.State != balancer.Unknown || now.Models != nil {
		t.Errorf("came back as %+v; want drained, not probed, without models", now)
	}
	if diff := cmp.Diff([]Event{{Kind: ReplicaAdded, Replica: "a:1"}, {Kind: Drained, Replica: "a:1", Reason: "drained when it left"}}, rec.take()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	late.Done()
	if n := f.Snapshot().Replica("a:1").InFlight(); n != 0 {
		t.Errorf("%d in flight after done", n)
	}
}

// One that is back after long is another replica, also to who remembers it by its ID.
func TestReplicaThatComesBackLateIsAnother(t *testing.T) {
	f, _ := newFleet(t, Config{Replicas: replicas("http://a:1", "http://b:1")})
	old := f.Snapshot().Replica("a:1").Replica
	now := time.Now()
	f.opts.Now = func() time.Time { return now }
	configure(t, f, Config{Replicas: replicas("http://b:1")})
	now = now.Add(keepRetired)
	configure(t, f, Config{Replicas: replicas("http://b:1")})
	configure(t, f, Config{Replicas: replicas("http://a:1", "http://b:1")})
	again := f.Snapshot().Replica("a:1").Replica
	if again == old || again.Incarnation() == old.Incarnation() {
		t.Errorf("incarnation %d after %d; want another", again.Incarnation(), old.Incarnation())
	}
}

// Addresses of a name are dialled as addresses and spoken to by name.
func TestAddressesOfAName(t *testing.T) {
	const of = "dns+https://vllm.example.org/x"
	f, rec := newFleet(t, Config{})
	configure(t, f, Config{Replicas: []ReplicaConfig{
		{URL: "https://10.0.0.1:443/x", Of: of}, {URL: "https://[fd00::1]:443/x", Of: of, Weight: 2},
	}})
	got := f.Snapshot().Replica("[fd00::1]:443/x")
	if got == nil {
		t.Fatal("no replica [fd00::1]:443/x")
	}
	want := balancer.Endpoint{Addr: "[fd00::1]:443", Host: "vllm.example.org", BasePath: "/x", TLS: true, Name: "vllm.example.org:443"}
	if got.Endpoint != want || got.Listed != "vllm.example.org:443/x" || got.Weight != 2 {
		t.Errorf("%+v, listed as %q; want %+v", got.Endpoint, got.Listed, want)
	}
	if es := rec.take(); len(es) != 2 || es[0].Of != of {
		t.Errorf("events %+v; want two of %q", es, of)
	}
	// Listed by hand from now on.
	configure(t, f, Config{Replicas: []ReplicaConfig{{URL: "https://10.0.0.1:443/x"}}})
	if r := f.Snapshot().Replica("10.0.0.1:443/x"); r.Listed != r.ID || r.Endpoint.Host != "10.0.0.1:443" {
		t.Errorf("%+v, listed as %q; want what stands there", r.Endpoint, r.Listed)
	}
	if es := rec.take(); len(es) != 2 || es[0].Old != "https://10.0.0.1:443/x of "+of || es[1].Of != of {
		t.Errorf("events %+v; want a change and a removal", es)
	}
	for _, bad := range []ReplicaConfig{
		{URL: of}, {URL: "https://10.0.0.1/x", Of: "https://vllm.example.org/x"}, {URL: "https://other/x", Of: of}, {URL: "https://10.0.0.1", Of: of},
		{URL: "https://10.0.0.1/x", Of: ":"},
	} {
		if err := f.Configure(Config{Strategy: "cycle", Replicas: []ReplicaConfig{bad}}); err == nil {
			t.Errorf("%+v: taken", bad)
		}
	}
}

// Until a name was looked up nobody knows what is not served.
func TestAwaitedNames(t *testing.T) {
	c := Config{Replicas: replicas("http://a:1"), Awaited: []string{"dns+http://n:1"}}
	f, _ := newFleet(t, c)
	f.SetHealth("a:1", healthy)
	f.SetModels("a:1", infos("m"))
	if ok, missing := f.Ready(); ok || len(missing) != 1 || missing[0] != "addresses of dns+http://n:1" || f.Settled() {
		t.Errorf("ready %t, missing %q, settled %t; want that the name is waited for", ok, missing, f.Settled())
	}
	c.Awaited = nil
	configure(t, f, c)
	if ok, missing := f.Ready(); !ok || !f.Settled() {
		t.Errorf("ready %t, missing %q, settled %t; want that all is known", ok, missing, f.Settled())
	}
}

// Where no model is known, the names are what is missing.
func TestUnresolvedNames(t *testing.T) {
	c := Config{Unresolved: []string{"dns+http://n:1"}}
	f, _ := newFleet(t, c)
	if ok, missing := f.Ready(); ok || len(missing) != 1 || missing[0] != "addresses of dns+http://n:1" || !f.Settled() {
		t.Errorf("ready %t, missing %q, settled %t; want the name, and that nothing is waited for", ok, missing, f.Settled())
	}
	c.Replicas = replicas("http://a:1")
	configure(t, f, c)
	f.SetHealth("a:1", healthy)
	f.SetModels("a:1", infos("m"))
	if ok, missing := f.Ready(); !ok {
		t.Errorf("missing %q; want that others serve", missing)
	}
	if diff := cmp.Diff(c.Unresolved, f.Snapshot().Unresolved); diff != "" {
		t.Error(diff)
	}
}

func TestPickersPersistWhileTheirStrategyDoes(t *testing.T) {
	c := Config{Replicas: replicas("http://a:1"), Models: []ModelConfig{{Name: "n", Strategy: "random"}}}
	f, _ := newFleet(t, c)
	f.SetModels("a:1", infos("m", "n"))
	m, n := f.Snapshot().Model([]byte("m")).Picker, f.Snapshot().Model([]byte("n")).Picker
	configure(t, f, c)
	if f.Snapshot().Model([]byte("m")).Picker != m || f.Snapshot().Model([]byte("n")).Picker != n {
		t.Error("a reload without a change replaced pickers")
	}
	c.Strategy = "least-cost"
	configure(t, f, c)
	if got := f.Snapshot().Model([]byte("m")); got.Picker == m || got.Strategy != "least-cost" || got.Picker.(*first).strategy != "least-cost" {
		t.Errorf("m has strategy %q, want least-cost", got.Strategy)
	}
	if f.Snapshot().Model([]byte("n")).Picker != n {
		t.Error("a model with its own strategy got a new picker")
	}
	f.SetModels("a:1", infos("m"))
	f.SetModels("a:1", infos("x1"))
	if len(f.pickers) != 2 { // x1, and n of the configuration
		t.Errorf("pickers of gone models are kept: %v", f.pickers)
	}
}

func TestRefusedConfigurationChangesNothing(t *testing.T) {
	good := Config{Replicas: replicas("http://a:1"), Strategy: "cycle"}
	f, rec := newFleet(t, good)
	before := f.Snapshot()
	a := replicas("http://a:1")
	for _, bad := range []struct {
		name, want string
		Config
	}{
		{"url", "not a URL", Config{Strategy: "cycle", Replicas: replicas("http://a:b:c")}},
		{"scheme", "ftp", Config{Strategy: "cycle", Replicas: replicas("ftp://a")}},
		{"default strategy", `"nope"`, Config{Strategy: "nope", Replicas: a}},
		{"model strategy", `model "m": strategy "nope"`, Config{Strategy: "cycle", Replicas: a, Models: []ModelConfig{{Name: "m", Strategy: "nope"}}}},
		{"two descriptions", "device", Config{Strategy: "cycle", Replicas: []ReplicaConfig{{URL: "http://a", Device: "x"}, {URL: "http://a:80"}}}},
		{"pin elsewhere", "not in the fleet", Config{Strategy: "cycle", Replicas: a, Models: []ModelConfig{{Name: "m", Replicas: []string{"http://z"}}}}},
		{"pin url", `model "m"`, Config{Strategy: "cycle", Replicas: a, Models: []ModelConfig{{Name: "m", Replicas: []string{"ftp://z"}}}}},
		{"model twice", "twice", Config{Strategy: "cycle", Replicas: a, Models: []ModelConfig{{Name: "m"}, {Name: "m"}}}},
		{"no name", "no name", Config{Strategy: "cycle", Replicas: a, Models: []ModelConfig{{Aliases: []string{"x"}}}}},
		{"alias is a name", "is the name of a model", Config{Strategy: "cycle", Replicas: a, Models: []ModelConfig{{Name: "m", Aliases: []string{"n"}}, {Name: "n"}}}},
		{"alias twice", "stands for", Config{Strategy: "cycle", Replicas: a, Models: []ModelConfig{{Name: "m", Aliases: []string{"x"}}, {Name: "n", Aliases: []string{"x"}}}}},
		{"empty alias", "empty alias", Config{Strategy: "cycle", Replicas: a, Models: []ModelConfig{{Name: "m", Aliases: []string{""}}}}},
	} {
		err := f.Configure(bad.Config)
		if err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s: error %v, want one with %q", bad.name, err, bad.want)
		}
	}
	if f.Snapshot() != before || len(rec.take()) != 0 {
		t.Error("a refused configuration changed something")
	}
	twice := append(replicas("http://a:1"), replicas("http://a:1/")...)
	if err := f.Configure(Config{Strategy: "cycle", Replicas: twice}); err != nil || len(f.Snapshot().Replicas) != 1 {
		t.Errorf("the same replica twice: %v, %d replicas", err, len(f.Snapshot().Replicas))
	}
}

func TestDrain(t *testing.T) {
	f, rec := newFleet(t, Config{Replicas: replicas("http://a:1", "http://b:1")})
	f.SetModels("a:1", infos("m"))
	f.SetHealth("a:1", healthy)
	rec.take()
	for range 2 {
		if err := f.Drain("a:1"); err != nil {
			t.Fatal(err)
		}
	}
	want(t, f, "m:0/1")
	if err := f.Undrain("a:1"); err != nil {
		t.Fatal(err)
	}
	want(t, f, "m:1/1")
	if diff := cmp.Diff([]Event{{Kind: Drained, Replica: "a:1"}, {Kind: Undrained, Replica: "a:1"}}, rec.take()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	err := f.Drain("z:1")
	if err == nil || !strings.Contains(err.Error(), `"z:1"`) || !strings.Contains(err.Error(), "a:1, b:1") {
		t.Errorf("error %v does not name the replicas", err)
	}
}

func TestReady(t *testing.T) {
	now := time.Unix(1000, 0)
	f := New(Options{NewPicker: newPicker, Now: func() time.Time { return now }, DiscoveryGrace: time.Minute})
	ready := func(missing ...string) {
		t.Helper()
		ok, got := f.Ready()
		if ok != (len(missing) == 0) || strings.Join(got, ";") != strings.Join(missing, ";") {
			t.Errorf("ready %v missing %q, want missing %q", ok, got, missing)
		}
	}
	ready("any model")
	configure(t, f, Config{
		Replicas: replicas("http://a:1", "http://b:1", "http://c:1"),
		Models:   []ModelConfig{{Name: "m", Replicas: []string{"http://a:1"}}},
	})
	ready("m", "models of b:1", "models of c:1")
	f.SetHealth("a:1", healthy)
	ready("models of b:1", "models of c:1")
	f.SetHealth("b:1", healthy)
	ready("models of b:1", "models of c:1")
	f.SetModels("b:1", infos("n"))
	f.SetHealth("c:1", balancer.Health{State: balancer.Ejected})
	ready("models of c:1")
	now = now.Add(time.Minute)
	ready() // c has never been up: it does not hold the others back for ever
	f.SetHealth("b:1", balancer.Health{State: balancer.Ejected})
	ready("n")
}

func TestSettled(t *testing.T) {
	f := New(Options{NewPicker: newPicker})
	settled := func(want bool, after string) {
		t.Helper()
		if got := f.Settled(); got != want {
			t.Errorf("settled %t %s; want %t", got, after, want)
		}
	}
	configure(t, f, Config{
		Replicas: replicas("http://a:1", "http://b:1", "http://c:1"),
		Models:   []ModelConfig{{Name: "m", Replicas: []string{"http://a:1"}}},
	})
	settled(false, "before anybody was asked")
	f.SetHealth("a:1", healthy)
	f.SetHealth("b:1", healthy)
	settled(false, "while one has not been probed")
	f.SetHealth("c:1", balancer.Health{State: balancer.Ejected})
	settled(false, "while one has not said what it serves")
	f.SetModels("b:1", nil)
	settled(true, "with one pinned, one that serves nothing and one that is down")
}

func TestUnknownModelPickerFailure(t *testing.T) {
	rec := &recorder{}
	failing := false
	f := New(Options{OnEvent: rec.add, NewPicker: func(s string) (balancer.Picker, error) {
		if failing {
			return nil, errors.New("no room")
		}
		return newPicker(s)
	}})
	configure(t, f, Config{Replicas: replicas("http://a:1")})
	failing = true
	rec.take()
	f.SetModels("a:1", infos("m"))
	want(t, f, "")
	if es := rec.take(); len(es) != 2 || es[1].Kind != PickerFailed || es[1].Model != "m" || es[1].Reason != "no room" {
		t.Errorf("events %v", es)
	}
	failing = false
	f.SetHealth("a:1", healthy)
	want(t, f, "m:1/1")
}

// Readers, reloads, health and models at once: reservations stay balanced and
// every snapshot is whole.
func TestConcurrentUse(t *testing.T) {
	f, _ := newFleet(t, Config{Replicas: replicas("http://a:1", "http://b:1")})
	for _, id := range []string{"a:1", "b:1"} {
		f.SetModels(id, infos("m"))
		f.SetHealth(id, healthy)
	}
	seen := map[string]*balancer.Replica{}
	for _, r := range f.Snapshot().Replicas {
		seen[r.ID] = r.Replica
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 300 {
				m := f.Snapshot().Model([]byte("m"))
				if m == nil {
					t.Error("model gone")
					return
				}
				if v, err := m.Pick(&balancer.Request{}, nil); err == nil {
					v.Done()
				}
				f.Ready()
			}
		})
	}
	for i := range 100 {
		configure(t, f, Config{Replicas: []ReplicaConfig{{URL: "http://a:1", Weight: 1 + i%3}, {URL: "http://b:1"}}})
		f.SetHealth("a:1", balancer.Health{State: balancer.State(i % 3)})
		f.SetModels("b:1", infos("m", fmt.Sprint("lora", i)))
		_ = f.Drain("a:1")
		_ = f.Undrain("a:1")
	}
	wg.Wait()
	for id, r := range seen {
		if n := r.InFlight(); n != 0 {
			t.Errorf("%s has %d in flight", id, n)
		}
	}
}

func TestSnapshotDoesNotAllocate(t *testing.T) {
	f, _ := newFleet(t, Config{Replicas: replicas("http://a:1")})
	f.SetModels("a:1", infos("m"))
	f.SetHealth("a:1", healthy)
	name, q := []byte("m"), balancer.Request{}
	if n := testing.AllocsPerRun(100, func() {
		v, _ := f.Snapshot().Model(name).Pick(&q, nil)
		v.Done()
	}); n != 0 {
		t.Errorf("%v allocations per pick, want 0", n)
	}
}

// A replica that is spoken to in TLS from a reload on is the same replica: its load
// stays, and so does what a request that runs holds of it.
func TestEndpointChangesItsScheme(t *testing.T) {
	f, _ := newFleet(t, Config{Replicas: replicas("http://a:1"), Strategy: "cycle"})
	f.SetModels("a:1", infos("m"))
	old := f.Snapshot().Replica("a:1").Replica
	res := old.Reserve()
	if err := f.Configure(Config{Replicas: replicas("https://a:1"), Strategy: "cycle"}); err != nil {
		t.Fatal(err)
	}
	now := f.Snapshot().Replica("a:1")
	if !now.Endpoint.TLS || now.InFlight() != 1 || len(now.Models) != 1 || old.Endpoint.TLS {
		t.Errorf("%+v, %d in flight, models %v", now.Endpoint, now.InFlight(), now.Models)
	}
	if res.Done(); now.InFlight() != 0 {
		t.Errorf("%d in flight after the end", now.InFlight())
	}
}

// What a replica is said to cache follows a reload, and its load stays.
func TestCacheTokens(t *testing.T) {
	f, rec := newFleet(t, Config{Replicas: []ReplicaConfig{{URL: "http://a:1", CacheTokens: 16_000}}})
	a := f.Snapshot().Replica("a:1").Replica
	if a.CacheTokens != 16_000 {
		t.Errorf("keeps %d tokens, want 16,000", a.CacheTokens)
	}
	held := a.Reserve()
	rec.take()
	configure(t, f, Config{Replicas: []ReplicaConfig{{URL: "http://a:1", CacheTokens: 32_000, Weight: 2}}})
	if a = f.Snapshot().Replica("a:1").Replica; a.CacheTokens != 32_000 || a.Weight != 2 || a.InFlight() != 1 {
		t.Errorf("after a reload it keeps %d tokens at weight %d with %d in flight, want 32,000, 2 and 1", a.CacheTokens, a.Weight, a.InFlight())
	}
	if diff := cmp.Diff([]Event{
		{Kind: ReplicaChanged, Replica: "a:1", Old: `device "", weight 1`, New: `device "", weight 2`},
		{Kind: ReplicaChanged, Replica: "a:1", Old: "cache_tokens 16000", New: "cache_tokens 32000"},
	}, rec.take()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	held.Done()
	configure(t, f, Config{Replicas: replicas("http://a:1")})
	if n := f.Snapshot().Replica("a:1").CacheTokens; n != 0 {
		t.Errorf("keeps %d tokens after the key is gone, want 0, unknown", n)
	}
	err := f.Configure(Config{Replicas: []ReplicaConfig{{URL: "http://a:1", CacheTokens: 1}, {URL: "http://a:1", CacheTokens: 2}}})
	if err == nil || !strings.Contains(err.Error(), "1 cache tokens and with 2") {
		t.Errorf("two sizes of one cache: %v", err)
	}
}

// What vLLM makes up for each list changes nothing; what an entry says of its model does.
func TestListsThatSayTheSame(t *testing.T) {
	f, _ := newFleet(t, Config{Replicas: replicas("http://a:1")})
	list := func(raw string) uint64 {
		f.SetModels("a:1", []balancer.ModelInfo{{ID: "m", Raw: []byte(raw)}})
		return f.Snapshot().Generation
	}
	const entry = `{"id":"m","created":%d,"max_model_len":%d,"permission":[{"id":"modelperm-%d"}]}`
	before := list(fmt.Sprintf(entry, 1, 4096, 1))
	if got := list(fmt.Sprintf(entry, 2, 4096, 2)); got != before {
		t.Errorf("generation %d after %d for another time and id", got, before)
	}
	for i, raw := range []string{fmt.Sprintf(entry, 2, 8192, 2), `{"id":"m"}`, `{"id":"m","root":"x"}`, `[1]`, `[2]`} {
		got := list(raw)
		if got == before {
			t.Errorf("%d: %s published nothing", i, raw)
		}
		before = got
	}
}

// Servers of LoRA adapters list thousands of models, as many as a poller lets through
// (10,000), and each change of the fleet makes a snapshot of all, which must not search
// each list for each of its names.
func TestManyModels(t *testing.T) {
	const models = 10_000
	names := make([]string, models)
	for i := range names {
		names[i] = fmt.Sprintf("organisation/model-adapter-%d", i)
	}
	urls := []string{"http://a:1", "http://b:1", "http://c:1", "http://d:1"}
	f, _ := newFleet(t, Config{Replicas: replicas(urls...)})
	for _, r := range f.Snapshot().Replicas {
		f.SetHealth(r.ID, healthy)
		f.SetModels(r.ID, append(infos(names...), infos(names[0])...))
	}
	s := f.Snapshot()
	if n := len(s.Models); n != models {
		t.Fatalf("%d models, want %d", n, models)
	}
	for _, m := range s.Models {
		if len(m.Replicas) != len(urls) || len(m.Available) != len(urls) || len(m.Info.Raw) == 0 {
			t.Fatalf("%s: %d of %d available, listed as %q; want all", m.Name, len(m.Available), len(m.Replicas), m.Info.Raw)
		}
	}
}
