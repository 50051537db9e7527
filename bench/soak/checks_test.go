//go:build linux

package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// series are samples of a memory over time, in MiB.
func series(n int, at func(i int) float64) (s []sample) {
	for i := range n {
		s = append(s, sample{At: float64(i + 1), RSS: int64(at(i) * (1 << 20)), Requests: int64(10 * i)})
	}
	return s
}

func TestGrowth(t *testing.T) {
	flat := grown(series(100, func(i int) float64 { return 50 + float64(i%2) }), nil)
	if math.Abs(flat.Share) > 0.03 || math.Abs(flat.Slope) > 60 {
		t.Errorf("flat: %+v", flat)
	}
	// Warming up in the first quarter does not count.
	warm := grown(series(100, func(i int) float64 { return math.Min(50, float64(i*2+1)) }), nil)
	if warm.Share != 0 {
		t.Errorf("warm: %+v", warm)
	}
	leak := grown(series(100, func(i int) float64 { return 50 + 0.5*float64(i) }), nil)
	if math.Abs(leak.Slope-1800) > 1 || leak.Share < 0.35 || leak.Share > 0.45 {
		t.Errorf("leak of half a MiB a second: %+v", leak)
	}
	if g := grown(series(3, func(int) float64 { return 1 }), nil); g != (growth{}) {
		t.Errorf("three samples: %+v", g)
	}
	g := grown(nil, resting(func(q int) int64 { return 100 + 10*int64(q) }))
	if g.Live != 30<<10 || g.Requests != 3000 {
		t.Errorf("at rest: %+v", g)
	}
}

// resting are the rests of a run whose heap holds so many KiB after each quarter, and
// as many as after the last after the lull.
func resting(at func(quarter int) int64) (all []rest) {
	for q := range quarters {
		all = append(all, rest{sample: sample{Requests: 1000 * int64(q+1)}, After: fmt.Sprintf("quarter %d", q+1), Heap: heap{Live: at(q) << 10}})
	}
	all = append(all, all[quarters-1])
	all[quarters].After = "the lull"
	return all
}

// good is a report with nothing wrong.
func good() *report {
	return &report{
		Requests: 100, Errors: 3, Samples: series(int(judged.Seconds()), func(int) float64 { return 30 }), Log: logged{Lines: 5},
		Causes: map[cause]map[string]int64{cut: {"killed": 3}}, Acts: map[kind]int{killed: 1}, Outcomes: map[string]int64{"streams": 97},
		Rests: resting(func(int) int64 { return 70_000 }),
	}
}

// Each check fails by what it is there for, and by nothing else.
func TestChecks(t *testing.T) {
	o := options{duration: judged, growth: 0.1, heap: 256}
	for name, c := range map[string]struct {
		spoil func(*report)
		fails string
	}{
		"nothing":     {func(*report) {}, ""},
		"unexplained": {func(r *report) { r.Unexplained = 1 }, "explained"},
		"many errors": {func(r *report) { r.Errors = 30 }, "most requests"},
		"no requests": {func(r *report) { r.Requests, r.Errors = 0, 0 }, "most requests"},
		"a reload":    {func(r *report) { r.Broken = []string{"x"} }, "reloads"},
		"own load":    {func(r *report) { r.Rests[1].Left = []string{"own load is 1"} }, "own load"},
		"the night":   {func(r *report) { r.Rests[quarters].Heap.Live += (atNight + 1) << 10 }, "a lull"},
		"a leak": {func(r *report) {
			r.Rests = resting(func(q int) int64 { return 70_000 + 86*int64(q) })
		}, "live heap at rest"},
		"memory": {func(r *report) {
			r.Samples = series(int(judged.Seconds()), func(i int) float64 { return 30 + float64(i) })
		}, "RSS"},
		"log":       {func(r *report) { r.Log.Bad = []string{"BUG"} }, "BUG"},
		"empty log": {func(r *report) { r.Log = logged{} }, "BUG"},
		"exit":      {func(r *report) { r.Exit = "exit status 1" }, "lbd ends"},
	} {
		r := good()
		c.spoil(r)
		r.Checks = checks(r, o)
		for _, k := range r.Checks {
			if want := c.fails == "" || !strings.Contains(k.Name, c.fails); k.OK != want {
				t.Errorf("%s: %q is %t (%s)", name, k.Name, k.OK, k.Says)
			}
		}
		if r.failed() != (c.fails != "") {
			t.Errorf("%s: failed() is %t", name, r.failed())
		}
	}
	r := good()
	r.Samples = r.Samples[:int(judged.Seconds())/2-1]
	if r.Checks = checks(r, o); !r.failed() {
		t.Error("less than a sample every other second passes")
	}
	r = good()
	r.Rests = r.Rests[:quarters]
	if r.Checks = checks(r, o); !r.failed() {
		t.Error("a run without its last rest passes")
	}
}

