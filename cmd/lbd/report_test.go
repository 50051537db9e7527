package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const reportData = "../../bench/report/testdata"

// resultsOf puts copies of a results file of lbd bench below a directory, changed
// by the pairs of old and new text.
func resultsOf(t *testing.T, root, env string, repeats int, change ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(reportData, "lbd/results.json"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(change...).Replace(string(b))
	dir := filepath.Join(root, env)
	for i := range repeats {
		sub := filepath.Join(dir, string(rune('a'+i)))
		if err := os.MkdirAll(sub, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sub, "results.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestReportWritesPageAndFigures(t *testing.T) {
	root := t.TempDir()
	baseline, managed := resultsOf(t, root, "baseline", 2), resultsOf(t, root, "managed", 2)
	doc := filepath.Join(root, "out.json")
	got := lbd(t, "report", baseline, managed, "--note", "Simulated.", "--json", doc, "--draws", "100")
	if got.code != 0 || !strings.Contains(got.stdout, "managed and baseline are equal") || !strings.Contains(got.stdout, "Simulated.") {
		t.Errorf("exit %d\n%s%s", got.code, got.stdout, got.stderr)
	}
	page, err := os.ReadFile(filepath.Join(root, "report.html"))
	if err != nil || !strings.Contains(string(page), "baseline against managed") {
		t.Errorf("page of %d bytes, %v", len(page), err)
	}
	if b, err := os.ReadFile(doc); err != nil || !json.Valid(b) {
		t.Errorf("JSON of %d bytes, %v", len(b), err)
	}
	if left, _ := filepath.Glob(filepath.Join(root, ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestReportExits(t *testing.T) {
	for _, c := range []struct {
		name string
		args func(root string) []string
		code int
		want string
	}{
		{"workloads differ", func(root string) []string {
			return []string{resultsOf(t, root, "a", 1), resultsOf(t, root, "b", 1, "poisson 10/s", "poisson 20/s")}
		}, 1, "arrival: poisson 10/s in a, poisson 20/s in b"},
		{"generator late", func(root string) []string {
			return []string{resultsOf(t, root, "a", 2), resultsOf(t, root, "b", 2, `"lateness_ms":{"count":24,"mean":`, `"lateness_ms":{"p99":80,"count":24,"mean":`, `"p99":5.5`, `"p99":85.5`)}
		}, 3, "not to be trusted"},
		{"interrupted", func(root string) []string {
			return []string{resultsOf(t, root, "a", 2, `"interrupted":false`, `"interrupted":true`)}
		}, 3, "interrupted"},
		{"nothing there", func(root string) []string { return []string{root} }, 1, "no results below"},
		{"no directory", func(root string) []string { return []string{filepath.Join(root, "absent")} }, 1, "absent"},
		{"no arguments", func(string) []string { return nil }, 1, "an argument is missing; want lbd report DIR..."},
		{"draws", func(root string) []string { return []string{root, "--draws", "1"} }, 1, "--draws 1; want at least 100"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			got := lbd(t, append([]string{"report", "--draws", "100"}, c.args(root)...)...)
			if got.code != c.code || !strings.Contains(got.stdout+got.stderr, c.want) {
				t.Errorf("exit %d; want %d and %q\n%s%s", got.code, c.code, c.want, got.stdout, got.stderr)
			}
		})
	}
}

func TestAggregate(t *testing.T) {
	got := lbd(t, "aggregate", "2", "--dir", filepath.Join(reportData, "guidellm-0.7.3"), "--show-details")
	if got.code != 0 || !strings.Contains(got.stdout, "2 workers") || !strings.Contains(got.stdout, "1.json") {
		t.Errorf("exit %d\n%s%s", got.code, got.stdout, got.stderr)
	}
	file := filepath.Join(reportData, "vllm/result.json")
	got = lbd(t, "aggregate", file, file, "--json", "--use-total")
	if got.code != 0 || !json.Valid([]byte(got.stdout)) {
		t.Errorf("exit %d\n%s%s", got.code, got.stdout, got.stderr)
	}
}

// Every missing and every empty file is named.
func TestAggregateNamesWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	b, err := os.ReadFile(filepath.Join(reportData, "guidellm-0.3.1/0.json"))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"0.json": b, "2.json": nil, "3.json": []byte("{}")} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := lbd(t, "aggregate", "4", "--dir", dir)
	if got.code != 1 {
		t.Errorf("exit %d; want 1", got.code)
	}
	for _, want := range []string{"1.json: no such file", "2.json is empty", "3.json: no result of guidellm or vllm bench serve"} {
		if !strings.Contains(got.stderr, want) {
			t.Errorf("%q lacks %q", got.stderr, want)
		}
	}
	if got.stdout != "" {
		t.Errorf("a sum of some: %s", got.stdout)
	}
	for _, args := range [][]string{{"0"}, {"-1"}, {"100000"}} {
		if got := lbd(t, append([]string{"aggregate"}, args...)...); got.code != 1 {
			t.Errorf("aggregate %v: exit %d; want 1", args, got.code)
		}
	}
}
