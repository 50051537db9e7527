package lbd_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "lbd/"

// arrow says what one package, or all below a folder ("bench/..."), may import:
// packages of this module, and modules or packages of others. The standard library
// is always allowed. The first arrow that fits a package is its.
type arrow struct {
	from string
	to   []string
	why  string
}

// Modules of others that arrows name.
const (
	fasthttp   = "github.com/valyala/fasthttp"
	client     = "github.com/prometheus/client_golang"
	exposition = "github.com/prometheus/common"
	zerolog    = "github.com/rs/zerolog"
	unix       = "golang.org/x/sys/unix"
)

var arrows = []arrow{
	{"balancer", nil, "everything above speaks its words, so it depends on nobody"},
	{"balancer/fleet", []string{"balancer"}, "it is told what happens by interfaces of its callers, so that each can be tested alone"},
	{"balancer/health", []string{"balancer"}, "it is told what happens by interfaces of its callers, so that each can be tested alone"},
	{"balancer/prefix", []string{"balancer"}, "it is told what happens by interfaces of its callers, so that each can be tested alone"},
	{"balancer/strategy", []string{"balancer", "balancer/prefix"}, "strategies run unchanged in bench/replay, without a network, a fleet or a clock of their own"},
	{"affinity", []string{"balancer"}, "it wraps strategies and reads the fleet's picture; what a client's headers and bodies look like is the proxy's business"},
	{"access", nil, "it only lists its parts"},
	{"access/...", []string{"access/..."}, "who may do what is decided by what a request carries: no server, no load and no configuration has a part in it"},
	{"names", nil, "where a host is depends on nothing but the resolver; proxy, health and poll are handed it by cmd"},
	{"metrics", []string{"balancer", client}, "the catalogue knows the fleet's words and no party that counts"},
	{"metrics/poll", []string{"balancer", fasthttp, exposition}, "the poller turns vLLM's metrics into load and has no use for lbd's own"},
	{"proxy/internal/...", []string{"proxy/internal/...", fasthttp, unix}, "bytes and connections know nothing of replicas or metrics"},
	{"admission", []string{"balancer"}, "a queue orders requests and is told of places; what a request looks like is its caller's business"},
	{"proxy", []string{"access/...", "admission", "affinity", "balancer", "balancer/prefix", "metrics", "proxy/internal/...", fasthttp, client, exposition, zerolog},
		"the data plane sees fleet and health as interfaces; who they are is cmd's choice"},
	{"admin", []string{"balancer", "metrics", zerolog}, "the admin listener sees fleet, proxy and configuration as interfaces and functions; it works with any"},
	{"bench/sim/engine", nil, "the model of vLLM must run in virtual time and prove lbd without sharing a line with it"},
	{"bench/sim", []string{"bench/sim/engine"}, "a simulated replica that shared code with lbd would share its mistakes"},
	{"bench/load", nil, "a client that shared code with lbd would share its mistakes"},
	{"bench/trace", nil, "traces are data; both replay and load read them"},
	{"bench/replay/overhttp", []string{"bench/replay", "balancer/strategy", "bench/sim", "bench/load", "bench/trace"},
		"it holds replay against the daemon, which it runs as a process"},
	{"bench/replay/...", []string{"bench/replay/...", "balancer", "balancer/strategy", "balancer/prefix", "bench/sim", "bench/sim/engine", "bench/trace"},
		"replay runs the real strategies in virtual time: proxy, fleet and metrics have no part in it"},
	{"bench/wire", []string{unix}, "what measures the wire stands beside it: system calls, and processes it starts"},
	{"bench/...", []string{"bench/..."}, "tools around the benchmarks read results, not lbd"},
	{"cmd/lbd/internal/config", []string{"balancer", "access/...", "admission", "github.com/knadh/koanf", "github.com/spf13/pflag", "go.yaml.in/yaml"},
		"only daemon turns the configuration into the parts of each package"},
	{"internal/loopback", nil, "it hands tests their addresses, and no more"},
	{"internal/zone", nil, "it answers tests as a DNS server, and no more"},
	{"compose", nil, "the environments are files; only their tests are Go"},
	{"deploy", nil, "what is installed is files; only their tests are Go"},
	{"scripts", nil, "scripts are shell; only their tests are Go"},
	{"scripts/bom", nil, "it reads what a release is made of, and is no part of it"},
	{"cmd/...", []string{"..."}, ""},
}

// pkg is what go list says of a package.
type pkg struct {
	ImportPath, Doc string
	Imports, Deps   []string
}

// listed returns the packages of the module and, by path, everything they
// depend on.
func listed(t *testing.T) (own []pkg, standard map[string]bool) {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-deps", "-json=ImportPath,Doc,Imports,Deps,Standard", "./...")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	standard = map[string]bool{"C": true}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			pkg
			Standard bool
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		standard[p.ImportPath] = p.Standard
		if strings.HasPrefix(p.ImportPath, module) {
			own = append(own, p.pkg)
		}
	}
	if len(own) < 10 {
		t.Fatalf("go list found %d packages", len(own))
	}
	return own, standard
}

