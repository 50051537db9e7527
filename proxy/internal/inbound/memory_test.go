package inbound

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"runtime/debug"
	"strings"
	"testing"
)

// Bodies together take no more than they may; who comes too late is told, and what is
// taken is given back however a request ends.
func TestBodiesShareTheMemory(t *testing.T) {
	a := newAnswerer()
	usual := debug.SetMemoryLimit(2 << 20) // of which bodies have half
	r := start(t, a, Limits{Head: 1 << 10, Body: 1 << 20})
	debug.SetMemoryLimit(usual)
	body := strings.Repeat("x", 600<<10)
	held := r.dial(t)
	send(t, held, put("/hold", body))
	<-a.entered
	taken := r.larder.taken.Load()
	if taken < int64(len(body)) || taken > r.larder.limit {
		t.Errorf("%d bytes are taken for a body of %d", taken, len(body))
	}
	chunked := fmt.Sprintf("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	for _, in := range []string{put("/", body), chunked} {
		c := r.dial(t)
		io.WriteString(c, in) // fails when it is refused before its end
		recv(t, c, "refused: memory")
		c.Close()
	}
	small := r.dial(t)
	send(t, small, put("/", strings.Repeat("x", firstContent)))
	recv(t, small, answerTo("/"))
	eventually(t, "what the refused took to be given back", func() bool { return r.larder.taken.Load() == taken })
	close(a.release)
	recv(t, held, answerTo("/hold")+body)
	for _, in := range []string{put("/", body), chunked} {
		send(t, held, in)
		recv(t, held, answerTo("/")+body)
	}
	cut := r.dial(t)
	send(t, cut, put("/", body)[:500<<10])
	cut.Close()
	eventually(t, "what is taken to be given back", func() bool { return r.larder.taken.Load() == 0 })
}

func TestMemory(t *testing.T) {
	const meminfo = "MemFree:  1 kB\nMemTotal:        8000000 kB\nMemTotal: 1 kB\n"
	for _, test := range []struct {
		goLimit              int64
		cgroup, proc, reason string
		want                 int64
	}{
		{1 << 30, "1\n", meminfo, "GOMEMLIMIT goes first", 1 << 30},
		{math.MaxInt64, "2147483648\n", meminfo, "the container's", 2 << 30},
		{math.MaxInt64, "max\n", meminfo, "the machine's", 8_000_000 << 10},
		{math.MaxInt64, "9223372036854775807\n", meminfo, "the lesser one", 8_000_000 << 10},
		{math.MaxInt64, "", "", "neither", 0},
		{math.MaxInt64, "x", "MemTotal: x kB\nMemTotal: -1 kB\nMemTotal: 99999999999999999999 kB\n", "nonsense", 0},
	} {
		got := memory(test.goLimit, func(name string) ([]byte, error) {
			text := map[string]string{"/sys/fs/cgroup/memory.max": test.cgroup, "/proc/meminfo": test.proc}[name]
			if text == "" {
				return nil, fs.ErrNotExist
			}
			return []byte(text), nil
		})
		if got != test.want {
			t.Errorf("%s: %d, want %d", test.reason, got, test.want)
		}
	}
	var l larder
	if !l.take(math.MaxInt32) || errors.Is(ErrMemory, ErrBodySize) {
		t.Error("without a limit there is one")
	}
}
