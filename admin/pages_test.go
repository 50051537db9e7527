package admin

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestIndexListsWhatIsThere(t *testing.T) {
	s := start(t, Options{
		Fleet: newFleet(t, "http://a:1"), Config: func() any { return nil }, Reload: func() (Reloaded, error) { return Reloaded{}, nil },
		Metrics: http.NotFoundHandler(),
	})
	a := s.get("/")
	wantContains(t, a.body, "lbd 1.2.3", "/fleet ", "/replicas/", "/config", "/reload", "/metrics", "/debug/pprof/", "v1/load_lora_adapter")
	if strings.Contains(a.body, "/pick") {
		t.Error("the index lists /pick, which is not there without Explain")
	}
	if debug := s.get("/debug/").body; !strings.Contains(debug, "/debug/pprof/profile") || strings.Contains(debug, "/fleet") {
		t.Errorf("/debug/: %s", debug)
	}
	for _, path := range []string{"/nothing", "/debug/nothing", "/pick", "/configs"} {
		wantError(t, s.get(path), 404, "unknown_path")
	}
	wantError(t, s.do("POST", "/", ""), 405, "method_not_allowed")
	wantError(t, s.do("DELETE", "/fleet", ""), 405, "method_not_allowed")
}

func TestConfig(t *testing.T) {
	s := start(t, Options{Fleet: newFleet(t), Config: func() any { return map[string]string{"key": "<redacted>"} }})
	if a := s.get("/config"); a.status != 200 || a.body != "{\n  \"key\": \"<redacted>\"\n}\n" {
		t.Errorf("%d %s", a.status, a.body)
	}
	wantError(t, s.do("POST", "/config", "{}"), 405, "method_not_allowed")
}

func TestReload(t *testing.T) {
	var err error
	var done Reloaded
	calls := 0
	s := start(t, Options{Fleet: newFleet(t), Reload: func() (Reloaded, error) { calls++; return done, err }})
	if a := s.do("POST", "/reload", ""); a.status != 200 || strings.Join(strings.Fields(a.body), "") != `{"reloaded":true}` {
		t.Errorf("%d %s", a.status, a.body)
	}
	done = Reloaded{Applied: []string{"strategy"}, NeedsRestart: []string{"listen", "log_format"}}
	if a := s.do("POST", "/reload", ""); strings.Join(strings.Fields(a.body), "") != `{"reloaded":true,"applied":["strategy"],"needs_restart":["listen","log_format"]}` {
		t.Errorf("%d %s", a.status, a.body)
	}
	err = errors.New(`lbd.yml:3: strategy "x" is unknown`)
	if msg := wantError(t, s.do("POST", "/reload", ""), 422, "invalid_configuration"); msg != err.Error() {
		t.Errorf("message %q", msg)
	}
	wantContains(t, s.log.String(), `"reloaded":true`, `"reloaded":false`)
	if calls != 3 {
		t.Errorf("%d reloads", calls)
	}
}

func TestMetrics(t *testing.T) {
	s := start(t, Options{Fleet: newFleet(t), Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "lbd_x 1") })})
	if a := s.get("/metrics"); a.body != "lbd_x 1" {
		t.Errorf("%d %s", a.status, a.body)
	}
	without := start(t, Options{Fleet: newFleet(t)})
	wantError(t, without.get("/metrics"), 404, "unknown_path")
}

func TestDebugPages(t *testing.T) {
	s := start(t, Options{Fleet: newFleet(t)})
	wantContains(t, s.get("/debug/pprof/").body, "goroutine", "heap")
	wantContains(t, s.get("/debug/pprof/goroutine?debug=1").body, "goroutine profile")
	for _, path := range []string{"/debug/pprof/heap", "/debug/pprof/trace?seconds=0.01", "/debug/pprof/mutex?debug=1", "/debug/pprof/block?debug=1"} {
		if a := s.get(path); a.status != 200 || len(a.body) == 0 {
			t.Errorf("%s: %d, %d bytes", path, a.status, len(a.body))
		}
	}
	v := decode[varsView](t, s.get("/debug/vars").body)
	if v.Version != "1.2.3" || v.Goroutines == 0 || v.HeapBytes == 0 || v.TotalBytes < v.HeapBytes || v.CPUs == 0 || v.StartedAt.IsZero() {
		t.Errorf("%+v", v)
	}
}

// Locks are sampled while somebody takes the profile of them, and only then.
func TestMutexProfile(t *testing.T) {
	s := start(t, Options{Fleet: newFleet(t)})
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		contend(stop)
	}()
	defer func() { close(stop); <-stopped }()
	if names := unzipped(t, s.get("/debug/pprof/mutex?seconds=1")); !strings.Contains(names, "admin.contend") {
		t.Errorf("%q; want the lock that was waited for", names)
	}
	if rate := runtime.SetMutexProfileFraction(-1); rate != 0 {
		t.Errorf("1 of %d waits is still sampled; want none", rate)
	}
	if names := unzipped(t, s.get("/debug/pprof/block?seconds=1")); !strings.Contains(names, "admin.contend") {
		t.Errorf("%q; want the wait", names)
	}
}

// unzipped is a profile with the names of its functions in clear text.
func unzipped(t *testing.T, a answer) string {
	t.Helper()
	z, err := gzip.NewReader(strings.NewReader(a.body))
	if err != nil {
		t.Fatalf("%d %q: %v", a.status, a.body, err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// contend has two goroutines want one lock.
func contend(stop <-chan struct{}) {
	var (
		mu  sync.Mutex
		two sync.WaitGroup
	)
	for range 2 {
		two.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				mu.Lock()
				time.Sleep(time.Millisecond)
				mu.Unlock()
			}
		})
	}
	two.Wait()
}

// A key given as a flag is in the command line.
func TestCommandLineIsNotShown(t *testing.T) {
	s := start(t, Options{Fleet: newFleet(t)})
	wantError(t, s.get("/debug/pprof/cmdline"), 404, "not_shown")
}
