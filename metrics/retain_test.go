package metrics

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	onlyM = map[string]bool{"m": true}
	onlyA = map[string]bool{"a:80": true}
)

// forget is what housekeeping does until what left is gone: the collector finds
// out who still holds a handle.
func forget(m *Metrics, models, replicas map[string]bool) {
	m.Retain(models, replicas)
	runtime.GC()
	m.Retain(models, replicas)
}

func TestRetain(t *testing.T) {
	m, reg := observed(t)
	m.Model(Other).Answered(404)
	m.Pair("gone", "b:80", "cycle").Picks.Inc()
	m.Model("gone").Answered(200)
	m.Retried("gone", "a reason of its own")
	m.Ejected("b:80", "reset")
	m.UpstreamError("b:80", "a reason of its own")
	m.Pair(Other, "a:80", "in-turn").Picks.Inc()
	forget(m, onlyM, onlyA)
	if got := value(t, reg, "lbd_picks_total", Other, "a:80", "in-turn"); got != 1 {
		t.Errorf("picks of %q on a replica that stays are %v; want 1", Other, got)
	}
	for _, label := range []string{"gone", "b:80"} {
		if left := series(t, reg, label); len(left) > 0 {
			t.Errorf("%q left the fleet but has series: %v", label, left)
		}
	}
	if len(series(t, reg, Other)) == 0 {
		t.Errorf("the series of %q are gone", Other)
	}
	if got := value(t, reg, "lbd_picks_total", "m", "a:80", "cycle"); got != 1 {
		t.Errorf("picks of what stays are %v; want 1", got)
	}
}

// Housekeeping reads the fleet before it calls Retain. A model may be learned in
// between, and the request for it be over: what it counted stays.
func TestRetainFromAnOlderSnapshot(t *testing.T) {
	m, reg := observed(t)
	m.Model("new").Answered(499)
	m.Model("new").Disconnects.Inc()
	m.Model("new").Rejected("deadline")
	m.Retried("new", "reset")
	m.Pair("new", "b:80", "cycle").Picks.Inc()
	m.UpstreamError("b:80", "reset")
	m.Ejected("b:80", "reset")
	m.Retain(onlyM, onlyA)
	runtime.GC()
	models, replicas := map[string]bool{"m": true, "new": true}, map[string]bool{"a:80": true, "b:80": true}
	forget(m, models, replicas)
	m.Model("new").Answered(499)
	m.Pair("new", "b:80", "cycle").Picks.Inc()
	forget(m, models, replicas)
	for _, c := range []struct {
		want float64
		name []string
	}{
		{2, []string{"lbd_requests_total", "499", "new"}},
		{1, []string{"lbd_client_disconnects_total", "new"}},
		{1, []string{"lbd_admission_rejected_total", "new", "deadline"}},
		{1, []string{"lbd_retries_total", "new", "reset"}},
		{2, []string{"lbd_picks_total", "new", "b:80", "cycle"}},
		{1, []string{"lbd_upstream_errors_total", "reset", "b:80"}},
		{1, []string{"lbd_ejections_total", "reset", "b:80"}},
	} {
		if got := value(t, reg, c.name[0], c.name[1:]...); got != c.want {
			t.Errorf("%v is %v; want %v", c.name, got, c.want)
		}
	}
}

// What a request counts is on the page as long as it runs, also when its model and
// replica have left, and is gone soon after.
func TestRetainWhileARequestRuns(t *testing.T) {
	m, reg := observed(t)
	model, pair := m.Model("gone"), m.Pair("gone", "b:80", "cycle")
	pair.InFlight.Inc()
	pair.Picks.Inc()
	for want := 1.0; want < 4; want++ {
		forget(m, onlyM, onlyA)
		model.Disconnects.Inc()
		model.Answered(499)
		model.Rejected("deadline")
		model.CachedTokens.Inc()
		for _, name := range [][]string{
			{"lbd_client_disconnects_total", "gone"}, {"lbd_requests_total", "499", "gone"},
			{"lbd_admission_rejected_total", "gone", "deadline"}, {"lbd_cached_tokens_total", "gone"},
		} {
			if got := value(t, reg, name[0], name[1:]...); got != want {
				t.Errorf("%v is %v; want %v", name, got, want)
			}
		}
		if got := value(t, reg, "lbd_picks_total", "gone", "b:80", "cycle"); got != 1 {
			t.Errorf("picks are %v; want 1", got)
		}
	}
	if m.Model("gone") != model || m.Pair("gone", "b:80", "cycle") != pair {
		t.Error("who asks for the handles meanwhile gets others")
	}
	pair.InFlight.Dec()
	runtime.KeepAlive(model)
	runtime.KeepAlive(pair)
	forget(m, onlyM, onlyA)
	if left := append(series(t, reg, "gone"), series(t, reg, "b:80")...); len(left) > 0 {
		t.Errorf("series of what is not in the fleet: %v", left)
	}
}

// What nobody has a handle of counts as well, and ends as well.
func TestRetainLateError(t *testing.T) {
	m, reg := observed(t)
	forget(m, onlyM, onlyA)
	m.UpstreamError("b:80", "reset")
	m.Retried("gone", "reset")
	forget(m, onlyM, onlyA)
	if left := append(series(t, reg, "gone"), series(t, reg, "b:80")...); len(left) > 0 {
		t.Errorf("series of what is not in the fleet: %v", left)
	}
}

