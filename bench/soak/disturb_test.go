//go:build linux

package main

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"lbd/bench/sim"
)

// Whatever is drawn, a replica understands; every kind is drawn; the same seed
// draws the same.
func TestDraw(t *testing.T) {
	a := &disturber{rng: rand.New(rand.NewPCG(1, 2))}
	b := &disturber{rng: rand.New(rand.NewPCG(1, 2))}
	seen := make(map[kind]bool)
	for range 2000 {
		got := a.draw()
		if again := b.draw(); got != again {
			t.Fatalf("%+v and %+v of the same seed", got, again)
		}
		seen[got.kind] = true
		if got.faults == "" {
			continue
		}
		if _, err := sim.ParseFaults([]byte(got.faults)); err != nil {
			t.Fatalf("%s: %v", got.faults, err)
		}
		if !strings.HasPrefix(got.faults, `{"`+string(got.kind)+`":`) {
			t.Fatalf("%s is journalled as %s", got.faults, got.kind)
		}
	}
	for _, f := range simFaults {
		if !seen[f.kind] {
			t.Errorf("%s is never drawn", f.kind)
		}
	}
	for _, k := range []kind{killed, restarted, drained, removed} {
		if !seen[k] {
			t.Errorf("%s is never drawn", k)
		}
	}
}

func TestDeedsAreAHundred(t *testing.T) {
	sum := 0
	for _, d := range deeds {
		sum += d.share
	}
	if sum != 100 {
		t.Errorf("shares add up to %d; want 100", sum)
	}
}

func TestTally(t *testing.T) {
	j := newJournal([]string{"a:1"}, []string{"m"})
	end := j.begin(0, "reset_stream")
	tally := newTally(j)
	tally.well("streams")
	now := time.Now()
	tally.wrong(fault{cause: cut, replica: "a:1", model: "m", start: now, end: now}, "")
	end()
	for range shown + 5 {
		tally.wrong(fault{cause: notHTTP, replica: "a:1", model: "m", start: now, end: now}, "")
	}
	for i := range 100 {
		tally.answered(time.Duration(i)*time.Millisecond, time.Second)
	}
	var r report
	tally.fill(&r)
	if r.Requests != shown+7 || r.Errors != shown+6 || r.Unexplained != shown+5 || len(r.Examples) != shown {
		t.Errorf("%d requests, %d errors, %d unexplained, %d told", r.Requests, r.Errors, r.Unexplained, len(r.Examples))
	}
	if r.Causes[cut]["reset_stream"] != 1 || r.Causes[notHTTP]["UNEXPLAINED"] != shown+5 || r.Outcomes["streams"] != 1 {
		t.Errorf("%v %v", r.Causes, r.Outcomes)
	}
	if r.First.P50 != 49 || r.First.P99 != 98 || r.First.Max != 99 || r.E2E.N != 100 {
		t.Errorf("%+v %+v", r.First, r.E2E)
	}
}
