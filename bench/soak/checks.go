//go:build linux

package main

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// check is one thing that had to hold.
type check struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Says string `json:"says"`
}

// Differences that are none: connections and goroutines that come and go with
// polls, probes and fasthttp's workers, which it lets go after 10 s.
const (
	moreGoroutines  = 12
	moreDescriptors = 12
)

// uneven says what of a sample is not as it was before the clients came.
func uneven(s, base sample) (left []string) {
	if s.OwnLoad != 0 {
		left = append(left, fmt.Sprintf("own load is %d; want 0", s.OwnLoad))
	}
	if s.Goroutines > base.Goroutines+moreGoroutines {
		left = append(left, fmt.Sprintf("%d goroutines; want at most %d + %d", s.Goroutines, base.Goroutines, moreGoroutines))
	}
	if s.Descriptors > base.Descriptors+moreDescriptors {
		left = append(left, fmt.Sprintf("%d descriptors; want at most %d + %d", s.Descriptors, base.Descriptors, moreDescriptors))
	}
	return left
}

// logged is what lbd's log holds.
type logged struct {
	Lines  int            `json:"lines"`
	Levels map[string]int `json:"levels"`
	Bad    []string       `json:"bad,omitempty"` // lines that must not be there
}

// alarms are what must not be in lbd's log: its own word for a broken invariant,
// and how Go says that a program is broken.
var alarms = [][]byte{[]byte("BUG"), []byte("panic"), []byte("fatal error"), []byte("DATA RACE"), []byte(`"level":"fatal"`)}

func readLog(path string) (l logged, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return l, err
	}
	l.Levels = make(map[string]int)
	for line := range bytes.Lines(b) {
		l.Lines++
		if _, rest, ok := bytes.Cut(line, []byte(`"level":"`)); ok {
			level, _, _ := bytes.Cut(rest, []byte(`"`))
			l.Levels[string(level)]++
		}
		if slices.ContainsFunc(alarms, func(a []byte) bool { return bytes.Contains(line, a) }) && len(l.Bad) < shown {
			l.Bad = append(l.Bad, strings.TrimSpace(string(line)))
		}
	}
	return l, nil
}

// growth compares the memory of the second quarter of a run with the last one's.
type growth struct {
	Second int64   `json:"second_quarter_bytes"` // medians
	Last   int64   `json:"last_quarter_bytes"`
	Share  float64 `json:"share"`        // last over second, minus 1
	Slope  float64 `json:"mib_per_hour"` // from the middle of the second quarter to that of the last

	Live     int64 `json:"live_bytes"` // that the heap at rest has more after the last quarter than after the first
	Requests int64 `json:"requests"`   // between these rests
	Lull     int64 `json:"lull_bytes"` // that it has more after the lull than before
}

// judged is how long a run must be for its RSS to fail it. The heap grows to twice
// what lives in it before it is collected (GOGC=100); with 64 MiB of index and the
// 3 MiB/s of garbage that were seen, that takes most of a minute, a quarter.
const judged = 4 * time.Minute

func young(d time.Duration) string {
	if d >= judged {
		return ""
	}
	return fmt.Sprintf("; not judged below %v", judged)
}

// grown compares the quarters of a run. The first one warms up.
func grown(samples []sample, rests []rest) (g growth) {
	if n := len(samples); n >= quarters {
		g.Second, g.Last = medianRSS(samples[n/4:n/2]), medianRSS(samples[n-n/4:])
		g.Share = float64(g.Last)/float64(max(g.Second, 1)) - 1
		apart := samples[n-n/8-1].At - samples[n/4+n/8].At
		g.Slope = (mib(g.Last) - mib(g.Second)) / max(apart, 1) * 3600
	}
	if len(rests) == quarters+1 {
		first, last, lull := rests[0], rests[quarters-1], rests[quarters]
		g.Live, g.Requests, g.Lull = last.Heap.Live-first.Heap.Live, last.Requests-first.Requests, lull.Heap.Live-last.Heap.Live
	}
	return g
}

func medianRSS(samples []sample) int64 {
	s := slices.Clone(samples)
	slices.SortFunc(s, func(a, b sample) int { return cmp.Compare(a.RSS, b.RSS) })
	return s[len(s)/2].RSS
}

