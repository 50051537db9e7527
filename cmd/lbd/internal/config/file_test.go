package config

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// golden compares got with a file, which -update rewrites.
func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got; -update rewrites it):\n%s", path, diff)
	}
}

func testdata(t *testing.T, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", pattern))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no testdata for %s: %v", pattern, err)
	}
	return paths
}

func loadFile(t *testing.T, path string) (*Config, error) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	strategies := testStrategies
	if path == examplePath {
		strategies = nil // the tests of cmd/lbd check it against the real ones
	}
	return Load(Options{
		Environ:    []string{"LBD_CONFIG=" + filepath.Base(path)},
		Strategies: strategies,
		ReadFile:   func(string) ([]byte, error) { return data, nil },
	})
}

// TestGoodFiles prints each good file: the golden file shows values and origins.
// What is printed must load again to the same values.
func TestGoodFiles(t *testing.T) {
	for _, path := range testdata(t, "*.good.yml") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			c, err := loadFile(t, path)
			if err != nil {
				t.Fatal(err)
			}
			var printed bytes.Buffer
			if err := c.Print(&printed); err != nil {
				t.Fatal(err)
			}
			golden(t, strings.TrimSuffix(path, ".yml")+".printed", printed.Bytes())

			again := input{file: printed.String()}.mustLoad(t)
			if applied, restart := Changed(c, again); applied != nil || restart != nil {
				t.Errorf("the printed file loads differently: %v %v", applied, restart)
			}
		})
	}
}

// TestBadFiles holds every error of each bad file in the golden file beside it.
func TestBadFiles(t *testing.T) {
	for _, path := range testdata(t, "*.bad.yml") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			_, err := loadFile(t, path)
			if err == nil {
				t.Fatal("loaded; want errors")
			}
			golden(t, strings.TrimSuffix(path, ".yml")+".errors", []byte(err.Error()+"\n"))
		})
	}
}

const examplePath = "../../../../compose/lbd.example.yml"

// TestExample keeps the example file equal to the table, loads it, and expects
// the default of every key that has one.
func TestExample(t *testing.T) {
	var b bytes.Buffer
	if err := WriteExample(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, examplePath, b.Bytes())

	c, err := loadFile(t, examplePath)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if o := c.Origin(k.name); o.Source != FromFile {
			t.Errorf("%s comes from %v; want every key in the example", k.name, o)
		}
	}
	applied, restart := Changed(withReplica(input{}).mustLoad(t), c)
	if diff := cmp.Diff([]string{"endpoints", "models"}, append(applied, restart...)); diff != "" {
		t.Errorf("keys of the example that differ from their defaults (-want +got):\n%s", diff)
	}
}

// TestModels reads every key of a pinned model, given and left out.
func TestModels(t *testing.T) {
	c := input{file: `
strategy: cycle
models:
  - name: m1
    aliases: [a, b]
    strategy: least-cost
    replicas:
      - {url: "http://H:8000/v/", device: gpu0, weight: 3}
      - url: http://[::1]
  - name: m2
    replicas: [{url: http://h:8000/v, device: gpu0, weight: 3}]
`}.mustLoad(t)
	if len(c.Models) != 2 {
		t.Fatalf("%d models", len(c.Models))
	}
	m := c.Models[0]
	if m.Name != "m1" || strings.Join(m.Aliases, " ") != "a b" || m.Strategy != "least-cost" || c.Models[1].Strategy != "cycle" {
		t.Errorf("models are %+v", c.Models)
	}
	r := m.Replicas[0]
	if r.Endpoint.Addr != "h:8000" || r.Endpoint.BasePath != "/v" || r.Device != "gpu0" || r.Weight != 3 {
		t.Errorf("replica is %+v", r)
	}
	if r := m.Replicas[1]; r.Endpoint.Addr != "[::1]:80" || r.Device != "" || r.Weight != 1 {
		t.Errorf("replica with defaults is %+v", r)
	}
}

// TestEmptyFile: a file without keys is as good as none.
func TestEmptyFile(t *testing.T) {
	for _, text := range []string{"# nothing\n", "---\n", "---\n...\n", "null\n"} {
		if _, err := withReplica(input{file: text}).load(t); err != nil {
			t.Errorf("%q: %s", text, err)
		}
	}
}

// FuzzFile feeds any bytes as the configuration file. Load must not panic, and
// each of its errors about the file must name a line of the file.
func FuzzFile(f *testing.F) {
	for _, pattern := range []string{"*.good.yml", "*.bad.yml"} {
		paths, _ := filepath.Glob(filepath.Join("testdata", pattern))
		for _, path := range paths {
			if data, err := os.ReadFile(path); err == nil {
				f.Add(data)
			}
		}
	}
	for _, seed := range []string{"", "\t", "a: &a [*a]\n", "? [a]\n: b\n", "\xff\xfe", "- !!binary x", "%TAG ! x\n", "a: |\n  b\n \tc", "&a : *a", "# c\n\n\n...\n---\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 4<<10 {
			t.Skip("the search for the line of a syntax error is quadratic")
		}
		c, err := Load(Options{
			Environ:    []string{"LBD_CONFIG=lbd.yml"},
			Strategies: testStrategies,
			ReadFile:   func(string) ([]byte, error) { return data, nil },
		})
		if err == nil {
			if len(c.Endpoints)+len(c.Models) == 0 {
				t.Error("loaded without a replica")
			}
			if err := c.Print(new(bytes.Buffer)); err != nil {
				t.Errorf("print: %s", err)
			}
			return
		}
		var all Errors
		if !errors.As(err, &all) {
			t.Fatalf("error is %T", err)
		}
		lines := bytes.Count(data, []byte("\n")) + bytes.Count(data, []byte("\r")) + bytes.Count(data, []byte("\u0085")) +
			bytes.Count(data, []byte("\u2028")) + bytes.Count(data, []byte("\u2029")) + 1
		for _, e := range all {
			if e.Origin.Source == FromFile && (e.Origin.Line < 1 || e.Origin.Line > lines) {
				t.Errorf("line %d of %d: %s", e.Origin.Line, lines, e)
			}
		}
	})
}
