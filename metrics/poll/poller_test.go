package poll

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"lbd/balancer"
)

// testFleet holds replicas and what the poller said of them.
type testFleet struct {
	holder balancer.Holder
	wake   chan struct{}

	mu        sync.Mutex
	models    map[string][]balancer.ModelInfo
	set       map[string]int // how often
	unlearned map[string]bool
}

func newTestFleet(t testing.TB, urls ...string) *testFleet {
	f := &testFleet{
		wake: make(chan struct{}, 1), models: map[string][]balancer.ModelInfo{}, set: map[string]int{}, unlearned: map[string]bool{},
	}
	f.make(t, urls...)
	return f
}

// make replaces the fleet; replicas that stay stay the same.
func (f *testFleet) make(t testing.TB, urls ...string) {
	t.Helper()
	old := f.Snapshot()
	var states []balancer.ReplicaState
	for _, u := range urls {
		e, err := balancer.ParseEndpoint(u)
		if err != nil {
			t.Fatal(err)
		}
		r := balancer.NewReplica(e, "", 1)
		if s := old.Replica(r.ID); s != nil {
			r = s.Replica
		}
		states = append(states, balancer.ReplicaState{Replica: r})
	}
	f.holder.Store(balancer.NewSnapshot(old.Generation+1, states, nil))
}

func (f *testFleet) Snapshot() *balancer.Snapshot { return f.holder.Load() }
func (f *testFleet) Wake() <-chan struct{}        { return f.wake }

func (f *testFleet) SetModels(id string, models []balancer.ModelInfo) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.models[id] = models
	f.set[id]++
	delete(f.unlearned, id)
}

func (f *testFleet) Unlearned() (rs []*balancer.Replica) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id := range f.unlearned {
		rs = append(rs, f.Snapshot().Replica(id).Replica)
	}
	return rs
}

func (f *testFleet) void(id string) {
	f.mu.Lock()
	f.unlearned[id] = true
	f.mu.Unlock()
	f.wake <- struct{}{}
}

func (f *testFleet) learned(id string) (names string, times int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var ns []string
	for _, m := range f.models[id] {
		ns = append(ns, m.ID)
	}
	return strings.Join(ns, ","), f.set[id]
}

func (f *testFleet) replica(id string) *balancer.Replica { return f.Snapshot().Replica(id).Replica }

// fakeReplica is one server behind fakeFetcher.
type fakeReplica struct {
	page, models string
	v0           bool // ignores name[] with an empty page
	hang         bool
	err          error
	status       int
	got          []string // paths without the query
	at           []time.Time
	bearer       string
}

type fakeFetcher struct {
	mu       sync.Mutex
	replicas map[string]*fakeReplica
}

func (f *fakeFetcher) Fetch(ctx context.Context, r *balancer.Replica, path, bearer string, buf []byte) (int, []byte, error) {
	f.mu.Lock()
	s := f.replicas[r.ID]
	name, _, cheap := strings.Cut(path, "?")
	s.got, s.at = append(s.got, name), append(s.at, time.Now())
	hang, err, status, body := s.hang, s.err, s.status, s.page
	if path == modelsPath {
		body, s.bearer = s.models, bearer
	}
	if cheap && s.v0 {
		body = ""
	}
	f.mu.Unlock()
	if hang {
		<-ctx.Done()
		return 0, buf, ctx.Err()
	}
	if status == 0 {
		status = 200
	}
	return status, append(buf[:0], body...), err
}

func (f *fakeFetcher) change(id string, change func(*fakeReplica)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f.replicas[id])
}

// took returns the paths asked since the last call.
func (f *fakeFetcher) took(id string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	got := f.replicas[id].got
	f.replicas[id].got = nil
	return got
}

func (f *fakeFetcher) key(id string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.replicas[id].bearer
}

func (f *fakeFetcher) count(id, path string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.replicas[id].got {
		if p == path {
			n++
		}
	}
	return n
}

type bench struct {
	*testing.T
	*Poller
	fleet *testFleet
	fetch *fakeFetcher
	mu    sync.Mutex
	seen  []Event
}

const (
	idle  = "vllm:num_requests_running 0\nvllm:num_requests_waiting 0\nvllm:prompt_tokens_total 100\nvllm:generation_tokens_total 100\n"
	listM = `{"object":"list","data":[{"id":"m","object":"model","max_model_len":8192}]}`
)

