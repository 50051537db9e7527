package daemon_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"lbd/access/certs/certstest"
	"lbd/balancer"
	"lbd/bench/sim"
	"lbd/cmd/lbd/internal/config"
	"lbd/cmd/lbd/internal/daemon"
	"lbd/internal/loopback"
	"lbd/internal/zone"
)

// scaled is the name of what the tests below scale.
const scaled = "vllm.test"

// house is a name, and replicas on one port of several addresses.
type house struct {
	*proxied
	zone     *zone.Zone
	port     string
	replicas []*sim.Server
	file     string
}

// at starts a replica on the port of the house.
func (h *house) at(t *testing.T, addr string) *sim.Server {
	t.Helper()
	s, err := sim.New(sim.Config{Model: llama, Speed: testSpeed, APITime: -1})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(addr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Kill()
		s.Stop()
	})
	_, h.port, _ = net.SplitHostPort(s.Addr())
	h.replicas = append(h.replicas, s)
	return s
}

// scaledOut makes n replicas, of which the name has the first few, and lbd. The yaml is its
// file, with PORT for the port; empty is the name alone.
func scaledOut(t *testing.T, n, named int, yaml string, settings ...string) *house {
	t.Helper()
	h := &house{zone: zone.Start(t)}
	for range n {
		addr := loopback.Address()
		if h.port != "" {
			addr = strings.TrimSuffix(addr, "0") + h.port
		}
		h.at(t, addr)
	}
	if named > 0 {
		h.name(h.replicas[:named]...)
	}
	if yaml == "" {
		yaml = "endpoints: ['dns+http://vllm.test:PORT']\nstrategy: cycle\n"
	}
	h.file = filepath.Join(t.TempDir(), "lbd.yml")
	h.write(yaml)
	settings = append([]string{"config", h.file, "dns-refresh-interval", "50ms"}, settings...)
	h.proxied = lbdAsking(t, h.zone.Resolver(), func() (*config.Config, error) { return tryLoad(nil, settings...) })
	return h
}

func (h *house) write(yaml string) {
	for i, s := range h.replicas {
		ip, _, _ := net.SplitHostPort(s.Addr())
		yaml = strings.ReplaceAll(yaml, fmt.Sprint("IP", i), ip)
	}
	if err := os.WriteFile(h.file, []byte(strings.ReplaceAll(yaml, "PORT", h.port)), 0o600); err != nil {
		panic(err)
	}
}

// name gives the name the addresses of these.
func (h *house) name(rs ...*sim.Server) {
	var ips []string
	for _, s := range rs {
		ip, _, _ := net.SplitHostPort(s.Addr())
		ips = append(ips, ip)
	}
	h.zone.Set(scaled, ips...)
}

// serves waits until exactly these get requests.
func (h *house) serves(rs ...*sim.Server) {
	h.t.Helper()
	want := urlless(rs)
	h.until(fmt.Sprintf("served by %v", want), func() bool { return slices.Equal(h.inService(), want) })
}

