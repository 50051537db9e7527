//go:build linux

package main

import (
	"slices"
	"sync"
	"time"
)

// kind is a way a replica can be disturbed; most are faults of lbd sim.
type kind string

const (
	killed    kind = "killed"
	restarted kind = "restarted as another model"
	drained   kind = "drained"
	removed   kind = "removed by a reload"

	// A request that reaches a connection as it is closed is answered with a reset.
	// That looks as if it had run, so it goes to no other replica (Arrived in
	// proxy/internal/sock).
	idleClosed kind = "close_idle_now"
)

// window is how long a replica was disturbed. It begins before the act and ends
// when the replica is known to be as before.
type window struct {
	slot     int
	kind     kind
	from, to time.Time // to is zero while it lasts
}

// aftermath is how long lbd may go on keeping away from a replica that is well
// again: the longest ejection (2 s), a probe and its interval (2.25 s), a look at
// its models (0.5 s), as the configuration of the rig has them.
const aftermath = 5 * time.Second

// journal knows what was done to whom and when.
type journal struct {
	mu      sync.Mutex
	ids     []string // of the replicas, as lbd calls them
	models  []string // served now
	windows []window
}

func newJournal(ids, models []string) *journal {
	return &journal{ids: slices.Clone(ids), models: slices.Clone(models)}
}

// begin opens a window; the function it returns closes it.
func (j *journal) begin(slot int, k kind) (end func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	i := len(j.windows)
	j.windows = append(j.windows, window{slot: slot, kind: k, from: time.Now()})
	return func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.windows[i].to = time.Now()
	}
}

// serves notes the model of a replica, within a window of restarted.
func (j *journal) serves(slot int, model string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.models[slot] = model
}

// counts says how often each kind was begun.
func (j *journal) counts() map[kind]int {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := make(map[kind]int)
	for _, w := range j.windows {
		n[w.kind]++
	}
	return n
}

// cause is what was wrong with an answer, as the client sees it.
type cause string

const (
	cut          cause = "answer broken off"
	closed       cause = "502, replica closed or reset"
	notHTTP      cause = "502, not HTTP"
	brokenOff    cause = "502, answer broken off before its first byte"
	malformed    cause = "502, malformed answer"
	unreachable  cause = "502, cannot connect"
	isLoading    cause = "502, every attempt was answered 5xx"
	timedOut     cause = "504"
	noReplica    cause = "503, no healthy replica"
	noModel      cause = "404, model not served"
	foreignModel cause = "404 of a replica"
	replicaError cause = "5xx of a replica"
	errorEvent   cause = "error event in the stream"
	noDone       cause = "stream ends well without [DONE]"
	wrong        cause = "wrong content or status"
	noAnswer     cause = "no answer at all"
)

// causes says which kinds of disturbance of the answering replica explain what. A
// cause that is not here needs all replicas of the model disturbed, since lbd
// could have asked another one; wrong and noAnswer nothing explains.
var causes = map[cause][]kind{
	cut:          {killed, restarted, "hang_stream", "reset_stream", "truncate_stream", "bad_chunks", "bad_length"},
	closed:       {killed, restarted, idleClosed, "reset_before", "reset_stream", "truncate_stream"},
	notHTTP:      {"bad_head"},
	brokenOff:    {killed, restarted, "reset_stream", "truncate_stream", "bad_length"},
	malformed:    {"bad_chunks"},
	timedOut:     {"hang", "hang_stream"},
	foreignModel: {restarted},
	replicaError: {"status", "loading"},
	errorEvent:   {"stream_error"},
	noDone:       {"lost_done"},
}

// lookedPast are disturbances that are no reason to keep away from a replica.
var lookedPast = []kind{"slow", "no_metrics", "broken_metrics", "stuck_gauges", "disable_log_stats", "lost_done", "stream_error", idleClosed}

// fault is an error a client saw.
type fault struct {
	cause      cause
	replica    string // who answered or was blamed; may be empty
	model      string
	start, end time.Time
}

// explain names what explains an error, "" if nothing does.
func (j *journal) explain(f fault) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	if f.cause == wrong || f.cause == noAnswer {
		return ""
	}
	for _, w := range j.windows {
		if j.ids[w.slot] == f.replica && slices.Contains(causes[f.cause], w.kind) && w.overlaps(f.start, f.end, 0) {
			return string(w.kind)
		}
	}
	if _, one := causes[f.cause]; one {
		return "" // the replica that answered has no fault of that kind
	}
	for slot, m := range j.models {
		if m == f.model && !j.disturbed(slot, f.start, f.end) {
			return ""
		}
	}
	return "every replica of the model disturbed"
}

// near names what was done to the replica of an error around its time, for whoever
// looks into it.
func (j *journal) near(f fault) (kinds []kind) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, w := range j.windows {
		if j.ids[w.slot] == f.replica && w.overlaps(f.start, f.end, aftermath) {
			kinds = append(kinds, w.kind)
		}
	}
	return kinds
}

// disturbed tells whether lbd had a reason to keep away from a replica.
func (j *journal) disturbed(slot int, start, end time.Time) bool {
	return slices.ContainsFunc(j.windows, func(w window) bool {
		return w.slot == slot && !slices.Contains(lookedPast, w.kind) && w.overlaps(start, end, aftermath)
	})
}

// overlaps tells whether the window, kept open for a while longer, and a time have
// an instant in common.
func (w window) overlaps(start, end time.Time, longer time.Duration) bool {
	return !w.from.After(end) && (w.to.IsZero() || !w.to.Add(longer).Before(start))
}