func busyPage(running, waiting, prompt, generation int) string {
	return fmt.Sprintf("vllm:num_requests_running %d\nvllm:num_requests_waiting %d\nvllm:prompt_tokens_total %d\nvllm:generation_tokens_total %d\n",
		running, waiting, prompt, generation)
}

// run runs f in a bubble with the replicas a:1 and b:1, half a second after the
// first tick.
func run(t *testing.T, cfg Config, f func(b *bench)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{T: t, fleet: newTestFleet(t, "http://a:1", "http://b:1"), fetch: &fakeFetcher{replicas: map[string]*fakeReplica{}}}
		for _, id := range []string{"a:1", "b:1", "c:1"} {
			b.fetch.replicas[id] = &fakeReplica{page: idle, models: listM}
		}
		b.Poller = New(cfg, b.fleet, Options{Fetcher: b.fetch, OnEvent: func(e Event) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.seen = append(b.seen, e)
		}})
		b.Start()
		defer b.Stop()
		b.sleep(500 * time.Millisecond)
		f(b)
	})
}

func (b *bench) sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (b *bench) wantEvents(want ...string) {
	b.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	var got []string
	for _, e := range b.seen {
		got = append(got, e.Replica+" "+e.Kind.String())
	}
	b.seen = nil
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		b.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestOneTickForAll(t *testing.T) {
	run(t, Config{Interval: time.Second}, func(b *bench) {
		b.sleep(10 * time.Second)
		var ticks [2][]time.Time
		for i, id := range []string{"a:1", "b:1"} {
			s := b.fetch.replicas[id]
			for j, path := range s.got {
				if path == "/metrics/" {
					ticks[i] = append(ticks[i], s.at[j])
				}
			}
		}
		if len(ticks[0]) != 11 || !slices.Equal(ticks[0], ticks[1]) {
			b.Errorf("polls at %v and %v, want the same eleven instants", ticks[0], ticks[1])
		}
		if p := b.fleet.replica("a:1").Polled(); p == nil || p.Stale || !p.Running.Known || p.Running.Value != 0 {
			b.Errorf("polled %+v", p)
		}
		if age, ok := b.Age("a:1"); !ok || age != 500*time.Millisecond {
			b.Errorf("age %v, %v", age, ok)
		}
		b.wantEvents()
	})
}

func TestForeignLoadIsWhatIsNotOurs(t *testing.T) {
	run(t, Config{}, func(b *bench) {
		r := b.fleet.replica("a:1")
		v := r.Reserve()
		for i := range 20 {
			b.fetch.change("a:1", func(s *fakeReplica) { s.page = busyPage(3, 2, 100+i, 100) })
			b.sleep(time.Second)
		}
		if n := r.Requests(); n != 5 {
			b.Errorf("%d requests, want ours and 4 foreign ones", n)
		}
		v.Done()
	})
}

// A replica that hangs is left out of ticks and delays nobody; it becomes stale
// after three intervals and nothing else happens to it.
func TestHangingReplica(t *testing.T) {
	run(t, Config{Interval: 500 * time.Millisecond, Timeout: 2 * time.Second}, func(b *bench) {
		b.fetch.change("a:1", func(s *fakeReplica) { s.hang, s.got = true, nil })
		b.fetch.took("b:1")
		b.sleep(6 * time.Second)
		if n := b.fetch.count("a:1", "/metrics/"); n != 3 && n != 4 {
			b.Errorf("%d polls of a replica that hangs, want one per timeout", n)
		}
		if n := b.fetch.count("b:1", "/metrics/"); n != 12 {
			b.Errorf("%d polls of the other one, want 12", n)
		}
		if n := b.Failures("a:1"); n < 2 || n > 3 {
			b.Errorf("%d failures", n)
		}
		if p := b.fleet.replica("a:1").Polled(); !p.Stale {
			b.Error("not stale")
		}
		if _, ok := b.fleet.replica("a:1").Waiting(); ok {
			b.Error("a stale gauge is used")
		}
		b.wantEvents("a:1 poll failed", "a:1 load stale")
		b.fetch.change("a:1", func(s *fakeReplica) { s.hang = false })
		b.sleep(3 * time.Second)
		if p := b.fleet.replica("a:1").Polled(); p.Stale {
			b.Error("still stale")
		}
		b.wantEvents("a:1 poll recovered", "a:1 load fresh")
	})
}

func TestStaleAfterThreeSecondsAtLeast(t *testing.T) {
	run(t, Config{Interval: 100 * time.Millisecond}, func(b *bench) {
		b.fetch.change("a:1", func(s *fakeReplica) { s.err = errors.New("no route") })
		b.sleep(2800 * time.Millisecond)
		if b.fleet.replica("a:1").Polled().Stale {
			b.Error("stale too early")
		}
		b.sleep(300 * time.Millisecond)
		if !b.fleet.replica("a:1").Polled().Stale {
			b.Error("not stale after three seconds")
		}
	})
}

func TestFullPageIsRemembered(t *testing.T) {
	run(t, Config{Interval: time.Second}, func(b *bench) {
		b.fetch.change("a:1", func(s *fakeReplica) { s.v0, s.got = true, nil })
		b.sleep(3 * time.Second)
		if diff := cmp.Diff([]string{"/metrics/", "/metrics", "/metrics", "/metrics"}, b.fetch.took("a:1")); diff != "" {
			b.Errorf("asked (-want +got):\n%s", diff)
		}
		b.wantEvents("a:1 full page")
		b.sleep(cheapRetry)
		if n := b.fetch.count("a:1", "/metrics/"); n != 1 {
			b.Errorf("the cheap form was tried %d times in five minutes, want once", n)
		}
		b.fetch.change("a:1", func(s *fakeReplica) { s.v0 = false })
		b.sleep(cheapRetry)
		b.fetch.took("a:1")
		b.sleep(2 * time.Second)
		if diff := cmp.Diff([]string{"/metrics/", "/metrics/"}, b.fetch.took("a:1")); diff != "" {
			b.Errorf("after it filters (-want +got):\n%s", diff)
		}
		b.wantEvents()
	})
}

// Whoever answers after a failure or a restart may be another version.
func TestCheapFormIsTriedAgainAfterAFailureOrARestart(t *testing.T) {
	run(t, Config{}, func(b *bench) {
		b.fetch.change("a:1", func(s *fakeReplica) { s.v0 = true })
		b.sleep(2 * time.Second)
		b.fetch.change("a:1", func(s *fakeReplica) { s.err = errors.New("refused") })
		b.sleep(time.Second)
		b.fetch.change("a:1", func(s *fakeReplica) { s.err, s.v0, s.got = nil, false, nil })
		b.sleep(2 * time.Second)
		if diff := cmp.Diff([]string{"/metrics", "/metrics/"}, b.fetch.took("a:1")); diff != "" {
			b.Errorf("after a failure (-want +got):\n%s", diff)
		}
		b.fetch.change("a:1", func(s *fakeReplica) { s.v0 = true })
		b.sleep(2 * time.Second)
		b.fetch.change("a:1", func(s *fakeReplica) { s.v0, s.page, s.got = false, busyPage(0, 0, 0, 0), nil })
		b.sleep(2 * time.Second)
		got := slices.DeleteFunc(b.fetch.took("a:1"), func(p string) bool { return p == modelsPath })
		if diff := cmp.Diff([]string{"/metrics", "/metrics/"}, got); diff != "" {
			b.Errorf("after a restart (-want +got):\n%s", diff)
		}
	})
}

func TestCheapFormMayBeAnError(t *testing.T) {
	run(t, Config{}, func(b *bench) {
		b.fetch.change("a:1", func(s *fakeReplica) { s.status, s.got = 404, nil })
		b.sleep(time.Second)
		if diff := cmp.Diff([]string{"/metrics/", "/metrics"}, b.fetch.took("a:1")); diff != "" {
			b.Errorf("asked (-want +got):\n%s", diff)
		}
		b.wantEvents("a:1 poll failed")
	})
}

// --disable-log-stats: the page has no vllm: family. That is not idle.
func TestNoMetricsIsUnknown(t *testing.T) {
	run(t, Config{}, func(b *bench) {
		b.fetch.change("a:1", func(s *fakeReplica) { s.page = "process_start_time_seconds 5\n" })
		b.fetch.change("b:1", func(s *fakeReplica) { s.page = "" })
		b.sleep(3 * time.Second)
		for _, id := range []string{"a:1", "b:1"} {
			if p := b.fleet.replica(id).Polled(); p.Running.Known || p.Waiting.Known {
				b.Errorf("%s: polled %+v", id, p)
			}
			if _, ok := b.fleet.replica(id).Waiting(); ok {
				b.Errorf("%s: waiting is taken for known", id)
			}
			if b.Failures(id) != 0 {
				b.Errorf("%s: an empty page is no failure", id)
			}
		}
		b.wantEvents("a:1 no metrics", "b:1 no metrics")
	})
}

func TestStuckGaugesAreDropped(t *testing.T) {
	for _, tt := range []struct {
		name, page, other string
	}{
		{"running", busyPage(4, 1, 100, 100), busyPage(4, 1, 100, 101)},
		{"waiting only", busyPage(0, 2, 100, 100), busyPage(0, 1, 100, 100)},
		{"no counters", "vllm:num_requests_running 2\n", "vllm:num_requests_running 1\n"},
		{"full and idle", idle + "vllm:kv_cache_usage_perc 0.99\n", idle + "vllm:kv_cache_usage_perc 0.91\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			run(t, Config{}, func(b *bench) {
				r := b.fleet.replica("a:1")
				v := r.Reserve()
				b.fetch.change("a:1", func(s *fakeReplica) { s.page = tt.page })
				b.sleep(30 * time.Second)
				if r.Polled().Stale {
					b.Error("stale while a request of ours runs there")
				}
				v.Done() // aborted: the gauges stay
				b.sleep(8 * time.Second)
				if r.Polled().Stale {
					b.Error("stale before ten seconds")
				}
				b.sleep(4 * time.Second)
				if !r.Polled().Stale || r.Requests() != 0 {
					b.Errorf("stale %v with %d requests after ten seconds", r.Polled().Stale, r.Requests())
				}
				if age, _ := b.Age("a:1"); age > time.Second {
					b.Errorf("age %v of a replica that answers", age)
				}
				b.sleep(10 * time.Second)
				b.wantEvents("a:1 load stale")
				b.fetch.change("a:1", func(s *fakeReplica) { s.page = tt.other })
				b.sleep(time.Second)
				if r.Polled().Stale {
					b.Error("still stale though it moves")
				}
				b.wantEvents("a:1 load fresh")
			})
		})
	}
}