func (h *house) inService() (ids []string) {
	if m := h.Snapshot().Model([]byte(llama)); m != nil {
		for _, r := range m.Available {
			ids = append(ids, r.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

func urlless(rs []*sim.Server) (ids []string) {
	for _, s := range rs {
		ids = append(ids, s.Addr())
	}
	slices.Sort(ids)
	return ids
}

// asked waits until the name was looked up twice more, of both kinds of addresses: the
// first may have been under way.
func (h *house) asked() {
	h.t.Helper()
	before := h.zone.Asked(scaled)
	h.until("looked up", func() bool { return h.zone.Asked(scaled) >= before+6 })
}

// Every address of a name is a replica, with an identity of its own.
func TestEveryAddressIsAReplica(t *testing.T) {
	h := scaledOut(t, 3, 2, "")
	h.serves(h.replicas[:2]...)
	if got := h.spread(llama, 8); got[h.replicas[0].Addr()] != 4 || got[h.replicas[1].Addr()] != 4 {
		t.Errorf("answered by %v; want four each", got)
	}
	var page struct {
		Replicas []struct{ ID, URL, Of string }
	}
	if err := json.Unmarshal([]byte(h.onAdmin("GET", "/fleet", "").body), &page); err != nil {
		t.Fatal(err)
	}
	of := "dns+http://vllm.test:" + h.port
	for _, r := range page.Replicas {
		if r.Of != of || r.URL != "http://"+r.ID || !slices.Contains(urlless(h.replicas[:2]), r.ID) {
			t.Errorf("%+v on the fleet page; want an address of %s", r, of)
		}
	}
	for _, s := range h.replicas[:2] {
		if got := h.metric(`lbd_replica_healthy{replica="` + s.Addr() + `"}`); got != "1" {
			t.Errorf("lbd_replica_healthy of %s is %q", s.Addr(), got)
		}
	}
	h.name(h.replicas[1:]...)
	h.serves(h.replicas[1:]...)
	left := h.replicas[0].Addr()
	h.until("no series of who left", func() bool { return !strings.Contains(h.get("/metrics").body, left) })
	lines := h.log.logged("addresses changed")
	if len(lines) != 2 {
		t.Fatalf("%d lines of changes; want two", len(lines))
	}
	joined, gone := lines[1]["joined"].([]any), lines[1]["left"].([]any)
	if len(joined) != 1 || len(gone) != 1 || lines[1]["host"] != scaled || !strings.HasPrefix(left, fmt.Sprint(gone[0])+":") {
		t.Errorf("%v; want who joined and who left", lines[1])
	}
	for message, id := range map[string]string{"replica added": h.replicas[2].Addr(), "replica removed": left} {
		if !slices.ContainsFunc(h.log.logged(message), func(l map[string]any) bool { return l["replica"] == id && l["of"] == of }) {
			t.Errorf("no line %q of %s", message, id)
		}
	}
}

// While clients ask, replicas join and leave, and no request fails.
func TestScalingUnderLoad(t *testing.T) {
	h := scaledOut(t, 3, 1, "")
	h.serves(h.replicas[0])
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for i := range 6 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if a := h.post("/v1/chat/completions", chat(llama, i%2 == 0, 8)); a.status != 200 || a.err != nil || i%2 == 0 && !strings.HasSuffix(a.body, "data: [DONE]\n\n") {
					t.Errorf("%d %s, %v", a.status, a.body, a.err)
					return
				}
			}
		})
	}
	for range 3 {
		h.name(h.replicas...)
		h.serves(h.replicas...)
		for _, s := range h.replicas {
			before := len(s.Requests())
			h.until("requests at "+s.Addr(), func() bool { return len(s.Requests()) > before })
		}
		h.name(h.replicas[0])
		h.serves(h.replicas[0])
	}
	close(stop)
	clients.Wait()
}

// A replica that leaves its name gets no more requests, and what it has ends by itself.
// When it is back its load is what still runs there.
func TestAddressLeavesMidStream(t *testing.T) {
	h := scaledOut(t, 2, 2, "")
	h.serves(h.replicas...)
	s := h.stream(llama, 4000)
	for s.replica != h.replicas[0].Addr() {
		s = h.stream(llama, 4000)
	}
	load := func() int64 { return h.Snapshot().Replica(s.replica).InFlight() }
	held := load()
	series := `lbd_inflight_requests{model="` + llama + `",replica="` + s.replica + `"}`
	for range 2 {
		h.name(h.replicas[1])
		h.serves(h.replicas[1])
		if got := h.spread(llama, 4); got[h.replicas[1].Addr()] != 4 {
			t.Errorf("answered by %v; want only %s", got, h.replicas[1].Addr())
		}
		if got := h.metric(series); got != fmt.Sprint(held) {
			t.Errorf("%s is %q while its stream runs; want %d", series, got, held)
		}
		h.name(h.replicas...)
		h.serves(h.replicas...)
		if n := load(); n != held {
			t.Errorf("own load is %d when it is back; want %d", n, held)
		}
	}
	h.name(h.replicas[1])
	h.serves(h.replicas[1])
	if n := s.finish(); n != 4000 {
		t.Errorf("%d tokens of 4000", n)
	}
}

