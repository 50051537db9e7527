package load

import (
	"testing"
	"time"
)

func TestParseSLO(t *testing.T) {
	for _, c := range []struct{ in, want, err string }{
		{"ttft=500ms,tpot=50ms", "ttft=500ms,tpot=50ms", ""},
		{"e2e=10s, ttft=1.5s", "ttft=1.5s,e2e=10s", ""},
		{"ttft=500", "ttft=500ms", ""},
		{"", "", `limit ""; want ttft=, tpot= or e2e=, each once`},
		{"itl=1ms", "", `limit "itl=1ms"; want ttft=, tpot= or e2e=, each once`},
		{"ttft=1s,ttft=2s", "", `limit "ttft=2s"; want ttft=, tpot= or e2e=, each once`},
		{"tpot=0", "", `limit "tpot=0"; want a time above 0 like tpot=500ms`},
		{"tpot=x", "", `limit "tpot=x"; want a time above 0 like tpot=500ms`},
		{"tpot", "", `limit "tpot"; want a time above 0 like tpot=500ms`},
	} {
		got, err := ParseSLO(c.in)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if got.String() != c.want || text != c.err {
			t.Errorf("%q: %q, error %q; want %q, %q", c.in, got, text, c.want, c.err)
		}
	}
}

func TestGood(t *testing.T) {
	ms := time.Millisecond
	stream := Record{Scheduled: 10 * ms, FirstContent: 110 * ms, LastContent: 310 * ms, End: 320 * ms, Events: 3, OutputTokens: 5}
	plain := Record{End: 300 * ms, OutputTokens: 5}
	failed := stream
	failed.Cause = CauseTruncated
	for _, c := range []struct {
		slo  SLO
		rec  Record
		want bool
	}{
		{SLO{}, stream, true},
		{SLO{}, failed, false},
		{SLO{TTFT: 100 * ms, TPOT: 50 * ms, E2E: 310 * ms}, stream, true},
		{SLO{TTFT: 99 * ms}, stream, false},
		{SLO{TPOT: 49 * ms}, stream, false},
		{SLO{E2E: 309 * ms}, stream, false},
		{SLO{TTFT: 300 * ms, TPOT: 1}, plain, true},
		{SLO{TTFT: 299 * ms}, plain, false},
	} {
		if got := c.slo.Good(&c.rec); got != c.want {
			t.Errorf("%v of %+v: %v, want %v", c.slo, c.rec, got, c.want)
		}
	}
}