func TestIdleOrWorkingReplicaIsNotStuck(t *testing.T) {
	run(t, Config{}, func(b *bench) {
		// kvcached: a neighbour fills the device.
		b.fetch.change("b:1", func(s *fakeReplica) { s.page = idle + "vllm:kv_cache_usage_perc 0.56\n" })
		for i := range 60 {
			b.fetch.change("a:1", func(s *fakeReplica) { s.page = busyPage(4, 0, 100, 200+i) })
			b.sleep(time.Second)
		}
		for _, id := range []string{"a:1", "b:1"} {
			if b.fleet.replica(id).Polled().Stale {
				b.Errorf("%s is stale", id)
			}
		}
		b.wantEvents()
	})
}

func TestRestart(t *testing.T) {
	for name, page := range map[string]string{
		"counter fell":  "vllm:num_requests_running 0\nvllm:generation_tokens_total 5\nprocess_start_time_seconds 1000\n",
		"other process": idle + "process_start_time_seconds 2000\n",
	} {
		t.Run(name, func(t *testing.T) {
			run(t, Config{ModelsInterval: time.Hour}, func(b *bench) {
				b.fetch.change("a:1", func(s *fakeReplica) { s.page = idle + "process_start_time_seconds 1000\n" })
				b.sleep(5 * time.Second)
				b.wantEvents()
				_, before := b.fleet.learned("a:1")
				b.fetch.change("a:1", func(s *fakeReplica) { s.page = page })
				b.sleep(time.Second)
				b.wantEvents("a:1 replica restarted")
				if _, n := b.fleet.learned("a:1"); n != before+1 {
					b.Errorf("models read %d times, want %d: it may serve others now", n, before+1)
				}
				b.sleep(5 * time.Second)
				b.wantEvents()
			})
		})
	}
}