// A server that fails, and answers without an address, take nobody out.
func TestNameThatFails(t *testing.T) {
	h := scaledOut(t, 2, 2, "")
	h.serves(h.replicas...)
	generation := h.Snapshot().Replica(h.replicas[0].Addr()).Replica
	for name, fail := range map[string]func(){
		"SERVFAIL": func() { h.zone.Fail(zone.ServFail) }, "NXDOMAIN": func() { h.zone.Fail(zone.NXDomain) }, "NODATA": func() { h.zone.Set(scaled) },
	} {
		fail()
		h.asked()
		if got := h.spread(llama, 4); len(got) != 2 {
			t.Errorf("%s: answered by %v; want both", name, got)
		}
		if err := h.Reload(); err != nil { // which asks as well
			t.Errorf("%s: reload: %v", name, err)
		}
		if !slices.Equal(h.inService(), urlless(h.replicas)) {
			t.Errorf("%s: after a reload %v serve; want both", name, h.inService())
		}
		h.name(h.replicas...)
		h.asked()
	}
	if h.Snapshot().Replica(h.replicas[0].Addr()).Replica != generation {
		t.Error("a replica was replaced")
	}
}

// A name that is not there at first is waited for, like replicas that are not.
func TestNameThatComesLater(t *testing.T) {
	h := scaledOut(t, 1, 0, "models: [{name: "+llama+", replicas: [{url: 'dns+http://vllm.test:PORT', weight: 3, device: gpu0, cache_tokens: 7}]}]\n")
	h.until("told", func() bool { return len(h.log.logged("name look-up failed")) == 1 })
	if a := h.get("/ready"); a.status != 503 {
		t.Errorf("/ready: %d %s; want 503", a.status, a.body)
	}
	if a := h.post("/v1/chat/completions", chat(llama, false, 1)); a.status != 503 {
		t.Errorf("%d %s; want 503", a.status, a.body)
	}
	h.name(h.replicas...)
	h.serves(h.replicas...)
	r := h.Snapshot().Replica(h.replicas[0].Addr())
	if r.Weight != 3 || r.Device != "gpu0" || r.CacheTokens != 7 {
		t.Errorf("%+v; want weight, device and cache_tokens of the name", r.Replica)
	}
	h.until("told", func() bool { return len(h.log.logged("name look-up recovered")) == 1 })
	if a := h.get("/ready"); a.status != 200 {
		t.Errorf("/ready: %d %s; want 200", a.status, a.body)
	}
}

// What is served behind a name without an address nobody knows: a client is to come back,
// and an operator sees the name.
func TestNobodyBehindTheNameYet(t *testing.T) {
	h := scaledOut(t, 1, 0, "")
	h.until("told", func() bool { return len(h.log.logged("name look-up failed")) == 1 })
	name := "dns+http://vllm.test:" + h.port
	a := h.post("/v1/chat/completions", chat(llama, false, 1))
	if want := "no model is known yet: no replica is there yet, and a name of replicas has no address"; a.status != 503 || a.header.Get("Retry-After") == "" || !strings.Contains(a.body, want) {
		t.Errorf("%d %v %s; want 503 with Retry-After and %q", a.status, a.header, a.body, want)
	}
	if a := h.get("/ready"); a.status != 503 || !strings.Contains(a.body, "addresses of "+name) {
		t.Errorf("/ready: %d %s; want 503 and the name", a.status, a.body)
	}
	h.name(h.replicas...)
	h.serves(h.replicas...)
	h.available(llama, h.replicas[0])
	if n := h.Snapshot().Unresolved; len(n) > 0 {
		t.Errorf("%q; want no name without an address", n)
	}
}

