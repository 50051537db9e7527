//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The rig starts itself in roles; in a test that is the test's own program.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "pin", "load", "relay", "awake":
			if err := run(os.Args[1:]); err != nil {
				_, _ = os.Stderr.WriteString(err.Error() + "\n")
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(built.dir)
		os.Exit(code)
	}))
}

// built is the lbd that the tests measure: to link it takes longer than most of them.
var built struct {
	once sync.Once
	dir  string
	err  error
}

func lbd(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "wire"); built.err == nil {
			built.err = build(context.Background(), filepath.Join(built.dir, "lbd"))
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "lbd")
}

// measuredAll runs the rig for longer and longer until nothing is missing in what it found: a
// machine that stands still for the tenths of a second of a window has nothing to measure.
// It returns the last report.
func measuredAll(t *testing.T, o options, dir string, missing func(*report) string) *report {
	t.Helper()
	for o.seconds = 0.2; ; o.seconds *= 5 {
		if err := measure(t.Context(), o, dir); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(o.out, o.name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		var rep report
		if err := json.Unmarshal(b, &rep); err != nil {
			t.Fatal(err)
		}
		what := missing(&rep)
		if what == "" {
			return &rep
		}
		t.Logf("in windows of %v s: %s", o.seconds, what)
		if o.seconds > 4 {
			t.Fatal(what)
		}
	}
}

// The whole rig, lbd between replica and client, for tenths of a second. What it
// measures is not judged here, only that it measures.
func TestSmoke(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	o, err := parse(t.Context(), []string{"-lbd", lbd(t), "-cells", "post,sse256,ends,idle,bulk,leave", "-peers", "lbd,relay,direct", "-rounds", "1",
		"-warm", "0.1", "-quiet", "100", "-port", "21500", "-o", out, "-proxy-cpu", "0"}, dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range o.cells {
		o.cells[i].Conns = min(o.cells[i].Conns, 50)
		o.cells[i].Interval = min(o.cells[i].Interval, 5*time.Millisecond)
		o.cells[i].Reply = min(o.cells[i].Reply, 1<<20)
		o.cells[i].Events = min(o.cells[i].Events, 10)
	}
	rep := measuredAll(t, o, dir, func(rep *report) string {
		for _, c := range rep.Cells {
			for _, p := range []string{"lbd", "relay"} {
				for _, m := range metricsOf(c.cell) {
					if v := median(rep.values(c, p, m)); v != v {
						return fmt.Sprintf("%s, %s: %s is %v: %v", c.Name, p, m.name, v, rep.Samples)
					}
				}
			}
		}
		return ""
	})
	if len(rep.Cells) != len(o.cells) {
		t.Fatalf("%d cells; want %d", len(rep.Cells), len(o.cells))
	}
	for _, s := range rep.Samples {
		if s.Peer != direct && len(s.Outcome.Errors) > 0 {
			t.Errorf("%s, %s: %v", s.Cell, s.Peer, s.Outcome.Errors)
		}
	}
	for _, name := range []string{"wire.md", "wire.svg"} {
		if b, err := os.ReadFile(filepath.Join(out, name)); err != nil || !bytes.Contains(b, []byte("relay")) {
			t.Errorf("%s: %v, %d bytes; want the relay in it", name, err, len(b))
		}
	}
}

// Nothing that was started outlives an interrupt, which does not wait for the end of a
// window either: here that would be a quarter of an hour, longer than tests may take.
func TestInterrupt(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	o, err := parse(ctx, []string{"-lbd", "unused", "-cells", "post", "-peers", "relay", "-seconds", "900", "-quiet", "100", "-port", "21500"}, dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := measure(ctx, o, dir); err == nil || ctx.Err() == nil {
		t.Fatalf("measure: %v; want the context's error", err)
	}
	for _, pid := range family(os.Getpid())[1:] {
		b, _ := os.ReadFile("/proc/" + itoa(pid) + "/cmdline")
		t.Errorf("process %d (%q) is left", pid, b)
	}
}

// A peer that cannot start is a failure with its own words, not an end of all.
func TestPeerFails(t *testing.T) {
	dir := t.TempDir()
	o, err := parse(t.Context(), []string{"-lbd", "broken=/bin/false", "-lbd", "talker=/bin/echo", "-cells", "post", "-peers", "lbd,relay", "-rounds", "1",
		"-seconds", "0.1", "-warm", "0", "-quiet", "100", "-port", "21500", "-o", dir}, dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := measure(t.Context(), o, dir); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "wire.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"broken failed in round 1: broken ended: exit status 1", "talker failed"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("wire.md lacks %q:\n%s", want, b)
		}
	}
}

func TestMissingPeerIsNamed(t *testing.T) {
	dir := t.TempDir()
	o := options{peers: []peer{{name: "absent", binary: "no-such-proxy-here"}}, rounds: 1, port: 21500, out: dir, name: "wire"}
	if err := measure(t.Context(), o, dir); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "wire.md"))
	if err != nil || !strings.Contains(string(b), "**skipped**: absent (no-such-proxy-here") {
		t.Errorf("wire.md: %v\n%s\nwant the absent peer named", err, b)
	}
}

