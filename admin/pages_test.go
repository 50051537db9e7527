package admin

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func TestIndexListsWhatIsThere(t *testing.T) {
	s := start(t, Options{
		Fleet: newFleet(t, "http://a:1"), Config: func() any { return nil }, Reload: func() error { return nil },
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
	calls := 0
	s := start(t, Options{Fleet: newFleet(t), Reload: func() error { calls++; return err }})
	if a := s.do("POST", "/reload", ""); a.status != 200 || strings.Join(strings.Fields(a.body), "") != `{"reloaded":true}` {
		t.Errorf("%d %s", a.status, a.body)
	}
	err = errors.New(`lbd.yml:3: strategy "x" is unknown`)
	if msg := wantError(t, s.do("POST", "/reload", ""), 422, "invalid_configuration"); msg != err.Error() {
		t.Errorf("message %q", msg)
	}
	wantContains(t, s.log.String(), `"reloaded":true`, `"reloaded":false`)
	if calls != 2 {
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
	for _, path := range []string{"/debug/pprof/heap", "/debug/pprof/trace?seconds=0.01"} {
		if a := s.get(path); a.status != 200 || len(a.body) == 0 {
			t.Errorf("%s: %d, %d bytes", path, a.status, len(a.body))
		}
	}
	v := decode[varsView](t, s.get("/debug/vars").body)
	if v.Version != "1.2.3" || v.Goroutines == 0 || v.HeapBytes == 0 || v.TotalBytes < v.HeapBytes || v.CPUs == 0 || v.StartedAt.IsZero() {
		t.Errorf("%+v", v)
	}
}

// A key given as a flag is in the command line.
func TestCommandLineIsNotShown(t *testing.T) {
	s := start(t, Options{Fleet: newFleet(t)})
	wantError(t, s.get("/debug/pprof/cmdline"), 404, "not_shown")
}
