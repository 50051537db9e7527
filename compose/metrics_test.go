package compose

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"

	"lbd/balancer"
	"lbd/metrics"
)

// names maps the names that a query can use to their labels.
type names map[string][]string

// add takes the series of a family in, under the names Prometheus gives them.
func (n names) add(f *dto.MetricFamily) {
	for _, m := range f.Metric {
		labels := []string{}
		for _, l := range m.Label {
			labels = append(labels, l.GetName())
		}
		if f.GetType() == dto.MetricType_HISTOGRAM {
			n[f.GetName()+"_bucket"] = append(labels, "le")
			n[f.GetName()+"_sum"], n[f.GetName()+"_count"] = labels, labels
		} else {
			n[f.GetName()] = labels
		}
	}
}

// lbdNames are what the catalogue of package metrics exports for a fleet of one
// replica.
func lbdNames(t *testing.T) names {
	t.Helper()
	e, err := balancer.ParseEndpoint("http://r:8000")
	if err != nil {
		t.Fatal(err)
	}
	r := balancer.NewReplica(e, "", 1)
	k := balancer.Known(1)
	r.EndPoll(r.BeginPoll(), balancer.Sample{Waiting: k, Running: k, KVUsage: k, PrefixQueries: k, PrefixHits: k}, time.Now())
	snap := balancer.NewSnapshot(1, []balancer.ReplicaState{{Replica: r}}, []*balancer.Model{{Name: "m", Replicas: []*balancer.Replica{r}}})
	reg := prometheus.NewRegistry()
	m := metrics.New(reg, "v1")
	reg.MustRegister(metrics.NewFleetCollector(func() *balancer.Snapshot { return snap }, func(string) uint64 { return 0 }))
	m.Retain(map[string]bool{"m": true}, map[string]bool{r.ID: true})
	m.Model("m").Answered(200)
	m.Pair("m", r.ID, "cycle").Picks.Inc()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	n := names{}
	for _, f := range families {
		n.add(f)
	}
	return n
}

// vllmNames are what a release of vLLM exports, as the simulated replica's own
// tests hold it.
func vllmNames(t *testing.T, release string) names {
	t.Helper()
	page := read(t, "../bench/sim/testdata/"+release+"_metrics.txt")
	// The values that depend on the clock are written as TIME there.
	page = strings.ReplaceAll(page, " TIME\n", " 1\n")
	p := expfmt.NewTextParser(model.UTF8Validation)
	families, err := p.TextToMetricFamilies(strings.NewReader(page))
	if err != nil {
		t.Fatalf("%s: %v", release, err)
	}
	n := names{}
	for _, f := range families {
		n.add(f)
	}
	return n
}

// query is one expression of the dashboard or of an alert.
type query struct{ where, expr string }

type rule struct {
	Alert, Expr         string
	Labels, Annotations map[string]string
}

func alerts(t *testing.T) (rules []rule) {
	t.Helper()
	var file struct{ Groups []struct{ Rules []rule } }
	if err := yaml.Unmarshal([]byte(read(t, "prometheus/alerts.yml")), &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		rules = append(rules, g.Rules...)
	}
	if len(rules) < 10 {
		t.Fatalf("%d alerts", len(rules))
	}
	return rules
}

type dashboard struct {
	Panels     []panel
	Templating struct {
		List []struct {
			Name, Definition string
			Datasource       source
		}
	}
	Annotations struct{ List []struct{ Expr string } }
}

type panel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ X, Y, W, H int }
	Datasource               source
	Targets                  []struct {
		Expr       string
		Datasource source
	}
}

type source struct{ Type, UID string }

