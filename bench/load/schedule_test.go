package load

import (
	"context"
	"errors"
	"io"
	"iter"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// An open loop sends at the planned times however slow the answers are.
func TestOpenLoopHonoursArrivalTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 50
		res, f := run(t, answerAfter(10*time.Second, 0), Options{Requests: every(n, 100*time.Millisecond)})
		for i, rec := range res.Records {
			want := time.Duration(i) * 100 * time.Millisecond
			if rec.Scheduled != want || rec.Dispatched != want || rec.Sent != want {
				t.Fatalf("request %d scheduled %v, dispatched %v, sent %v; want %v", i, rec.Scheduled, rec.Dispatched, rec.Sent, want)
			}
		}
		if res.PeakInFlight != n || f.dials != n {
			t.Errorf("%d in flight at most, %d connections; want %d of each", res.PeakInFlight, f.dials, n)
		}
		if res.TTFT.P50 != 10000 || res.Lateness.Max != 0 {
			t.Errorf("TTFT %+v, lateness %+v", res.TTFT, res.Lateness)
		}
		if want := 14.9; res.Seconds != want {
			t.Errorf("%v s, want %v", res.Seconds, want)
		}
		if err := res.Check(0); err != nil {
			t.Error(err)
		}
	})
}

// A sequence that hands a request out late makes the generator late: the
// scheduled clock counts it, the other one does not, and the check says so.
func TestLateGeneratorIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := func(yield func(Request) bool) {
			for q := range every(2, 0) {
				time.Sleep(80 * time.Millisecond)
				if !yield(q) {
					return
				}
			}
		}
		res, _ := run(t, answerAfter(time.Second, 0), Options{Requests: late})
		if got := res.Records[1].Lateness(); got != 160*time.Millisecond {
			t.Errorf("lateness %v, want 160ms", got)
		}
		if res.TTFT.Max != 1160 || res.TTFTFromSend.Max != 1000 || res.E2E.Max != 1160 || res.E2EFromSend.Max != 1000 {
			t.Errorf("TTFT %v and %v from send, E2E %v and %v", res.TTFT.Max, res.TTFTFromSend.Max, res.E2E.Max, res.E2EFromSend.Max)
		}
		if err := res.Check(0); err == nil || !strings.Contains(err.Error(), "generator late") || len(res.Warnings) != 1 {
			t.Errorf("check %v, warnings %q; want both to tell", err, res.Warnings)
		}
	})
}

func TestSlowConnectIsNotLateness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{t: t, script: answerAfter(time.Second, 0)}
		res, err := Run(t.Context(), Options{Target: "http://fake", Requests: every(1, 0), KeepRecords: true,
			Dial: func(ctx context.Context, n, a string) (net.Conn, error) {
				time.Sleep(time.Second)
				return f.dial(ctx, n, a)
			}})
		if err != nil {
			t.Fatal(err)
		}
		rec := res.Records[0]
		if rec.Dispatched != 0 || rec.Sent != time.Second || rec.TTFT() != 2*time.Second || rec.TTFTFromSend() != time.Second {
			t.Errorf("%+v", rec)
		}
		f.serving.Wait()
	})
}

func TestOpenLoopRefusesDisorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{t: t, script: answerAfter(0, 0)}
		seq := slices.Values([]Request{
			{At: time.Second, PromptTokens: 1, OutputTokens: 1, Stream: true},
			{At: 0, PromptTokens: 1, OutputTokens: 1, Stream: true},
		})
		res, err := Run(t.Context(), Options{Target: "http://fake", Requests: seq, Dial: f.dial})
		if err == nil || !strings.Contains(err.Error(), "want time order") || res.OK != 1 {
			t.Errorf("error %v with %d ok, want one about the order and 1 ok", err, res.OK)
		}
		f.serving.Wait()
	})
}

func TestClosedLoopKeepsConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		res, f := run(t, answerAfter(time.Second, 0), Options{Requests: every(12, time.Hour), Concurrency: 3})
		if res.PeakInFlight != 3 || f.dials != 3 {
			t.Errorf("%d in flight at most, %d connections; want 3 of each", res.PeakInFlight, f.dials)
		}
		// Four rounds of one second: the plan's own times are ignored.
		if res.Seconds != 4 || res.OK != 12 || res.RequestsPerSecond != 3 || res.TTFT.Max != 1000 {
			t.Errorf("%v s, %d ok, %v/s, TTFT %+v", res.Seconds, res.OK, res.RequestsPerSecond, res.TTFT)
		}
	})
}

