package load

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
)

// cannedStream is a whole response of so many content events.
func cannedStream(events int) string {
	var wire strings.Builder
	chunk := func(s string) { fmt.Fprintf(&wire, "%x\r\n%s\r\n", len(s), s) }
	wire.WriteString(streamHead)
	for range events {
		chunk("data: " + tokenEvent + "\n\n")
	}
	chunk("data: " + usageEvent(7, events) + "\n\ndata: [DONE]\n\n")
	wire.WriteString("0\r\n\r\n")
	return wire.String()
}

func benchmarkLoop(b *testing.B, events int) {
	answer := cannedStream(events)
	f := &fake{script: func(c net.Conn, _ *fakeRequest) bool {
		_, err := io.WriteString(c, answer)
		return err == nil
	}}
	b.ReportAllocs()
	requests := func(yield func(Request) bool) {
		for range b.N {
			if !yield(Request{Model: "M", PromptTokens: 100, OutputTokens: events, Stream: true}) {
				return
			}
		}
	}
	res, err := Run(b.Context(), Options{Target: "http://fake", Dial: f.dial, Requests: requests, Concurrency: 8})
	if err != nil || res.OK != b.N {
		b.Fatalf("error %v, %d ok of %d", err, res.OK, b.N)
	}
	f.serving.Wait()
}

// What one request costs, the fake server's part (through a pipe) included.
func BenchmarkRequest(b *testing.B) { benchmarkLoop(b, 1) }

// The same with 1,000 events: divide by that for the cost of one.
func BenchmarkThousandEvents(b *testing.B) { benchmarkLoop(b, 1000) }

// The event path alone, from bytes read to gap recorded.
func BenchmarkEvent(b *testing.B) {
	r, x := eventPath(b)
	b.ReportAllocs()
	for b.Loop() {
		step(b, r, x)
	}
}

// endless repeats one event.
type endless struct {
	event string
	at    int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.event[e.at:])
	e.at = (e.at + n) % len(e.event)
	return n, nil
}

func eventPath(tb testing.TB) (*Runner, *exchange) {
	r, err := New(Options{Target: "http://fake", Requests: every(0, 0)})
	if err != nil {
		tb.Fatal(err)
	}
	x := new(exchange)
	x.events.reset(&endless{event: "data: " + tokenEvent + "\n\n"})
	return r, x
}

func step(tb testing.TB, r *Runner, x *exchange) {
	data, err := x.events.next()
	if err == nil {
		err = r.event(x, data)
	}
	if err != nil {
		tb.Fatal(err)
	}
	x.gaps = x.gaps[:0]
}

// A stream costs no allocation per event: with thousands of streams the
// collector would take the processor from the proxy under test.
func TestEventsDoNotAllocate(t *testing.T) {
	r, x := eventPath(t)
	if n := testing.AllocsPerRun(2000, func() { step(t, r, x) }); n != 0 {
		t.Errorf("%v allocations per event, want 0", n)
	}
	if x.rec.Events != 2001 {
		t.Errorf("%d events counted, want 2001", x.rec.Events)
	}
}