// A page that lacks a metric for a while is not another process.
// One restart is told once, however little each page of the new process shows.
func TestRestartIsToldOnce(t *testing.T) {
	run(t, Config{}, func(b *bench) {
		b.fetch.change("a:1", func(s *fakeReplica) { s.page = idle + "process_start_time_seconds 1000\n" })
		b.sleep(time.Second)
		b.wantEvents()
		b.fetch.change("a:1", func(s *fakeReplica) { s.page = busyPage(0, 0, 5, 5) })
		b.sleep(time.Second)
		b.wantEvents("a:1 replica restarted")
		b.fetch.change("a:1", func(s *fakeReplica) { s.page = busyPage(0, 0, 5, 5) + "process_start_time_seconds 2000\n" })
		b.sleep(time.Second)
		b.wantEvents()
		if n := b.fleet.replica("a:1").Incarnation(); n != 1 {
			b.Errorf("incarnation %d, want 1", n)
		}
	})
}

// A replica that comes back while requests of before run keeps what was last read of it.
// That gets stale like any other, also when nothing is read any more.
func TestComesBackAndHangs(t *testing.T) {
	run(t, Config{}, func(b *bench) {
		b.fetch.change("a:1", func(s *fakeReplica) { s.page = busyPage(3, 40, 100, 100) })
		b.sleep(time.Second)
		r := b.fleet.replica("a:1")
		if n := r.Requests(); n == 0 {
			b.Fatal("no foreign load to begin with")
		}
		b.fetch.change("a:1", func(s *fakeReplica) { s.hang = true })
		b.fleet.make(b, "http://b:1")
		b.sleep(2 * time.Second)
		b.fleet.holder.Store(balancer.NewSnapshot(9, []balancer.ReplicaState{{Replica: r}, {Replica: b.fleet.replica("b:1")}}, nil))
		b.sleep(5 * time.Second)
		if p := r.Polled(); !p.Stale || r.Requests() != 0 {
			b.Errorf("stale %t, %d requests; want what was read before to count no longer", p.Stale, r.Requests())
		}
		b.wantEvents("a:1 poll failed", "a:1 models failed", "a:1 load stale")
	})
}

