package faults

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the table of README.md")

// The table of README.md is the matrix.
func TestReadme(t *testing.T) {
	var table strings.Builder
	for _, r := range matrix {
		failed := "none"
		switch {
		case r.failed == many:
			failed = r.bound
		case r.failed > 0:
			failed = fmt.Sprint(r.failed)
		}
		fmt.Fprintf(&table, "| %s | %s | %s |\n", r.name, r.promise, failed)
	}
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	const head = "|---|---|---|\n"
	before, rest, _ := strings.Cut(string(b), head)
	rows, after, ok := strings.Cut(rest, "\n\n")
	switch {
	case !ok:
		t.Fatal("README.md has no table")
	case *update:
		if err := os.WriteFile("README.md", []byte(before+head+table.String()+"\n"+after), 0o644); err != nil {
			t.Fatal(err)
		}
	case rows+"\n" != table.String():
		t.Errorf("the table of README.md is not the matrix; want (-update writes it)\n%s", table.String())
	}
}