// What grows by no more than the bound is noise; who grows by more is named.
func TestFlat(t *testing.T) {
	for _, at := range []func(int) int64{
		func(q int) int64 { return 70_000 + 85*int64(q) },
		func(q int) int64 { return 70_000 - 500*int64(q) },
	} {
		r := good()
		r.Rests = resting(at)
		if c := r.flat(grown(r.Samples, r.Rests), options{heap: 256}); !c.OK {
			t.Errorf("%d, %d: %s", at(0), at(3), c.Says)
		}
	}
	r := good()
	r.Rests = resting(func(q int) int64 { return 70_000 + 100*int64(q) })
	r.Rests[3].Heap.Sites = map[string]int64{"lbd/proxy.leak": 1 << 20}
	c := r.flat(grown(r.Samples, r.Rests), options{heap: 256})
	if want := "+300.0 KiB over 3000 requests; a leak of 88 bytes a request fails: lbd/proxy.leak +1.0 MiB"; c.OK || c.Says != want {
		t.Errorf("%t %q; want %q", c.OK, c.Says, want)
	}
}

func TestUneven(t *testing.T) {
	base := sample{Goroutines: 40, Descriptors: 20}
	if left := uneven(sample{Goroutines: 40 + moreGoroutines, Descriptors: 20 + moreDescriptors}, base); left != nil {
		t.Error(left)
	}
	for _, s := range []sample{{OwnLoad: 1}, {OwnLoad: -1}, {Goroutines: 41 + moreGoroutines}, {Descriptors: 21 + moreDescriptors}} {
		if len(uneven(s, base)) != 1 {
			t.Errorf("%+v passes", s)
		}
	}
}

func TestReadLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	text := `{"level":"info","message":"a"}` + "\n" + `{"level":"error","message":"BUG: own load"}` + "\n" + "panic: oh\n" + `{"level":"info"}` + "\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := readLog(path)
	if err != nil || l.Lines != 4 || l.Levels["info"] != 2 || l.Levels["error"] != 1 || len(l.Bad) != 2 {
		t.Errorf("%+v %v", l, err)
	}
}

func TestReadPage(t *testing.T) {
	p := readPage("# HELP x y\n# TYPE x gauge\nx 1\nlbd_inflight_requests{model=\"a b\",replica=\"}\"} 2\nlbd_inflight_requests{model=\"c\"} 3\ngo_goroutines 4.1e+01\n\nnothing\n")
	if p.text["x"] != "1" || p.sum["lbd_inflight_requests"] != 5 || p.sum["go_goroutines"] != 41 || len(p.text) != 2 {
		t.Errorf("%+v", p)
	}
	if !usesStrategy(`{"models":[{"strategy":"a"},{"strategy":"a"}]}`, "a") || usesStrategy(`{"models":[{"strategy":"a"},{"strategy":"b"}]}`, "a") || usesStrategy(`{"models":[]}`, "a") ||
		!usesStrategy(`{"models":[{"strategy":"a"},{"name":"`+pinned+`","strategy":"b"}]}`, "a") {
		t.Error("usesStrategy")
	}
}

// The report says what failed, and its picture is XML.
func TestReport(t *testing.T) {
	r := good()
	r.Examples = []string{"something `odd`"}
	r.Checks = checks(r, options{duration: time.Second, growth: 0.1})
	dir := t.TempDir()
	if err := r.write(dir); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "soak.md"))
	if err != nil || !strings.Contains(string(b), "| answer broken off | killed | 3 |") || !strings.Contains(string(b), "something 'odd'") {
		t.Errorf("%v\n%s", err, b)
	}
	svg, err := os.ReadFile(filepath.Join(dir, "soak.svg"))
	if err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(strings.NewReader(string(svg))); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v in %s", err, svg)
		}
	}
	if !strings.Contains(string(svg), "prefers-color-scheme:dark") || strings.Contains(string(svg), "NaN") {
		t.Errorf("%s", svg)
	}
}

func TestOptions(t *testing.T) {
	for _, bad := range [][]string{{"-duration", "1ms"}, {"x"}, {"-clients", "0"}, {"-port", "80"}, {"-growth", "0"}, {"-heap", "0"}, {"-pause", "0s"}, {"-lull", "0s"}, {"-fill", "-1"}} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if got := []int{exitCode(errFailed), exitCode(startError{io.EOF}), exitCode(io.EOF)}; got[0] != 3 || got[1] != 2 || got[2] != 1 {
		t.Errorf("exit codes %v; want 3, 2, 1", got)
	}
}
