package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"lbd/balancer"
	"lbd/balancer/strategy"
	"lbd/metrics"
)

func readme(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Every YAML block of the README is a configuration that lbd accepts.
func TestReadmeConfigurationsLoad(t *testing.T) {
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(readme(t), -1)
	if len(blocks) == 0 {
		t.Fatal("no YAML block in the README")
	}
	for _, b := range blocks {
		file := filepath.Join(t.TempDir(), "lbd.yml")
		if err := os.WriteFile(file, []byte(b[1]), 0o600); err != nil {
			t.Fatal(err)
		}
		var out, errs strings.Builder
		if code := run(t.Context(), []string{"check", "--config", file}, &out, &errs); code != 0 {
			t.Errorf("lbd check says %d: %s\n%s", code, errs.String(), b[1])
		}
	}
}

func TestReadmeListsEveryStrategy(t *testing.T) {
	text := readme(t)
	for _, name := range strategy.Names() {
		if !regexp.MustCompile("(?m)^\\| `" + name + "`.*\\|").MatchString(text) {
			t.Errorf("strategy %s has no row", name)
		}
	}
}

var metricName = regexp.MustCompile("`(lbd_[a-z_]+)`")

// The table of metrics names what lbd exports, and nothing else.
func TestReadmeListsEveryMetric(t *testing.T) {
	exported := exportedMetrics(t)
	var listed []string
	for line := range strings.Lines(readme(t)) {
		if strings.HasPrefix(line, "|") {
			for _, m := range metricName.FindAllStringSubmatch(line, -1) {
				listed = append(listed, m[1])
			}
		}
	}
	for _, name := range exported {
		if !slices.Contains(listed, name) {
			t.Errorf("metric %s has no row", name)
		}
	}
	for _, name := range listed {
		if !slices.Contains(exported, name) {
			t.Errorf("the README lists %s, which lbd does not export", name)
		}
	}
}

// exportedMetrics asks the catalogue itself, whether or not a series exists yet.
func exportedMetrics(t *testing.T) []string {
	t.Helper()
	r := describer{}
	metrics.New(r, "test")
	r.MustRegister(metrics.NewFleetCollector(func() *balancer.Snapshot { return balancer.NewSnapshot(0, nil, nil) },
		func(string) uint64 { return 0 }))
	r.MustRegister(metrics.NewKeyCollector(func() []metrics.KeyUsage { return nil }))
	r.MustRegister(metrics.NewAffinityCollector(func() []metrics.AffinityUsage { return nil }))
	r.MustRegister(metrics.NewConnectionCollector(func() metrics.Connections { return metrics.Connections{} }))
	names := make([]string, 0, len(r))
	for name := range r {
		names = append(names, name)
	}
	return names
}

// describer is a registry that only wants to know the names.
type describer map[string]bool

var fqName = regexp.MustCompile(`fqName: "([^"]+)"`)

func (d describer) Register(c prometheus.Collector) error {
	ch := make(chan *prometheus.Desc, 64)
	c.Describe(ch)
	close(ch)
	for desc := range ch {
		d[fqName.FindStringSubmatch(desc.String())[1]] = true
	}
	return nil
}

func (d describer) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		d.Register(c)
	}
}

func (d describer) Unregister(prometheus.Collector) bool { return false }

func TestReadmeListsEveryCommand(t *testing.T) {
	text := readme(t)
	for _, cmd := range newRootCommand().Commands() {
		if isOwn(cmd) && !strings.Contains(text, "`lbd "+cmd.Name()) {
			t.Errorf("command %s is not in the README", cmd.Name())
		}
	}
}

func isOwn(cmd *cobra.Command) bool {
	return !cmd.Hidden && cmd.Name() != "help" && cmd.Name() != "completion"
}
