package compose

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	variable = regexp.MustCompile(`\$\{([A-Z_]+)(?:(:-|:\?)([^}]*))?\}`)
	example  = regexp.MustCompile(`(?m)^#?([A-Z_]+)=(.*)$`)
)

// internal are variables that people need not know: the image tags of the
// monitoring and the version written into lbd, which `make docker` sets.
var internal = []string{"GRAFANA_IMAGE", "LBD_VERSION", "PROMETHEUS_IMAGE"}

// .env.example names every variable of the compose files with its default.
func TestEnvExample(t *testing.T) {
	used := map[string]string{}
	files, err := filepath.Glob("*.yml")
	if err != nil || len(files) < 6 {
		t.Fatalf("compose files: %q, %v", files, err)
	}
	for _, file := range files {
		for _, m := range variable.FindAllStringSubmatch(read(t, file), -1) {
			def := m[3]
			if m[2] == ":?" {
				def = ""
			}
			if before, ok := used[m[1]]; ok && before != def {
				t.Errorf("%s: default of %s is %q; elsewhere it is %q", file, m[1], def, before)
			}
			used[m[1]] = def
		}
	}
	maps.DeleteFunc(used, func(name, _ string) bool { return slices.Contains(internal, name) })
	listed := map[string]string{}
	for _, m := range example.FindAllStringSubmatch(read(t, ".env.example"), -1) {
		listed[m[1]] = m[2]
	}
	if diff := cmp.Diff(used, listed); diff != "" {
		t.Errorf("variables (-used +in .env.example):\n%s", diff)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