func TestDurationStopsBothLoops(t *testing.T) {
	endless := func(yield func(Request) bool) {
		for i := 0; ; i++ {
			if !yield(Request{At: time.Duration(i) * time.Second, PromptTokens: 1, OutputTokens: 1, Stream: true}) {
				return
			}
		}
	}
	for name, c := range map[string]int{"open": 0, "closed": 1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				res, _ := run(t, answerAfter(time.Second, 0), Options{
					Requests: endless, Duration: 4500 * time.Millisecond, Concurrency: c,
				})
				if res.OK != 5 || res.Interrupted || res.Mode != name {
					t.Errorf("%d ok, interrupted %v, mode %q; want 5 of a complete run", res.OK, res.Interrupted, res.Mode)
				}
			})
		})
	}
}

func TestCancelAbortsAndCounts(t *testing.T) {
	for name, c := range map[string]int{"open": 0, "closed": 4} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fake{t: t, script: answerAfter(time.Second, time.Minute)}
				ctx, cancel := context.WithCancel(t.Context())
				var seen []string
				r, err := New(Options{Target: "http://fake", Requests: every(1000, time.Second), Dial: f.dial,
					Concurrency: c, OnRecord: func(rec Record) { seen = append(seen, rec.Cause) }})
				if err != nil {
					t.Fatal(err)
				}
				time.AfterFunc(3500*time.Millisecond, cancel)
				began := time.Now()
				res, err := r.Run(ctx)
				if err != nil || !res.Interrupted {
					t.Errorf("error %v, interrupted %v; want an interrupted run without error", err, res.Interrupted)
				}
				if took := time.Since(began); took != 3500*time.Millisecond {
					t.Errorf("ended after %v, want at once at 3.5s", took)
				}
				if res.Cancelled != 4 || res.Requests != 4 || res.Failed != 0 || len(seen) != 4 {
					t.Errorf("%d cancelled of %d, %d failed, %d records; want 4 of 4", res.Cancelled, res.Requests, res.Failed, len(seen))
				}
				if s := r.Snapshot(); s.InFlight != 0 || s.Cancelled != 4 || s.Errors != 0 {
					t.Errorf("snapshot %+v", s)
				}
				if err := res.Check(1); err == nil || !strings.Contains(err.Error(), "interrupted") {
					t.Errorf("check %v, want interrupted", err)
				}
				f.serving.Wait() // the aborted connections are closed
			})
		})
	}
}

func TestTimeoutCoversEveryPhase(t *testing.T) {
	never := func(c net.Conn, _ *fakeRequest) bool { io.Copy(io.Discard, c); return false }
	scripts := map[string]script{
		"head": never,
		"stream": func(c net.Conn, q *fakeRequest) bool {
			io.WriteString(c, streamHead)
			send(c, tokenEvent)
			return never(c, q)
		},
		"error body": func(c net.Conn, q *fakeRequest) bool {
			io.WriteString(c, "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 10\r\n\r\nabc")
			return never(c, q)
		},
	}
	for name, s := range scripts {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				res, _ := run(t, s, Options{Requests: every(1, 0), Timeout: 7 * time.Second})
				if rec := res.Records[0]; rec.Cause != CauseTimeout || rec.End != 7*time.Second {
					t.Errorf("cause %q after %v, want timeout after 7s (%s)", rec.Cause, rec.End, rec.Detail)
				}
			})
		})
	}
	t.Run("connect", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			res, err := Run(t.Context(), Options{Target: "http://fake", Requests: every(1, 0), Timeout: 7 * time.Second, KeepRecords: true,
				Dial: func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }})
			if err != nil || causes(res) != CauseTimeout {
				t.Errorf("error %v, causes %s; want timeout", err, causes(res))
			}
		})
	})
	t.Run("refused", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			res, err := Run(t.Context(), Options{Target: "http://fake", Requests: every(1, 0), KeepRecords: true,
				Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("refused") }})
			if err != nil || causes(res) != CauseConnect || res.Records[0].Detail != "refused" {
				t.Errorf("error %v, records %+v; want connect", err, res.Records)
			}
		})
	})
}

func TestWarmupIsLeftOut(t *testing.T) {
	tests := []struct {
		name string
		o    Options
	}{
		{"time", Options{Warmup: 3 * time.Second}},
		{"requests", Options{WarmupRequests: 3}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				served := 0
				slowStart := func(c net.Conn, q *fakeRequest) bool {
					served++
					if served <= 3 {
						return answerAfter(500*time.Millisecond, 100*time.Millisecond)(c, q)
					}
					return answerAfter(100*time.Millisecond, 10*time.Millisecond)(c, q)
				}
				tt.o.Requests = every(10, time.Second)
				res, _ := run(t, slowStart, tt.o)
				if res.OK != 7 || res.WarmupRequests != 3 || len(res.Records) != 10 {
					t.Errorf("%d ok, %d warm-up, %d records; want 7, 3, 10", res.OK, res.WarmupRequests, len(res.Records))
				}
				if res.TTFT.Max != 100 || res.ITL.Max != 10 || res.ITL.Count != 21 || res.Seconds != 6.13 {
					t.Errorf("TTFT %+v, ITL %+v, %v s", res.TTFT, res.ITL, res.Seconds)
				}
			})
		})
	}
}

func TestIdleConnectionsAreReusedWithinLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gaps := []time.Duration{0, 2 * time.Second, 4 * time.Second, 8 * time.Second} // idle: 2, 2, 4 s
		seq := func(yield func(Request) bool) {
			for _, at := range gaps {
				if !yield(Request{At: at, PromptTokens: 1, OutputTokens: 1, Stream: true}) {
					return
				}
			}
		}
		_, f := run(t, answerAfter(0, 0), Options{Requests: iter.Seq[Request](seq)})
		if f.dials != 2 {
			t.Errorf("%d connections, want 2: reused after 2 s, not after 4 s", f.dials)
		}
	})
}

// The live view during a run: two answers a second for 20 s, slower in the
// second half, which is all the window shows at the end.
func TestSnapshotAndWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		s := func(c net.Conn, q *fakeRequest) bool {
			if time.Since(began) < 10*time.Second {
				return answerAfter(100*time.Millisecond, 10*time.Millisecond)(c, q)
			}
			return answerAfter(400*time.Millisecond, 20*time.Millisecond)(c, q)
		}
		var views []Snapshot
		res, _ := run(t, s, Options{Requests: every(40, 500*time.Millisecond), Progress: func(s Snapshot) { views = append(views, s) }})
		if len(views) != 20 || res.OK != 40 {
			t.Fatalf("%d views of %d requests, want 20 of 40", len(views), res.OK)
		}
		near := func(what string, got, want time.Duration) {
			t.Helper()
			if diff := got - want; diff < -want/200 || diff > want/200 {
				t.Errorf("%s is %v, want %v within 0.5 %%", what, got, want)
			}
		}
		first, last := views[4], views[19]
		near("first TTFT p50", first.TTFT.P50, 100*time.Millisecond)
		near("first ITL p99", first.ITL.P99, 10*time.Millisecond)
		near("last TTFT p50", last.TTFT.P50, 100*time.Millisecond)
		near("last TTFT p99", last.TTFT.P99, 400*time.Millisecond)
		near("recent TTFT p50", last.RecentTTFT.P50, 400*time.Millisecond)
		near("recent ITL p50", last.RecentITL.P50, 20*time.Millisecond)
		if first.Elapsed != 5*time.Second || first.Done != 10 || first.Events != 40 || first.RecentDone != 2 {
			t.Errorf("view after 5 s: %+v", first)
		}
		if last.Done != 40 || last.InFlight != 0 || last.TTFT.Count != 40 {
			t.Errorf("last view: %+v", last)
		}
	})
}

func TestSnapshotBeforeRun(t *testing.T) {
	r, err := New(Options{Target: "http://fake", Requests: every(1, 0)})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Snapshot{}, r.Snapshot()); diff != "" {
		t.Error(diff)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	good := Options{Target: "http://fake", Requests: every(1, 0)}
	tests := []struct {
		name, want string
		change     func(*Options)
	}{
		{"no requests", "no requests", func(o *Options) { o.Requests = nil }},
		{"no scheme", `target "fake:1"`, func(o *Options) { o.Target = "fake:1" }},
		{"no host", `target "http://"`, func(o *Options) { o.Target = "http://" }},
		{"API", `unknown API "x"`, func(o *Options) { o.API = "x" }},
		{"concurrency", "below 0", func(o *Options) { o.Concurrency = -1 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := good
			tt.change(&o)
			if _, err := New(o); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestTarget(t *testing.T) {
	tests := []struct{ raw, base, address, path string }{
		{"http://h:8080", "http://h:8080", "h:8080", ""},
		{"http://h", "http://h", "h:80", ""},
		{"https://h/", "https://h", "h:443", ""},
		{"http://h:1/v1/", "http://h:1", "h:1", ""},
		{"http://h:1/base/v1", "http://h:1/base", "h:1", "/base"},
		{"http://[::1]:8080", "http://[::1]:8080", "[::1]:8080", ""},
	}
	for _, tt := range tests {
		got, err := parseTarget(tt.raw)
		if err != nil || got.base != tt.base || got.address != tt.address || got.path != tt.path {
			t.Errorf("%q: %+v, %v; want %+v", tt.raw, got, err, tt)
		}
	}
}
