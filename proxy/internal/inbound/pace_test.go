package inbound

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// A few bytes now and then keep nobody here: neither a head nor a body that trickles
// in is waited for until the time for a whole request is over.
func TestTrickle(t *testing.T) {
	r := start(t, newAnswerer(), Limits{Head: 1 << 10, Body: 1 << 20, Read: time.Hour, Idle: time.Hour, slow: 50 * time.Millisecond})
	for name, in := range map[string]string{
		"head":        "GET / HTTP/1.1\r\nX: ",
		"body":        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n",
		"large body":  "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n",
		"chunked":     "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n",
		"extension":   "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;",
		"trailer":     "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
		"of a second": get("/") + "GET /",
	} {
		t.Run(name, func(t *testing.T) {
			c := r.dial(t)
			send(t, c, in)
			want := "refused: slow"
			if name == "of a second" {
				want = answerTo("/") + want
			}
			stop := make(chan struct{})
			done := make(chan struct{})
			go func() {
				defer close(done)
				for err := error(nil); err == nil; _, err = io.WriteString(c, "x") {
					select {
					case <-stop:
						return
					case <-time.After(10 * time.Millisecond): // 100 bytes per second
					}
				}
			}()
			recv(t, c, want)
			close(stop)
			<-done
		})
	}
}

// A body that keeps the pace may take many times the time of a head.
func TestBodyThatKeepsPace(t *testing.T) {
	const slow = 300 * time.Millisecond
	r := start(t, newAnswerer(), Limits{Head: 1 << 10, Body: 1 << 30, Read: time.Hour, Idle: time.Hour, slow: slow})
	for gap := slow; gap > slow/8; { // the machine, not lbd, may have kept the client from its pace
		var answer string
		gap, answer = r.paced(t, slow)
		if strings.HasPrefix(answer, answerTo("/")) {
			return
		}
		t.Logf("%.40q after a gap of %s", answer, gap)
	}
	t.Error("refused although it came at pace")
}

// paced sends a body for more than two slows and returns the longest time between two
// parts, and the answer.
func (r *running) paced(t *testing.T, slow time.Duration) (gap time.Duration, answer string) {
	t.Helper()
	c := r.dial(t)
	defer c.Close()
	part := strings.Repeat("x", 1<<10)
	last := time.Now()
	_, err := io.WriteString(c, "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
	for end := last.Add(2*slow + slow/2); err == nil && last.Before(end); {
		_, err = io.WriteString(c, "400\r\n"+part+"\r\n")
		time.Sleep(time.Millisecond)
		now := time.Now()
		gap, last = max(gap, now.Sub(last)), now
	}
	io.WriteString(c, "0\r\n\r\n")
	c.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, len(answerTo("/")))
	n, _ := io.ReadFull(c, b)
	return gap, string(b[:n])
}

// keepsPace is what decides, without a clock of the test's own.
func TestKeepsPace(t *testing.T) {
	lim := Limits{Read: time.Hour}
	if lim.slowTime() != SlowTime || lim.slowBytes() != 30_000 {
		t.Errorf("%s, %d bytes; want a minute and 30,000", lim.slowTime(), lim.slowBytes())
	}
	if l := (Limits{Read: time.Second}); l.slowTime() != time.Second || l.slowBytes() != SlowRate {
		t.Errorf("%s, %d bytes; want what fits into the whole time", l.slowTime(), l.slowBytes())
	}
	sc, peer := newPair(t, nil).next(t)
	defer peer.Close()
	defer sc.Close()
	c := &Conn{Conn: sc}
	for _, test := range []struct {
		name   string
		inBody bool
		came   int
		left   time.Duration
		want   bool
	}{
		{"head", false, 1 << 20, time.Hour, false},
		{"a byte too few", true, 29_999, time.Hour, false},
		{"enough", true, 30_000, time.Hour, true},
		{"too late in all", true, 1 << 20, -time.Second, false},
	} {
		c.pace = pace{limited: true, inBody: test.inBody, came: test.came, until: time.Now().Add(test.left)}
		if got := c.keepsPace(&lim); got != test.want || got && c.pace.came != 0 {
			t.Errorf("%s: %v, %d bytes left over; want %v", test.name, got, c.pace.came, test.want)
		}
	}
}

// Empty lines keep a connection no longer than any others.
func TestEmptyLinesAreBounded(t *testing.T) {
	p, s := newPair(t, nil), still(recorder{}, plentiful)
	var lines [][]byte
	for range maxBlanks + 1 {
		lines = append(lines, []byte("\r\n"))
	}
	var bad *Malformed
	if r := p.read(t, s, append(lines, []byte(get("/")))...); len(r.reqs) != 0 || !errors.As(r.err, &bad) {
		t.Errorf("%d requests, %v; want it refused", len(r.reqs), r.err)
	}
	if r := p.read(t, s, append(append(lines[1:], []byte(get("/"))), append(lines[1:], []byte(get("/")))...)...); len(r.reqs) != 2 || r.err != nil {
		t.Errorf("%d requests, %v; want two", len(r.reqs), r.err)
	}
}