func board(t *testing.T) (d dashboard) {
	t.Helper()
	if err := json.Unmarshal([]byte(read(t, "grafana/dashboards/lbd.json")), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// queries lists every expression of the dashboard and of the alerts.
func queries(t *testing.T) (all []query) {
	t.Helper()
	for _, r := range alerts(t) {
		all = append(all, query{"alert " + r.Alert, r.Expr})
	}
	d := board(t)
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			all = append(all, query{"panel " + p.Title, target.Expr})
		}
	}
	for _, v := range d.Templating.List {
		all = append(all, query{"variable " + v.Name, v.Definition})
	}
	if len(all) < 40 {
		t.Fatalf("%d queries", len(all))
	}
	return all
}

var (
	metric = regexp.MustCompile(`\b(?:lbd_|vllm:)[a-z_:]+`)
	// selector is a metric with its matchers.
	selector = regexp.MustCompile(`\b((?:lbd_|vllm:)[a-z_:]+)\{([^}]*)\}`)
	matcher  = regexp.MustCompile(`([a-z_]+)\s*(?:=~|!~|!=|=)`)
)

// attached are the labels that Prometheus adds: those of the target and, on
// vLLM's series, model from model_name.
var attached = []string{"environment", "instance", "job", "replica"}

func TestQueriesNameWhatIsExported(t *testing.T) {
	own := lbdNames(t)
	releases := map[string]names{"v0.6.4": vllmNames(t, "v0.6.4"), "v0.19": vllmNames(t, "v0.19")}
	for _, q := range queries(t) {
		var vllm []string
		for _, name := range metric.FindAllString(q.expr, -1) {
			if strings.HasPrefix(name, "vllm:") {
				vllm = append(vllm, name)
			} else if own[name] == nil {
				t.Errorf("%s asks for %s, which lbd does not export", q.where, name)
			}
		}
		for release, exported := range releases {
			if len(vllm) > 0 && !slices.ContainsFunc(vllm, func(name string) bool { return exported[name] != nil }) {
				t.Errorf("%s shows nothing of vLLM %s: it has none of %q", q.where, release, vllm)
			}
		}
		for _, name := range vllm {
			if releases["v0.6.4"][name] == nil && releases["v0.19"][name] == nil {
				t.Errorf("%s asks for %s, which neither release exports", q.where, name)
			}
		}
	}
}

func TestQueriesMatchLabelsThatExist(t *testing.T) {
	own := lbdNames(t)
	vllm := vllmNames(t, "v0.19")
	for name, labels := range vllmNames(t, "v0.6.4") {
		vllm[name] = append(vllm[name], labels...)
	}
	for _, q := range queries(t) {
		for _, s := range selector.FindAllStringSubmatch(q.expr, -1) {
			labels := slices.Concat(own[s[1]], vllm[s[1]], attached)
			if slices.Contains(labels, "model_name") {
				labels = append(labels, "model")
			}
			for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
				if !slices.Contains(labels, m[1]) {
					t.Errorf("%s: %s has no label %s; it has %q", q.where, s[1], m[1], labels)
				}
			}
		}
	}
}

// Whatever lbd counts is to be seen somewhere.
func TestDashboardShowsEveryMetric(t *testing.T) {
	var text strings.Builder
	for _, q := range queries(t) {
		text.WriteString(q.expr + "\n")
	}
	for name := range lbdNames(t) {
		if strings.HasSuffix(name, "_sum") || strings.HasSuffix(name, "_count") {
			continue
		}
		if !regexp.MustCompile(`\b` + name + `\b`).MatchString(text.String()) {
			t.Errorf("%s is in no panel and no alert", name)
		}
	}
}

