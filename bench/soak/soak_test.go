//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(built.dir)
		os.Exit(code)
	}))
}

// built is the lbd that the tests disturb.
var built struct {
	once sync.Once
	dir  string
	err  error
}

func lbdOf(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "soak"); built.err == nil {
			built.err = build(context.Background(), filepath.Join(built.dir, "lbd"))
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "lbd")
}

// ofPace says that a check is about the machine as well: one that is busy with much else
// samples too seldom, and its heap is not at rest after a second.
func ofPace(c check) bool {
	return strings.HasPrefix(c.Name, "a sample every") || strings.Contains(c.Name, "after a lull")
}

// soaked runs a soak of seconds, again if nothing but the pace failed it.
func soaked(t *testing.T, lbd string) (r report) {
	t.Helper()
	for try := 1; ; try++ {
		dir := t.TempDir()
		var out bytes.Buffer
		err := run(t.Context(), []string{"-duration", "8s", "-clients", "8", "-lbd", lbd, "-o", dir, "-fill", "500", "-lull", "1s", "-heap", "100000", "-growth", "10", "-port", "26200"}, &out)
		if err != nil && !errors.Is(err, errFailed) {
			t.Fatalf("%v\n%s", err, out.String())
		}
		b, readErr := os.ReadFile(filepath.Join(dir, "soak.json"))
		if readErr != nil {
			t.Fatal(readErr)
		}
		r = report{}
		if err := json.Unmarshal(b, &r); err != nil {
			t.Fatal(err)
		}
		if err == nil {
			return r
		}
		if try == 3 || slices.ContainsFunc(r.Checks, func(c check) bool { return !c.OK && !ofPace(c) }) {
			t.Fatalf("%v\n%s", err, out.String())
		}
		t.Logf("once more: %v\n%s", err, out.String())
	}
}

// A soak of seconds runs, answers most requests, explains its errors and leaves no
// process. Memory is judged by longer ones.
func TestSmoke(t *testing.T) {
	if testing.Short() {
		t.Skip("starts ten processes")
	}
	lbd := lbdOf(t)
	r := soaked(t, lbd)
	if r.Requests < 20 || len(r.Acts) == 0 || len(r.Samples) == 0 || r.Outcomes["streams"] == 0 {
		t.Errorf("%d requests, disturbances %v, %d samples, outcomes %v", r.Requests, r.Acts, len(r.Samples), r.Outcomes)
	}
	if len(r.Rests) != quarters+1 || r.Rests[3].Heap.Sites[index] != 64<<20 {
		t.Errorf("%d rests; the heap is known by %v, want the index in it", len(r.Rests), r.Rests)
	}
	if left := processes(t, lbd); len(left) > 0 {
		t.Errorf("still running: %q", left)
	}
}

// Whoever interrupts a soak finds nothing running.
func TestInterrupted(t *testing.T) {
	if testing.Short() {
		t.Skip("starts ten processes")
	}
	lbd := lbdOf(t)
	ctx, cancel := context.WithCancel(t.Context())
	began := &trigger{fire: cancel}
	err := run(ctx, []string{"-duration", "10m", "-lbd", lbd, "-o", "", "-port", "26400"}, began)
	if err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("%v; want that it was interrupted", err)
	}
	if left := processes(t, lbd); len(left) > 0 {
		t.Errorf("still running: %q", left)
	}
}

// trigger is a writer that does something when it is written to.
type trigger struct{ fire func() }

func (t *trigger) Write(p []byte) (int, error) {
	t.fire()
	return len(p), nil
}

// processes are the command lines that begin with a program.
func processes(t *testing.T, program string) (found []string) {
	t.Helper()
	pages, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pages {
		if b, err := os.ReadFile(p); err == nil && strings.HasPrefix(string(b), program+"\x00") {
			found = append(found, strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	return found
}
