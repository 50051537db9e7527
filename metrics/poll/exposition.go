package poll

import (
	"bytes"
	"errors"
)

// errNoExposition is the failure of a page that is something else: an error
// page, a login form, garbage. A page without any of our samples is fine (a V0
// server shows none before its first step, --disable-log-stats never does).
var errNoExposition = errors.New("not an exposition of metrics")

// probeLines is how many lines are looked at before a page is given up on.
const probeLines = 64

// isExposition says whether b looks like one of the Prometheus formats: it is
// empty, or one of its first lines is a comment or a sample.
func isExposition(b []byte) bool {
	empty := true
	for n := 0; len(b) > 0 && n < probeLines; {
		var line []byte
		line, b, _ = bytes.Cut(b, []byte("\n"))
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if line[0] == '#' || isSample(line) {
			return true
		}
		empty = false
		n++
	}
	return empty
}

// isSample says whether a line is NAME[{LABELS}] VALUE [TIMESTAMP].
func isSample(b []byte) bool {
	end := 0
	for end < len(b) && nameByte(b[end], end) {
		end++
	}
	if end == 0 {
		return false
	}
	_, rest, ok := labels(skipBlank(b[end:]))
	if !ok {
		return false
	}
	_, ok = number(skipBlank(rest))
	return ok
}

func nameByte(c byte, i int) bool {
	return c == '_' || c == ':' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || (i > 0 && '0' <= c && c <= '9')
}