// checks holds a run to what is promised.
func checks(r *report, o options) []check {
	g := grown(r.Samples, r.Rests)
	r.Growth = g
	grew := g.Share > o.growth && o.duration >= judged
	wanted := max(1, int(o.duration.Seconds()/2))
	return []check{
		that("every client error is explained by a fault", r.Unexplained == 0, "%d errors of %d requests, %d unexplained", r.Errors, r.Requests, r.Unexplained),
		that("most requests are answered", r.Requests > 0 && r.Errors*4 < r.Requests, "%d of %d", r.Requests-r.Errors, r.Requests),
		that("reloads, drains and restarts work", len(r.Broken) == 0, "%d failures", len(r.Broken)),
		r.back(),
		r.flat(g, o),
		r.lulled(g),
		that(fmt.Sprintf("RSS of the last quarter at most %.0f %% above the second's", o.growth*100), len(r.Samples) >= 4 && !grew,
			"%.1f MiB, then %.1f MiB (%+.1f %%); %+.1f MiB an hour%s", mib(g.Second), mib(g.Last), g.Share*100, g.Slope, young(o.duration)),
		that("a sample every other second, or more often", len(r.Samples) >= wanted, "%d; want %d or more", len(r.Samples), wanted),
		that("no BUG and no panic in the log", r.Log.Lines > 0 && len(r.Log.Bad) == 0, "%d lines, %d bad", r.Log.Lines, len(r.Log.Bad)),
		that("lbd ends when told to", r.Exit == "", "%s", cmp.Or(r.Exit, "exit 0")),
	}
}

// back holds every rest to what was before the clients came.
func (r *report) back() check {
	var left []string
	for _, s := range r.Rests {
		for _, l := range s.Left {
			left = append(left, fmt.Sprintf("after %s %s", s.After, l))
		}
	}
	var last rest
	if n := len(r.Rests); n > 0 {
		last = r.Rests[n-1]
	}
	return that("own load, goroutines and descriptors are back after each quarter", len(left) == 0 && len(r.Rests) == quarters+1,
		"%d own load, %d goroutines (%d before), %d descriptors (%d before)%s",
		last.OwnLoad, last.Goroutines, r.Base.Goroutines, last.Descriptors, r.Base.Descriptors, also(left))
}

// flat holds the heap to what it held after the first quarter.
func (r *report) flat(g growth, o options) check {
	name := fmt.Sprintf("live heap at rest at most %d KiB more after the last quarter than after the first", o.heap)
	if len(r.Rests) != quarters+1 {
		return that(name, false, "%d rests; want %d", len(r.Rests), quarters+1)
	}
	ok := g.Live <= o.heap<<10
	var who []string
	if !ok {
		who = grownSites(r.Rests[0].Heap, r.Rests[quarters-1].Heap)
	}
	return that(name, ok, "%+.1f KiB over %d requests; a leak of %d bytes a request fails%s",
		float64(g.Live)/1024, g.Requests, (o.heap<<10)/max(g.Requests, 1)+1, also(who))
}

// atNight is how many KiB the heap may grow by in the lull. Two looks at a heap that
// nobody uses were up to 15 KiB apart; 32 bytes kept of each poll of two replicas are
// 75 KiB in a minute.
const atNight = 48

// lulled holds the heap after the lull to what it held before.
func (r *report) lulled(g growth) check {
	name := fmt.Sprintf("live heap at most %d KiB more after a lull", atNight)
	if len(r.Rests) != quarters+1 {
		return that(name, false, "%d rests; want %d", len(r.Rests), quarters+1)
	}
	ok := g.Lull <= atNight<<10
	var who []string
	if !ok {
		who = grownSites(r.Rests[quarters-1].Heap, r.Rests[quarters].Heap)
	}
	return that(name, ok, "%+.1f KiB%s", float64(g.Lull)/1024, also(who))
}

func that(name string, ok bool, format string, args ...any) check {
	return check{Name: name, OK: ok, Says: fmt.Sprintf(format, args...)}
}

func also(left []string) string {
	if len(left) == 0 {
		return ""
	}
	return ": " + strings.Join(left, "; ")
}
