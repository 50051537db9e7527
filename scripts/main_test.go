package scripts

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tools are the programs that the scripts may take for granted on any Linux.
var tools = []string{
	"awk", "bash", "cat", "date", "dirname", "env", "grep", "head", "ls", "mkdir", "mktemp", "printf", "rm", "sed", "seq",
	"sleep", "sort", "tail", "tr", "uname", "uniq", "wc",
}

// machine is a computer as the scripts see it: a checkout, and a PATH that holds
// the tools above and what a test puts there.
type machine struct {
	t    *testing.T
	root string // of the checkout
	bin  string
	env  []string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, root: t.TempDir(), bin: t.TempDir()}
	for _, name := range tools {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Skipf("%s is missing", name)
		}
		if err := os.Symlink(path, filepath.Join(m.bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	scripts, err := filepath.Glob("*.sh")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range scripts {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		m.write("scripts/"+name, string(b), 0o755)
	}
	return m
}

// write makes a file of the checkout.
func (m *machine) write(name, text string, mode os.FileMode) {
	m.t.Helper()
	path := filepath.Join(m.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		m.t.Fatal(err)
	}
}

// install puts a program on the PATH: the body of a bash script. Its calls are
// kept for called.
func (m *machine) install(name, body string) {
	m.t.Helper()
	text := "#!/usr/bin/env bash\necho \"" + name + " $*\" >>'" + m.log() + "'\n" + body + "\n"
	if err := os.WriteFile(filepath.Join(m.bin, name), []byte(text), 0o755); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) log() string { return filepath.Join(m.root, "calls.log") }

// called lists the calls of installed programs that hold a text.
func (m *machine) called(text string) (calls []string) {
	b, err := os.ReadFile(m.log())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		m.t.Fatal(err)
	}
	for _, line := range strings.Split(string(b), "\n") {
		if strings.Contains(line, text) {
			calls = append(calls, line)
		}
	}
	return calls
}

// run runs a script of the checkout.
func (m *machine) run(script string, args ...string) (code int, output string) {
	m.t.Helper()
	cmd := exec.CommandContext(m.t.Context(), filepath.Join(m.bin, "bash"), append([]string{"scripts/" + script}, args...)...)
	cmd.Dir = m.root
	cmd.Env = append([]string{"PATH=" + m.bin, "HOME=" + m.root, "TMPDIR=" + m.t.TempDir()}, m.env...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// expect runs a script and holds exit code and texts of its output.
func (m *machine) expect(code int, texts []string, script string, args ...string) string {
	m.t.Helper()
	got, out := m.run(script, args...)
	if got != code {
		m.t.Errorf("%s %q: exit %d; want %d\n%s", script, args, got, code, out)
	}
	for _, text := range texts {
		if !strings.Contains(out, text) {
			m.t.Errorf("%s %q does not say %q:\n%s", script, args, text, out)
		}
	}
	return out
}