func TestMissingMetricIsNoRestart(t *testing.T) {
	run(t, Config{}, func(b *bench) {
		for range 3 {
			b.fetch.change("a:1", func(s *fakeReplica) { s.page = "vllm:num_requests_running 0\nvllm:generation_tokens_total NaN\n" })
			b.sleep(time.Second)
			b.fetch.change("a:1", func(s *fakeReplica) { s.page = idle })
			b.sleep(time.Second)
		}
		b.wantEvents()
	})
}

func TestModelsAreReadAtOnceAndEveryInterval(t *testing.T) {
	run(t, Config{ModelsInterval: 10 * time.Second, APIKey: "secret"}, func(b *bench) {
		if names, n := b.fleet.learned("a:1"); names != "m" || n != 1 {
			b.Errorf("learned %q %d times, want m once", names, n)
		}
		if key := b.fetch.key("a:1"); key != "secret" {
			b.Errorf("bearer %q", key)
		}
		b.sleep(30 * time.Second)
		if _, n := b.fleet.learned("a:1"); n != 4 {
			b.Errorf("learned %d times, want 4", n)
		}
		b.SetConfig(Config{ModelsInterval: 10 * time.Second, APIKey: "other"})
		b.sleep(1500 * time.Millisecond)
		if key := b.fetch.key("a:1"); key != "other" {
			b.Errorf("bearer %q after a reload", key)
		}
	})
}

func TestUnlearnedIsReadAtOnceAndRetried(t *testing.T) {
	run(t, Config{ModelsInterval: time.Hour}, func(b *bench) {
		b.fetch.change("a:1", func(s *fakeReplica) { s.models = `{"data":[{"id":"n"}]}` })
		b.fleet.void("a:1")
		synctest.Wait()
		if names, _ := b.fleet.learned("a:1"); names != "n" {
			b.Errorf("learned %q, want n at once", names)
		}
		b.fetch.change("a:1", func(s *fakeReplica) { s.models = "not yet" })
		b.fleet.void("a:1")
		b.sleep(5 * time.Second)
		if n := b.ModelFailures("a:1"); n < 4 || n > 6 {
			b.Errorf("%d failures in 5 s, want one a second", n)
		}
		b.fetch.change("a:1", func(s *fakeReplica) { s.models = listM })
		b.sleep(time.Second)
		if names, _ := b.fleet.learned("a:1"); names != "m" {
			b.Errorf("learned %q, want m", names)
		}
		b.wantEvents("a:1 models failed", "a:1 models recovered")
		if b.Failures("a:1") != 0 {
			b.Error("failures of /v1/models count as failed polls")
		}
	})
}

