package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"lbd/bench/load"
)

// plainInterval is how often progress is written where no person watches it: a
// log should tell that the run lives, not drown in it.
const plainInterval = 10 * time.Second

// progressTo returns what shows progress on w: one line that changes on a
// terminal, a new line now and then elsewhere; and what clears it at the end.
func progressTo(w io.Writer) (show func(load.Snapshot), clear func()) {
	if screen := terminal(w); screen != nil {
		return func(s load.Snapshot) { fmt.Fprint(screen, clearLine, progressLine(s)) },
			func() { fmt.Fprint(screen, clearLine) }
	}
	next := plainInterval
	return func(s load.Snapshot) {
		if s.Elapsed >= next {
			fmt.Fprintln(w, progressLine(s))
			next += plainInterval
		}
	}, func() {}
}

// terminal is w if a person watches it, else nil.
func terminal(w io.Writer) *os.File {
	f, ok := w.(*os.File)
	if !ok {
		return nil
	}
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return nil
	}
	return f
}

// clearLine goes to the start of the line and erases it (ECMA-48 EL).
const clearLine = "\r\x1b[K"

func progressLine(s load.Snapshot) string {
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	return fmt.Sprintf("%.0f s: %d done, %d in flight, %d failed, %.1f/s  TTFT p50 %.0f p99 %.0f  ITL p50 %.1f p99 %.1f ms",
		s.Elapsed.Seconds(), s.Done, s.InFlight, s.Errors, s.RecentDone,
		ms(s.RecentTTFT.P50), ms(s.RecentTTFT.P99), ms(s.RecentITL.P50), ms(s.RecentITL.P99))
}
