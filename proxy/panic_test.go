package proxy

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/rs/zerolog"

	"lbd/admission"
	"lbd/balancer"
	"lbd/internal/loopback"
	"lbd/metrics"
	"lbd/proxy/internal/inbound"
	"lbd/proxy/internal/relay"
	"lbd/proxy/internal/sock"
)

// broken stands for a mistake in lbd: whatever is asked of it panics.
type broken struct{}

func (broken) Snapshot() *balancer.Snapshot                       { panic("mistake") }
func (broken) Ready() (bool, []string)                            { panic("mistake") }
func (broken) Settled() bool                                      { panic("mistake") }
func (broken) ReadBuf() (*sock.Buf, int, error)                   { panic("mistake") }
func (broken) SetReadDeadline(time.Time) error                    { return nil }
func (broken) Report(*balancer.Replica, balancer.Outcome)         { panic("mistake") }
func (broken) Retract(*balancer.Replica)                          { panic("mistake") }
func (broken) Finished(*balancer.Replica)                         { panic("mistake") }
func (broken) LastResort([]*balancer.Replica) []*balancer.Replica { panic("mistake") }

// mistaken is a server with that mistake.
type mistaken struct {
	*Server
	t *testing.T
}

func withMistake(t *testing.T) (*mistaken, *bytes.Buffer, *prometheus.Registry) {
	t.Helper()
	var log bytes.Buffer
	reg := prometheus.NewRegistry()
	s, err := New(Options{
		Config: Config{MaxHeader: 4096, MaxBody: 4096},
		Fleet:  broken{}, Health: broken{}, Metrics: metrics.New(reg, "test"), Log: zerolog.New(&log).Level(zerolog.InfoLevel),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop(context.Background()) })
	return &mistaken{s, t}, &log, reg
}

// talk sends a request and returns all that comes.
func (m *mistaken) talk(request string) string {
	m.t.Helper()
	if err := m.Start(loopback.Address()); err != nil {
		m.t.Fatal(err)
	}
	nc, err := net.Dial("tcp", m.Addr().String())
	if err != nil {
		m.t.Fatal(err)
	}
	defer nc.Close()
	io.WriteString(nc, request)
	got, err := io.ReadAll(nc)
	if err != nil {
		m.t.Fatal(err)
	}
	m.Stop(context.Background()) // and with it everything that logs
	return string(got)
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
	s, log, reg := withMistake(t)
	got := s.talk("POST /v1/completions HTTP/1.1\r\nHost: lbd\r\nContent-Length: 2\r\nX-Request-Id: client-1\r\n\r\n{}")
	if !strings.HasPrefix(got, "HTTP/1.1 500 ") || !strings.Contains(log.String(), "BUG") {
		t.Errorf("answer %q, log %s", got, log)
	}
	if !strings.Contains(got, "X-Request-Id: client-1\r\n") || !strings.Contains(log.String(), `"request_id":"client-1"`) {
		t.Errorf("answer %q, log %s; want the id of the request in both", got, log)
	}
	if got := answered(t, reg); len(got) != 1 || got[0] != "500" {
		t.Errorf("counted %v; want one 500", got)
	}
}

// A panic on a page of lbd's own is no different.
func TestPanicOnAPage(t *testing.T) {
	s, log, _ := withMistake(t)
	if got := s.talk("GET /health HTTP/1.1\r\nHost: lbd\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 500 ") || !strings.Contains(log.String(), "BUG") {
		t.Errorf("answer %q, log %s", got, log)
	}
}

// A panic in a loop is told of with the loop's stack, and of its value no more than of others.
func TestPanicInALoop(t *testing.T) {
	s, log, _ := withMistake(t)
	s.panicked(&sock.Panicked{Value: "BUG: taken ill", Stack: []byte("where the loop was")}, nil)
	s.panicked(&admission.Panicked{Value: "BUG: strategy ill", Stack: []byte("where it was placed")}, nil)
	s.panicked(&sock.Panicked{Value: "the prompt", Stack: []byte("there")}, nil)
	s.Stop(context.Background())
	got := log.String()
	for _, want := range []string{"BUG: taken ill", "where the loop was", "BUG: strategy ill", "where it was placed", `"panic":"string"`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in the log: %s", want, got)
		}
	}
	if strings.Contains(got, "the prompt") {
		t.Errorf("the value in the log: %s", got)
	}
}

// A panic within a stream is told of, ends the accounts and is nobody's leaving.
func TestPanicWithinAStream(t *testing.T) {
	s, log, reg := withMistake(t)
	x := &exchange{s: s.Server, cfg: s.cfg.Load(), client: &inbound.Conn{Conn: &sock.Conn{}}, status: 200, begun: true}
	x.model = s.opt.Metrics.Model("m")
	x.stream.Up = broken{}
	x.stream.Body.Reset(relay.Chunked, 0)
	keep := true
	func() {
		defer x.recovered(&keep)
		x.run(true, false)
	}()
	if keep {
		t.Error("the connection stays: the answer would look whole")
	}
	if !strings.Contains(log.String(), "BUG") {
		t.Errorf("log: %q", log)
	}
	if got := answered(t, reg); !x.done || x.left || len(got) != 1 || got[0] != "200" {
		t.Errorf("done %t, left %t, counted %v", x.done, x.left, got)
	}
}

func TestPanicsTellNoSecret(t *testing.T) {
	var none map[string]int
	runtimes := func() (r any) {
		defer func() { r = recover() }()
		none["sk-secret"]++
		return nil
	}()
	for r, want := range map[any]string{
		"BUG: no such state": "BUG: no such state", "the prompt": "string", [2]string{"Bearer", "sk-secret"}: "[2]string",
		runtimes: "assignment to entry in nil map",
	} {
		if got := tellable(r); got != want {
			t.Errorf("%v is told as %q, want %q", r, got, want)
		}
	}
	m, log, _ := withMistake(t)
	m.talk("POST /v1/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer sk-secret\r\nContent-Length: 29\r\n\r\n{\"model\":\"m\",\"prompt\":\"psst\"}")
	m.Stop(context.Background())
	if got := log.String(); !strings.Contains(got, "BUG") || strings.Contains(got, "sk-secret") || strings.Contains(got, "psst") {
		t.Errorf("no panic or a secret in the log: %s", got)
	}
}