// The others serve while a name has no address; who asks for a model of nobody's hears
// that somebody may come.
func TestNobodyBehindOneNameYet(t *testing.T) {
	h := scaledOut(t, 1, 1, "endpoints: ['dns+http://vllm.test:PORT', 'dns+http://none.test:PORT']\n")
	h.available(llama, h.replicas[0])
	h.until("looked up", func() bool { return h.get("/ready").status == 200 })
	if a := h.post("/v1/chat/completions", chat(qwen, false, 1)); a.status != 404 || !strings.Contains(a.body, "Others may serve it later: a name of replicas has no address.") {
		t.Errorf("%d %s; want 404 and that a name has no address", a.status, a.body)
	}
	if got, want := h.Snapshot().Unresolved, []string{"dns+http://none.test:" + h.port}; !slices.Equal(got, want) {
		t.Errorf("without an address: %q; want %q", got, want)
	}
}

// An address that is also listed by hand is one replica, as it is listed there.
func TestAddressThatIsAlsoListed(t *testing.T) {
	h := scaledOut(t, 2, 2, `
endpoints: ['dns+http://vllm.test:PORT', 'dns+http://also.test:PORT']
models: [{name: `+llama+`, replicas: [{url: 'http://IP0:PORT', weight: 5}]}]
`)
	ip, _, _ := net.SplitHostPort(h.replicas[1].Addr())
	h.zone.Set("also.test", ip)
	h.serves(h.replicas...)
	h.until("the other name is known", func() bool { return len(h.log.logged("addresses changed")) == 2 })
	if n := len(h.Snapshot().Replicas); n != 2 {
		t.Errorf("%d replicas; want two", n)
	}
	if r := h.Snapshot().Replica(h.replicas[0].Addr()); r.Weight != 5 || r.Endpoint.Of() != "" {
		t.Errorf("%+v; want it as it is listed", r.Replica)
	}
	if r := h.Snapshot().Replica(h.replicas[1].Addr()); r.Endpoint.Of() != "dns+http://vllm.test:"+h.port {
		t.Errorf("%+v; want the address of the first name", r.Replica)
	}
}

// A reload keeps what names have given and what runs there, and one that brings a name
// brings its addresses with it: no request is without a replica in between.
func TestReloadOfNames(t *testing.T) {
	h := scaledOut(t, 2, 2, "endpoints: ['http://IP0:PORT', 'http://IP1:PORT']\nstrategy: cycle\n")
	h.serves(h.replicas...)
	h.write("endpoints: ['dns+http://vllm.test:PORT']\nstrategy: cycle\n")
	old := h.Snapshot().Replica(h.replicas[0].Addr()).Replica
	held := old.Reserve()
	if err := h.Reload(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(h.inService(), urlless(h.replicas)) {
		t.Errorf("%v serve after the reload; want both, at once", h.inService())
	}
	r := h.Snapshot().Replica(old.ID)
	if r.InFlight() != 1 || r.Endpoint.Of() == "" {
		t.Errorf("%+v with %d in flight; want the address of the name with 1", r.Endpoint, r.InFlight())
	}
	h.zone.Fail(zone.ServFail)
	h.write("endpoints: ['dns+http://vllm.test:PORT']\nstrategy: random\n")
	if err := h.Reload(); err != nil {
		t.Fatal(err)
	}
	if again := h.Snapshot().Replica(old.ID); again.Replica != r.Replica || !slices.Equal(h.inService(), urlless(h.replicas)) {
		t.Errorf("%v serve after another reload; want the same two", h.inService())
	}
	held.Done()
	h.write("endpoints: ['http://IP1:PORT']\n")
	if err := h.Reload(); err != nil {
		t.Fatal(err)
	}
	h.serves(h.replicas[1])
	before := h.zone.Asked(scaled)
	h.zone.Set("other.test")
	h.until("nobody asks for the name any more", func() bool { // what was under way may come in
		now := h.zone.Asked(scaled)
		defer func() { before = now }()
		return now == before
	})
}

// One that does not answer has the name looked up, long before the refresh.
func TestEjectionDoubtsTheName(t *testing.T) {
	h := scaledOut(t, 2, 1, "", "dns-refresh-interval", "1h")
	h.serves(h.replicas[0])
	h.name(h.replicas[1])
	h.replicas[0].Kill()
	h.serves(h.replicas[1])
}

// witness is a replica that notes by which names it is spoken to.
type witness struct {
	mu     sync.Mutex
	spoken map[string]string // path -> Host, server name and key
	from   map[string]string // path -> the client's end of the connection
}

// serve has it listen in TLS, with these as its certificate.
func (w *witness) serve(t *testing.T, f certstest.Paths) net.Listener {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		t.Fatal(err)
	}
	ln := loopback.Listen(t)
	srv := &http.Server{Handler: w, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}}
	var serving sync.WaitGroup
	serving.Go(func() { srv.ServeTLS(ln, "", "") })
	t.Cleanup(func() {
		srv.Close()
		serving.Wait()
	})
	return ln
}

