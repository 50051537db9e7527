package relay

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"lbd/proxy/internal/sock"
)

// paced is a replica whose events come at given distances, and which notes whether
// they are acknowledged late.
type paced struct {
	gaps  []time.Duration
	calls []bool
	after []int // reads before each call
	reads int
}

func (p *paced) ReadBuf() (*sock.Buf, int, error) { return nil, 0, io.EOF }
func (p *paced) SetReadDeadline(time.Time) error  { return nil }
func (p *paced) DelayAcks(delay bool) {
	p.calls, p.after = append(p.calls, delay), append(p.after, p.reads)
}

func (p *paced) Pump(take func([]byte) bool) error {
	for _, gap := range p.gaps {
		time.Sleep(gap)
		p.reads++
		if !take([]byte("5\r\nevent\r\n")) {
			return nil
		}
	}
	return io.EOF
}

// A replica that may be waiting for acknowledgements gets them at once from then on;
// a pause among quick events does not count.
func TestAcksAreDelayedForQuickEvents(t *testing.T) {
	const quick, slow = 20 * time.Millisecond, sock.AckDelay
	times := func(n int, d time.Duration) (gaps []time.Duration) {
		for range n {
			gaps = append(gaps, d)
		}
		return gaps
	}
	for name, c := range map[string]struct {
		gaps []time.Duration
		back int // reads before acknowledging at once, 0 = never
	}{
		"quick":           {gaps: times(100, quick)},
		"slow":            {times(20, slow), slowReads},
		"slow, then less": {append(times(slowReads, slow), times(50, quick)...), slowReads},
		"pauses":          {gaps: append(append(times(slowReads-1, slow), quick), times(slowReads-1, slow)...)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := &paced{gaps: c.gaps}
				s := &Stream{Up: src}
				s.Body.Reset(Chunked, 0)
				s.Run(io.Discard)
				want := 1
				if c.back > 0 {
					want = 2
				}
				// The look at the time comes in front of the read's count.
				if len(src.calls) != want || !src.calls[0] || want == 2 && (src.calls[1] || src.after[1] != c.back) {
					t.Errorf("calls %v after %v reads; want late, and at once after %d", src.calls, src.after, c.back)
				}
			})
		})
	}
	t.Run("known length", func(t *testing.T) {
		src := &paced{gaps: times(1, 0)}
		s := &Stream{Up: src}
		s.Body.Reset(Length, 1000)
		s.Run(io.Discard)
		if len(src.calls) != 0 {
			t.Errorf("calls %v; want none", src.calls)
		}
	})
}
