package lbd_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	claimed  = regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)[A-Z]\w+`)
	declared = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	aside    = regexp.MustCompile(`\([^()]*\)`)
	proofs   = regexp.MustCompile("^`?([a-z/]+)`?(?:: (.+))?$")
)

// Every test that SECURITY.md names exists in the package it is said to be in: a claim
// without its test is none.
func TestClaimsOfSecurity(t *testing.T) {
	text, err := os.ReadFile("SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		last := aside.ReplaceAllString(cells[len(cells)-1], "")
		if !strings.HasPrefix(line, "|") || !strings.Contains(last, "`") && !claimed.MatchString(last) {
			continue
		}
		for proof := range strings.SplitSeq(last, ";") {
			m := proofs.FindStringSubmatch(strings.TrimSpace(proof))
			if m == nil {
				continue // "the same", the trust table
			}
			tests := testsOf(t, m[1])
			if len(tests) == 0 {
				t.Errorf("SECURITY.md names %s, where there is no test", m[1])
			}
			for _, name := range claimed.FindAllString(m[2], -1) {
				if shown[name] = true; !tests[name] {
					t.Errorf("SECURITY.md says that %s is in %s, where it is not", name, m[1])
				}
			}
		}
	}
	if len(shown) < 80 {
		t.Errorf("%d tests are named", len(shown))
	}
	for _, name := range claimed.FindAllString(string(text), -1) {
		if !shown[name] {
			t.Errorf("SECURITY.md names %s without its package", name)
		}
	}
}

// testsOf are the tests of a package by the name it has in SECURITY.md.
func testsOf(t *testing.T, pkg string) map[string]bool {
	t.Helper()
	tests := map[string]bool{}
	for _, dir := range []string{pkg, "cmd/lbd/internal/" + pkg} {
		files, err := filepath.Glob(dir + "/*_test.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			src, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range declared.FindAllStringSubmatch(string(src), -1) {
				tests[m[1]] = true
			}
		}
	}
	return tests
}
