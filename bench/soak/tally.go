//go:build linux

package main

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// shown is how many unexplained errors are told in full.
const shown = 20

// tally counts what the clients saw.
type tally struct {
	journal *journal

	mu          sync.Mutex
	done        int64
	errors      int64
	outcomes    map[string]int64 // what clients did, and how it went
	explained   map[cause]map[string]int64
	unexplained []string
	lost        int64 // unexplained ones, told or not
	broken      []string
	first, e2e  []time.Duration // of answers that were as they should be
}

func newTally(j *journal) *tally {
	return &tally{journal: j, outcomes: make(map[string]int64), explained: make(map[cause]map[string]int64)}
}

// well counts an exchange that went as it should.
func (t *tally) well(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.done++
	t.outcomes[what]++
}

// answered notes the times of a whole answer.
func (t *tally) answered(first, e2e time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.first, t.e2e = append(t.first, first), append(t.e2e, e2e)
}

// wrong counts an error and looks for what explains it.
func (t *tally) wrong(f fault, detail string) {
	why, near := t.journal.explain(f), t.journal.near(f)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.done++
	t.errors++
	if why == "" {
		t.lost++
		if len(t.unexplained) < shown {
			t.unexplained = append(t.unexplained, fmt.Sprintf("%s %s (%v) model %s replica %q, done to it then %q: %s",
				f.end.UTC().Format("15:04:05.000"), f.cause, f.end.Sub(f.start).Round(time.Millisecond), f.model, f.replica, near, detail))
		}
		why = "UNEXPLAINED"
	}
	if t.explained[f.cause] == nil {
		t.explained[f.cause] = make(map[string]int64)
	}
	t.explained[f.cause][why]++
}

// fail notes that something besides a client's answer went wrong.
func (t *tally) fail(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.broken = append(t.broken, time.Now().UTC().Format("15:04:05.000 ")+what)
}

func (t *tally) counts() (done, errors int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.done, t.errors
}

// fill puts the counts into a report.
func (t *tally) fill(r *report) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r.Requests, r.Errors, r.Unexplained = t.done, t.errors, t.lost
	r.Outcomes, r.Causes, r.Examples, r.Broken = t.outcomes, t.explained, t.unexplained, t.broken
	r.First, r.E2E = quantiles(t.first), quantiles(t.e2e)
}

// times are quantiles in ms.
type times struct {
	N   int     `json:"n"`
	P50 float64 `json:"p50_ms"`
	P90 float64 `json:"p90_ms"`
	P99 float64 `json:"p99_ms"`
	Max float64 `json:"max_ms"`
}

func quantiles(d []time.Duration) times {
	if len(d) == 0 {
		return times{}
	}
	slices.Sort(d)
	at := func(q float64) float64 {
		return float64(d[int(q*float64(len(d)-1))].Microseconds()) / 1000
	}
	return times{N: len(d), P50: at(.5), P90: at(.9), P99: at(.99), Max: at(1)}
}
