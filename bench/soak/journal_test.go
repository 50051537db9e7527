//go:build linux

package main

import (
	"testing"
	"testing/synctest"
	"time"
)

// What explains an error: a fault of the right kind at the right replica at the
// right time, or nobody left to answer.
func TestExplain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJournal([]string{"a:1", "b:1", "c:1"}, []string{"m", "m", "n"})
		began := time.Now()
		at := func(s float64) time.Time { return began.Add(time.Duration(s * float64(time.Second))) }
		do := func(slot int, k kind, from, to float64) {
			time.Sleep(time.Until(at(from)))
			end := j.begin(slot, k)
			time.Sleep(time.Until(at(to)))
			end()
		}
		do(0, "reset_stream", 10, 12)
		do(0, killed, 30, 31)
		do(1, "slow", 32, 33)
		do(0, killed, 50, 51)
		do(1, drained, 52, 53)
		do(1, idleClosed, 80, 80.01)
		do(2, restarted, 100, 101)
		j.begin(2, "hang") // still lasts at 102
		time.Sleep(time.Until(at(120)))

		const all = "every replica of the model disturbed"
		for _, c := range []struct {
			cause          cause
			replica, model string
			from, to       float64
			want           string
		}{
			{cut, "a:1", "m", 9, 11, "reset_stream"},
			{cut, "a:1", "m", 11, 20, "reset_stream"},
			{cut, "a:1", "m", 12.1, 20, ""},  // began after it
			{cut, "a:1", "m", 8, 9.9, ""},    // ended before it
			{cut, "b:1", "m", 9, 11, ""},     // of another replica
			{closed, "c:1", "n", 9, 11, ""},  // of another replica
			{notHTTP, "a:1", "m", 9, 11, ""}, // of another kind
			{wrong, "a:1", "m", 9, 11, ""},
			{noAnswer, "", "m", 30, 31, ""},
			{noReplica, "", "m", 33, 34, ""},         // b was only slow
			{unreachable, "a:1", "m", 30, 31, ""},    // b could have answered
			{noReplica, "", "m", 55, 55.5, all},      // a in its aftermath, b too
			{unreachable, "b:1", "m", 52, 55.5, all}, // the same
			{noReplica, "", "m", 60, 61, ""},         // long after
			{noReplica, "", "n", 100.5, 100.6, all},  // its only one
			{noModel, "", "gone", 1, 2, all},         // nobody serves it
			{closed, "b:1", "m", 79, 80.5, "close_idle_now"},
			{closed, "b:1", "m", 80.1, 81, ""}, // on a connection made since
			{foreignModel, "c:1", "n", 100, 101, "restarted as another model"},
			{timedOut, "c:1", "n", 119, 120, "hang"}, // lasts
		} {
			got := j.explain(fault{cause: c.cause, replica: c.replica, model: c.model, start: at(c.from), end: at(c.to)})
			if got != c.want {
				t.Errorf("%s of %q for %s from %v to %v: %q; want %q", c.cause, c.replica, c.model, c.from, c.to, got, c.want)
			}
		}
		if got := j.near(fault{replica: "a:1", start: at(34), end: at(34)}); len(got) != 1 || got[0] != killed {
			t.Errorf("near 34 s: %q; want killed", got)
		}
		if n := j.counts()[killed]; n != 2 {
			t.Errorf("%d killed; want 2", n)
		}
	})
}

// Every fault the soak draws is one that explains something or is looked past, or
// it keeps lbd away from the replica.
func TestEveryKindIsKnown(t *testing.T) {
	explains := make(map[kind]bool)
	for _, kinds := range causes {
		for _, k := range kinds {
			explains[k] = true
		}
	}
	for _, k := range lookedPast {
		explains[k] = true
	}
	for _, k := range []kind{"unhealthy", "refuse", drained, removed} {
		explains[k] = true
	}
	for _, f := range simFaults {
		if !explains[f.kind] {
			t.Errorf("%s: nobody knows what it explains", f.kind)
		}
	}
	for _, k := range []kind{killed, restarted, drained, removed} {
		delete(explains, k)
	}
	for _, f := range simFaults {
		delete(explains, f.kind)
	}
	for k := range explains {
		t.Errorf("%s is in a table but is never done", k)
	}
}