func TestDashboardLayout(t *testing.T) {
	var sources struct{ Datasources []source }
	if err := yaml.Unmarshal([]byte(read(t, "grafana/provisioning/datasources/prometheus.yml")), &sources); err != nil {
		t.Fatal(err)
	}
	want := sources.Datasources[0]
	ids, taken := map[int]string{}, map[[2]int]string{}
	for _, p := range board(t).Panels {
		if other := ids[p.ID]; other != "" {
			t.Errorf("panels %q and %q have id %d", other, p.Title, p.ID)
		}
		ids[p.ID] = p.Title
		if p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %q is wider than the page", p.Title)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" {
					t.Fatalf("panel %q covers %q", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Description == "" || len(p.Targets) == 0 {
			t.Errorf("panel %q has description %q and %d queries", p.Title, p.Description, len(p.Targets))
		}
		for _, q := range p.Targets {
			if q.Datasource != want {
				t.Errorf("panel %q asks %+v; provisioned is %+v", p.Title, q.Datasource, want)
			}
		}
	}
}

func TestAlertsSayWhatToDo(t *testing.T) {
	manual := read(t, "README.md")
	for _, r := range alerts(t) {
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s has annotations %q", r.Alert, r.Annotations)
		}
		if s := r.Labels["severity"]; s != "critical" && s != "warning" {
			t.Errorf("%s has severity %q", r.Alert, s)
		}
		if !strings.Contains(manual, "| `"+r.Alert+"` |") {
			t.Errorf("README.md does not say what to do about %s", r.Alert)
		}
	}
}

// Every target is a service of the environment, under the label that lbd gives
// its replica.
func TestTargets(t *testing.T) {
	for _, file := range environments {
		var groups []struct {
			Targets []string
			Labels  map[string]string
		}
		if err := yaml.Unmarshal([]byte(read(t, "prometheus/targets/"+file)), &groups); err != nil {
			t.Fatal(err)
		}
		p := load(t, file, token)
		scraped := map[string]bool{}
		for _, g := range groups {
			for _, target := range g.Targets {
				host, port, _ := strings.Cut(target, ":")
				scraped[host] = true
				s := service(t, p, host)
				if !slices.ContainsFunc(published(s), func(p string) bool { return strings.HasSuffix(p, ":"+port) }) {
					t.Errorf("%s: %s listens on %q, not on %s", file, host, published(s), port)
				}
				if g.Labels["job"] == "vllm" && !knows(t, p.Services[lbOf(file, host)], g.Labels["replica"]) {
					t.Errorf("%s: lbd does not know %s as %q", file, target, g.Labels["replica"])
				}
			}
		}
		var want, got []string
		for _, name := range p.ServiceNames() {
			if name != "prometheus" && name != "grafana" {
				want = append(want, name)
			}
			if scraped[name] {
				got = append(got, name)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: services (-there +scraped):\n%s", file, diff)
		}
	}
}

// lbOf is the lbd in front of a replica: of several in one file, the one whose
// environment stands before the replica's name.
func lbOf(file, host string) string {
	for _, lb := range lbs[file] {
		if len(lbs[file]) == 1 || strings.HasPrefix(host, strings.TrimSuffix(lb, "lb")) {
			return lb
		}
	}
	return ""
}

func knows(t *testing.T, lb types.ServiceConfig, replica string) bool {
	t.Helper()
	return slices.Contains(endpoints(t, lb), strings.TrimSuffix(replica, ":8000"))
}

// promtool runs where it is installed: it needs Prometheus's packages.
func TestPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed; CI without it checks names and labels only")
	}
	for _, args := range [][]string{{"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"}, {"check", "config", "--syntax-only", "prometheus.yml"}} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = "prometheus"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %q: %v\n%s", args, err, out)
		}
	}
}

// The dashboard's queries as rules, so that promtool reads their syntax.
func TestDashboardSyntax(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed")
	}
	type record struct {
		Record string `yaml:"record"`
		Expr   string `yaml:"expr"`
	}
	fill := strings.NewReplacer("$__rate_interval", "1m", "$environment", ".*", "$model", ".*")
	var rules []record
	for _, p := range board(t).Panels {
		for _, q := range p.Targets {
			rules = append(rules, record{"panel", fill.Replace(q.Expr)})
		}
	}
	file := map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}}
	text, err := yaml.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	rulesFile := filepath.Join(t.TempDir(), "dashboard.yml")
	if err := os.WriteFile(rulesFile, text, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(promtool, "check", "rules", "--lint=none", rulesFile)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}
