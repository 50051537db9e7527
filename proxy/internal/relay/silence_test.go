package relay

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"lbd/proxy/internal/sock"
)

// timed is a replica that sends bytes at given times. Like a socket, it does not
// even look for bytes once the deadline has expired.
type timed struct {
	start    time.Time
	deadline time.Time
	sends    []sending // then EOF
	moved    int       // calls of SetReadDeadline
}

type sending struct {
	at   time.Duration
	text string
}

func (s *timed) SetReadDeadline(t time.Time) error {
	s.deadline, s.moved = t, s.moved+1
	return nil
}

func (s *timed) expired() bool { return !s.deadline.IsZero() && !time.Now().Before(s.deadline) }

func (s *timed) ReadBuf() (*sock.Buf, int, error) {
	if s.expired() {
		return nil, 0, os.ErrDeadlineExceeded
	}
	if len(s.sends) == 0 {
		return nil, 0, io.EOF
	}
	at := s.start.Add(s.sends[0].at)
	if !s.deadline.IsZero() && s.deadline.Before(at) {
		time.Sleep(time.Until(s.deadline))
		return nil, 0, os.ErrDeadlineExceeded
	}
	time.Sleep(time.Until(at))
	b := sock.GetBuf()
	n := copy(b.B[:], s.sends[0].text)
	s.sends = s.sends[1:]
	return b, n, nil
}

// slowClient takes its time for the first write.
type slowClient struct {
	bytes.Buffer
	pause time.Duration
}

func (c *slowClient) Write(p []byte) (int, error) {
	time.Sleep(c.pause)
	c.pause = 0
	return c.Buffer.Write(p)
}

const (
	silence = 10 * time.Second
	second  = time.Second
)

func runTimed(src *timed, pause, limit time.Duration) (s *Stream, took time.Duration, err error) {
	src.start = time.Now()
	s = &Stream{Up: src, Silence: limit}
	s.Body.Reset(Chunked, 0)
	err = s.Run(&slowClient{pause: pause})
	return s, time.Since(src.start), err
}

func TestSilence(t *testing.T) {
	ev, end := chunk("data: x\n\n"), "0\r\n\r\n"
	every := func(step time.Duration, n int) (sends []sending) {
		for i := range n {
			sends = append(sends, sending{time.Duration(i+1) * step, ev})
		}
		return append(sends, sending{time.Duration(n+1) * step, end})
	}
	tests := []struct {
		name  string
		sends []sending
		pause time.Duration
		limit time.Duration
		want  error
		took  time.Duration
	}{
		{"steady, far longer than the limit", every(9*second, 20), 0, silence, nil, 21 * 9 * second},
		{"never a byte", []sending{{time.Hour, ev}}, 0, silence, ErrSilence, silence + lastLook},
		{"stops after some", append(every(second, 5)[:5], sending{time.Hour, end}), 0, silence, ErrSilence, 5*second + silence + lastLook},
		{"just in time", []sending{{silence - 1, ev}, {2*silence - 2, end}}, 0, silence, nil, 2*silence - 2},
		{"no limit", []sending{{time.Hour, ev}, {100 * time.Hour, end}}, 0, 0, nil, 100 * time.Hour},
		// The client takes longer than the limit, the replica meanwhile goes on.
		{"slow client", []sending{{second, ev}, {2 * second, ev}, {3 * second, end}}, 5 * silence, silence, nil, second + 5*silence},
		{"slow client, then silent replica", []sending{{second, ev}, {2 * second, ev}, {time.Hour, end}}, 5 * silence, silence, ErrSilence, second + 6*silence + lastLook},
		{"slow client and silent replica", []sending{{second, ev}, {time.Hour, end}}, 5 * silence, silence, ErrSilence, second + 5*silence + lastLook},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, took, err := runTimed(&timed{sends: tt.sends}, tt.pause, tt.limit)
				if !errors.Is(err, tt.want) || took != tt.took {
					t.Errorf("error %v after %v; want %v after %v", err, took, tt.want, tt.took)
				}
			})
		})
	}
}

// The deadline is not touched per event.
func TestSilenceMovesDeadlineSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &timed{}
		for i := range 10000 {
			src.sends = append(src.sends, sending{time.Duration(i) * 20 * time.Millisecond, chunk("x")})
		}
		src.sends = append(src.sends, sending{200 * second, "0\r\n\r\n"})
		if _, took, err := runTimed(src, 0, silence); err != nil || took != 200*second {
			t.Fatalf("error %v after %v", err, took)
		}
		if limit := int(200*second/silence) + 2; src.moved > limit {
			t.Errorf("deadline moved %d times in 200 s; want at most %d", src.moved, limit)
		}
	})
}

// A deadline that is not the stream's own (the wait for the first byte) is an
// error of its own kind when there is no limit on silence.
func TestDeadlineWithoutSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &timed{deadline: time.Now().Add(second), sends: []sending{{time.Hour, "x"}}}
		_, _, err := runTimed(src, 0, 0)
		if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.Is(err, ErrTruncated) {
			t.Errorf("error %v; want ErrDeadlineExceeded", err)
		}
	})
}