// What is under way when a replica turns out to be another process was asked of
// the old one, perhaps.
func TestReadingUnderWayIsFollowedByAnother(t *testing.T) {
	run(t, Config{ModelsInterval: time.Hour, Timeout: 5 * time.Second}, func(b *bench) {
		b.fetch.change("a:1", func(s *fakeReplica) { s.hang, s.got = true, nil })
		b.fleet.void("a:1")
		synctest.Wait()
		b.fetch.change("a:1", func(s *fakeReplica) { s.hang = false })
		b.fleet.void("a:1")
		synctest.Wait()
		b.fleet.SetModels("a:1", nil) // as if the reading under way had succeeded
		b.sleep(8 * time.Second)
		if n := b.fetch.count("a:1", modelsPath); n != 2 {
			b.Errorf("models read %d times, want 2", n)
		}
	})
}

func TestRelearnIsBounded(t *testing.T) {
	run(t, Config{ModelsInterval: time.Hour}, func(b *bench) {
		b.Relearn("nobody:1")
		b.fetch.took("a:1")
		for range 500 {
			b.Relearn("a:1")
			b.sleep(10 * time.Millisecond)
		}
		if n := b.fetch.count("a:1", modelsPath); n < 4 || n > 6 {
			b.Errorf("models read %d times in 5 s, want about one a second", n)
		}
		if n := b.fetch.count("b:1", modelsPath); n != 1 {
			b.Errorf("the other replica's models were read %d times", n)
		}
	})
}

func TestBadModelsKeepTheLastList(t *testing.T) {
	run(t, Config{ModelsInterval: time.Second}, func(b *bench) {
		b.fetch.change("a:1", func(s *fakeReplica) { s.models = `{"data":[{"id":7}]}` })
		b.sleep(3 * time.Second)
		if names, n := b.fleet.learned("a:1"); names != "m" || n != 1 {
			b.Errorf("learned %q, told %d times", names, n)
		}
		if b.ModelFailures("a:1") != 3 {
			b.Errorf("%d failures, want 3", b.ModelFailures("a:1"))
		}
	})
}

func TestReload(t *testing.T) {
	run(t, Config{Interval: time.Second}, func(b *bench) {
		b.fleet.make(t, "http://b:1", "http://c:1")
		b.SetConfig(Config{Interval: 100 * time.Millisecond})
		synctest.Wait()
		if names, _ := b.fleet.learned("c:1"); names != "m" {
			b.Error("the models of a new replica are not read at once")
		}
		b.fetch.took("a:1")
		b.fetch.took("b:1")
		b.sleep(1050 * time.Millisecond)
		if n := b.fetch.count("b:1", "/metrics/"); n != 10 {
			b.Errorf("%d polls in a second, want 10", n)
		}
		if n := len(b.fetch.took("a:1")); n != 0 {
			b.Errorf("a removed replica was asked %d times", n)
		}
		if _, ok := b.Age("a:1"); ok || b.Failures("a:1") != 0 || b.ModelFailures("a:1") != 0 {
			b.Error("a removed replica is still known")
		}
	})
}

func TestStopIsIdempotentAndMayComeFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newTestFleet(t, "http://a:1")
		fetch := &fakeFetcher{replicas: map[string]*fakeReplica{"a:1": {hang: true}}}
		never := New(Config{}, f, Options{Fetcher: fetch})
		never.Relearn("a:1")
		never.Stop()
		never.Start()
		never.Stop()
		if len(fetch.took("a:1")) != 0 {
			t.Error("started after Stop")
		}
		p := New(Config{}, f, Options{Fetcher: fetch, OnEvent: func(e Event) { t.Errorf("event %+v", e) }})
		p.Start()
		synctest.Wait()
		p.Stop() // in the middle of a poll, which is no failure
		p.Stop()
		if p.Failures("a:1") != 0 {
			t.Error("Stop counts as a failure")
		}
	})
}