func (w *witness) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	w.spoken[r.URL.Path] = r.Host + " " + r.TLS.ServerName + " " + r.Header.Get("Authorization")
	w.from[r.URL.Path] = r.RemoteAddr
	w.mu.Unlock()
	switch r.URL.Path {
	case "/base/v1/models":
		fmt.Fprintf(rw, `{"object":"list","data":[{"id":%q,"object":"model"}]}`, llama)
	case "/base/metrics", "/base/metrics/":
		fmt.Fprintln(rw, "vllm:num_requests_running 0\nvllm:num_requests_waiting 0")
	default:
		fmt.Fprint(rw, "{}")
	}
}

func (w *witness) knows(path string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.spoken[path]
}

// An address is spoken to as the name that it is of: Host, certificate and key are the
// name's, with requests, probes, polls and control calls.
func TestAddressIsSpokenToByName(t *testing.T) {
	ca := certstest.New(t, "ca")
	paths := ca.Write(t, t.TempDir(), scaled)
	w := &witness{spoken: map[string]string{}, from: map[string]string{}}
	ln := w.serve(t, paths)
	key := filepath.Join(t.TempDir(), "key")
	write(t, key, "key-of-the-name\n")
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	z := zone.Start(t)
	z.Set(scaled, ln.Addr().(*net.TCPAddr).IP.String())
	file := filepath.Join(t.TempDir(), "lbd.yml")
	write(t, file, fmt.Sprintf("models: [{name: %s, replicas: [{url: 'dns+https://%s:%s/base', api_key_file: %s, tls_ca_file: %s}]}]\n", llama, scaled, port, key, paths.CA))
	p := lbdAsking(t, z.Resolver(), func() (*config.Config, error) { return tryLoad(nil, "config", file) })
	id := ln.Addr().String() + "/base"
	p.until("in service", func() bool { r := p.Snapshot().Replica(id); return r != nil && r.Available() && r.Polled() != nil })
	if a := p.post("/v1/chat/completions", chat(llama, false, 1)); a.status != 200 || a.header.Get("X-Lbd-Replica") != id {
		t.Errorf("%d %s by %q; want %s", a.status, a.body, a.header.Get("X-Lbd-Replica"), id)
	}
	if a := p.onAdmin("POST", "/replicas/"+strings.ReplaceAll(id, "/", "%2F")+"/reset_prefix_cache", ""); a.status != 200 {
		t.Errorf("control call: %d %s", a.status, a.body)
	}
	want := scaled + ":" + port + " " + scaled + " Bearer key-of-the-name"
	for _, path := range []string{"/base/health", "/base/v1/models", "/base/metrics/", "/base/v1/chat/completions", "/base/reset_prefix_cache"} {
		p.until("asked for "+path, func() bool { return w.knows(path) != "" })
		if got := w.knows(path); got != want {
			t.Errorf("%s: spoken to as %q; want %q", path, got, want)
		}
	}
}