func TestFlags(t *testing.T) {
	parsed := func(args ...string) options {
		t.Helper()
		o, err := parse(t.Context(), args, "")
		if err != nil {
			t.Fatalf("%q: %v", args, err)
		}
		return o
	}
	names := func(o options) string {
		var s []string
		for _, p := range o.peers {
			s = append(s, p.name)
		}
		return strings.Join(s, " ")
	}
	if got := names(parsed("-lbd", "old=/bin/a", "-lbd", "new=/bin/b", "-peers", "lbd,nginx")); got != "old new nginx" {
		t.Errorf("two builds: %q", got)
	}
	if got := names(parsed("-lbd", "/bin/a", "-variant", "quiet=--log-level=error", "-peers", "nginx,quiet")); got != "nginx quiet" {
		t.Errorf("a variant: %q", got)
	}
	if o := parsed("-lbd", "/bin/a", "-features"); len(o.peers) != 1+len(features) || len(o.cells) != 4 || o.name != "features" {
		t.Errorf("-features: peers %q, %d cells", names(o), len(o.cells))
	}
	for _, p := range parsed("-lbd", "/bin/a", "-features").peers {
		if secure := p.name == "lbd+tls"; p.tls != secure || strings.Contains(p.name, "sessions") != (p.head != "") {
			t.Errorf("%s: TLS %t, head %q", p.name, p.tls, p.head)
		}
	}
	if o := parsed("-lbd", "/bin/a"); slices.ContainsFunc(o.cells, func(c cell) bool { return c.Extra }) || o.name != "wire" {
		t.Errorf("all cells are %v", o.cells)
	}
	if o := parsed("-lbd", "/bin/a", "-features", "-cells", "post1"); len(o.cells) != 1 || o.cells[0].Name != "post1" {
		t.Errorf("-features -cells post1: %v", o.cells)
	}
	for _, args := range [][]string{{"-cells", "nope"}, {"-peers", "nope"}, {"stray"}} {
		if _, err := parse(t.Context(), append([]string{"-lbd", "/bin/a"}, args...), ""); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}

func itoa(n int) string { b, _ := json.Marshal(n); return string(b) }

// run the peers' own checks over the configurations made for them.
func TestConfigurationsAreValid(t *testing.T) {
	for name, check := range map[string]func(args []string) []string{
		"nginx":       func(args []string) []string { return append([]string{"-t"}, args...) },
		"haproxy":     func(args []string) []string { return append([]string{"-c"}, args...) },
		"haproxy-tcp": func(args []string) []string { return append([]string{"-c"}, args...) },
		"caddy":       func(args []string) []string { return append([]string{"validate"}, args[1:]...) },
	} {
		t.Run(name, func(t *testing.T) {
			for _, p := range rivals {
				if p.name != name {
					continue
				}
				path, _, err := p.find()
				if err != nil {
					t.Skip(err)
				}
				args, err := p.command(place{dir: t.TempDir(), port: 21990, replicas: []int{21991, 21992}, cores: 2, files: 10_000})
				if err != nil {
					t.Fatal(err)
				}
				if out, err := exec.Command(path, check(args)...).CombinedOutput(); err != nil {
					t.Errorf("%v\n%s", err, out)
				}
				text, _ := os.ReadFile(args[len(args)-1])
				for _, want := range []string{"127.0.0.1:21991", "127.0.0.1:21992", ":21990"} {
					if !strings.Contains(string(text), want) {
						t.Errorf("the configuration lacks %q:\n%s", want, text)
					}
				}
			}
		})
	}
}

// What features need is there: a run through each kind of them, TLS, an API key and sessions.
func TestFeaturesRun(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	o, err := parse(t.Context(), []string{"-lbd", lbd(t), "-features", "-cells", "post", "-peers", "lbd+tls,lbd+keys,lbd+sessions", "-rounds", "1",
		"-warm", "0.1", "-quiet", "100", "-port", "21500", "-o", out, "-proxy-cpu", "0"}, dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range o.cells {
		o.cells[i].Conns = 8
	}
	rep := measuredAll(t, o, dir, func(rep *report) string {
		for _, name := range []string{"lbd+tls", "lbd+keys", "lbd+sessions"} {
			at := slices.IndexFunc(rep.Samples, func(s sample) bool { return s.Peer == name })
			if at < 0 {
				return name + " was not measured"
			}
			if s := rep.Samples[at]; s.Outcome == nil || s.Outcome.Answers == 0 || s.Outcome.CPU == 0 {
				return fmt.Sprintf("%s: %q %+v", name, s.Failed, s.Outcome)
			}
		}
		return ""
	})
	for _, s := range rep.Samples {
		if len(s.Outcome.Errors) > 0 {
			t.Errorf("%s: %+v", s.Peer, s.Outcome)
		}
	}
}
