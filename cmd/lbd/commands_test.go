package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"lbd/balancer/strategy"
	"lbd/cmd/lbd/internal/config"
)

// write puts a configuration file into a directory of its own and returns its
// path.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lbd.yml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestUsageErrors: one clear line, one hint, nothing on standard output, exit 1.
func TestUsageErrors(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"chek"}, "lbd: unknown command \"chek\"; did you mean check?\nsee lbd --help\n"},
		{[]string{"xyzzy"}, "lbd: unknown command \"xyzzy\"\nsee lbd --help\n"},
		{[]string{"--listne", ":1"}, "lbd: unknown flag --listne; did you mean --listen?\nsee lbd --help\n"},
		{[]string{"--metrics_poll_interval=1"}, "lbd: unknown flag --metrics_poll_interval; did you mean --metrics-poll-interval?\nsee lbd --help\n"},
		{[]string{"--xyzzy"}, "lbd: unknown flag --xyzzy\nsee lbd --help\n"},
		{[]string{"-x"}, "lbd: unknown shorthand flag: 'x' in -x\nsee lbd --help\n"},
		{[]string{"--listen"}, "lbd: flag needs an argument: --listen\nsee lbd --help\n"},
		{[]string{"config", "--stratgy=x"}, "lbd: unknown flag --stratgy; did you mean --strategy?\nsee lbd config --help\n"},
		{[]string{"config", "extra"}, "lbd: unexpected argument \"extra\"; want lbd config [flags]\nsee lbd config --help\n"},
		{[]string{"version", "extra"}, "lbd: unexpected argument \"extra\"; want lbd version [flags]\nsee lbd version --help\n"},
		{[]string{"check", "lbd.yml"}, "lbd: unexpected argument \"lbd.yml\"; want lbd check --config FILE [flags]\nsee lbd check --help\n"},
		{[]string{"key"}, "lbd: an argument is missing; want lbd key NAME [flags]\nsee lbd key --help\n"},
		{[]string{"key", "a", "b"}, "lbd: unexpected argument \"b\"; want lbd key NAME [flags]\nsee lbd key --help\n"},
		{[]string{"aggregate"}, "lbd: an argument is missing; want lbd aggregate N | FILE... [flags]\nsee lbd aggregate --help\n"},
		{[]string{"--admission", "false"}, "lbd: unknown command \"false\"; a flag takes it with =, such as --admission=false\nsee lbd --help\n"},
		{[]string{"sim", "--speed", "x"}, "lbd: --speed: \"x\"; want a number\nsee lbd sim --help\n"},
		{[]string{"sim", "--replicas", "1.5"}, "lbd: --replicas: \"1.5\"; want a whole number\nsee lbd sim --help\n"},
		{[]string{"sim", "--seed", "-1"}, "lbd: --seed: \"-1\"; want a whole number, 0 or more\nsee lbd sim --help\n"},
		{[]string{"bench", "--stream=maybe"}, "lbd: --stream: \"maybe\"; want true or false\nsee lbd bench --help\n"},
		{[]string{"bench", "--timeout", "10"}, "lbd: --timeout: \"10\"; want a time with its unit, such as 500ms, 30s or 5m\nsee lbd bench --help\n"},
		{[]string{"key", "a", "--tokens-per-minute", "1e3"}, "lbd: --tokens-per-minute: \"1e3\"; want a whole number\nsee lbd key --help\n"},
		{[]string{"check"}, "lbd: no file to check; want --config FILE\nsee lbd check --help\n"},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			if diff := cmp.Diff(result{exitUsage, "", c.want}, lbd(t, c.args...), cmp.AllowUnexported(result{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	good := write(t, "endpoints: [http://a.example.org:8000]\nstrategy: cycle\n")
	want := result{0, good + ": ok\n", ""}
	if got := lbd(t, "check", "--config", good); got != want {
		t.Errorf("good file: %+v", got)
	}

	bad := write(t, "endpoints: [http://a.example.org:8000]\nstrategy: fastest\nlisten: x\n")
	got := lbd(t, "check", "-c", bad)
	lines := strings.Split(strings.TrimSpace(got.stderr), "\n")
	if got.code != exitUsage || got.stdout != "" || len(lines) != 2 ||
		!strings.HasPrefix(lines[0], bad+`:2: strategy: "fastest" is unknown; want `) || !strings.HasPrefix(lines[1], bad+`:3: listen: "x" is not`) {
		t.Errorf("bad file: %+v", got)
	}

	missing := filepath.Join(t.TempDir(), "none.yml")
	if got := lbd(t, "check", "--config", missing); got.code != exitUsage || !strings.HasPrefix(got.stderr, "--config: cannot read the configuration: open "+missing) {
		t.Errorf("missing file: %+v", got)
	}
}

// TestCheckTakesTheEnvironment: the file need not name what the environment of
// the service gives.
func TestCheckTakesTheEnvironment(t *testing.T) {
	path := write(t, "strategy: cycle\n")
	if got := lbd(t, "check", "--config", path); got.code != exitUsage || !strings.HasPrefix(got.stderr, path+": no replicas; want --endpoints") {
		t.Errorf("without the environment: %+v", got)
	}
	t.Setenv("VLLM_ENDPOINTS", "http://a.example.org")
	t.Setenv("LBD_CONFIG", path)
	if got := lbd(t, "check"); got.code != 0 || got.stdout != path+": ok\n" {
		t.Errorf("with the environment: %+v", got)
	}
}

func TestConfigCommand(t *testing.T) {
	path := write(t, "strategy: cycle\nlog_level: warn\nlisten: \":1\"\n")
	t.Setenv("LBD_LOG_LEVEL", "debug")
	t.Setenv("LBD_REPLICA_API_KEY", "hunter2")
	got := lbd(t, "config", "--config", path, "--listen", ":2", "--endpoints=http://a.example.org")
	if got.code != 0 || got.stderr != "" {
		t.Fatalf("%+v", got)
	}
	for _, line := range []string{
		`listen: ":2" # flag --listen`, `log_level: debug # env LBD_LOG_LEVEL`, `strategy: cycle # file ` + path + `:1`,
		`max_attempts: 3 # default`, `replica_api_key: <redacted> # env LBD_REPLICA_API_KEY`,
	} {
		if !strings.Contains(got.stdout, line+"\n") {
			t.Errorf("no line %q in\n%s", line, got.stdout)
		}
	}
	if strings.Contains(got.stdout, "hunter2") {
		t.Error("the secret is printed")
	}
	if got := lbd(t, "config", "--strategy=fastest", "--endpoints=http://a"); got.code != exitUsage || !strings.HasPrefix(got.stderr, `--strategy: "fastest" is unknown`) {
		t.Errorf("bad flag: %+v", got)
	}
}

// TestExampleChecks: what lbd config --example prints is what lies in compose,
// and a user who saves it has a file that passes lbd check with the strategies
// of this binary.
func TestExampleChecks(t *testing.T) {
	got := lbd(t, "config", "--example")
	want, err := os.ReadFile("../../compose/lbd.example.yml")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.stdout); diff != "" || got.code != 0 {
		t.Errorf("exit %d (-compose/lbd.example.yml +printed):\n%s", got.code, diff)
	}
	if got := lbd(t, "check", "--config", write(t, got.stdout)); got.code != 0 {
		t.Errorf("%+v", got)
	}
}

// TestProxyRefusesBadConfiguration: nothing is started and the exit code says
// whose fault it is.
func TestProxyRefusesBadConfiguration(t *testing.T) {
	got := lbd(t, "--log-level=loud")
	want := `--log-level: "loud" is unknown; want trace, debug, info, warn or error` + "\n" + "no replicas; want --endpoints"
	if got.code != exitUsage || !strings.HasPrefix(got.stderr, want) {
		t.Errorf("%+v", got)
	}
}

// TestExitCodes: 1 is for what another configuration mends, files that it names
// included, and 2 for what the machine does not give.
func TestExitCodes(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"exposed admin listener", []string{"--admin-listen=:0"}, exitUsage, `admin_listen (flag --admin-listen): ":0" is reachable`},
		{"exposed, which only the socket tells", []string{"--admin-listen=[::%1]:0"}, exitUsage, "reachable from other machines"},
		{"no key file", []string{"--api-keys-file=/none"}, exitUsage, "api_keys_file (flag --api-keys-file): open /none"},
		{"no certificate", []string{"--tls-cert-file=/none", "--tls-key-file=/none"}, exitUsage, "tls_cert_file (flag --tls-cert-file)"},
		{"no certificate", []string{"--tls-cert-file=" + empty, "--tls-key-file=" + empty}, exitUsage, "tls_cert_file (flag --tls-cert-file)"},
		{"no CA of replicas", []string{"--upstream-tls-ca-file=/none"}, exitUsage, "upstream_tls_ca_file (flag --upstream-tls-ca-file)"},
		{"no token", []string{"--admin-token-file=" + empty}, exitUsage, "admin_token_file (flag --admin-token-file)"},
		{"port taken", []string{"--listen=" + taken.Addr().String()}, exitStart, "cannot listen"},
		{"admin port taken", []string{"--admin-listen=" + taken.Addr().String()}, exitStart, "cannot listen"},
		{"address of others", []string{"--listen=192.0.2.1:1"}, exitStart, "cannot listen"},
	} {
		got := lbd(t, append([]string{"--endpoints=http://127.0.0.1:1", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"}, c.args...)...)
		if last := lastLine(got.stderr); got.code != c.code || !strings.Contains(last, c.want) {
			t.Errorf("%s: exit %d, %s; want %d and %q", c.name, got.code, last, c.code, c.want)
		}
	}
}

func lastLine(s string) string {
	s = strings.TrimSuffix(s, "\n")
	return s[strings.LastIndexByte(s, '\n')+1:]
}

func TestHelp(t *testing.T) {
	got := lbd(t, "--help")
	if got.code != 0 || got.stderr != "" {
		t.Fatalf("%+v", got)
	}
	at := 0
	for _, part := range append([]string{"\nUsage:\n  lbd [flags]\n", "\nExamples:\n", "\nCommands:\n", "\nFlags:\n"}, config.Groups()...) {
		i := strings.Index(got.stdout[at:], part)
		if i < 0 {
			t.Fatalf("no %q after\n%s", part, got.stdout[:at])
		}
		at += i
	}
	for line := range strings.Lines(got.stdout) {
		if len(line) > helpColumns+1 {
			t.Errorf("line of %d columns: %s", len(line), line)
		}
	}
	for _, newCommand := range subcommands {
		cmd := newCommand()
		for line := range strings.Lines(cmd.Long) { // examples and Use are commands, which are not folded
			if len(line) > helpColumns+1 {
				t.Errorf("lbd %s: line of %d columns: %s", cmd.Name(), len(line), line)
			}
		}
	}
	for _, sub := range newRootCommand().Commands() {
		if !sub.Hidden && !regexp.MustCompile(`(?m)^  `+sub.Name()+` +\S`).MatchString(got.stdout) {
			t.Errorf("command %s is not in the help", sub.Name())
		}
	}
	if got := lbd(t, "help", "config"); got.code != 0 || !strings.Contains(got.stdout, "lbd config [flags]\n") || !strings.Contains(got.stdout, "--example") {
		t.Errorf("help config: %+v", got)
	}
}

// TestCommandsAreDocumented: every subcommand, whoever wrote it, has a line for
// the list, takes no stray arguments unseen and prints no usage dump.
func TestCommandsAreDocumented(t *testing.T) {
	for _, newCommand := range subcommands {
		cmd := newCommand()
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("lbd %s: Short is %q; want one line without a full stop", cmd.Name(), cmd.Short)
		}
		if cmd.Args == nil {
			t.Errorf("lbd %s takes any arguments; want Args set", cmd.Name())
		}
		if got := lbd(t, cmd.Name(), "--xyzzy"); got.code != exitUsage || got.stdout != "" || strings.Count(got.stderr, "\n") != 2 {
			t.Errorf("lbd %s --xyzzy: %+v; want one line, one hint, exit 1", cmd.Name(), got)
		}
	}
}

func TestReport(t *testing.T) {
	cmd := &cobra.Command{Use: "lbd"}
	plain := errors.New("it broke")
	for _, c := range []struct {
		err  error
		code int
		want string
	}{
		{nil, 0, ""},
		{plain, 1, "lbd: it broke\n"},
		{exitError{exitStart, plain}, 2, "lbd: it broke\n"},
		{fmt.Errorf("while: %w", exitError{exitMeasure, plain}), 3, "lbd: while: it broke\n"},
		{usagef("no %s", "file"), 1, "lbd: no file\nsee lbd --help\n"},
		{config.Errors{{Key: "a", Msg: "x"}, {Key: "b", Msg: "y"}}, 1, "a: x\nb: y\n"},
	} {
		var b strings.Builder
		if code := report(&b, cmd, c.err); code != c.code || b.String() != c.want {
			t.Errorf("report(%v) = %d, %q; want %d, %q", c.err, code, b.String(), c.code, c.want)
		}
	}
	if !errors.Is(exitError{exitStart, plain}, plain) {
		t.Error("exitError hides its cause")
	}
}

func TestVersion(t *testing.T) {
	got := lbd(t, "version")
	if got.code != 0 || !regexp.MustCompile(`^lbd \S+ \(.*go1\.\S+, \w+/\w+\)\n$`).MatchString(got.stdout) {
		t.Errorf("%+v", got)
	}
	if flag := lbd(t, "--version"); flag != got {
		t.Errorf("--version says %q; want what version says", flag.stdout)
	}

	info := &debug.BuildInfo{Main: debug.Module{Version: "(devel)"}, Settings: []debug.BuildSetting{
		{Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.time", Value: "2026-01-02T03:04:05Z"}, {Key: "vcs.modified", Value: "true"},
	}}
	if s := readBuild("", info).String(); !strings.HasPrefix(s, "lbd devel (commit 0123456789ab with changes, 2026-01-02T03:04:05Z, go") {
		t.Errorf("built in a tree: %q", s)
	}
	if b := readBuild("v1.2.3", info); b.Version != "v1.2.3" {
		t.Errorf("released: %+v", b)
	}
	if b := readBuild("", &debug.BuildInfo{Main: debug.Module{Version: "v0.9.0"}}); b.Version != "v0.9.0" {
		t.Errorf("go install: %+v", b)
	}
	if b := readBuild("", &debug.BuildInfo{}); b.Version != "devel" {
		t.Errorf("without build information: %+v", b)
	}
}

// TestStrategies: every strategy of the table has a line in plain text, and the
// default is one of them.
func TestStrategies(t *testing.T) {
	got := lbd(t, "strategies")
	if got.code != 0 || strings.Contains(got.stdout, "`") {
		t.Fatalf("%+v", got)
	}
	lines := strings.Split(strings.TrimSpace(got.stdout), "\n")
	if len(lines) != len(strategy.Table)+1 {
		t.Errorf("%d lines for %d strategies", len(lines), len(strategy.Table))
	}
	for i, s := range strategy.Table {
		if !strings.HasPrefix(lines[i+1], s.Name+" ") || !strings.Contains(lines[i+1], s.Summary) {
			t.Errorf("line %q; want %s and %q", lines[i+1], s.Name, s.Summary)
		}
	}
	if got := lbd(t, "check", "--config", write(t, "endpoints: [http://a.example.org]\n")); got.code != 0 {
		t.Errorf("the default strategy is not in the table: %+v", got)
	}
}
