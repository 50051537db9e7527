package proxy

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/rs/zerolog"
	"github.com/valyala/fasthttp"

	"lbd/balancer"
	"lbd/metrics"
	"lbd/proxy/internal/relay"
	"lbd/proxy/internal/sock"
)

// broken stands for a mistake in lbd: whatever is asked of it panics.
type broken struct{}

func (broken) Snapshot() *balancer.Snapshot               { panic("mistake") }
func (broken) Ready() (bool, []string)                    { panic("mistake") }
func (broken) ReadBuf() (*sock.Buf, int, error)           { panic("mistake") }
func (broken) SetReadDeadline(time.Time) error            { return nil }
func (broken) Report(*balancer.Replica, balancer.Outcome) { panic("mistake") }

// withMistake returns a server with that mistake, what it logs and counts.
func withMistake() (*Server, *bytes.Buffer, *prometheus.Registry) {
	var log bytes.Buffer
	reg := prometheus.NewRegistry()
	s := &Server{opt: Options{
		Fleet: broken{}, Health: broken{}, Metrics: metrics.New(reg, "test"), Log: zerolog.New(&log).Level(zerolog.InfoLevel),
	}}
	s.cfg.Store(&Config{})
	return s, &log, reg
}

// answered returns the codes that were counted.
func answered(t *testing.T, reg *prometheus.Registry) (codes []string) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var page bytes.Buffer
	enc := expfmt.NewEncoder(&page, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, f := range families {
		if err := enc.Encode(f); err != nil {
			t.Fatal(err)
		}
	}
	for line := range strings.Lines(page.String()) {
		if series, ok := strings.CutPrefix(line, `lbd_requests_total{code="`); ok {
			codes = append(codes, series[:3])
		}
	}
	return codes
}

// A panic costs one request, which counts as what its client got.
func TestPanicBeforeAnAnswer(t *testing.T) {
	s, log, reg := withMistake()
	ctx := &fasthttp.RequestCtx{}
	ctx.Init2(&sock.Conn{}, nil, false)
	ctx.Request.Header.SetMethod("POST")
	ctx.Request.SetRequestURI("/v1/completions")
	ctx.Request.SetBodyString("{}")
	s.handle(ctx)
	if ctx.Response.StatusCode() != 500 || !strings.Contains(log.String(), "BUG") {
		t.Errorf("status %d, log %s", ctx.Response.StatusCode(), log)
	}
	if got := answered(t, reg); len(got) != 1 || got[0] != "500" {
		t.Errorf("counted %v; want one 500", got)
	}
}

// A panic within a stream is told of, ends the accounts and is nobody's leaving.
func TestPanicWithinAStream(t *testing.T) {
	s, log, reg := withMistake()
	x := &exchange{s: s, cfg: s.cfg.Load(), ctx: &fasthttp.RequestCtx{}, client: &sock.Conn{}, status: 200, streaming: true}
	x.model = s.opt.Metrics.Model("m")
	x.stream.Up = broken{}
	x.stream.Body.Reset(relay.Chunked, 0)
	if _, err := x.WriteTo(nil); err == nil {
		t.Error("no error: the answer would look whole")
	}
	if !strings.Contains(log.String(), "BUG") {
		t.Errorf("log: %q", log)
	}
	if got := answered(t, reg); !x.done || x.left || len(got) != 1 || got[0] != "200" {
		t.Errorf("done %t, left %t, counted %v", x.done, x.left, got)
	}
}
