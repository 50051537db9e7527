package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lbd/cmd/lbd/internal/daemon"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// fasthttp's own, see the daemon's tests.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"))
}

func testOptions() Options {
	o := DefaultOptions()
	o.BaselineListen, o.ManagedListen = "127.0.0.1:0", "127.0.0.1:0"
	o.Rate, o.Prompt, o.Output, o.Log = 10, "64", "4", io.Discard
	return o
}

// A measurement answers every request in both environments and prints both.
func TestOnce(t *testing.T) {
	o := testOptions()
	o.Once, o.Duration = true, time.Second
	var out strings.Builder
	err := Run(t.Context(), o, &out)
	// A machine busy with other tests may send late; then the figures are doubted,
	// which is what the check is for. Everything else must hold.
	if err != nil && !strings.Contains(err.Error(), "generator late") {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{"baseline", "managed", "cycle", "least-waiting", "TTFT p99 ms", "curl -N http://127.0.0.1:", "requests failed    "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output lacks %q", want)
		}
	}
	if t.Failed() {
		t.Log(out.String())
	}
}

// Without Once traffic runs until it is told to end.
func TestUntilCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var once sync.Once
	begun := writer(func() { once.Do(func() { time.AfterFunc(time.Second, cancel) }) })
	if err := Run(ctx, testOptions(), begun); err != nil {
		t.Fatal(err)
	}
	if ctx.Err() == nil {
		t.Fatal("the demo ended by itself")
	}
}

// writer is told of each write: the first one is the introduction, when all is ready.
type writer func()

func (w writer) Write(p []byte) (int, error) {
	w()
	return len(p), nil
}

func TestTakenPortNamesTheFlag(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for flag, set := range map[string]func(*Options){
		"--baseline-listen": func(o *Options) { o.BaselineListen = ln.Addr().String() },
		"--managed-listen":  func(o *Options) { o.ManagedListen = ln.Addr().String() },
	} {
		o := testOptions()
		set(&o)
		err := Run(t.Context(), o, io.Discard)
		if !errors.Is(err, daemon.ErrAddress) || !strings.Contains(err.Error(), flag) || !strings.Contains(err.Error(), ln.Addr().String()) {
			t.Errorf("error %v; want the address and %s", err, flag)
		}
	}
}

func TestBadLengthsNameTheFlag(t *testing.T) {
	o := testOptions()
	o.Prompt = "many"
	if err := Run(t.Context(), o, io.Discard); err == nil || !strings.Contains(err.Error(), "--input-tokens") {
		t.Errorf("error %v; want one about --input-tokens", err)
	}
}

func TestBadAddressNamesTheFlag(t *testing.T) {
	for flag, set := range map[string]func(*Options){
		"--baseline-listen": func(o *Options) { o.BaselineListen = "8080" },
		"--managed-listen":  func(o *Options) { o.ManagedListen = "8080" },
	} {
		o := testOptions()
		set(&o)
		if err := Run(t.Context(), o, io.Discard); err == nil || !strings.HasPrefix(err.Error(), flag+`: "8080"`) {
			t.Errorf("error %v; want one about %s", err, flag)
		}
	}
}

// An address that is not taken but cannot be had is not called taken.
func TestForeignAddressIsNotTaken(t *testing.T) {
	o := testOptions()
	o.BaselineListen = "192.0.2.1:0" // TEST-NET-1, RFC 5737: no host has it
	err := Run(t.Context(), o, io.Discard)
	if !errors.Is(err, daemon.ErrAddress) || strings.Contains(err.Error(), "taken") ||
		!strings.Contains(err.Error(), "--baseline-listen") || strings.Contains(err.Error(), "--listen") {
		t.Errorf("error %v; want the flag and why", err)
	}
}

// The live table fits a terminal of 80 columns.
func TestPictureFits(t *testing.T) {
	o := testOptions()
	e, err := start(t.Context(), spec{"baseline", o.BaselineListen, o.BaselineStrategy, "baseline-listen"}, &o)
	defer e.stop()
	if err != nil {
		t.Fatal(err)
	}
	arrivals, err := o.arrivals(0)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.prepare(arrivals, &o, 0); err != nil {
		t.Fatal(err)
	}
	v := newView(newScreen(io.Discard, io.Discard), []*environment{e, e})
	for line := range strings.Lines(v.picture()) {
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 80 {
			t.Errorf("%d columns: %q", n, line)
		}
	}
}

// A line of the log leaves the picture whole: what the terminal shows in the end
// is the lines in order and one picture below them.
func TestLogGoesAboveThePicture(t *testing.T) {
	var term strings.Builder
	s := &screen{out: &term, log: &term, terminal: true, shared: true}
	s.show("one\ntwo\n")
	fmt.Fprint(s, "WRN first\n")
	s.show("three\nfour\n")
	fmt.Fprint(s, "WRN second\n")
	if got, want := shown(term.String()), "WRN first\nWRN second\nthree\nfour\n"; got != want {
		t.Errorf("the terminal shows %q; want %q", got, want)
	}
	s.clear()
	fmt.Fprint(s, "WRN third\n")
	if got, want := shown(term.String()), "WRN first\nWRN second\nWRN third\n"; got != want {
		t.Errorf("cleared, the terminal shows %q; want %q", got, want)
	}
}

// A log that goes to a file gets its lines and nothing else.
func TestLogToAFile(t *testing.T) {
	var term, log strings.Builder
	s := &screen{out: &term, log: &log, terminal: true}
	s.show("one\n")
	before := term.String()
	fmt.Fprint(s, "WRN\n")
	if log.String() != "WRN\n" || term.String() != before {
		t.Errorf("log %q, terminal %q; want the line and %q", log.String(), term.String(), before)
	}
}

// shown is what a terminal makes of out, which moves up only to erase the rest.
func shown(out string) string {
	out = strings.NewReplacer("\x1b[?7l", "", "\x1b[?7h", "").Replace(out)
	text, rest, more := strings.Cut(out, "\x1b[")
	for more {
		var up int
		fmt.Sscanf(rest, "%dA", &up)
		_, rest, _ = strings.Cut(rest, "\x1b[J")
		lines := strings.SplitAfter(text, "\n")
		text = strings.Join(lines[:len(lines)-1-up], "")
		var next string
		next, rest, more = strings.Cut(rest, "\x1b[")
		text += next
	}
	return text
}
