package demo

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
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
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := Run(ctx, testOptions(), io.Discard); err != nil {
		t.Fatal(err)
	}
	if ctx.Err() == nil {
		t.Fatal("the demo ended by itself")
	}
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