// What left and came back begins anew, through handles that are in use again.
func TestRetainComesBack(t *testing.T) {
	m, reg := observed(t)
	forget(m, nil, nil)
	if left := series(t, reg, "m"); slices.Contains(left, "lbd_requests_total") || slices.Contains(left, "lbd_picks_total") {
		t.Errorf("series of what is not in the fleet: %v", left)
	}
	m.Model("m").Answered(200)
	m.Model("m").Answered(200)
	m.Pair("m", "a:80", "cycle").Picks.Inc()
	if got := value(t, reg, "lbd_requests_total", "200", "m"); got != 2 {
		t.Errorf("requests after coming back: %v; want 2", got)
	}
	if got := value(t, reg, "lbd_picks_total", "m", "a:80", "cycle"); got != 1 {
		t.Errorf("picks after coming back: %v; want 1", got)
	}
}

// A replica that left with requests running shows them until they end, and the
// count is exact if it comes back meanwhile.
func TestInflightOutlivesReplica(t *testing.T) {
	m, reg := observed(t)
	p := m.Pair("m", "a:80", "cycle")
	p.InFlight.Inc()
	forget(m, onlyM, nil)
	if got := value(t, reg, "lbd_inflight_requests", "m", "a:80"); got != 1 {
		t.Errorf("in flight on a replica that left: %v; want 1", got)
	}
	m.Pair("m", "a:80", "cycle").InFlight.Inc()
	if got := value(t, reg, "lbd_inflight_requests", "m", "a:80"); got != 2 {
		t.Errorf("in flight after it came back: %v; want 2", got)
	}
	p.InFlight.Dec()
	p.InFlight.Dec()
	forget(m, onlyM, nil)
	if left := series(t, reg, "a:80"); slices.Contains(left, "lbd_inflight_requests") || slices.Contains(left, "lbd_picks_total") {
		t.Errorf("series of a replica that left idle: %v", left)
	}
}

// Models and replicas come and go while they are counted in and pages are read:
// no count is lost for as long as its handle is held, and nothing stays behind.
func TestConcurrency(t *testing.T) {
	m, reg := observed(t)
	const counters, rounds = 4, 200
	passing := m.Model("passing")
	late := m.Pair("passing", "b:80", "cycle")
	var counting, keeping sync.WaitGroup
	for range counters {
		counting.Go(func() {
			for i := range rounds {
				m.Model("m").Answered(200 + i%3)
				p := m.Pair("m", "a:80", "cycle")
				p.InFlight.Inc()
				p.Picks.Inc()
				m.Model("passing").Answered(200 + i)
				m.Model("passing").Disconnects.Inc()
				m.Pair("passing", "b:80", "cycle").Picks.Inc()
				m.Ejected("b:80", "reset")
				m.Model("brief").Answered(200)
				p.InFlight.Dec()
			}
		})
	}
	done := make(chan struct{})
	keeping.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			forget(m, onlyM, onlyA)
			if i%2 == 0 { // b:80 and brief come back
				m.Retain(map[string]bool{"m": true, "brief": true}, map[string]bool{"a:80": true, "b:80": true})
			}
			gather(t, reg)
		}
	})
	counting.Wait()
	close(done)
	keeping.Wait()
	for _, c := range []struct {
		want float64
		name []string
	}{
		{1 + counters*rounds, []string{"lbd_picks_total", "m", "a:80", "cycle"}},
		{0, []string{"lbd_inflight_requests", "m", "a:80"}},
		{counters * rounds, []string{"lbd_client_disconnects_total", "passing"}},
		{counters * rounds, []string{"lbd_picks_total", "passing", "b:80", "cycle"}},
		{counters, []string{"lbd_requests_total", "207", "passing"}},
	} {
		if got := value(t, reg, c.name[0], c.name[1:]...); got != c.want {
			t.Errorf("%v is %v; want %v", c.name, got, c.want)
		}
	}
	runtime.KeepAlive(passing)
	runtime.KeepAlive(late)
	forget(m, onlyM, onlyA)
	for _, label := range []string{"passing", "brief", "b:80"} {
		if left := series(t, reg, label); len(left) > 0 {
			t.Errorf("%q is not in the fleet but has series: %v", label, left)
		}
	}
}

// Models that join by the thousand cost what each of them costs, and are there after it.
func TestThousandsOfModelsJoin(t *testing.T) {
	cost := func(n int) float64 {
		m, models := New(prometheus.NewRegistry(), ""), map[string]bool{}
		for i := range n {
			models[fmt.Sprintf("organisation/model-adapter-%d", i)] = true
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		m.Retain(models, nil)
		runtime.ReadMemStats(&after)
		current := m.models.current()
		if len(current) != n {
			t.Errorf("%d models have instruments, want %d", len(current), n)
		}
		for name := range models {
			if got := m.Model(name); got != current[name] {
				t.Errorf("%s has two", name)
			}
		}
		return float64(after.TotalAlloc-before.TotalAlloc) / float64(n)
	}
	if few, many := cost(500), cost(8000); many > 2*few {
		t.Errorf("each of 500 takes %.0f bytes, each of 8,000 takes %.0f", few, many)
	}
}
