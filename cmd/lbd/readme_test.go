package main

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
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

// The second column of that table is the labels of the first one's metrics.
func TestReadmeListsEveryLabel(t *testing.T) {
	labels := catalogue()
	rows := 0
	for line := range strings.Lines(readme(t)) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 || !metricName.MatchString(cells[1]) {
			continue
		}
		rows++
		listed := strings.FieldsFunc(cells[2], func(r rune) bool { return r == ' ' || r == ',' })
		slices.Sort(listed)
		for _, m := range metricName.FindAllStringSubmatch(cells[1], -1) {
			if diff := cmp.Diff(labels[m[1]], listed, cmpopts.EquateEmpty()); diff != "" && m[1] != "lbd_build_info" {
				t.Errorf("labels of %s (-exported +listed):\n%s", m[1], diff)
			}
		}
	}
	if rows == 0 {
		t.Fatal("no row of a metric in the README")
	}
}

func exportedMetrics(t *testing.T) []string {
	t.Helper()
	return slices.Collect(maps.Keys(catalogue()))
}

// catalogue asks the instruments themselves for names and labels, whether or not a
// series exists yet.
func catalogue() describer {
	r := describer{}
	metrics.New(r, "test")
	r.MustRegister(metrics.NewFleetCollector(func() *balancer.Snapshot { return balancer.NewSnapshot(0, nil, nil) },
		func(string) uint64 { return 0 }))
	r.MustRegister(metrics.NewKeyCollector(func() []metrics.KeyUsage { return nil }))
	r.MustRegister(metrics.NewAffinityCollector(func() []metrics.AffinityUsage { return nil }))
	r.MustRegister(metrics.NewConnectionCollector(func() metrics.Connections { return metrics.Connections{} }))
	return r
}

// describer is a registry that only wants to know names and labels, sorted.
type describer map[string][]string

var described = regexp.MustCompile(`fqName: "([^"]+)".*variableLabels: \{([^}]*)\}`)

func (d describer) Register(c prometheus.Collector) error {
	ch := make(chan *prometheus.Desc, 64)
	c.Describe(ch)
	close(ch)
	for desc := range ch {
		text := described.FindStringSubmatch(desc.String())
		labels := strings.FieldsFunc(text[2], func(r rune) bool { return r == ',' })
		slices.Sort(labels)
		d[text[1]] = labels
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
