//go:build !race

package daemon_test

import "testing"

// What a request may cost in allocations, all of the process counted: client and
// replica here make none, and what tickers make disappears in the average. 2 were
// measured, and no more for a stream of 500 events.
const (
	requestAllocations = 5
	eventAllocations   = 0.01 // of each relayed event, beyond those of the request
)

func TestAllocationsPerRequest(t *testing.T) {
	for _, accessLog := range []string{"false", "true"} { // a line costs none
		nc := bareLBD(t, bareReplica(t, small), smallEnd, "access-log", accessLog)
		request := bareRequest(smallBody)
		got := testing.AllocsPerRun(2000, func() {
			if err := ask(nc, request, smallEnd); err != nil {
				t.Fatal(err)
			}
		})
		t.Logf("%v allocations per request, access log %s", got, accessLog)
		if got > requestAllocations {
			t.Errorf("%v allocations per small request, access log %s; want at most %d", got, accessLog, requestAllocations)
		}
	}
}

func TestAllocationsPerEvent(t *testing.T) {
	const events = 500
	nc := bareLBD(t, bareReplica(t, stream(events)), lastChunk)
	request := bareRequest(chat(llama, true, events))
	got := testing.AllocsPerRun(50, func() {
		if err := ask(nc, request, lastChunk); err != nil {
			t.Fatal(err)
		}
	})
	t.Logf("%v allocations per stream of %d events", got, events)
	if limit := requestAllocations + eventAllocations*events; got > limit {
		t.Errorf("%v allocations per stream of %d events; want at most %v", got, events, limit)
	}
}
