package sim

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestReadmeListsFaults compares the table with the struct.
func TestReadmeListsFaults(t *testing.T) {
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(b), "## Faults")
	table, _, _ := strings.Cut(after, "\n## ")
	documented := make(map[string]string)
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| ([^|]*)\\|").FindAllStringSubmatch(table, -1) {
		documented[row[1]] = strings.TrimSpace(row[2])
	}
	known := make(map[string]string)
	typ := reflect.TypeFor[Faults]()
	for i := range typ.NumField() {
		name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
		known[name] = typ.Field(i).Tag.Get("takes")
	}
	if d := cmp.Diff(known, documented); d != "" {
		t.Errorf("faults and their fields (-code +README):\n%s", d)
	}
}
