package proxy

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"lbd/balancer"
	"lbd/internal/loopback"
	"lbd/metrics"
)

// one is a fleet with one replica of the model "m". Any of it can be a mistake.
type one struct {
	broken
	replica  *balancer.Replica
	mistakes atomic.Int64 // bits of where
}

// Where the mistake is.
const (
	inSnapshot = 1 << iota
	inPick
	inReport
	inFinished
	inLine
	noneToPick
)

func (o *one) fails(where int64) {
	if o.mistakes.Load()&where != 0 {
		panic("BUG: mistake")
	}
}

func (o *one) Ready() (bool, []string) { return true, nil }
func (o *one) Settled() bool           { return true }
func (o *one) Snapshot() *balancer.Snapshot {
	o.fails(inSnapshot)
	m := &balancer.Model{Name: "m", Aliases: []string{"short"}, Picker: o, Replicas: []*balancer.Replica{o.replica}, Available: []*balancer.Replica{o.replica}}
	return balancer.NewSnapshot(1, []balancer.ReplicaState{{Replica: o.replica, Health: balancer.Health{State: balancer.Healthy}}}, []*balancer.Model{m})
}

func (o *one) Pick(_ *balancer.Request, from []*balancer.Replica) *balancer.Replica {
	o.fails(inPick)
	if o.mistakes.Load()&noneToPick != 0 {
		return nil
	}
	return from[0]
}

func (o *one) Report(*balancer.Replica, balancer.Outcome)            { o.fails(inReport) }
func (o *one) Retract(*balancer.Replica)                             {}
func (o *one) Finished(*balancer.Replica)                            { o.fails(inFinished) }
func (o *one) LastResort(rs []*balancer.Replica) []*balancer.Replica { return rs }

// yes answers every request, and counts them.
func yes(t *testing.T, asked *atomic.Int64) (addr string) {
	t.Helper()
	ln := loopback.Listen(t)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		asked.Add(1)
		io.WriteString(w, "yes")
	})}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(ln) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return ln.Addr().String()
}

// What panics in a turn costs the request, and nothing of it stays counted as under way.
func TestPanicsInTurns(t *testing.T) {
	for name, where := range map[string]int64{"snapshot": inSnapshot, "pick": inPick, "report": inReport} {
		t.Run(name, func(t *testing.T) {
			for try := range 50 {
				if log := panics(t, where, try); strings.Contains(log, "sock.(*Turn)") {
					return
				}
			}
			t.Error("never in a turn")
		})
	}
}

// pause is for a client that asks for the n-th time whether its request is taken in turns:
// one that is quick enough meets a goroutine that is still there, on some machines always.
func pause(n int) { time.Sleep(time.Duration(n) * time.Millisecond / 2) }

// panics sends three requests, of which the last one meets a mistake, and returns the log.
func panics(t *testing.T, where int64, try int) string {
	t.Helper()
	var asked atomic.Int64
	o := &one{}
	addr := yes(t, &asked)
	o.replica = balancer.NewReplica(balancer.Endpoint{Addr: addr, Host: addr}, "", 1)
	var log bytes.Buffer
	reg := prometheus.NewRegistry()
	s, err := New(Options{
		Config: Config{MaxHeader: 4096, MaxBody: 4096, UpstreamIdle: time.Minute}, Fleet: o, Health: o, Metrics: metrics.New(reg, "test"),
		Log: zerolog.New(&log).Level(zerolog.InfoLevel),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(loopback.Address()); err != nil {
		t.Fatal(err)
	}
	defer s.Stop(context.Background())
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	br := bufio.NewReader(c)
	for _, want := range []int{200, 200, 500} { // the first one has to connect, so it has a goroutine
		if want == 500 {
			pause(try)
			o.mistakes.Store(where)
		}
		io.WriteString(c, "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}")
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != want || resp.Close != (want == 500) {
			t.Fatalf("%s %q, %v; want %d", resp.Status, body, err, want)
		}
	}
	if _, err := br.ReadByte(); err != io.EOF {
		t.Errorf("%v behind the answer; want the end", err)
	}
	s.Stop(context.Background())
	if !strings.Contains(log.String(), "BUG: mistake") {
		t.Errorf("no panic in the log: %s", log.String())
	}
	if n := o.replica.InFlight(); n != 0 {
		t.Errorf("own load %d; want 0", n)
	}
	if got := answered(t, reg); !slices.Contains(got, "200") || !slices.Contains(got, "500") {
		t.Errorf("counted %v; want 200 and 500", got)
	}
	return log.String()
}

// Who finds nobody in a turn is told so like anybody.
func TestNobodyToPickInATurn(t *testing.T) {
	o := &one{replica: balancer.NewReplica(balancer.Endpoint{Addr: "127.0.0.1:1"}, "", 1)}
	o.mistakes.Store(noneToPick)
	var log bytes.Buffer
	s, err := New(Options{
		Config: Config{MaxHeader: 4096, MaxBody: 4096}, Fleet: o, Health: o, Metrics: metrics.New(prometheus.NewRegistry(), "test"),
		Log: zerolog.New(&log).Level(zerolog.InfoLevel),
	})
	if err != nil {
		t.Fatal(err)
	}
	m := &mistaken{s, t}
	got := m.talk("POST /v1/completions HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
	if !strings.HasPrefix(got, "HTTP/1.1 503 ") || !strings.Contains(got, "no_healthy_replica") {
		t.Errorf("%s; want 503", got)
	}
}