// fits tells whether a package is meant by a pattern of arrow.
func fits(pattern, path string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "..."); ok {
		return prefix == "" || strings.HasPrefix(path, prefix) || path == strings.TrimSuffix(prefix, "/")
	}
	return pattern == path
}

// allows tells whether an arrow reaches an import.
func (a *arrow) allows(imported string) bool {
	name, own := strings.CutPrefix(imported, module)
	return slices.ContainsFunc(a.to, func(to string) bool {
		if own {
			return fits(to, name)
		}
		return to == "..." || imported == to || strings.HasPrefix(imported, to+"/")
	})
}

func arrowOf(path string) *arrow {
	i := slices.IndexFunc(arrows, func(a arrow) bool { return fits(a.from, path) })
	if i < 0 {
		return nil
	}
	return &arrows[i]
}

// forbidden lists what is wrong with the imports of a package.
func forbidden(p pkg, standard map[string]bool) (faults []string) {
	path := strings.TrimPrefix(p.ImportPath, module)
	a := arrowOf(path)
	if a == nil {
		return []string{fmt.Sprintf("%s has no arrow; want a row in arrows_test.go that says what it may import and why", path)}
	}
	for _, imported := range p.Imports {
		name := strings.TrimPrefix(imported, module)
		switch {
		case fits("internal/loopback", name), fits("internal/zone", name):
			faults = append(faults, fmt.Sprintf("%s -> %s is forbidden: only tests import it, or lbd would ship the testing package", path, name))
		case standard[imported] || a.allows(imported):
		case fits("bench/...", name) && !fits("bench/...", path):
			faults = append(faults, fmt.Sprintf("%s -> %s is forbidden: only cmd and tests import bench, or lbd would ship what judges it", path, name))
		default:
			faults = append(faults, fmt.Sprintf("%s -> %s is forbidden: %s (it may import %q)", path, name, a.why, a.to))
		}
	}
	return faults
}

func TestArrows(t *testing.T) {
	own, standard := listed(t)
	for _, p := range own {
		for _, fault := range forbidden(p, standard) {
			t.Error(fault)
		}
	}
}

// Below balancer nothing may come in through a third package either.
func TestBalancerIsPlain(t *testing.T) {
	own, standard := listed(t)
	for _, p := range own {
		if !fits("balancer/...", strings.TrimPrefix(p.ImportPath, module)) {
			continue
		}
		for _, dep := range p.Deps {
			if !standard[dep] && !strings.HasPrefix(dep, module+"balancer") {
				t.Errorf("%s depends on %s: strategies run in bench/replay, without a network and without a configuration", p.ImportPath, dep)
			}
		}
	}
}

func TestEveryPackageHasADoc(t *testing.T) {
	own, _ := listed(t)
	for _, p := range own {
		if p.Doc == "" {
			t.Errorf("%s has no package comment; want what it is, the invariant it keeps and an example line", p.ImportPath)
		}
	}
}

// The rules catch what they are there for.
func TestArrowsCatch(t *testing.T) {
	standard := map[string]bool{"net/http": true}
	for _, c := range []struct{ from, to, want string }{
		{"balancer", "lbd/metrics", "depends on nobody"},
		{"balancer/strategy", "lbd/balancer/fleet", "without a network"},
		{"balancer/health", zerolog, "by interfaces"},
		{"balancer/strategy/rivals", "net/http", "has no arrow"},
		{"metrics", "lbd/metrics/poll", "no party that counts"},
		{"metrics/poll", "lbd/metrics", "no use for lbd's own"},
		{"proxy", "lbd/balancer/fleet", "as interfaces"},
		{"proxy", "lbd/bench/sim", "only cmd and tests import bench"},
		{"proxy/internal/relay", "lbd/balancer", "know nothing of replicas"},
		{"admin", "lbd/balancer/fleet", "as interfaces"},
		{"admin", "lbd/proxy", "as interfaces"},
		{"bench/sim/engine", "lbd/bench/sim", "virtual time"},
		{"bench/sim", "lbd/proxy", "share its mistakes"},
		{"bench/replay", "lbd/proxy", "have no part"},
		{"cmd/lbd/internal/config", "lbd/proxy", "only daemon"},
		{"proxy", "lbd/internal/loopback", "only tests import it"},
		{"cmd/lbd/internal/daemon", "lbd/internal/loopback", "only tests import it"},
		{"bench/load", "lbd/internal/loopback", "only tests import it"},
		{"names", "lbd/internal/zone", "only tests import it"},
		{"balancer", "net/http", ""},
		{"balancer/strategy", "lbd/balancer/prefix", ""},
		{"bench/replay/rivals", "lbd/balancer/strategy", ""},
		{"cmd/lbd", "lbd/bench/sim", ""},
		{"proxy", "github.com/valyala/fasthttp/reuseport", ""},
	} {
		got := strings.Join(forbidden(pkg{ImportPath: module + c.from, Imports: []string{c.to}}, standard), "\n")
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s -> %s: %q; want %q", c.from, c.to, got, c.want)
		}
	}
}
