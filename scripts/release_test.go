package scripts

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// toolchain is a go that installs a govulncheck which says and ends as the test wants,
// and ends the release behind it: with code 7, when licences are asked for.
const toolchain = `
case "$1" in
  install)
    [ -z "$INSTALL_SAYS" ] || { echo "$INSTALL_SAYS" >&2; exit 1; }
    printf '#!/usr/bin/env bash\necho "$FOUND" >&2\nexit ${CODE:-0}\n' >"$GOBIN/govulncheck"
    chmod +x "$GOBIN/govulncheck" ;;
  run) exit 7 ;;
esac`

// A vulnerability ends a release, an answer that could not be had is told and does not,
// and neither is taken for the other.
func TestReleaseLooksForVulnerabilities(t *testing.T) {
	const behind = 7
	for _, c := range []struct {
		name       string
		env        []string
		code       int
		want, lack string
	}{
		{"nothing", nil, behind, "govulncheck: nothing known", "WARNING"},
		{"something", []string{"CODE=3", "FOUND=Vulnerability #1: GO-2026-1"}, 1, "govulncheck found something", "could not"},
		{"something behind a proxy's words", []string{"CODE=3", "FOUND=GO-2026-2: dial tcp in net may hang"}, 1, "govulncheck found something", "NOT CHECKED"},
		{"no database", []string{"CODE=1", "FOUND=fetching: Get https://vuln.go.dev: dial tcp: no such host"}, behind, "its database could not be reached; NOT CHECKED", "found something"},
		{"no module", []string{"INSTALL_SAYS=reading module: 403 Forbidden"}, behind, "govulncheck could not be reached; NOT CHECKED", "found something"},
		{"the code does not build", []string{"CODE=1", "FOUND=undefined: x"}, 1, "govulncheck could not look (exit 1)", "NOT CHECKED"},
		{"it does not build", []string{"INSTALL_SAYS=undefined: x"}, 1, "govulncheck could not be built", "NOT CHECKED"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t)
			for _, name := range []string{"realpath", "chmod"} {
				path, err := exec.LookPath(name)
				if err != nil {
					t.Skipf("%s is missing", name)
				}
				if err := os.Symlink(path, filepath.Join(m.bin, name)); err != nil {
					t.Fatal(err)
				}
			}
			m.install("git", `[ "$1" != describe ] || echo v1`)
			m.install("go", toolchain)
			m.env = c.env
			out := m.expect(c.code, []string{c.want}, "release.sh")
			if strings.Contains(out, c.lack) {
				t.Errorf("it says %q:\n%s", c.lack, out)
			}
		})
	}
}