func TestParseModels(t *testing.T) {
	entry := `{"id":"M","object":"model","max_model_len":8192,"permission":[{"id":"x"}]}`
	got, err := parseModels([]byte(`{"object":"list","data":[` + entry + `, {"id":"lora","parent":"M"},{"id":"M"}]}`))
	want := []balancer.ModelInfo{{ID: "M", Raw: []byte(entry)}, {ID: "lora", Raw: []byte(`{"id":"lora","parent":"M"}`)}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if got, err := parseModels([]byte(`{"data":[]}`)); err != nil || got == nil || len(got) != 0 {
		t.Errorf("an empty list: %v, %v", got, err)
	}
	for _, bad := range []string{
		"", "null", "[]", "{}", `{"data":null}`, `{"data":{}}`, `{"data":"m"}`, `{"data":["m"]}`, `{"data":[{"id":7}]}`,
		`{"data":[{"id":null}]}`, `{"data":[{}]}`, `{"data":[{"id":""}]}`, `{"data":[{"id":"m"}`, `{"data":[{"id":"m"}]} x`, `{"data":[null]}`,
		`{"data":[{"id":"a\u0000b"}]}`, `{"data":[{"id":"a\nb"}]}`, `{"data":[{"id":"\u001b[2J"}]}`, `{"data":[{"id":"\ud800"}]}`, "{\"data\":[{\"id\":\"\xff\"}]}",
		`{"data":[{"id":"` + strings.Repeat("x", maxName+1) + `"}]}`, `{"data":[` + strings.Repeat(`{"id":"m"},`, maxModels) + `{"id":"m"}]}`,
		`{"data":` + strings.Repeat("[", 1<<20), `{"data":[{"id":"m","x":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}]}`,
	} {
		if got, err := parseModels([]byte(bad)); err == nil {
			t.Errorf("%.200q gives %d models, want an error", bad, len(got))
		} else if len(err.Error()) > 400 {
			t.Errorf("%.40q: an error of %d bytes", bad, len(err.Error()))
		}
	}
}

func FuzzParseModels(f *testing.F) {
	f.Add([]byte(listM))
	f.Add([]byte(`{"data":[{"id":7}]}`))
	f.Add([]byte(`{"data":[null,{"id":"\ud800"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		models, err := parseModels(body)
		if (err == nil) != (models != nil) {
			t.Fatalf("models %v with error %v", models, err)
		}
		seen := map[string]bool{}
		for _, m := range models {
			if m.ID == "" || len(m.ID) > maxName || strings.ContainsAny(m.ID, "\x00\r\n\x1b") || len(m.Raw) == 0 || seen[m.ID] {
				t.Fatalf("entry %+v of %v", m, models)
			}
			seen[m.ID] = true
		}
	})
}

func TestConcurrentUse(t *testing.T) {
	f := newTestFleet(t, "http://a:1", "http://b:1")
	fetch := &fakeFetcher{replicas: map[string]*fakeReplica{}}
	for _, id := range []string{"a:1", "b:1", "c:1"} {
		fetch.replicas[id] = &fakeReplica{page: busyPage(1, 1, 1, 1), models: listM}
	}
	var p *Poller
	p = New(Config{Interval: time.Millisecond}, f, Options{Fetcher: fetch, OnEvent: func(e Event) {
		p.Failures(e.Replica) // as a logger would
		p.Age(e.Replica)
	}})
	p.Start()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 300 {
				r := f.Snapshot().Replicas[i%2].Replica
				v := r.Reserve()
				p.Relearn(r.ID)
				p.Age(r.ID)
				v.FirstByte()
				v.Done()
			}
		})
	}
	for i := range 100 {
		p.SetConfig(Config{Interval: time.Millisecond, APIKey: fmt.Sprint(i)})
		f.make(t, "http://a:1", "http://b:1", "http://c:1")
		fetch.change("a:1", func(s *fakeReplica) { s.page, s.v0, s.status = busyPage(i, i%3, i%7, i), i%2 == 0, 200*(1+i%2) })
		f.make(t, "http://a:1", "http://b:1")
	}
	wg.Wait()
	p.Stop()
	for _, r := range f.Snapshot().Replicas {
		if r.InFlight() != 0 || r.Pending() != 0 {
			t.Errorf("%s: %d in flight, %d pending", r.ID, r.InFlight(), r.Pending())
		}
	}
}