// Connections in TLS to the addresses of a name stay in use while nothing has changed.
func TestConnectionsToAddressesLast(t *testing.T) {
	ca := certstest.New(t, "ca")
	paths := ca.Write(t, t.TempDir(), scaled)
	w := &witness{spoken: map[string]string{}, from: map[string]string{}}
	ln := w.serve(t, paths)
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	z := zone.Start(t)
	z.Set(scaled, ln.Addr().(*net.TCPAddr).IP.String())
	p := lbdAsking(t, z.Resolver(), func() (*config.Config, error) {
		return tryLoad([]string{"dns+https://" + scaled + ":" + port + "/base"}, "upstream-tls-ca-file", paths.CA, "upstream-idle-timeout", "1h")
	})
	p.until("in service", func() bool { return len(available(p, llama)) == 1 })
	made := map[string]bool{}
	for range 3 {
		p.post("/v1/chat/completions", chat(llama, false, 1))
		w.mu.Lock()
		made[w.from["/base/v1/chat/completions"]] = true
		w.mu.Unlock()
		daemon.Forget(p.Daemon, p.Snapshot())
	}
	if len(made) != 1 {
		t.Errorf("three requests came by %d connections; want one", len(made))
	}
}

// An address that is another name's from now on has to show that name's certificate, to
// polls as well, whose connection is in use all the time.
func TestAddressOfAnotherName(t *testing.T) {
	ca := certstest.New(t, "ca")
	paths := ca.Write(t, t.TempDir(), scaled)
	w := &witness{spoken: map[string]string{}, from: map[string]string{}}
	ln := w.serve(t, paths)
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	z := zone.Start(t)
	z.Set(scaled, ln.Addr().(*net.TCPAddr).IP.String())
	z.Set("other.test", ln.Addr().(*net.TCPAddr).IP.String())
	file := filepath.Join(t.TempDir(), "lbd.yml")
	write(t, file, "endpoints: ['dns+https://"+scaled+":"+port+"/base']\n")
	p := lbdAsking(t, z.Resolver(), func() (*config.Config, error) {
		return tryLoad(nil, "config", file, "upstream-tls-ca-file", paths.CA, "models-poll-interval", "1h")
	})
	id := ln.Addr().String() + "/base"
	p.until("polled", func() bool { r := p.Snapshot().Replica(id); return r != nil && r.Polled() != nil })
	write(t, file, "endpoints: ['dns+https://other.test:"+port+"/base']\n")
	if err := p.Reload(); err != nil {
		t.Fatal(err)
	}
	p.until("polls refused for the certificate", func() bool { return p.metric(`lbd_poll_failures_total{replica="`+id+`"}`) > "0" })
}

// The roster of names is made of whatever DNS says, and the fleet takes it.
func TestManyAddresses(t *testing.T) {
	h := scaledOut(t, 2, 0, "")
	ips := []string{}
	for i := range 100 { // more than UDP carries
		ips = append(ips, fmt.Sprintf("127.9.9.%d", i))
	}
	h.zone.Set(scaled, ips...)
	h.until("a hundred replicas", func() bool { return len(h.Snapshot().Replicas) == 100 })
	h.name(h.replicas...)
	h.serves(h.replicas...)
	if n := len(h.Snapshot().Replicas); n != 2 {
		t.Errorf("%d replicas; want two", n)
	}
	if s := h.Snapshot().Replicas[0]; s.Health.State != balancer.Healthy {
		t.Errorf("%+v", s)
	}
}
