//go:build !race

package relay

import (
	"io"
	"testing"
	"time"
)

func TestRelayingAnEventAllocatesNothing(t *testing.T) {
	now := time.Now()
	for _, event := range []string{chatEvent(), completionEvent(), usageEvent(), roleEvent()} {
		s := benchStream(true)
		p := []byte(chunk(event))
		if n := testing.AllocsPerRun(100, func() {
			if err := s.pass(io.Discard, p, now); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%v allocations for %.40q", n, event)
		}
		if n := testing.AllocsPerRun(100, func() { // in two reads
			if s.pass(io.Discard, p[:2], now) != nil || s.pass(io.Discard, p[2:99], now) != nil || s.pass(io.Discard, p[99:], now) != nil {
				t.Fatal("not passed")
			}
		}); n != 0 {
			t.Errorf("%v allocations for %.40q in three reads", n, event)
		}
	}
}

func TestParsingAHeadAllocatesNothing(t *testing.T) {
	in := []byte("HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
	var h Head
	if n := testing.AllocsPerRun(100, func() {
		if n, err := h.Parse(in); n != len(in) || err != nil {
			t.Fatal(n, err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
