package inbound

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A system clock that is set must not end connections or keep newcomers out. No test can
// set it, so this one looks for who asks it: times without their monotonic part.
func TestNoWallClock(t *testing.T) {
	wall := regexp.MustCompile(`\.Unix(Nano|Milli|Micro)\(|\)\.Unix\(|\.(Round|Truncate)\(`)
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if m := wall.Find(src); m != nil {
			t.Errorf("%s has %q; want the clock of Server", name, m)
		}
	}
}
